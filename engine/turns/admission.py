"""Checks whether a START may open a session, by what the lane and its channel's policy say: throttled,
cooldown, daily_cap, closed, in this order.

`inbound_sms._handle_start` asks, and refuses. Limits that span senders are checked by `ChannelStore.admit_sessions`;
here they are ChannelPolicy.closed.
"""

from datetime import UTC, datetime

from engine.model.events import RefusalReason, SessionEnding
from engine.model.lane import ChannelLine
from engine.model.policy import ChannelPolicy
from engine.surveys.program import Survey
from engine.surveys.survey_registry import SurveyRegistry
from engine.turns.session_routing import ConversationThread

_COOLDOWN_ENDINGS: tuple[SessionEnding, ...] = ("completed", "exhausted")
"""The ends after which a START has to cool down. Who was silent for too long, could not be read, or said STOP, may begin at
once."""


def throttle_start(line: ChannelLine, policy: ChannelPolicy, now: int) -> bool:
    """Count one START against the throttle, and return True if it is one too many (which is not counted). GCRA:
    `throttle_at` alone holds the bucket."""
    if not policy.start_burst or not policy.start_per_minute:
        return False
    spacing_ms = _spacing_ms(policy)
    if line.throttle_at - (policy.start_burst - 1) * spacing_ms > now:
        return True
    line.throttle_at = max(line.throttle_at, now) + spacing_ms
    return False


def throttle_allowance(line: ChannelLine, policy: ChannelPolicy, now: int) -> tuple[int, int] | None:
    """Return (STARTs that the throttle passes at `now`, when it passes the next one in ms); None if there is no throttle.
    Counts nothing."""
    if not policy.start_burst or not policy.start_per_minute:
        return None
    spacing_ms = _spacing_ms(policy)
    used_ms = max(0, line.throttle_at - now)
    left = max(0, (policy.start_burst * spacing_ms - used_ms) // spacing_ms)
    return left, max(now, line.throttle_at - (policy.start_burst - 1) * spacing_ms)


def _spacing_ms(policy: ChannelPolicy) -> int:
    return round(60_000 / policy.start_per_minute)


def refusal_reason(
    thread: ConversationThread, survey: Survey, policy: ChannelPolicy, now: int
) -> RefusalReason | None:
    """Return why `survey` may not open on `thread` now; None if it may."""
    line, main = thread.line, thread.main
    if now <= cooldown_until(line, survey):
        return "cooldown"
    cap = policy.sessions_per_sender_per_day
    if cap and sessions_opened_today(main, policy, now) >= cap:
        return "daily_cap"
    return policy.closed


def cooldown_until(line: ChannelLine, survey: Survey) -> int:
    """Return the last moment (ms) at which the cooldown keeps `survey` from opening again on the line; 0 if there is none. It is
    the survey's own: what else the person completed does not count, and a session of it that is open may begin anew."""
    is_open = line.session is not None and line.session.survey == survey.name
    completed_at = _completed_at(line).get(survey.name, 0)
    return completed_at + survey.cooldown_ms if completed_at and survey.cooldown_ms and not is_open else 0


def keep_cooldowns(line: ChannelLine, surveys: SurveyRegistry, now: int) -> None:
    """Keep what the line knows of cooldowns that are not over, before another session's end takes the last one's place."""
    line.cooling = {
        name: at
        for name, at in _completed_at(line).items()
        if (survey := surveys.current(name)) is not None and now <= at + survey.cooldown_ms
    }


def cooldowns_end_at(line: ChannelLine, surveys: SurveyRegistry) -> int:
    """Return when (ms) the last cooldown of the line is over; 0 if there is none."""
    known = filter(None, map(surveys.current, _completed_at(line)))
    return max((cooldown_until(line, survey) for survey in known), default=0)


def _completed_at(line: ChannelLine) -> dict[str, int]:
    """Map each survey that the person completed on the line to when, as far as its cooldown is not known to be over."""
    last = {line.ended_survey: line.ended_at} if line.ended_how in _COOLDOWN_ENDINGS else {}
    return {**line.cooling, **last}


def sessions_opened_today(line: ChannelLine, policy: ChannelPolicy, now: int) -> int:
    """Return how many sessions have opened on the day of `now`."""
    return line.opened_today if line.counted_day == calendar_day(now, policy) else 0


def count_opened_session(line: ChannelLine, policy: ChannelPolicy, now: int) -> None:
    """Count an opened session against the day's cap."""
    today = calendar_day(now, policy)
    if line.counted_day != today:
        line.counted_day, line.opened_today = today, 0
    line.opened_today += 1


def calendar_day(now: int, policy: ChannelPolicy) -> int:
    """Return the ordinal of the calendar day on which `now` falls where the channel is."""
    return datetime.fromtimestamp(now / 1000, UTC).astimezone(policy.timezone).toordinal()
