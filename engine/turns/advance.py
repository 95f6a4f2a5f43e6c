"""The engine's one door: `advance` applies events, or due deadlines, to a lane.

No clock, no randomness, no I/O: the same lane, mail, now, surveys and policy give the same bytes. Time is that of
the events; a lane's time never runs backwards.
"""

from collections.abc import Mapping, Sequence
from typing import assert_never

from engine.model.effects import Effects
from engine.model.events import (
    CancelSession,
    DeliveryReceipt,
    InboundSms,
    Invitation,
    Mail,
    ProviderStop,
    SmsPart,
)
from engine.model.lane import Lane
from engine.model.policy import ChannelPolicies, ChannelPolicy
from engine.surveys.survey_registry import SurveyRegistry
from engine.turns.admission import cooldowns_end_at
from engine.turns.deadlines import (
    apply_due_deadlines,
    apply_joined_parts,
    next_deadline,
    session_expires_after,
)
from engine.turns.inbound_sms import (
    apply_cancellation,
    apply_invitation,
    apply_listed_opt_out,
    apply_opt_out,
    apply_sms,
    may_be_stop,
)
from engine.turns.multipart import collect_part
from engine.turns.receipts import apply_receipt
from engine.turns.turn import DAY_MS, HOUR_MS, Turn, UnknownChannelError, UnknownVersionError

__all__ = [
    "ChannelPolicies",
    "ChannelPolicy",
    "UnknownChannelError",
    "UnknownVersionError",
    "advance",
    "apply_stop_only",
    "missing_survey_versions",
]

ListedOptOut = tuple[int, str]
"""What the list of opt-outs says of a channel: since when (ms), and by whose word, as in Effects.opt_outs."""

_MOST_APPLIED_EVENTS = 128
_LANE_KEPT_MS = 48 * HOUR_MS


def advance(
    lane: Lane,
    sender: str,
    mail: Sequence[Mail],
    now: int,
    surveys: SurveyRegistry,
    policy: ChannelPolicies,
    *,
    hold_deadlines: bool = False,
    opted_out: Mapping[str, ListedOptOut] = {},
) -> Effects:
    """Apply `mail` in order, or, if there is none, the deadlines that are due at `now` (ms). Changes `lane`.

    `hold_deadlines`: no deadline is applied, as nobody knows what time it is; mail is. `opted_out` is what the list of
    opt-outs says, by channel: what the lane does not know of it counts as mail of that time. Raises UnknownVersionError and
    UnknownChannelError.
    """
    turn = Turn(lane, sender, surveys, policy, now)
    unheard = _unheard_opt_outs(lane, opted_out) if opted_out else {}
    for each in mail:
        if unheard:
            _hear_opt_outs(turn, unheard, each.at)
        _apply_mail(turn, each, hold_deadlines=hold_deadlines)
    if unheard:
        _hear_opt_outs(turn, unheard)
    if not mail and not hold_deadlines:
        apply_due_deadlines(turn, now)
    deadline = next_deadline(turn)
    turn.effects.alarm = deadline.at if deadline is not None else 0
    turn.effects.keep_until = _keep_lane_until(turn, now)
    turn.effects.has_open = _has_open(lane)
    return turn.effects


def apply_stop_only(lane: Lane, sender: str, mail: Mail) -> Effects | None:
    """Apply `mail` if it is a new STOP, or may be one, to a lane that cannot be advanced; return None for any other
    mail. Uses no survey, so it sends nothing, and sets no alarm. Changes `lane`."""
    event = mail.event
    if not (isinstance(event, ProviderStop) or (isinstance(event, InboundSms) and may_be_stop(event))):
        return None
    if event.id in lane.applied_events:
        return None
    turn = Turn(lane, sender, SurveyRegistry(), {})
    turn.begin_event(max(lane.clock, mail.at), event.id)
    if isinstance(event, InboundSms):
        turn.record_received(event, None)
    apply_opt_out(turn, event)
    _mark_applied(turn, event.id)
    if not _has_open(lane):
        turn.effects.keep_until = lane.clock + _LANE_KEPT_MS
    return turn.effects


