"""Records of sessions: played by the engine, or written down one after the other."""

from collections.abc import Iterable, Sequence
from typing import Any

from engine.model.events import (
    Answer,
    AnswerRejected,
    ArchiveRecord,
    Invitation,
    SessionEnded,
    SessionEnding,
    SessionInvited,
    SessionOpened,
    SmsDecided,
    SmsKind,
    SmsReceived,
    session_sms_id,
)
from engine.model.policy import ChannelPolicy
from engine.simulator.simulator import SimulatedPhone
from engine.surveys.survey_registry import SurveyRegistry

Turns = list[Sequence[ArchiveRecord]]

FIRST_AT = 1_800_000_000_000


def play_actions(
    surveys: SurveyRegistry, policy: ChannelPolicy, actions: Iterable[str | int], first_id: int
) -> Turns:
    """What is recorded of a person who writes texts, and lets ms go by; ids begin behind `first_id`."""
    phone = SimulatedPhone(surveys, policy)
    phone._count = first_id
    turns: Turns = []
    for action in actions:
        phone.moments = []
        if isinstance(action, int):
            phone.wait(action)
        else:
            phone.text(action)
        turns += [moment.records for moment in phone.moments if moment.records]
    return turns


class WrittenSession:
    """Writes the records of one session down. Every step is a turn, a second after the last one."""

    def __init__(
        self,
        session: str,
        *,
        survey: str = "clinic",
        version: str = "v1",
        language: str = "en",
        channel: str = "line",
        at: int = FIRST_AT,
        kinds: bool = True,
        invitation: Invitation | None = None,
    ) -> None:
        self.at = at
        self._session, self._channel, self._kinds = session, channel, kinds
        self._sent = 0
        self.answers: dict[str, Answer] = {}
        opened = SessionOpened(at, channel, session, survey, version, language)
        how: ArchiveRecord = (
            SmsReceived(at, channel, session, session, "START")
            if invitation is None
            else SessionInvited(at, channel, session, invitation)
        )
        self.turns: Turns = [[opened, how]]

    def say(self, *said: tuple[str, SmsKind]) -> "WrittenSession":
        """Send texts of steps in the last turn."""
        texts = [self._sms(step, kind) for step, kind in said]
        self.turns[-1] = [*self.turns[-1], *texts]
        return self

    def answer(self, step: str, value: Any, kind: str, *said: tuple[str, SmsKind], after_ms: int = 1000) -> "WrittenSession":  # fmt: skip
        """Answer a step; 0.1.0 did not record that an SMS was an answer."""
        self.at += after_ms
        answer = value if isinstance(value, Answer) else Answer(str(value), value)
        self.answers[step] = answer
        identity = f"{self._session}a{len(self.turns)}"
        heard = SmsReceived(self.at, self._channel, self._session, identity, answer.raw)
        if self._kinds:
            heard = SmsReceived(
                self.at, self._channel, self._session, identity, answer.raw, "", "", "", step, answer, kind
            )
        self.turns.append([heard])
        return self.say(*said)

    def misread(self, step: str, why: str, *said: tuple[str, SmsKind]) -> "WrittenSession":
        self.at += 1000
        identity = f"{self._session}m{len(self.turns)}"
        self.turns.append(
            [
                SmsReceived(self.at, self._channel, self._session, identity, "?"),
                AnswerRejected(self.at, self._channel, self._session, step, why),
            ]
        )
        return self.say(*said)

    def remind(self, step: str) -> "WrittenSession":
        self.at += 1000
        self.turns.append([])
        return self.say((step, "remind"))

    def end(self, how: SessionEnding) -> "WrittenSession":
        """End in the turn of the last thing that was said or answered."""
        ended = SessionEnded(self.at, self._channel, self._session, how, self.answers)
        self.turns[-1] = [*self.turns[-1], ended]
        return self

    def _sms(self, step: str, kind: SmsKind) -> SmsDecided:
        self._sent += 1
        identity = session_sms_id(self._session, self._sent - 1)
        return SmsDecided(
            self.at,
            self._channel,
            self._session,
            identity,
            step,
            f"text of {step}",
            kind if self._kinds else "",
        )
