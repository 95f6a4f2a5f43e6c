"""How does a session go? From the START that opens it, answer by answer, to its end.

Every SMS, in or out, restarts the silence after which a session is over; SMS that are decided together leave a
pause apart, and the silence counts from the last of them.
"""

from collections.abc import Mapping
from functools import partial

from engine.answers import Unread, Why, read
from engine.model.events import Answer, Invitation, Invited, Misread, Opened, Sms
from engine.model.lane import Line, Session
from engine.surveys.program import END, Ask, Reask, Say, Survey, follow
from engine.surveys.texts import Text, fill, opened_with
from engine.surveys.variables import CONTACT, MESSAGES, NUMBER, TOLD, count_of, place_of, read_variable
from engine.turns.session_routing import Thread
from engine.turns.turn import Turn, UnknownStep

_PLACES = {"contact": CONTACT, "number": NUMBER}
"""Where a session keeps what Opened.variables tells."""


class Conversation:
    """One open session while a turn lasts. Made when the turn comes to it, dropped afterwards."""

    __slots__ = ("_channel", "_content", "_line", "_said_before", "_session", "_survey", "_turn")

    def __init__(self, turn: Turn, channel: str, line: Line, session: Session, survey: Survey) -> None:
        self._turn = turn
        self._channel = channel
        self._line = line
        self._session = session
        self._survey = survey
        self._said_before = session.said
        self._content = ""

    def answer(self, sms: Sms) -> None:
        """What the person wrote, read by the step that was asked."""
        turn, session = self._turn, self._session
        turn.heard(sms, session)
        step = self._asked()
        answer = read(step.reader, sms.text, partial(turn.today, self._channel))
        if isinstance(answer, Unread):
            turn.records.append(Misread(turn.now, self._channel, session.id, step.id, answer.why))
            if isinstance(step.invalid, Reask) and answer.why != "reaction":
                self._misread(step.invalid, step, answer.why)
                self._touch()
            return
        session.answers[step.id] = answer
        self._go(self._after(step))
        self._touch()

    def start(self, content: str = "") -> None:
        """Say the first SMS, which `content` opens, and what follows it."""
        self._content = content
        self._go(0)
        self._touch()

    def remind(self) -> None:
        """The step that was asked has waited long enough for a reminder."""
        step = self._asked()
        if step.remind is not None and self._say(step.id, step.remind.text):
            self._session.reminded += 1
            self._session.asked_at = self._last_leaves_at()
            self._touch()

    def _asked(self) -> Ask:
        step = self._survey.steps[self._session.step]
        if not isinstance(step, Ask):
            raise UnknownStep(f"session {self._session.id} waits at '{step.id}', which asks nothing")
        return step

    def _misread(self, invalid: Reask, step: Ask, why: Why) -> None:
        session = self._session
        session.misread += 1
        if session.misread < invalid.attempts:
            if self._say(step.id, invalid.texts[why]):
                session.asked_at = self._last_leaves_at()
        elif invalid.give_up is not None:
            self._go(invalid.give_up)
        else:
            self._turn.end(self._channel, self._line, self._session, "gave_up")

    def _go(self, place: int) -> None:
        """Say what there is to say from `place` on, up to the next question or the end."""
        while place != END:
            step = self._survey.steps[place]
            if not self._say(step.id, step.text):
                return
            if isinstance(step, Ask):
                self._wait(place)
                return
            place = self._after(step)
        self._complete()

    def _after(self, step: Say | Ask) -> int:
        session = self._session
        route = follow(step.routes, session.answers, session.taken)
        if route.times is not None:
            session.taken[route.counter] = session.taken.get(route.counter, 0) + 1
        return route.go

    def _wait(self, place: int) -> None:
        session = self._session
        session.step, session.misread, session.reminded = place, 0, 0
        session.asked_at = self._last_leaves_at()

    def _complete(self) -> None:
        completed = self._survey.texts.get("completed")
        if completed is None or self._say("completed", completed):
            self._turn.end(self._channel, self._line, self._session, "completed")

    def _say(self, step: str, text: Text) -> bool:
        """Send one SMS; False if the session has sent all that it may, and is over."""
        session = self._session
        if self._survey.most_sms is not None and session.said >= self._survey.most_sms:
            self._turn.end(self._channel, self._line, self._session, "exhausted")
            return False
        words = fill(text[session.language], session.answers)
        if self._content:
            words, self._content = opened_with(self._content, words), ""
        self._turn.say(self._channel, session, step, words)
        return True

    def _touch(self) -> None:
        self._session.touched_at = self._last_leaves_at()

    def _last_leaves_at(self) -> int:
        """Those of an earlier turn may leave later than this turn's."""
        return max(self._session.touched_at, self._turn.now + self._paused_ms())

    def _paused_ms(self) -> int:
        """How long after the first of this turn's SMS the last one leaves."""
        said = self._session.said - self._said_before
        return (said - 1) * self._turn.channel_policy(self._channel).pause_ms if said > 1 else 0


