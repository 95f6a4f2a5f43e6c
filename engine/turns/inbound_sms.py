"""Applies an inbound SMS: a STOP, else HELP, else what a person who has opted out may do, else a START, else an answer.

Words that the open question itself expects (END, say, or HELP as a choice) are answers. `sms.start` is set by ingest, where
a survey's keyword was recognised; `sms.handled` says what the provider has answered by itself.

A person who opted out gets no SMS until they send START, or YES to being told how to come back. An opt-out holds for
the whole channel, whichever of its numbers was written to.
"""

from functools import partial
from typing import Literal

from engine.answers import InvalidAnswer, read_answer
from engine.model.events import (
    CancelSession,
    InboundEvent,
    InboundSms,
    Invitation,
    OpeningRefused,
    PersonOptedIn,
    PersonOptedOut,
    ProviderStop,
    RefusalReason,
    SmsPart,
)
from engine.model.lane import ChannelLine
from engine.model.policy import ChannelPolicy
from engine.model.text_normalization import fold_word
from engine.surveys.keywords import (
    AMBIGUOUS_HELP_WORDS,
    AMBIGUOUS_STOP_WORDS,
    HELP_WORDS,
    StartMatch,
    is_opt_in,
    is_stop,
    match_start,
)
from engine.surveys.program import FixedText, QuestionStep, Survey
from engine.turns.admission import count_opened_session, refusal_reason, throttle_start
from engine.turns.conversation import answer_session, open_invited_session, open_session
from engine.turns.session_routing import (
    ConversationThread,
    main_line,
    open_sessions,
    route_invitation,
    route_sms,
)
from engine.turns.turn import DAY_MS, Turn


def apply_sms(turn: Turn, sms: InboundSms, policy: ChannelPolicy) -> None:
    """Apply one SMS."""
    started = match_start(sms.text, policy.surveys, turn.surveys) if sms.start else None
    thread = route_sms(turn.lane, sms, policy, starts=started is not None)
    word = fold_word(sms.text)
    if sms.handled == "stop" or _is_stop_here(turn, thread, sms, word):
        _handle_stop(turn, thread, sms, policy)
    elif sms.handled == "help" or (
        word in HELP_WORDS
        and not (word in AMBIGUOUS_HELP_WORDS and _is_readable_answer(turn, thread, sms, "help"))
    ):
        _handle_help(turn, thread, sms, policy)
    elif thread.main.opted_out_at:
        _handle_opted_out(turn, thread, sms, started, policy)
    elif started is not None:
        _handle_start(turn, thread, sms, started, policy)
    else:
        _handle_answer(turn, thread, sms, policy)


def apply_invitation(turn: Turn, invitation: Invitation, policy: ChannelPolicy) -> None:
    """Apply one invitation: open the session, or record why not. It counts against the day's cap but is not refused for
    it, nor for a closed channel: the invitation pacer has checked both."""
    thread = route_invitation(turn.lane, invitation, policy)
    survey = turn.surveys.current(invitation.survey) if invitation.survey in policy.surveys else None
    main = main_line(turn.lane, invitation.channel)
    reason = _invitation_refusal(main, thread, invitation, turn.now)
    if survey is None or thread is None or reason:
        turn.effects.records.append(
            OpeningRefused(
                turn.now, invitation.channel, invitation.id, reason or "unknown_survey", invitation
            )
        )
        turn.effects.sessions.append((invitation.id, turn.now))
        return
    count_opened_session(main, policy, turn.now)
    open_invited_session(turn, thread, survey, invitation)


def _invitation_refusal(
    main: ChannelLine, thread: ConversationThread | None, invitation: Invitation, now: int
) -> RefusalReason | None:
    """Return why this person may not be invited now; None if they may."""
    if main.opted_out_at:
        return "opted_out"
    if thread is None:
        return "already_open"
    if invitation.expires_at and invitation.expires_at <= now:
        return "expired"
    return None


def apply_cancellation(turn: Turn, event: CancelSession) -> None:
    """End the session if it is open, and withdraw its SMS that have not left even if it is over."""
    turn.withdraw_session(event.session, "cancelled")
    for line, session in list(open_sessions(turn.lane, event.channel)):
        if session.id == event.session:
            turn.end_session(event.channel, line, session, "cancelled")


def apply_opt_out(turn: Turn, stop: InboundSms | ProviderStop) -> bool:
    """Opt the person out of the channel: withdraw its unsent SMS and end its sessions. Return False if they were opted out
    before."""
    main = main_line(turn.lane, stop.channel)
    if main.opted_out_at:
        return False
    by_provider, source = (True, stop.source) if isinstance(stop, ProviderStop) else (False, "")
    turn.effects.records.append(
        PersonOptedOut(turn.now, stop.channel, stop.id, stop.text, by_provider, source)
    )
    turn.effects.opt_outs[stop.channel] = (turn.now, source or ("provider" if by_provider else "person"))
    _silence(turn, stop.channel, main)
    return True


def apply_listed_opt_out(turn: Turn, channel: str, source: str) -> None:
    """Let the lane hear of an opt-out that the list has: of a STOP while it could not be read, say. That is on record; what an
    operator lists is recorded by the lane that hears of it, be it from the list or by mail."""
    if source not in ("person", "provider"):
        turn.effects.records.append(PersonOptedOut(turn.now, channel, "", "", True, source))
    _silence(turn, channel, main_line(turn.lane, channel))


def _silence(turn: Turn, channel: str, main: ChannelLine) -> None:
    turn.withdraw_channel(channel)
    main.opted_out_at = turn.now
    for line, session in list(open_sessions(turn.lane, channel)):
        turn.end_session(channel, line, session, "stopped")


