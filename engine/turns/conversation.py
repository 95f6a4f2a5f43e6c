"""Runs one session from its START or invitation, answer by answer, to its end.

Every SMS, in or out, restarts the silence that ends a session; SMS decided together leave `pause_ms` apart, and the
silence counts from the last of them.
"""

from collections.abc import Mapping
from functools import partial

from engine.answers import REACTION, InvalidAnswer, InvalidReason, read_answer
from engine.model.events import Answer, InboundSms, Invitation, SessionInvited, SessionOpened, SmsKind
from engine.model.lane import ChannelLine, Session
from engine.surveys.program import (
    END_INDEX,
    QuestionStep,
    ReaskInvalid,
    StatementStep,
    Survey,
    choose_route,
    rejection_reason,
)
from engine.surveys.texts import LocalizedText, fill_template, prepend_content
from engine.surveys.variables import (
    BUILTIN_VARIABLES,
    CONTACT_KEY,
    MESSAGES_KEY,
    NUMBER_KEY,
    answer_key,
    message_count,
    read_variable,
)
from engine.turns.session_routing import ConversationThread
from engine.turns.turn import Turn, UnknownStepError

_BUILTIN_KEYS = {"contact": CONTACT_KEY, "number": NUMBER_KEY}
"""The answer keys of the built-in variables in SessionOpened.variables."""


class SessionRunner:
    """Runs one open session during a turn. Made when the turn reaches the session, and dropped with the turn."""

    __slots__ = ("_channel", "_content", "_line", "_said_before", "_session", "_survey", "_turn")

    def __init__(self, turn: Turn, channel: str, line: ChannelLine, session: Session, survey: Survey) -> None:
        self._turn = turn
        self._channel = channel
        self._line = line
        self._session = session
        self._survey = survey
        self._said_before = session.sms_count
        self._content = ""

    def handle_answer(self, sms: InboundSms) -> None:
        """Read the SMS as the answer to the current question; go on, or ask again if it cannot be read."""
        turn, session = self._turn, self._session
        step = self._asked_step()
        answer = read_answer(step.reader, sms.text, partial(turn.local_date, self._channel))
        if isinstance(answer, InvalidAnswer):
            why = rejection_reason(step, sms, answer.reason)
            turn.record_received(sms, session)
            turn.record_rejected(self._channel, session, step.id, why)
            if isinstance(step.invalid, ReaskInvalid) and why != REACTION:
                self._handle_invalid(step.invalid, step, why)
                self._update_last_sms_at()
            return
        turn.record_received(sms, session, step, answer)
        session.answers[step.id] = answer
        self._run_steps_from(self._next_step(step))
        self._update_last_sms_at()

    def say_opening(self, content: str = "") -> None:
        """Send the session's first SMS, which begins with `content`, and those that follow up to the first question."""
        self._content = content
        self._run_steps_from(0)
        self._update_last_sms_at()

    def send_reminder(self) -> None:
        """Send the current question's reminder, if it has one."""
        step = self._asked_step()
        if step.remind is not None and self._send_text(step.id, step.remind.text, "remind"):
            self._session.reminders_sent += 1
            self._session.asked_at = self._last_sms_leaves_at()
            self._update_last_sms_at()

    def _asked_step(self) -> QuestionStep:
        step = self._survey.steps[self._session.step]
        if not isinstance(step, QuestionStep):
            raise UnknownStepError(f"session {self._session.id} waits at '{step.id}', which asks nothing")
        return step

    def _handle_invalid(self, invalid: ReaskInvalid, step: QuestionStep, why: InvalidReason) -> None:
        session = self._session
        session.invalid_answers += 1
        if session.invalid_answers < invalid.attempts:
            if self._send_text(step.id, invalid.texts[why], "reask"):
                session.asked_at = self._last_sms_leaves_at()
        elif invalid.give_up is not None:
            self._run_steps_from(invalid.give_up)
        else:
            self._give_up()

    def _give_up(self) -> None:
        """End the session, and say so if it may send one SMS more."""
        told = self._survey.texts.get("gave_up")
        if told is not None and not self._has_sent_all():
            self._send_text("gave_up", told, "fixed")
        self._turn.end_session(self._channel, self._line, self._session, "gave_up")

    def _run_steps_from(self, place: int) -> None:
        """Send the texts of the steps from `place` on, up to the next question or the end."""
        while place != END_INDEX:
            step = self._survey.steps[place]
            kind: SmsKind = "ask" if isinstance(step, QuestionStep) else "say"
            if not self._send_text(step.id, step.text, kind):
                return
            if isinstance(step, QuestionStep):
                self._wait_for_answer(place)
                return
            place = self._next_step(step)
        self._complete_session()

    def _next_step(self, step: StatementStep | QuestionStep) -> int:
        session = self._session
        route = choose_route(step.routes, session.answers, session.routes_taken)
        if route.times is not None:
            session.routes_taken[route.counter] = session.routes_taken.get(route.counter, 0) + 1
        return route.go

    def _wait_for_answer(self, place: int) -> None:
        session = self._session
        session.step, session.invalid_answers, session.reminders_sent = place, 0, 0
        session.asked_at = self._last_sms_leaves_at()

    def _complete_session(self) -> None:
        completed = self._survey.texts.get("completed")
        if completed is None or self._send_text("completed", completed, "fixed"):
            self._turn.end_session(self._channel, self._line, self._session, "completed")

    def _send_text(self, step: str, text: LocalizedText, kind: SmsKind) -> bool:
        """Send one SMS; False if the session has sent all that it may, and is over."""
        session = self._session
        if self._has_sent_all():
            self._turn.end_session(self._channel, self._line, self._session, "exhausted")
            return False
        words = fill_template(text[session.language], session.answers)
        if self._content:
            words, self._content = prepend_content(self._content, words), ""
        self._turn.send_session_text(self._channel, session, step, words, kind)
        return True

    def _has_sent_all(self) -> bool:
        """Return whether the session has sent as many SMS as the survey's `most_sms` allows."""
        return self._survey.most_sms is not None and self._session.sms_count >= self._survey.most_sms

    def _update_last_sms_at(self) -> None:
        self._session.last_sms_at = self._last_sms_leaves_at()

    def _last_sms_leaves_at(self) -> int:
        """Return when (ms) the session's last SMS leaves; SMS of an earlier turn may leave later than this turn's."""
        return max(self._session.last_sms_at, self._turn.now + self._total_pause_ms())

    def _total_pause_ms(self) -> int:
        """Return how long after the first of this turn's SMS the last one leaves."""
        said = self._session.sms_count - self._said_before
        return (said - 1) * self._turn.channel_policy(self._channel).pause_ms if said > 1 else 0


