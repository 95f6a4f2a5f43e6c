"""What is due though nobody writes? A session's silence, its absolute end, its reminders.

Deadlines are applied in time order, each at its own time, before an event that comes after them. So it makes no
difference whether the alarm rang in time.
"""

from typing import Literal

import msgspec

from engine.conversation import remind_session
from engine.lane import Line, Session
from engine.program import Ask, Survey
from engine.turn import Turn


class Deadline(msgspec.Struct, frozen=True):
    """At `at` (ms), the line's open session comes to `what`."""

    at: int
    channel: str
    line: Line
    session: Session
    what: Literal["idle", "expired", "remind"]


def next_of(turn: Turn) -> Deadline | None:
    """The lane's earliest deadline."""
    first: Deadline | None = None
    for channel, line in turn.lane.lines.items():
        if line.session is not None:
            deadline = _deadline(channel, line, line.session, turn.survey_of(line.session))
            if first is None or deadline.at < first.at:
                first = deadline
    return first


def apply_due(turn: Turn, until: int) -> None:
    """Apply every deadline that is due at `until` (ms) or before."""
    while (deadline := next_of(turn)) is not None and deadline.at <= until:
        turn.begin(max(turn.lane.clock, deadline.at))
        _apply(turn, deadline)


def expires_after(session: Session, survey: Survey) -> int:
    """The last moment (ms) of a session, however lively it is: its invitation's, or else the survey's."""
    return session.expires_at or session.opened_at + survey.expires_ms


def _apply(turn: Turn, due: Deadline) -> None:
    if due.what == "remind":
        remind_session(turn, due.channel, due.line, due.session)
    else:
        turn.end(due.channel, due.line, due.session, due.what)


def _deadline(channel: str, line: Line, session: Session, survey: Survey) -> Deadline:
    """A session is over when more than `idle` or `expires` has gone by; on a tie, that comes before a reminder."""
    expires_at = expires_after(session, survey) + 1
    idle_at = expires_at + 1 if survey.idle_ms is None else session.touched_at + survey.idle_ms + 1
    over_at = min(idle_at, expires_at)
    step = survey.steps[session.step]
    if isinstance(step, Ask) and (remind := step.remind) and session.reminded < remind.times:
        remind_at = session.asked_at + remind.after_ms
        if remind_at < over_at:
            return Deadline(remind_at, channel, line, session, "remind")
    return Deadline(over_at, channel, line, session, "idle" if idle_at <= expires_at else "expired")
