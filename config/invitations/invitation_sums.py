"""What came of many invitations, summed up: how many, and why how many were refused, with the first lines of each reason."""

from datetime import datetime
from typing import Literal

import msgspec

from config.invitations.line_result import LineResult, error_sentence

LINES_KEPT = 20
"""Of those that are refused for one reason."""

MOST_REASONS = 100
OTHER_REASONS = "other reasons"

_STATUS_ACCEPTED, _STATUS_REPEATED = 202, 200

_REFUSALS = {
    "opted_out": "they have opted out",
    "already_open": "they are in a conversation on this channel",
}

InvitationKind = Literal["accepted", "repeated", "refused"]


class RefusedLines(msgspec.Struct):
    """How many are refused for a reason, and the first lines of the file on which they begin."""

    count: int = 0
    lines: list[int] = []


class InvitationSums(msgspec.Struct):
    """How many are accepted, had been before, or are refused. `last_turn_ms` is when the last of them has its turn, as far as that is
    known (0: it is not)."""

    accepted: int = 0
    repeated: int = 0
    refused: int = 0
    reasons: dict[str, RefusedLines] = {}
    last_turn_ms: int = 0

    def add_result(self, line: int, result: LineResult) -> InvitationKind:
        kind = _kind_of(result)
        setattr(self, kind, getattr(self, kind) + 1)
        if isinstance(result.starts_after, datetime):
            self.last_turn_ms = max(self.last_turn_ms, round(result.starts_after.timestamp() * 1_000))
        for reason in refusal_sentences(result):
            told = reason if reason in self.reasons or len(self.reasons) < MOST_REASONS else OTHER_REASONS
            found = self.reasons.setdefault(told, RefusedLines())
            found.count += 1
            if len(found.lines) < LINES_KEPT:
                found.lines.append(line)
        return kind

    @property
    def by_frequency(self) -> list[tuple[str, RefusedLines]]:
        """The reasons, the most frequent first."""
        return sorted(self.reasons.items(), key=lambda each: -each[1].count)


def refusal_sentences(result: LineResult) -> list[str]:
    """Why it is refused; nothing, if it is not."""
    if result.reason:
        return [_REFUSALS.get(result.reason, result.reason)]
    return [error_sentence(error) for error in result.errors or []]


def _kind_of(result: LineResult) -> InvitationKind:
    if result.state:
        return "refused"
    kinds: dict[int, InvitationKind] = {_STATUS_ACCEPTED: "accepted", _STATUS_REPEATED: "repeated"}
    return kinds.get(result.status, "refused")
