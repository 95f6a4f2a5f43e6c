"""What is due though nobody writes? A session's silence, its absolute end, its reminders; parts that stayed alone.

Deadlines are applied in time order, each at its own time, before an event that comes after them. So it makes no
difference whether the alarm rang in time. A reminder waits for the end of the channel's quiet hours where the person
is; a session that is over by then is not reminded.
"""

from typing import Literal, assert_never

import msgspec

from engine.model.events import Heard
from engine.model.lane import Gathered, Line, Session
from engine.surveys.program import Ask, Survey
from engine.turns.conversation import remind_session
from engine.turns.inbound_sms import hear
from engine.turns.multipart import PATIENCE_MS, joined
from engine.turns.session_routing import channel_of
from engine.turns.turn import Turn


class Deadline(msgspec.Struct, frozen=True):
    """At `at` (ms), the open session of the line, which the lane has under `key`, comes to `what`."""

    at: int
    key: str
    line: Line
    session: Session
    what: Literal["idle", "expired", "remind"]


class Overdue(msgspec.Struct, frozen=True):
    """At `at` (ms), no more parts are waited for."""

    at: int
    gathered: Gathered


def next_of(turn: Turn) -> Deadline | Overdue | None:
    """The lane's earliest deadline."""
    first: Deadline | Overdue | None = None
    for key, line in turn.lane.lines.items():
        if line.session is not None:
            deadline = _deadline(turn, key, line, line.session)
            if first is None or deadline.at < first.at:
                first = deadline
    for gathered in turn.lane.gathered:
        overdue = Overdue(gathered.since + PATIENCE_MS, gathered)
        if first is None or overdue.at < first.at:
            first = overdue
    return first


def apply_due(turn: Turn, until: int) -> None:
    """Apply every deadline that is due at `until` (ms) or before."""
    while (deadline := next_of(turn)) is not None and deadline.at <= until:
        turn.begin(max(turn.lane.clock, deadline.at))
        match deadline:
            case Deadline():
                _apply(turn, deadline)
            case Overdue(gathered=gathered):
                turn.lane.gathered.remove(gathered)
                hear_gathered(turn, gathered)
            case _:
                assert_never(deadline)


def hear_gathered(turn: Turn, gathered: Gathered) -> None:
    """Apply what parts have come as one SMS, now."""
    policy = turn.policy.get(gathered.channel)
    sms = joined(gathered, policy.surveys if policy is not None else (), turn.surveys)
    turn.begin(turn.now, sms.id)
    if policy is not None:
        hear(turn, sms, policy)
    else:  # the channel has been taken out of the settings meanwhile
        turn.records.append(Heard(turn.now, sms.channel, "", sms.id, sms.text, originator=sms.originator))


def expires_after(session: Session, survey: Survey) -> int:
    """The last moment (ms) of a session, however lively it is: its invitation's, or else the survey's."""
    return session.expires_at or session.opened_at + survey.expires_ms


def _apply(turn: Turn, due: Deadline) -> None:
    channel = channel_of(due.key)
    if due.what == "remind":
        remind_session(turn, channel, due.line, due.session)
    else:
        turn.end(channel, due.line, due.session, due.what)


def ahead_of(turn: Turn, key: str, line: Line, session: Session) -> list[Deadline]:
    """All that the line's open session comes to if nobody writes, and when: what comes first is first. After an end
    there is nothing, but which end comes second is told too."""
    survey = turn.survey_of(session)
    expires_at = expires_after(session, survey) + 1
    ahead = [Deadline(expires_at, key, line, session, "expired")]
    if survey.idle_ms is not None:
        ahead.append(Deadline(session.touched_at + survey.idle_ms + 1, key, line, session, "idle"))
    first = _deadline(turn, key, line, session)
    if first.what == "remind":
        ahead.append(first)
    return sorted(ahead, key=lambda each: (each.at, each.what != first.what))


def _deadline(turn: Turn, key: str, line: Line, session: Session) -> Deadline:
    """A session is over when more than `idle` or `expires` has gone by; on a tie, that comes before a reminder."""
    survey = turn.survey_of(session)
    expires_at = expires_after(session, survey) + 1
    idle_at = expires_at + 1 if survey.idle_ms is None else session.touched_at + survey.idle_ms + 1
    over_at = min(idle_at, expires_at)
    step = survey.steps[session.step]
    if isinstance(step, Ask) and (remind := step.remind) and session.reminded < remind.times:
        remind_at = session.asked_at + remind.after_ms
        if remind_at < over_at:
            remind_at = _awake_at(turn, channel_of(key), remind_at)
        if remind_at < over_at:
            return Deadline(remind_at, key, line, session, "remind")
    return Deadline(over_at, key, line, session, "idle" if idle_at <= expires_at else "expired")


def _awake_at(turn: Turn, channel: str, at: int) -> int:
    policy = turn.policy.get(channel)
    if policy is None or policy.quiet is None:
        return at
    return policy.quiet.awake_at(turn.sender, at, policy.timezone)
