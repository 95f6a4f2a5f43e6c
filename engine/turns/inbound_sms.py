"""What does an SMS mean? Decided in one order, whatever is being asked: STOP, HELP, START, an answer.

Whoever opted out hears nothing until they say START, or answer YES to being told how to come back. An opt-out holds
for the whole channel, whichever of its numbers was written to.
"""

from functools import partial

from engine.answers import ChoiceReader, ChoicesReader, Reader, ScaleReader, Unread, YesNoReader, read
from engine.model.events import (
    Cancel,
    Invitation,
    OptedIn,
    OptedOut,
    ProviderStop,
    Refusal,
    Refused,
    Sms,
)
from engine.model.lane import Line
from engine.model.policy import ChannelPolicy
from engine.model.text_normalization import fold_word
from engine.surveys.keywords import (
    AMBIGUOUS_HELP,
    AMBIGUOUS_STOP,
    HELP,
    Started,
    is_stop,
    opts_in,
    survey_started,
)
from engine.surveys.program import Ask, FixedText, Survey
from engine.turns.admission import count_opened, refusal, throttled
from engine.turns.conversation import answer_session, open_invited, open_session
from engine.turns.session_routing import Thread, heard_on, invited_on, main_line, open_on
from engine.turns.turn import DAY_MS, Turn

_NAMED = (ChoiceReader, ChoicesReader, ScaleReader)
_NAMED_OR_YES = (*_NAMED, YesNoReader)
"""Readers of answers that an author named, possibly like a command."""


def hear(turn: Turn, sms: Sms, policy: ChannelPolicy) -> None:
    """Apply one SMS."""
    started = survey_started(sms.text, policy.surveys, turn.surveys) if sms.start else None
    thread = heard_on(turn.lane, sms, policy, starts=started is not None)
    word = fold_word(sms.text)
    if sms.handled == "stop" or _is_stop(turn, thread, sms, word):
        _stop(turn, thread, sms, policy)
    elif sms.handled == "help" or (
        word in HELP and not (word in AMBIGUOUS_HELP and _is_answer(turn, thread, sms, _NAMED))
    ):
        _help(turn, thread, sms, policy)
    elif thread.main.opted_out_at:
        _while_opted_out(turn, thread, sms, started, policy)
    elif started is not None:
        _start(turn, thread, sms, started, policy)
    else:
        _answer(turn, thread, sms, policy)


def invite(turn: Turn, invitation: Invitation, policy: ChannelPolicy) -> None:
    """Apply one invitation. Opening by invitation counts against the day's cap, and is not held up by it, nor by a
    channel that is closed: whoever lets invitations go has seen to that."""
    thread = invited_on(turn.lane, invitation, policy)
    survey = turn.surveys.current(invitation.survey) if invitation.survey in policy.surveys else None
    main = main_line(turn.lane, invitation.channel)
    reason = _uninviting(main, thread, invitation, turn.now)
    if survey is None or thread is None or reason:
        turn.records.append(Refused(turn.now, invitation.channel, invitation.id, reason or "unknown_survey"))
        turn.sessions.append((invitation.id, turn.now))
        return
    count_opened(main, policy, turn.now)
    open_invited(turn, thread, survey, invitation)


def _uninviting(main: Line, thread: Thread | None, invitation: Invitation, now: int) -> Refusal | None:
    """Why this person may not be invited now."""
    if main.opted_out_at:
        return "opted_out"
    if thread is None:
        return "already_open"
    if invitation.expires_at and invitation.expires_at <= now:
        return "expired"
    return None


def cancel(turn: Turn, event: Cancel) -> None:
    """Whoever invited wants no more of this session, of which SMS may wait to leave though it is over."""
    turn.withdraw(event.session, "cancelled")
    for line, session in list(open_on(turn.lane, event.channel)):
        if session.id == event.session:
            turn.end(event.channel, line, session, "cancelled")


def opt_out(turn: Turn, stop: Sms | ProviderStop) -> bool:
    """The person wants no more SMS on this channel; False if that was known already."""
    main = main_line(turn.lane, stop.channel)
    if main.opted_out_at:
        return False
    by_provider, source = (True, stop.source) if isinstance(stop, ProviderStop) else (False, "")
    turn.records.append(OptedOut(turn.now, stop.channel, stop.id, stop.text, by_provider, source))
    turn.silence(stop.channel)
    main.opted_out_at = turn.now
    turn.opt_outs[stop.channel] = (turn.now, source or ("provider" if by_provider else "person"))
    for line, session in list(open_on(turn.lane, stop.channel)):
        turn.end(stop.channel, line, session, "stopped")
    return True