def may_be_stop(sms: InboundSms) -> bool:
    """Return whether the SMS may be a STOP, without knowing the question it answers (ambiguous words count)."""
    return sms.handled == "stop" or is_stop(fold_word(sms.text))


def may_opt_out(event: InboundEvent) -> bool:
    """Return whether the event may opt the person out. A part of a long SMS may: who knows what the others say."""
    match event:
        case InboundSms():
            return may_be_stop(event)
        case ProviderStop() | SmsPart():
            return True
        case _:
            return False


def _is_stop_here(turn: Turn, thread: ConversationThread, sms: InboundSms, word: str) -> bool:
    return is_stop(word) and not (
        word in AMBIGUOUS_STOP_WORDS and _is_readable_answer(turn, thread, sms, "stop")
    )


def _handle_stop(turn: Turn, thread: ConversationThread, sms: InboundSms, policy: ChannelPolicy) -> None:
    turn.record_received(sms, thread.session)
    survey = _fixed_texts_of(turn, thread, policy)
    if apply_opt_out(turn, sms) and sms.handled != "stop":
        turn.send_fixed_text(thread, "stopped", survey)


def _handle_help(turn: Turn, thread: ConversationThread, sms: InboundSms, policy: ChannelPolicy) -> None:
    turn.record_received(sms, thread.session)
    if not thread.main.opted_out_at and sms.handled != "help":
        turn.send_fixed_text_rarely(thread, "help", _fixed_texts_of(turn, thread, policy))


def _handle_opted_out(
    turn: Turn, thread: ConversationThread, sms: InboundSms, started: StartMatch | None, policy: ChannelPolicy
) -> None:
    """Opt the person in again if the SMS is a START, or as good as one; confirm it if nothing else is sent in answer."""
    if sms.handled != "start" and not is_opt_in(sms.text, started):
        turn.record_received(sms, thread.session)
        return
    thread.main.opted_out_at = 0
    turn.effects.opt_outs[sms.channel] = (0, "person")
    turn.effects.records.append(PersonOptedIn(turn.now, sms.channel, sms.id))
    decided = len(turn.effects.outbox)
    if started is not None:
        _handle_start(turn, thread, sms, started, policy)
    else:
        turn.record_received(sms, thread.session)
    if len(turn.effects.outbox) == decided and sms.handled != "start":
        turn.send_fixed_text(thread, "opted_in", _fixed_texts_of(turn, thread, policy))


def _handle_start(
    turn: Turn, thread: ConversationThread, sms: InboundSms, started: StartMatch, policy: ChannelPolicy
) -> None:
    session = thread.session
    if session is not None and (not started.names_survey or turn.survey_of(session).again == "answer"):
        answer_session(turn, sms.channel, thread.line, session, sms)
    elif throttle_start(thread.main, policy, turn.now):
        _refuse_start(turn, thread, sms, started.survey, "throttled")
    elif session is None or turn.survey_of(session).again == "restart":
        _admit_start(turn, thread, sms, started, policy)
    else:
        _refuse_start(turn, thread, sms, started.survey, "already_open")


def _admit_start(
    turn: Turn, thread: ConversationThread, sms: InboundSms, started: StartMatch, policy: ChannelPolicy
) -> None:
    if reason := refusal_reason(thread, started.survey, policy, turn.now):
        _refuse_start(turn, thread, sms, started.survey, reason)
        return
    if thread.session is not None:
        turn.end_session(sms.channel, thread.line, thread.session, "restarted")
    count_opened_session(thread.main, policy, turn.now)
    open_session(turn, thread, started.survey, started.language, sms)


def _refuse_start(
    turn: Turn, thread: ConversationThread, sms: InboundSms, survey: Survey, reason: RefusalReason
) -> None:
    turn.record_received(sms, None)
    turn.effects.records.append(OpeningRefused(turn.now, sms.channel, sms.id, reason))
    if reason in ("throttled", "daily_cap"):
        turn.send_fixed_text_rarely(thread, "refused", survey, every_ms=DAY_MS)


def _handle_answer(turn: Turn, thread: ConversationThread, sms: InboundSms, policy: ChannelPolicy) -> None:
    if thread.session is not None:
        answer_session(turn, sms.channel, thread.line, thread.session, sms)
        return
    turn.record_received(sms, None)
    turn.send_fixed_text_rarely(
        thread, _no_session_text(thread.line), turn.fixed_text_survey(thread.line, policy.surveys)
    )


def _no_session_text(line: ChannelLine) -> FixedText:
    """Return which text answers an SMS that no session waits for."""
    match line.ended_how:
        case "completed":
            return "unavailable"
        case "idle" | "expired":
            return "expired"
        case _:
            return "not_found"


def _is_readable_answer(
    turn: Turn, thread: ConversationThread, sms: InboundSms, command: Literal["stop", "help"]
) -> bool:
    """Return whether the current question reads this SMS, an ambiguous word of `command`, as an answer."""
    if thread.session is None:
        return False
    step = turn.survey_of(thread.session).steps[thread.session.step]
    return (
        isinstance(step, QuestionStep)
        and command in step.reader.takes_commands
        and not isinstance(
            read_answer(step.reader, sms.text, partial(turn.local_date, sms.channel)), InvalidAnswer
        )
    )


def _fixed_texts_of(turn: Turn, thread: ConversationThread, policy: ChannelPolicy) -> Survey | None:
    """Return the survey whose fixed texts answer: the open session's, else the last one's, else the channel's first."""
    if thread.session is not None:
        return turn.survey_of(thread.session)
    return turn.fixed_text_survey(thread.line, policy.surveys)
