"""Deadlines of a lane: sessions that fall silent or expire, reminders, and long SMS whose parts do not all come.

Deadlines are applied in time order, each at its own time, before an event that comes after them, so a late alarm
changes nothing. A reminder waits for the end of the channel's quiet hours where the person is; a session that is over
by then is not reminded.
"""

from typing import Literal, assert_never

import msgspec

from engine.model.events import SmsReceived
from engine.model.lane import ChannelLine, PartialSms, Session
from engine.surveys.program import QuestionStep, Survey
from engine.turns.conversation import remind_session
from engine.turns.inbound_sms import apply_sms
from engine.turns.multipart import PARTS_TIMEOUT_MS, join_parts
from engine.turns.session_routing import channel_of_key
from engine.turns.turn import Turn


class SessionDeadline(msgspec.Struct, frozen=True):
    """At `at` (ms), the open session of the line, which the lane has under `key`, comes to `kind`."""

    at: int
    key: str
    line: ChannelLine
    session: Session
    kind: Literal["idle", "expired", "remind"]


class PartsDeadline(msgspec.Struct, frozen=True):
    """At `at` (ms), the parts of a long SMS that have come are taken as the whole."""

    at: int
    gathered: PartialSms


def next_deadline(turn: Turn) -> SessionDeadline | PartsDeadline | None:
    """Return the lane's earliest deadline; None if it has none."""
    first: SessionDeadline | PartsDeadline | None = None
    for key, line in turn.lane.lines.items():
        if line.session is not None:
            deadline = _next_session_deadline(turn, key, line, line.session)
            if first is None or deadline.at < first.at:
                first = deadline
    for gathered in turn.lane.partial_sms:
        overdue = PartsDeadline(gathered.first_part_at + PARTS_TIMEOUT_MS, gathered)
        if first is None or overdue.at < first.at:
            first = overdue
    return first


def apply_due_deadlines(turn: Turn, until: int) -> None:
    """Apply every deadline that is due at `until` (ms) or before."""
    while (deadline := next_deadline(turn)) is not None and deadline.at <= until:
        turn.begin_event(max(turn.lane.clock, deadline.at))
        match deadline:
            case SessionDeadline():
                _apply_session_deadline(turn, deadline)
            case PartsDeadline(gathered=gathered):
                turn.lane.partial_sms.remove(gathered)
                apply_joined_parts(turn, gathered)
            case _:
                assert_never(deadline)


def apply_joined_parts(turn: Turn, gathered: PartialSms) -> None:
    """Join the parts that have come, and apply them as one SMS at the turn's time."""
    policy = turn.policy.get(gathered.channel)
    sms = join_parts(gathered, policy.surveys if policy is not None else (), turn.surveys)
    turn.begin_event(turn.now, sms.id)
    if policy is not None:
        apply_sms(turn, sms, policy)
    else:  # the channel has been taken out of the settings meanwhile
        turn.effects.records.append(
            SmsReceived(
                turn.now,
                sms.channel,
                "",
                sms.id,
                sms.text,
                originator=sms.originator,
                attachments=sms.attachments,
            )
        )


def session_expires_after(session: Session, survey: Survey) -> int:
    """Return the last moment (ms) at which the session may be open: the invitation's expiry, else the survey's `expires`."""
    return session.expires_at or session.opened_at + survey.expires_ms


def _apply_session_deadline(turn: Turn, due: SessionDeadline) -> None:
    channel = channel_of_key(due.key)
    if due.kind == "remind":
        remind_session(turn, channel, due.line, due.session)
    else:
        turn.end_session(channel, due.line, due.session, due.kind)


def session_deadlines(turn: Turn, key: str, line: ChannelLine, session: Session) -> list[SessionDeadline]:
    """Return the deadlines of the line's open session, earliest first, as if nobody wrote: expiry, idleness, and the next
    reminder. Those behind the first end are for display."""
    survey = turn.survey_of(session)
    expires_at = session_expires_after(session, survey) + 1
    ahead = [SessionDeadline(expires_at, key, line, session, "expired")]
    if survey.idle_ms is not None:
        ahead.append(SessionDeadline(session.last_sms_at + survey.idle_ms + 1, key, line, session, "idle"))
    first = _next_session_deadline(turn, key, line, session)
    if first.kind == "remind":
        ahead.append(first)
    return sorted(ahead, key=lambda each: (each.at, each.kind != first.kind))


def _next_session_deadline(turn: Turn, key: str, line: ChannelLine, session: Session) -> SessionDeadline:
    """Return the session's earliest deadline. It is over when more than `idle` or `expires` has gone by; on a tie, that
    comes before a reminder."""
    survey = turn.survey_of(session)
    expires_at = session_expires_after(session, survey) + 1
    idle_at = expires_at + 1 if survey.idle_ms is None else session.last_sms_at + survey.idle_ms + 1
    over_at = min(idle_at, expires_at)
    step = survey.steps[session.step]
    if isinstance(step, QuestionStep) and (remind := step.remind) and session.reminders_sent < remind.times:
        remind_at = session.asked_at + remind.after_ms
        if remind_at < over_at:
            remind_at = _after_quiet_hours(turn, channel_of_key(key), remind_at)
        if remind_at < over_at:
            return SessionDeadline(remind_at, key, line, session, "remind")
    return SessionDeadline(over_at, key, line, session, "idle" if idle_at <= expires_at else "expired")


def _after_quiet_hours(turn: Turn, channel: str, at: int) -> int:
    policy = turn.policy.get(channel)
    if policy is None or policy.quiet is None:
        return at
    return policy.quiet.next_awake_at(turn.sender, at, policy.timezone)
