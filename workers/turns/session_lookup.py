"""Finds what an event meets: the lane as an operator may see it, and the session that is open where the event belongs."""

import msgspec

from engine.model import lane as lane_format
from engine.model.events import InboundEvent, InboundSms, Invitation, SmsPart
from engine.model.lane import ChannelLine, Lane, Session
from engine.model.policy import ChannelPolicies
from engine.surveys.keywords import match_start
from engine.surveys.survey_registry import SurveyRegistry
from engine.turns.session_routing import line_key, main_line, route_sms


class LaneAtFailure(msgspec.Struct, frozen=True):
    """The lane at the moment an event failed. `state` is encoded without the ids of applied events and without parts of
    long SMS; `line` is the one that the event belongs to (None: none); `survey` is its session's, or the one that the
    event would start."""

    state: bytes
    line: ChannelLine | None
    survey: str

    @property
    def session(self) -> Session | None:
        return self.line.session if self.line is not None else None


def lane_at_failure(
    lane: Lane, event: InboundEvent | None, surveys: SurveyRegistry, policy: ChannelPolicies
) -> LaneAtFailure:
    """Describe `lane` as `event` (None: a deadline) found it. Raises KeyError for an unknown channel."""
    state = lane_format.encode_lane(msgspec.structs.replace(lane, applied_events={}, partial_sms=[]))
    line = line_of_event(lane_format.decode_lane(state), event, surveys, policy)
    session = line.session if line is not None else None
    return LaneAtFailure(
        state, line, session.survey if session is not None else _requested_survey(event, surveys, policy)
    )


def line_of_event(
    lane: Lane, event: InboundEvent | None, surveys: SurveyRegistry, policy: ChannelPolicies
) -> ChannelLine | None:
    """Return the line that a person's event belongs to; None for any other event. May change `lane`."""
    match event:
        case InboundSms():
            starts = event.start and _started_survey(event, surveys, policy) is not None
            return route_sms(lane, event, policy[event.channel], starts=starts).line
        case SmsPart():
            whole = InboundSms(event.id, event.channel, event.text, originator=event.originator)
            return route_sms(lane, whole, policy[event.channel], starts=False).line
        case Invitation():
            return lane.lines.get(line_key(event.channel, event.originator)) or main_line(lane, event.channel)
        case _:
            return None


def _requested_survey(event: InboundEvent | None, surveys: SurveyRegistry, policy: ChannelPolicies) -> str:
    match event:
        case Invitation(survey=survey):
            return survey
        case InboundSms(start=True):
            return _started_survey(event, surveys, policy) or ""
        case _:
            return ""


def _started_survey(sms: InboundSms, surveys: SurveyRegistry, policy: ChannelPolicies) -> str | None:
    started = match_start(sms.text, policy[sms.channel].surveys, surveys)
    return started.survey.name if started is not None else None