def may_be_stop(sms: Sms) -> bool:
    """Is it a STOP, as far as one can say who does not know what was asked?"""
    return sms.handled == "stop" or is_stop(fold_word(sms.text))


def _is_stop(turn: Turn, thread: Thread, sms: Sms, word: str) -> bool:
    return is_stop(word) and not (word in AMBIGUOUS_STOP and _is_answer(turn, thread, sms, _NAMED_OR_YES))


def _stop(turn: Turn, thread: Thread, sms: Sms, policy: ChannelPolicy) -> None:
    turn.heard(sms, thread.session)
    survey = _fixed_texts_of(turn, thread, policy)
    if opt_out(turn, sms) and sms.handled != "stop":
        turn.tell(thread, "stopped", survey)


def _help(turn: Turn, thread: Thread, sms: Sms, policy: ChannelPolicy) -> None:
    turn.heard(sms, thread.session)
    if not thread.main.opted_out_at and sms.handled != "help":
        turn.tell_sometimes(thread, "help", _fixed_texts_of(turn, thread, policy))


def _while_opted_out(
    turn: Turn, thread: Thread, sms: Sms, started: Started | None, policy: ChannelPolicy
) -> None:
    """A START, or what is as good as one, opts in again; if nothing is said in answer, that is."""
    if sms.handled != "start" and not opts_in(sms.text, started):
        turn.heard(sms, thread.session)
        return
    thread.main.opted_out_at = 0
    turn.opt_outs[sms.channel] = (0, "person")
    turn.records.append(OptedIn(turn.now, sms.channel, sms.id))
    decided = len(turn.outbox)
    if started is not None:
        _start(turn, thread, sms, started, policy)
    else:
        turn.heard(sms, thread.session)
    if len(turn.outbox) == decided and sms.handled != "start":
        turn.tell(thread, "opted_in", _fixed_texts_of(turn, thread, policy))


def _start(turn: Turn, thread: Thread, sms: Sms, started: Started, policy: ChannelPolicy) -> None:
    session = thread.session
    if session is not None and (not started.named or turn.survey_of(session).again == "answer"):
        answer_session(turn, sms.channel, thread.line, session, sms)
    elif throttled(thread.main, policy, turn.now):
        _refuse(turn, thread, sms, started.survey, "throttled")
    elif session is None or turn.survey_of(session).again == "restart":
        _open(turn, thread, sms, started, policy)
    else:
        _refuse(turn, thread, sms, started.survey, "already_open")


def _open(turn: Turn, thread: Thread, sms: Sms, started: Started, policy: ChannelPolicy) -> None:
    if reason := refusal(thread, started.survey, policy, turn.now):
        _refuse(turn, thread, sms, started.survey, reason)
        return
    if thread.session is not None:
        turn.end(sms.channel, thread.line, thread.session, "restarted")
    count_opened(thread.main, policy, turn.now)
    open_session(turn, thread, started.survey, started.language, sms)


def _refuse(turn: Turn, thread: Thread, sms: Sms, survey: Survey, reason: Refusal) -> None:
    turn.heard(sms, None)
    turn.records.append(Refused(turn.now, sms.channel, sms.id, reason))
    if reason in ("throttled", "daily_cap"):
        turn.tell_sometimes(thread, "refused", survey, every_ms=DAY_MS)


def _answer(turn: Turn, thread: Thread, sms: Sms, policy: ChannelPolicy) -> None:
    if thread.session is not None:
        answer_session(turn, sms.channel, thread.line, thread.session, sms)
        return
    turn.heard(sms, None)
    turn.tell_sometimes(thread, _late(thread.line), turn.line_survey(thread.line, policy.surveys))


def _late(line: Line) -> FixedText:
    """Which text answers an SMS that no session waits for."""
    match line.ended_how:
        case "completed":
            return "unavailable"
        case "idle" | "expired":
            return "expired"
        case _:
            return "not_found"


def _is_answer(turn: Turn, thread: Thread, sms: Sms, readers: tuple[type[Reader], ...]) -> bool:
    """Does the step that was asked, if it reads with one of `readers`, take this SMS for an answer?"""
    if thread.session is None:
        return False
    step = turn.survey_of(thread.session).steps[thread.session.step]
    return (
        isinstance(step, Ask)
        and isinstance(step.reader, readers)
        and not isinstance(read(step.reader, sms.text, partial(turn.today, sms.channel)), Unread)
    )


def _fixed_texts_of(turn: Turn, thread: Thread, policy: ChannelPolicy) -> Survey | None:
    """The survey whose fixed texts answer: the open session's, else the last one's, else the channel's first."""
    if thread.session is not None:
        return turn.survey_of(thread.session)
    return turn.line_survey(thread.line, policy.surveys)
