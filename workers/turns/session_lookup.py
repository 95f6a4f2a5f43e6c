"""What does an event meet? The lane as an operator may see it, and the session that is open where the event belongs."""

import msgspec

from engine.model import lane as lane_format
from engine.model.events import Inbound, Invitation, Part, Sms
from engine.model.lane import Lane, Line, Session
from engine.model.policy import Policy
from engine.surveys.keywords import survey_started
from engine.surveys.survey_registry import Surveys
from engine.turns.session_routing import heard_on, key_of, main_line


class Met(msgspec.Struct, frozen=True):
    """`state` is the lane without what tells copies from news. `line` is where the event belongs, None for one that
    belongs to no line; `survey` is that of its session, or the one that the event asks for."""

    state: bytes
    line: Line | None
    survey: str

    @property
    def session(self) -> Session | None:
        return self.line.session if self.line is not None else None


def met(lane: Lane, event: Inbound | None, surveys: Surveys, policy: Policy) -> Met:
    """What `event` (None: a deadline) meets in `lane`. Raises KeyError for a channel that is not known."""
    state = lane_format.encode(msgspec.structs.replace(lane, seen={}, gathered=[]))
    line = line_of(lane_format.decode(state), event, surveys, policy)
    session = line.session if line is not None else None
    return Met(state, line, session.survey if session is not None else _asked_for(event, surveys, policy))


def line_of(lane: Lane, event: Inbound | None, surveys: Surveys, policy: Policy) -> Line | None:
    """The line that a person's event belongs to. May change `lane`."""
    match event:
        case Sms():
            starts = event.start and _started(event, surveys, policy) is not None
            return heard_on(lane, event, policy[event.channel], starts=starts).line
        case Part():
            whole = Sms(event.id, event.channel, event.text, originator=event.originator)
            return heard_on(lane, whole, policy[event.channel], starts=False).line
        case Invitation():
            return lane.lines.get(key_of(event.channel, event.originator)) or main_line(lane, event.channel)
        case _:
            return None


def _asked_for(event: Inbound | None, surveys: Surveys, policy: Policy) -> str:
    match event:
        case Invitation(survey=survey):
            return survey
        case Sms(start=True):
            return _started(event, surveys, policy) or ""
        case _:
            return ""


def _started(sms: Sms, surveys: Surveys, policy: Policy) -> str | None:
    started = survey_started(sms.text, policy[sms.channel].surveys, surveys)
    return started.survey.name if started is not None else None