def open_session(
    turn: Turn, thread: ConversationThread, survey: Survey, language: str, sms: InboundSms
) -> None:
    """Open a session of the survey's current version by a START, and send its first SMS."""
    turn.count_opened(sms.channel)
    session = Session(sms.id, survey.name, survey.version, language, turn.now, turn.now)
    conversation = _open_on_thread(turn, thread, survey, session, sms.originator)
    turn.record_received(sms, session)
    conversation.say_opening()


def open_invited_session(
    turn: Turn, thread: ConversationThread, survey: Survey, invitation: Invitation
) -> None:
    """Open a session by an invitation, in its language if the survey has it, with its variables and content."""
    language = invitation.language if invitation.language in survey.languages else survey.languages[0]
    variables = {answer_key(key): read_variable(value) for key, value in invitation.variables.items()}
    session = Session(
        invitation.id, survey.name, survey.version, language, turn.now, turn.now,
        answers={place: value for place, value in variables.items() if place not in BUILTIN_VARIABLES},
        expires_at=invitation.expires_at,
    )  # fmt: skip
    conversation = _open_on_thread(turn, thread, survey, session, thread.originator)
    turn.effects.records.append(SessionInvited(turn.now, invitation.channel, invitation.id, invitation))
    conversation.say_opening(invitation.content)


def _open_on_thread(
    turn: Turn, thread: ConversationThread, survey: Survey, session: Session, address: str
) -> SessionRunner:
    """Put a new session on the thread's line. `address` is the one of ours that the person wrote to, or is written to
    from; empty: the channel's."""
    thread.store_line(turn.lane)
    thread.line.session = session
    thread.line.language = session.language
    session.originator = thread.originator
    turn.effects.sessions.append((session.id, turn.now))
    told = _builtin_variables(turn, thread.channel, survey, address)
    session.answers |= builtin_answers(told)
    if MESSAGES_KEY in survey.told:
        session.answers[MESSAGES_KEY] = message_count(0)
    turn.effects.records.append(
        SessionOpened(
            turn.now, thread.channel, session.id, survey.name, survey.version, session.language,
            session.originator, told,
        )
    )  # fmt: skip
    return SessionRunner(turn, thread.channel, thread.line, session, survey)


def _builtin_variables(turn: Turn, channel: str, survey: Survey, address: str) -> dict[str, str]:
    """Return the built-in variables (`contact`, `number`) that the survey uses and the channel knows for this person."""
    if not survey.told:
        return {}
    policy = turn.channel_policy(channel)
    known = {"contact": policy.contacts.get(turn.sender, ""), "number": address or policy.number}
    return {key: value for key, value in known.items() if value and _BUILTIN_KEYS[key] in survey.told}


def builtin_answers(told: Mapping[str, str]) -> dict[str, Answer]:
    """Convert SessionOpened.variables to the answers that hold them in a session."""
    return {_BUILTIN_KEYS[key]: read_variable(value) for key, value in told.items() if key in _BUILTIN_KEYS}


def answer_session(turn: Turn, channel: str, line: ChannelLine, session: Session, sms: InboundSms) -> None:
    """Read an SMS as the answer to the open session's question."""
    SessionRunner(turn, channel, line, session, turn.survey_of(session)).handle_answer(sms)


def remind_session(turn: Turn, channel: str, line: ChannelLine, session: Session) -> None:
    SessionRunner(turn, channel, line, session, turn.survey_of(session)).send_reminder()
