"""What a call of `advance` comes to, gathered while it is decided.

Everything that is said goes through `send_session_text` or `send_fixed_text`, so that every SMS has its id and its record.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Literal

from engine.model.errors import ParleyError
from engine.model.events import (
    ArchiveRecord,
    InboundSms,
    OutboundSms,
    SessionEnded,
    SessionEnding,
    SmsDecided,
    SmsNotSent,
    SmsReceived,
    session_sms_id,
)
from engine.model.lane import ChannelLine, Lane, Session
from engine.model.policy import ChannelPolicies, ChannelPolicy
from engine.surveys.program import FixedText, Survey
from engine.surveys.survey_registry import SurveyRegistry
from engine.surveys.texts import fill_template
from engine.surveys.variables import MESSAGES_KEY, message_count
from engine.turns.session_routing import ConversationThread

HOUR_MS = 3_600_000
DAY_MS = 86_400_000

WithdrawalCode = Literal["stopped", "cancelled", "unreachable"]

WITHDRAWAL_REASONS: Mapping[WithdrawalCode, str] = {
    "stopped": "withdrawn by a STOP",
    "cancelled": "withdrawn: whoever invited wants no more of it",
    "unreachable": "withdrawn: the number gets no SMS",
}
"""Why an SMS that was decided will not leave, by the code in its Unsent."""


class UnknownVersionError(ParleyError):
    """An open session is pinned to a version of a survey that this process was not given."""


class UnknownStepError(ParleyError):
    """An open session waits at a step that asks nothing. Its state is corrupt."""


class UnknownChannelError(ParleyError):
    """An event came in on a channel that has no policy."""


class Turn:
    """`now` is the time of what is being applied, `called_at` that of the call; `cause` the id of the event, empty for
    a deadline, `unasked` whether it is an invitation."""

    __slots__ = (
        "_heard", "_replies", "called_at", "cause", "duplicates", "lane", "now", "opened", "opt_outs", "outbox", "policy", "records", "sender",
        "sessions", "silenced", "surveys", "unasked", "withdrawn",
    )  # fmt: skip

    def __init__(
        self, lane: Lane, sender: str, surveys: SurveyRegistry, policy: ChannelPolicies, called_at: int = 0
    ) -> None:
        self.lane = lane
        self.called_at = called_at
        self.sender = sender
        self.surveys = surveys
        self.policy = policy
        self.now = lane.clock
        self.cause = ""
        self.unasked = False
        self.outbox: list[OutboundSms] = []
        self.records: list[ArchiveRecord] = []
        self.silenced: list[str] = []
        self.withdrawn: dict[str, WithdrawalCode] = {}
        self.opened: dict[str, int] = {}
        self.opt_outs: dict[str, tuple[int, str]] = {}
        self.sessions: list[tuple[str, int]] = []
        self.duplicates = 0
        self._replies = 0
        self._heard = 0

    def begin_event(self, now: int, cause: str = "", heard: int = 0, *, unasked: bool = False) -> None:
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
            raise UnknownChannelError(f"no channel is called '{channel}'") from None

    def survey_of(self, session: Session) -> Survey:
        """The very version that the session began with."""
        survey = self.surveys.by_version(session.version)
        if survey is None:
            raise UnknownVersionError(
                f"version {session.version} of the survey '{session.survey}' is not known"
            )
        return survey

    def local_date(self, channel: str) -> date:
        """The day, on the channel's calendar."""
        moment = datetime.fromtimestamp(self.now / 1000, UTC)
        return moment.astimezone(self.channel_policy(channel).timezone).date()

    def send_session_text(self, channel: str, session: Session, step: str, text: str) -> None:
        """One SMS of a session."""
        identity = session_sms_id(session.id, session.sms_count)
        session.sms_count += 1
        self._queue_sms(identity, channel, text, step, session.id, session.originator, session.survey)

    def record_received(self, sms: InboundSms, session: Session | None) -> None:
        """The person wrote this, in a session or outside any."""
        if session is not None and (messages := session.answers.get(MESSAGES_KEY)) is not None:
            session.answers[MESSAGES_KEY] = message_count(int(messages.raw) + 1)
        self.records.append(
            SmsReceived(
                self.now, sms.channel, session.id if session is not None else "", sms.id, sms.text, sms.reply_to,
                sms.handled, sms.originator,
            )
        )  # fmt: skip

    def send_fixed_text(self, thread: ConversationThread, name: FixedText, survey: Survey | None) -> bool:
        """A fixed text in answer to the event, outside any session; False if the survey has none by this name.

        In the language of the last session, if the text has it, and from the address that the person wrote to.
        """
        if survey is None or name not in survey.texts:
            return False
        wordings = survey.texts[name]
        language = thread.line.language or thread.main.language
        text = fill_template(wordings.get(language) or wordings[survey.languages[0]], {})
        identity = f"{self.cause}r{self._replies}"
        self._queue_sms(identity, thread.channel, text, name, "", thread.answer_from, survey.name)
        self._replies += 1
        return True

    def send_fixed_text_rarely(
        self, thread: ConversationThread, name: FixedText, survey: Survey | None, every_ms: int = HOUR_MS
    ) -> None:
        """`send_fixed_text`, unless the same was told so little ago that two robots might be talking."""
        told = thread.main.fixed_texts_sent
        last = told.get(name)
        if (last is None or self.now - last >= every_ms) and self.send_fixed_text(thread, name, survey):
            told[name] = self.now

    def end_session(
        self, channel: str, line: ChannelLine, session: Session, how: SessionEnding, why: str = ""
    ) -> None:
        """The line's open session is over."""
        line.session = None
        line.ended_at, line.ended_how, line.ended_survey = self.now, how, session.survey
        self.records.append(SessionEnded(self.now, channel, session.id, how, session.answers, why))

    def withdraw_channel(self, channel: str) -> None:
        """Withdraw whatever has not left on the channel."""
        if channel not in self.silenced:
            self.silenced.append(channel)
        self._withdraw_undelivered(lambda sms: sms.channel == channel, "stopped")

    def withdraw_session(self, session: str, because: WithdrawalCode) -> None:
        """Withdraw what has not left of one session, open or not."""
        self.withdrawn.setdefault(session, because)
        self._withdraw_undelivered(lambda sms: sms.session == session, because)

    def _withdraw_undelivered(self, concerns: Callable[[OutboundSms], bool], because: WithdrawalCode) -> None:
        self.records += [
            SmsNotSent(self.now, sms.channel, sms.session, sms.id, because, WITHDRAWAL_REASONS[because])
            for sms in self.outbox
            if concerns(sms)
        ]
        self.outbox = [sms for sms in self.outbox if not concerns(sms)]

    def fixed_text_survey(self, line: ChannelLine, offered: Sequence[str]) -> Survey | None:
        """Whose fixed texts answer a person who has no session: the last survey's, else the channel's first."""
        names = (line.ended_survey, *offered) if line.ended_survey else offered
        return next((survey for name in names if (survey := self.surveys.current(name))), None)

    def _queue_sms(
        self, identity: str, channel: str, text: str, step: str, session: str, originator: str, survey: str
    ) -> None:
        heard, self._heard = self._heard, 0
        self.outbox.append(
            OutboundSms(
                identity, channel, self.sender, text, session, originator, False, self.called_at, heard, self.unasked,
                survey,
            )
        )  # fmt: skip
        self.records.append(SmsDecided(self.now, channel, session, identity, step, text))