def missing_survey_versions(lane: Lane, surveys: SurveyRegistry) -> set[str]:
    """Return the survey versions of open sessions that `surveys` lacks."""
    pinned = {line.session.version for line in lane.lines.values() if line.session is not None}
    return {version for version in pinned if surveys.by_version(version) is None}


def _unheard_opt_outs(lane: Lane, opted_out: Mapping[str, ListedOptOut]) -> dict[str, ListedOptOut]:
    known = {channel for channel, line in lane.lines.items() if line.opted_out_at}
    return {channel: listed for channel, listed in opted_out.items() if channel not in known}


def _hear_opt_outs(turn: Turn, unheard: dict[str, ListedOptOut], before: int | None = None) -> None:
    """Apply what was said before `before` (ms), and take it out of `unheard`. What this turn's mail has said is later."""
    for channel, (at, source) in list(unheard.items()):
        if before is not None and at >= before:
            continue
        del unheard[channel]
        if channel not in turn.effects.opt_outs:
            turn.begin_event(max(turn.lane.clock, min(at, turn.called_at)))
            apply_listed_opt_out(turn, channel, source)


def _apply_mail(turn: Turn, mail: Mail, *, hold_deadlines: bool) -> None:
    event = mail.event
    if event.id in turn.lane.applied_events or event.id in turn.effects.displaced_events:
        turn.effects.duplicates += 1
        return
    if not isinstance(
        event, CancelSession
    ):  # a session can be ended on a channel that is not configured any more
        turn.channel_policy(event.channel)
    now = max(turn.lane.clock, mail.at)
    if not hold_deadlines:
        apply_due_deadlines(turn, mail.at)  # the lane's time may be ahead, of a clock that was
    turn.begin_event(now, event.id, mail.at, unasked=type(event) is Invitation)
    match event:
        case InboundSms():
            apply_sms(turn, event, turn.channel_policy(event.channel))
        case SmsPart():
            for gathered in collect_part(turn.lane, event, now):
                apply_joined_parts(turn, gathered)
        case Invitation():
            apply_invitation(turn, event, turn.channel_policy(event.channel))
        case CancelSession():
            apply_cancellation(turn, event)
        case ProviderStop():
            apply_opt_out(turn, event)
        case DeliveryReceipt():
            apply_receipt(turn, event)
            return  # what is known of an SMS tells copies from news
        case _:
            assert_never(event)
    _mark_applied(turn, event.id)


def _mark_applied(turn: Turn, event: str) -> None:
    """Remember that the event is applied, in the place of the oldest if the lane has no more room: whoever commits the turn
    remembers that one elsewhere."""
    applied = turn.lane.applied_events
    applied[event] = turn.lane.clock
    while len(applied) > _MOST_APPLIED_EVENTS:
        oldest = next(iter(applied))
        turn.effects.displaced_events[oldest] = applied.pop(oldest)


def _has_open(lane: Lane) -> bool:
    return bool(lane.partial_sms) or any(line.session is not None for line in lane.lines.values())


def _keep_lane_until(turn: Turn, now: int) -> int:
    """Return until when (ms) the lane must be kept: two days from now, longer than any cap looks back, a day past the
    last session deadline, and as long as a cooldown lasts. Opt-outs do not count: the list of opt-outs has them. Whoever
    stores it keeps it for as long as it is to know repeated events, too."""
    until = max(turn.lane.clock, now) + _LANE_KEPT_MS
    for line in turn.lane.lines.values():
        until = max(until, cooldowns_end_at(line, turn.surveys))
        if line.session is not None:
            until = max(until, session_expires_after(line.session, turn.survey_of(line.session)) + DAY_MS)
    return until
