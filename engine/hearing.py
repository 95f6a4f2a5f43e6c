"""What does an SMS mean? Decided in one order, whatever is being asked: STOP, HELP, START, an answer.

Whoever opted out hears nothing until they say START.
"""

from functools import partial

from engine.admission import count_opened, refusal, throttled
from engine.answers import ChoiceReader, ChoicesReader, Reader, ScaleReader, Unread, YesNoReader, read
from engine.conversation import answer_session, open_invited, open_session
from engine.events import Heard, Invitation, OptedIn, OptedOut, ProviderStop, Refusal, Refused, Sms
from engine.folding import fold_word
from engine.keywords import AMBIGUOUS_HELP, AMBIGUOUS_STOP, HELP, STOP, survey_started
from engine.lane import Line, Session
from engine.policy import ChannelPolicy
from engine.program import Ask, FixedText, Survey
from engine.turn import DAY_MS, Turn

_NAMED = (ChoiceReader, ChoicesReader, ScaleReader)
"""Readers of answers that an author named, possibly like a command."""


def hear(turn: Turn, line: Line, sms: Sms, policy: ChannelPolicy) -> None:
    """Apply one SMS."""
    word = fold_word(sms.text)
    if word in STOP and not (word in AMBIGUOUS_STOP and _is_answer(turn, line, sms, (*_NAMED, YesNoReader))):
        _stop(turn, line, sms, policy)
    elif word in HELP and not (word in AMBIGUOUS_HELP and _is_answer(turn, line, sms, _NAMED)):
        _help(turn, line, sms, policy)
    elif sms.start:
        _start(turn, line, sms, policy)
    else:
        _answer(turn, line, sms, policy)


def invite(turn: Turn, line: Line, invitation: Invitation, policy: ChannelPolicy) -> None:
    """Apply one invitation. Opening by invitation counts against the day's cap, and is not held up by it."""
    survey = turn.surveys.current(invitation.survey) if invitation.survey in policy.surveys else None
    reason = _uninviting(line, invitation, policy, turn.now)
    if survey is None or reason:
        turn.records.append(Refused(turn.now, invitation.channel, invitation.id, reason or "unknown_survey"))
        return
    count_opened(line, policy, turn.now)
    open_invited(turn, line, survey, invitation)


def _uninviting(line: Line, invitation: Invitation, policy: ChannelPolicy, now: int) -> Refusal | None:
    """Why nobody may be invited on `line` now."""
    if line.opted_out_at:
        return "opted_out"
    if line.session is not None:
        return "already_open"
    if invitation.expires_at and invitation.expires_at <= now:
        return "expired"
    return policy.closed


def opt_out(turn: Turn, line: Line, stop: Sms | ProviderStop) -> bool:
    """The person wants no more SMS on this channel; False if that was known already."""
    if line.opted_out_at:
        return False
    by_provider = isinstance(stop, ProviderStop)
    turn.records.append(OptedOut(turn.now, stop.channel, stop.id, stop.text, by_provider))
    turn.silence(stop.channel)
    line.opted_out_at = turn.now
    if line.session is not None:
        turn.end(stop.channel, line, line.session, "stopped")
    return True


def _stop(turn: Turn, line: Line, sms: Sms, policy: ChannelPolicy) -> None:
    _note(turn, line, sms)
    survey = _open_survey(turn, line) or turn.line_survey(line, policy.surveys)
    if opt_out(turn, line, sms) and not policy.confirms_stop:
        turn.tell(sms.channel, line, "stopped", survey)


def _help(turn: Turn, line: Line, sms: Sms, policy: ChannelPolicy) -> None:
    _note(turn, line, sms)
    if not line.opted_out_at:
        survey = _open_survey(turn, line) or turn.line_survey(line, policy.surveys)
        turn.tell_sometimes(sms.channel, line, "help", survey)


def _start(turn: Turn, line: Line, sms: Sms, policy: ChannelPolicy) -> None:
    if line.opted_out_at:
        line.opted_out_at = 0
        turn.records.append(OptedIn(turn.now, sms.channel, sms.id))
    started = survey_started(sms.text, policy.surveys, turn.surveys)
    if started is None:
        _answer(turn, line, sms, policy)
    elif throttled(line, policy, turn.now):
        _refuse(turn, line, sms, started[0], "throttled")
    elif line.session is None:
        _open(turn, line, sms, *started, policy)
    else:
        _start_again(turn, line, line.session, sms, *started, policy)


def _start_again(
    turn: Turn, line: Line, session: Session, sms: Sms, survey: Survey, language: str, policy: ChannelPolicy
) -> None:
    """A START while a session is open: that session's survey says what it means."""
    match turn.survey_of(session).again:
        case "ignore":
            _refuse(turn, line, sms, survey, "already_open")
        case "answer":
            answer_session(turn, sms.channel, line, session, sms)
        case "restart":
            _open(turn, line, sms, survey, language, policy)


def _open(turn: Turn, line: Line, sms: Sms, survey: Survey, language: str, policy: ChannelPolicy) -> None:
    if reason := refusal(line, survey, policy, turn.now):
        _refuse(turn, line, sms, survey, reason)
        return
    if line.session is not None:
        turn.end(sms.channel, line, line.session, "restarted")
    count_opened(line, policy, turn.now)
    open_session(turn, line, survey, language, sms)


def _refuse(turn: Turn, line: Line, sms: Sms, survey: Survey, reason: Refusal) -> None:
    turn.records.append(Heard(turn.now, sms.channel, "", sms.id, sms.text, sms.reply_to))
    turn.records.append(Refused(turn.now, sms.channel, sms.id, reason))
    if reason in ("throttled", "daily_cap"):
        turn.tell_sometimes(sms.channel, line, "refused", survey, every_ms=DAY_MS)


def _answer(turn: Turn, line: Line, sms: Sms, policy: ChannelPolicy) -> None:
    if line.session is not None:
        answer_session(turn, sms.channel, line, line.session, sms)
        return
    _note(turn, line, sms)
    if not line.opted_out_at:
        turn.tell_sometimes(sms.channel, line, _late(line), turn.line_survey(line, policy.surveys))


def _late(line: Line) -> FixedText:
    """Which text answers an SMS that no session waits for."""
    match line.ended_how:
        case "completed":
            return "unavailable"
        case "idle" | "expired":
            return "expired"
        case _:
            return "not_found"


def _is_answer(turn: Turn, line: Line, sms: Sms, readers: tuple[type[Reader], ...]) -> bool:
    """Does the step that was asked, if it reads with one of `readers`, take this SMS for an answer?"""
    if line.session is None:
        return False
    step = turn.survey_of(line.session).steps[line.session.step]
    return (
        isinstance(step, Ask)
        and isinstance(step.reader, readers)
        and not isinstance(read(step.reader, sms.text, partial(turn.today, sms.channel)), Unread)
    )


def _open_survey(turn: Turn, line: Line) -> Survey | None:
    return turn.survey_of(line.session) if line.session is not None else None


def _note(turn: Turn, line: Line, sms: Sms) -> None:
    session = line.session.id if line.session is not None else ""
    turn.records.append(Heard(turn.now, sms.channel, session, sms.id, sms.text, sms.reply_to))
