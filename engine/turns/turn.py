"""Gathers the effects of one call of `advance` while they are decided.

Every SMS is sent through `send_session_text` or `send_fixed_text`, which give it its id and its record.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime

from engine.answers import InvalidReason
from engine.model.effects import WITHDRAWAL_REASONS, Effects, WithdrawalCode
from engine.model.errors import ParleyError
from engine.model.events import (
    Answer,
    AnswerRejected,
    InboundSms,
    OutboundSms,
    SessionEnded,
    SessionEnding,
    SmsDecided,
    SmsKind,
    SmsNotSent,
    SmsReceived,
    session_sms_id,
)
from engine.model.lane import ChannelLine, Lane, Session
from engine.model.policy import ChannelPolicies, ChannelPolicy
from engine.surveys.program import FixedText, QuestionStep, Survey
from engine.surveys.survey_registry import SurveyRegistry
from engine.surveys.texts import fill_template
from engine.surveys.variables import MESSAGES_KEY, message_count
from engine.turns.admission import keep_cooldowns
from engine.turns.session_routing import ConversationThread

HOUR_MS = 3_600_000
DAY_MS = 86_400_000


class UnknownVersionError(ParleyError):
    """An open session is pinned to a version of a survey that this process does not have."""


class UnknownStepError(ParleyError):
    """An open session waits at a step that asks nothing: the lane's state is corrupt."""


class UnknownChannelError(ParleyError):
    """An event came in on a channel that has no policy."""


