"""What a call of `advance` comes to, gathered while it is decided.

Everything that is said goes through `say` or `tell`, so that every SMS has its id and its record.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Literal

from engine.model.events import (
    Ended,
    Ending,
    Heard,
    Outbound,
    Record,
    Said,
    Sms,
    Unsent,
    sms_of_session,
)
from engine.model.lane import Lane, Line, Session
from engine.model.policy import ChannelPolicy, Policy
from engine.surveys.program import FixedText, Survey
from engine.surveys.survey_registry import Surveys
from engine.surveys.texts import fill
from engine.surveys.variables import MESSAGES, count_of
from engine.turns.session_routing import Thread

HOUR_MS = 3_600_000
DAY_MS = 86_400_000

Withdrawal = Literal["stopped", "cancelled", "unreachable"]

WITHDRAWN: Mapping[Withdrawal, str] = {
    "stopped": "withdrawn by a STOP",
    "cancelled": "withdrawn: whoever invited wants no more of it",
    "unreachable": "withdrawn: the number gets no SMS",
}
"""Why an SMS that was decided will not leave, by the code in its Unsent."""


class UnknownVersion(Exception):
    """An open session is pinned to a version of a survey that this process was not given."""


class UnknownStep(Exception):
    """An open session waits at a step that asks nothing. Its state is corrupt."""


class UnknownChannel(Exception):
    """An event came in on a channel that has no policy."""


class Turn:
    """`now` is the time of what is being applied, `called_at` that of the call; `cause` the id of the event, empty for
    a deadline, `unasked` whether it is an invitation."""

    __slots__ = (
        "_heard", "_replies", "called_at", "cause", "duplicates", "lane", "now", "opened", "opt_outs", "outbox", "policy", "records", "sender",
        "sessions", "silenced", "surveys", "unasked", "withdrawn",
    )  # fmt: skip

    def __init__(self, lane: Lane, sender: str, surveys: Surveys, policy: Policy, called_at: int = 0) -> None:
        self.lane = lane
        self.called_at = called_at
        self.sender = sender
        self.surveys = surveys
        self.policy = policy
        self.now = lane.clock
        self.cause = ""
        self.unasked = False
        self.outbox: list[Outbound] = []
        self.records: list[Record] = []
        self.silenced: list[str] = []
        self.withdrawn: dict[str, Withdrawal] = {}
        self.opened: dict[str, int] = {}
        self.opt_outs: dict[str, tuple[int, str]] = {}
        self.sessions: list[tuple[str, int]] = []
        self.duplicates = 0
        self._replies = 0
        self._heard = 0

    def begin(self, now: int, cause: str = "", heard: int = 0, *, unasked: bool = False) -> None:
        """From here on, what happens is caused by this event, accepted at `heard`, or by a deadline."""
        self.now = self.lane.clock = now
        self.cause = cause
        self.unasked = unasked
        self._replies = 0
        self._heard = heard

    def channel_policy(self, channel: str) -> ChannelPolicy:
        try:
            return self.policy[channel]
        except KeyError:
            raise UnknownChannel(f"no channel is called '{channel}'") from None

    def survey_of(self, session: Session) -> Survey:
        """The very version that the session began with."""
        survey = self.surveys.version(session.version)
        if survey is None:
            raise UnknownVersion(f"version {session.version} of the survey '{session.survey}' is not known")
        return survey

    def today(self, channel: str) -> date:
        """The day, on the channel's calendar."""
        moment = datetime.fromtimestamp(self.now / 1000, UTC)
        return moment.astimezone(self.channel_policy(channel).timezone).date()

    def say(self, channel: str, session: Session, step: str, text: str) -> None:
        """One SMS of a session."""
        identity = sms_of_session(session.id, session.said)
        session.said += 1
        self._send(identity, channel, text, step, session.id, session.originator, session.survey)

    def heard(self, sms: Sms, session: Session | None) -> None:
        """The person wrote this, in a session or outside any."""
        if session is not None and (messages := session.answers.get(MESSAGES)) is not None:
            session.answers[MESSAGES] = count_of(int(messages.raw) + 1)
        self.records.append(
            Heard(
                self.now, sms.channel, session.id if session is not None else "", sms.id, sms.text, sms.reply_to,
                sms.handled, sms.originator,
            )
        )  # fmt: skip

    def tell(self, thread: Thread, name: FixedText, survey: Survey | None) -> bool:
        """A fixed text in answer to the event, outside any session; False if the survey has none by this name.

        In the language of the last session, if the text has it, and from the address that the person wrote to.
        """
        if survey is None or name not in survey.texts:
            return False
        wordings = survey.texts[name]
        language = thread.line.language or thread.main.language
        text = fill(wordings.get(language) or wordings[survey.languages[0]], {})
        identity = f"{self.cause}r{self._replies}"
        self._send(identity, thread.channel, text, name, "", thread.answer_from, survey.name)
        self._replies += 1
        return True

    def tell_sometimes(
        self, thread: Thread, name: FixedText, survey: Survey | None, every_ms: int = HOUR_MS
    ) -> None:
        """`tell`, unless the same was told so little ago that two robots might be talking."""
        told = thread.main.told
        last = told.get(name)
        if (last is None or self.now - last >= every_ms) and self.tell(thread, name, survey):
            told[name] = self.now

    def end(self, channel: str, line: Line, session: Session, how: Ending, why: str = "") -> None:
        """The line's open session is over."""
        line.session = None
        line.ended_at, line.ended_how, line.ended_survey = self.now, how, session.survey
        self.records.append(Ended(self.now, channel, session.id, how, session.answers, why))

    def silence(self, channel: str) -> None:
        """Withdraw whatever has not left on the channel."""
        if channel not in self.silenced:
            self.silenced.append(channel)
        self._take_back(lambda sms: sms.channel == channel, "stopped")

    def withdraw(self, session: str, because: Withdrawal) -> None:
        """Withdraw what has not left of one session, open or not."""
        self.withdrawn.setdefault(session, because)
        self._take_back(lambda sms: sms.session == session, because)

    def _take_back(self, concerns: Callable[[Outbound], bool], because: Withdrawal) -> None:
        self.records += [
            Unsent(self.now, sms.channel, sms.session, sms.id, because, WITHDRAWN[because])
            for sms in self.outbox
            if concerns(sms)
        ]
        self.outbox = [sms for sms in self.outbox if not concerns(sms)]

    def line_survey(self, line: Line, offered: Sequence[str]) -> Survey | None:
        """Whose fixed texts answer a person who has no session: the last survey's, else the channel's first."""
        names = (line.ended_survey, *offered) if line.ended_survey else offered
        return next((survey for name in names if (survey := self.surveys.current(name))), None)

    def _send(
        self, identity: str, channel: str, text: str, step: str, session: str, originator: str, survey: str
    ) -> None:
        heard, self._heard = self._heard, 0
        self.outbox.append(
            Outbound(
                identity, channel, self.sender, text, session, originator, False, self.called_at, heard, self.unasked,
                survey,
            )
        )  # fmt: skip
        self.records.append(Said(self.now, channel, session, identity, step, text))
