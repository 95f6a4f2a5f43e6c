"""A survey, compiled: what `advance` runs, and what is drawn and proved about.

Steps are known by their index, routes and texts are resolved; nothing is looked up by name in a turn.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from engine.answers import Reader
from engine.conditions import Condition, holds
from engine.lane import Answer
from engine.patterns import Pattern
from engine.texts import Text

END = -1
"""The index that a route gives when the session is to end."""

Again = Literal["ignore", "answer", "restart"]
"""What a START does to a session that is open already."""

FixedText = Literal["completed", "unavailable", "not_found", "expired", "refused", "stopped", "help"]


class Route(msgspec.Struct, frozen=True):
    """Taken if `when` holds; always, if there is none. `go` is a step's index, or END."""

    when: Condition | None
    go: int


class Reask(msgspec.Struct, frozen=True):
    """An invalid answer is told so and asked again, until `attempts` of them lead to `give_up`, or end it all."""

    text: Text
    attempts: int
    give_up: int | None = None


class Wait(msgspec.Struct, frozen=True):
    """An invalid answer changes nothing and is not told so."""


class Remind(msgspec.Struct, frozen=True):
    after_ms: int
    times: int
    text: Text


class Say(msgspec.Struct, frozen=True):
    """Sent, and the session goes on at once. The last of `routes` has no condition."""

    id: str
    text: Text
    routes: tuple[Route, ...]


class Ask(msgspec.Struct, frozen=True):
    """Sent, and the session waits for an answer. The last of `routes` has no condition."""

    id: str
    text: Text
    reader: Reader
    invalid: Reask | Wait
    routes: tuple[Route, ...]
    remind: Remind | None = None


Step = Say | Ask


class Keywords(msgspec.Struct, frozen=True):
    """What starts a survey: folded words, and patterns that match all of a folded SMS."""

    words: frozenset[str]
    patterns: tuple[Pattern, ...] = ()

    def match(self, folded: str, word: str) -> bool:
        """`word` is `folded` without the punctuation at its ends."""
        if folded in self.words or word in self.words:
            return True
        spellings = (folded,) if folded == word else (folded, word)
        return any(pattern.fullmatch(each) is not None for pattern in self.patterns for each in spellings)


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a survey.

    `source` is the file's content, `file` its name, `version` the hash of `source` as 16 hex digits. `most_sms`
    bounds the SMS that a session sends. `warnings` are sentences about what is odd but runs.
    """

    name: str
    version: str
    source: bytes
    file: str
    title: str
    languages: tuple[str, ...]
    start: Keywords
    idle_ms: int
    expires_ms: int
    cooldown_ms: int
    again: Again
    most_sms: int
    texts: Mapping[FixedText, Text]
    steps: tuple[Step, ...]
    warnings: tuple[str, ...] = ()


def follow(routes: Sequence[Route], answers: Mapping[str, Answer]) -> int:
    """Where the first route that is open leads."""
    for route in routes:
        if route.when is None or holds(route.when, answers):
            return route.go
    return END


def targets(step: Step) -> list[int]:
    """Every index that may follow `step`, END included."""
    went = [route.go for route in step.routes]
    if isinstance(step, Ask) and isinstance(step.invalid, Reask):
        went.append(END if step.invalid.give_up is None else step.invalid.give_up)
    return went