class Turn:
    """One call of `advance`: `effects` are those decided so far. `now` (ms) is the time of what is being applied,
    `called_at` (ms) that of the call; `cause` is the id of the event, empty for a deadline, and `unasked` whether it is
    an invitation."""

    __slots__ = (
        "_decided_now",
        "_heard",
        "_replies",
        "called_at",
        "cause",
        "effects",
        "lane",
        "now",
        "policy",
        "sender",
        "surveys",
        "unasked",
    )

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
        self.effects = Effects()
        self._replies = 0
        self._heard = 0
        self._decided_now: list[str] = []

    def begin_event(self, now: int, cause: str = "", heard: int = 0, *, unasked: bool = False) -> None:
        """Make this event, accepted at `heard` (ms), or a deadline (no `cause`) the cause of what is decided from here on."""
        self.now = self.lane.clock = now
        self.cause = cause
        self.unasked = unasked
        self._replies = 0
        self._heard = heard
        self._decided_now = []

    def channel_policy(self, channel: str) -> ChannelPolicy:
        try:
            return self.policy[channel]
        except KeyError:
            raise UnknownChannelError(f"no channel is called '{channel}'") from None

    def survey_of(self, session: Session) -> Survey:
        """Return the version that the session began with. Raises UnknownVersionError."""
        survey = self.surveys.by_version(session.version)
        if survey is None:
            raise UnknownVersionError(
                f"version {session.version} of the survey '{session.survey}' is not known"
            )
        return survey

    def local_date(self, channel: str) -> date:
        """Return the day of `now` on the channel's calendar."""
        moment = datetime.fromtimestamp(self.now / 1000, UTC)
        return moment.astimezone(self.channel_policy(channel).timezone).date()

    def send_session_text(self, channel: str, session: Session, step: str, text: str, kind: SmsKind) -> None:
        """Send one SMS of a session."""
        identity = session_sms_id(session.id, session.sms_count)
        session.sms_count += 1
        self._queue_sms(identity, channel, text, step, kind, session.id, session.originator, session.survey)

    def record_received(
        self,
        sms: InboundSms,
        session: Session | None,
        step: QuestionStep | None = None,
        answer: Answer | None = None,
    ) -> None:
        """Record an SMS that the person wrote, in a session or outside any (None), and how it was read if it answers
        `step`."""
        if session is not None and (messages := session.answers.get(MESSAGES_KEY)) is not None:
            session.answers[MESSAGES_KEY] = message_count(int(messages.raw) + 1)
        self.effects.records.append(
            SmsReceived(
                self.now,
                sms.channel,
                session.id if session is not None else "",
                sms.id,
                sms.text,
                sms.reply_to,
                sms.handled,
                sms.originator,
                step.id if step is not None else "",
                answer,
                step.answer_type if step is not None else "",
                sms.attachments,
            )
        )

    def record_rejected(self, channel: str, session: Session, step: str, reason: InvalidReason) -> None:
        """Record that the SMS just received could not be read as an answer to `step`."""
        self.effects.records.append(AnswerRejected(self.now, channel, session.id, step, reason))
        self.effects.survey_by_session[session.id] = session.survey

    def count_opened(self, channel: str) -> None:
        """Count a session that an SMS opened, which needs a permit."""
        opened = self.effects.opened_by_channel
        opened[channel] = opened.get(channel, 0) + 1

    def send_fixed_text(self, thread: ConversationThread, name: FixedText, survey: Survey | None) -> bool:
        """Answer the event with a fixed text, outside any session. Return False if the survey has none by this name.

        The text is in the language of the last session, if it has that, and sent from the address that was written to.
        """
        if survey is None or name not in survey.texts:
            return False
        wordings = survey.texts[name]
        language = thread.line.language or thread.main.language
        text = fill_template(wordings.get(language) or wordings[survey.languages[0]], {})
        identity = f"{self.cause}r{self._replies}"
        self._queue_sms(identity, thread.channel, text, name, "fixed", "", thread.answer_from, survey.name)
        self._replies += 1
        return True

    def send_fixed_text_rarely(
        self, thread: ConversationThread, name: FixedText, survey: Survey | None, every_ms: int = HOUR_MS
    ) -> None:
        """Send the fixed text unless the line got it less than `every_ms` ago, so that two robots do not answer each
        other for ever."""
        sent = thread.main.fixed_texts_sent
        last = sent.get(name)
        if (last is None or self.now - last >= every_ms) and self.send_fixed_text(thread, name, survey):
            sent[name] = self.now

    def end_session(
        self, channel: str, line: ChannelLine, session: Session, how: SessionEnding, why: str = ""
    ) -> None:
        """End the line's open session. What it had queued before must not leave any more, unless it is completed: nobody waits
        for an answer to it. What the event says that ends it does."""
        if how != "completed":
            self.withdraw_session(session.id, "session_ended", but=self._decided_now)
        line.session = None
        keep_cooldowns(line, self.surveys, self.now)
        line.ended_at, line.ended_how, line.ended_survey = self.now, how, session.survey
        self.effects.records.append(SessionEnded(self.now, channel, session.id, how, session.answers, why))
        self.effects.survey_by_session[session.id] = session.survey

    def withdraw_channel(self, channel: str) -> None:
        """Withdraw the channel's SMS that have not left."""
        if channel not in self.effects.silenced:
            self.effects.silenced.append(channel)
        self._withdraw_undelivered(lambda sms: sms.channel == channel, "stopped")

    def withdraw_session(self, session: str, because: WithdrawalCode, but: Sequence[str] = ()) -> None:
        """Withdraw the SMS of a session, open or over, that have not left, `but` those with these ids, which this turn
        decided."""
        self.effects.withdrawn.setdefault(session, because)
        self._withdraw_undelivered(lambda sms: sms.session == session and sms.id not in but, because)

    def _withdraw_undelivered(self, concerns: Callable[[OutboundSms], bool], because: WithdrawalCode) -> None:
        effects = self.effects
        effects.records += [
            SmsNotSent(self.now, sms.channel, sms.session, sms.id, because, WITHDRAWAL_REASONS[because])
            for sms in effects.outbox
            if concerns(sms)
        ]
        effects.outbox = [sms for sms in effects.outbox if not concerns(sms)]

    def fixed_text_survey(self, line: ChannelLine, offered: Sequence[str]) -> Survey | None:
        """Return the survey whose fixed texts answer a person without a session: the last one's, else the first of
        `offered`, the channel's surveys."""
        names = (line.ended_survey, *offered) if line.ended_survey else offered
        return next((survey for name in names if (survey := self.surveys.current(name))), None)

    def _queue_sms(
        self,
        identity: str,
        channel: str,
        text: str,
        step: str,
        kind: SmsKind,
        session: str,
        originator: str,
        survey: str,
    ) -> None:
        heard, self._heard = self._heard, 0
        self._decided_now.append(identity)
        # the server's clock may have been set back behind the lane's
        decided = max(self.called_at, self.now) if self.called_at else 0
        self.effects.outbox.append(
            OutboundSms(
                identity,
                channel,
                self.sender,
                text,
                session,
                originator,
                False,
                decided,
                heard,
                self.unasked,
                survey,
            )
        )
        self.effects.records.append(SmsDecided(self.now, channel, session, identity, step, text, kind))