def open_session(turn: Turn, thread: Thread, survey: Survey, language: str, sms: Sms) -> None:
    """A START opens a session of the survey's current version and its first SMS are said."""
    turn.opened[sms.channel] = turn.opened.get(sms.channel, 0) + 1
    session = Session(sms.id, survey.name, survey.version, language, turn.now, turn.now)
    conversation = _open(turn, thread, survey, session, sms.originator)
    turn.heard(sms, session)
    conversation.start()


def open_invited(turn: Turn, thread: Thread, survey: Survey, invitation: Invitation) -> None:
    """An invitation opens a session, in its language if the survey has it, with its variables and content."""
    language = invitation.language if invitation.language in survey.languages else survey.languages[0]
    variables = {place_of(key): read_variable(value) for key, value in invitation.variables.items()}
    session = Session(
        invitation.id, survey.name, survey.version, language, turn.now, turn.now,
        answers={place: value for place, value in variables.items() if place not in TOLD},
        expires_at=invitation.expires_at,
    )  # fmt: skip
    conversation = _open(turn, thread, survey, session, thread.originator)
    turn.records.append(Invited(turn.now, invitation.channel, invitation.id, invitation))
    conversation.start(invitation.content)


def _open(turn: Turn, thread: Thread, survey: Survey, session: Session, address: str) -> Conversation:
    """`address` is the one of ours that the person wrote to, or is written to from; empty: the channel's."""
    thread.keep(turn.lane)
    thread.line.session = session
    thread.line.language = session.language
    session.originator = thread.originator
    turn.sessions.append((session.id, turn.now))
    told = _told(turn, thread.channel, survey, address)
    session.answers |= answers_told(told)
    if MESSAGES in survey.told:
        session.answers[MESSAGES] = count_of(0)
    turn.records.append(
        Opened(
            turn.now, thread.channel, session.id, survey.name, survey.version, session.language,
            session.originator, told,
        )
    )  # fmt: skip
    return Conversation(turn, thread.channel, thread.line, session, survey)


def _told(turn: Turn, channel: str, survey: Survey, address: str) -> dict[str, str]:
    """What the channel knows of the person, as far as the survey speaks of it."""
    if not survey.told:
        return {}
    policy = turn.channel_policy(channel)
    known = {"contact": policy.contacts.get(turn.sender, ""), "number": address or policy.number}
    return {key: value for key, value in known.items() if value and _PLACES[key] in survey.told}


def answers_told(told: Mapping[str, str]) -> dict[str, Answer]:
    """Opened.variables as a session keeps them."""
    return {_PLACES[key]: read_variable(value) for key, value in told.items() if key in _PLACES}


def answer_session(turn: Turn, channel: str, line: Line, session: Session, sms: Sms) -> None:
    """An SMS is the answer to what the open session asked."""
    Conversation(turn, channel, line, session, turn.survey_of(session)).answer(sms)


def remind_session(turn: Turn, channel: str, line: Line, session: Session) -> None:
    Conversation(turn, channel, line, session, turn.survey_of(session)).remind()
