"""The engine's one door: what becomes of a lane when these events have come in.

No clock, no randomness, no I/O: the same lane, mail, now, surveys and policy give the same bytes. Time is that of
the events; a lane's time never runs backwards.
"""

from collections.abc import Sequence
from typing import assert_never

import msgspec

from engine.model.events import (
    ArchiveRecord,
    CancelSession,
    DeliveryReceipt,
    InboundSms,
    Invitation,
    Mail,
    OutboundSms,
    ProviderStop,
    SmsPart,
)
from engine.model.lane import Lane
from engine.model.policy import ChannelPolicies, ChannelPolicy
from engine.surveys.survey_registry import SurveyRegistry
from engine.turns.deadlines import (
    apply_due_deadlines,
    apply_joined_parts,
    next_deadline,
    session_expires_after,
)
from engine.turns.inbound_sms import (
    apply_cancellation,
    apply_invitation,
    apply_opt_out,
    apply_sms,
    may_be_stop,
)
from engine.turns.multipart import collect_part
from engine.turns.receipts import apply_receipt
from engine.turns.turn import DAY_MS, HOUR_MS, Turn, UnknownChannelError, UnknownVersionError, WithdrawalCode

__all__ = [
    "ChannelPolicies",
    "ChannelPolicy",
    "Effects",
    "UnknownChannelError",
    "UnknownVersionError",
    "advance",
    "apply_stop_only",
    "missing_survey_versions",
]

_DUPLICATES_KNOWN_MS = DAY_MS
_MOST_APPLIED_EVENTS = 128
_LANE_KEPT_MS = 48 * HOUR_MS


class Effects(msgspec.Struct):
    """What is to be committed, all of it or nothing.

    `alarm` (ms) is when `advance` wants to be called though no SMS comes; it may lie in the past. `silenced` are
    channels whose queued, unsent SMS are withdrawn in the same commit, `withdrawn` are sessions whose are, and why;
    `outbox` leaves after that. `sessions` are (id, since when in ms) of those that opened, and of invitations that opened
    none; `opened` counts by channel those that an SMS opened, as invitations have their permits already. `opt_outs` are
    channel -> (since when in ms, or 0: in again; by whose word: "person", "provider", or an operator's list). From
    `keep_until` (ms) on the lane may be forgotten. `duplicates` counts mail that had been applied before.
    """

    lane: Lane
    outbox: list[OutboundSms]
    records: list[ArchiveRecord]
    alarm: int | None
    silenced: list[str]
    withdrawn: dict[str, WithdrawalCode]
    sessions: list[tuple[str, int]]
    opened: dict[str, int]
    opt_outs: dict[str, tuple[int, str]]
    keep_until: int
    duplicates: int


def advance(
    lane: Lane, sender: str, mail: Sequence[Mail], now: int, surveys: SurveyRegistry, policy: ChannelPolicies
) -> Effects:
    """Apply `mail` in order, or, if there is none, the deadlines that are due at `now` (ms). Changes `lane`.

    Raises UnknownVersion and UnknownChannel.
    """
    turn = Turn(lane, sender, surveys, policy, now)
    for each in mail:
        _apply_mail(turn, each)
    if not mail:
        apply_due_deadlines(turn, now)
    deadline = next_deadline(turn)
    return Effects(
        lane=lane,
        outbox=turn.outbox,
        records=turn.records,
        alarm=deadline.at if deadline is not None else None,
        silenced=turn.silenced,
        withdrawn=turn.withdrawn,
        sessions=turn.sessions,
        opened=turn.opened,
        opt_outs=turn.opt_outs,
        keep_until=_keep_lane_until(turn, now),
        duplicates=turn.duplicates,
    )


def apply_stop_only(lane: Lane, sender: str, mail: Mail) -> Effects | None:
    """Apply `mail` to a lane that cannot be advanced, if it is a STOP, or a word that may be one, and new. No survey is
    asked, so nothing is said, and `alarm` and `keep_until` mean nothing. Changes `lane`."""
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
    _mark_applied(lane, event.id)
    return Effects(
        lane=lane,
        outbox=[],
        records=turn.records,
        alarm=None,
        silenced=turn.silenced,
        withdrawn=turn.withdrawn,
        sessions=[],
        opened={},
        opt_outs=turn.opt_outs,
        keep_until=0,
        duplicates=0,
    )


def missing_survey_versions(lane: Lane, surveys: SurveyRegistry) -> set[str]:
    """The versions that open sessions are pinned to and `surveys` does not know."""
    pinned = {line.session.version for line in lane.lines.values() if line.session is not None}
    return {version for version in pinned if surveys.by_version(version) is None}


def _apply_mail(turn: Turn, mail: Mail) -> None:
    event = mail.event
    if event.id in turn.lane.applied_events:
        turn.duplicates += 1
        return
    policy = turn.channel_policy(event.channel)
    now = max(turn.lane.clock, mail.at)
    apply_due_deadlines(turn, now)
    turn.begin_event(now, event.id, mail.at, unasked=type(event) is Invitation)
    match event:
        case InboundSms():
            apply_sms(turn, event, policy)
        case SmsPart():
            for gathered in collect_part(turn.lane, event, now):
                apply_joined_parts(turn, gathered)
        case Invitation():
            apply_invitation(turn, event, policy)
        case CancelSession():
            apply_cancellation(turn, event)
        case ProviderStop():
            apply_opt_out(turn, event)
        case DeliveryReceipt():
            apply_receipt(turn, event)
            return  # what is known of an SMS tells copies from news
        case _:
            assert_never(event)
    _mark_applied(turn.lane, event.id)


def _mark_applied(lane: Lane, event: str) -> None:
    """Note that the event is applied, and forget those so old that no provider sends them again."""
    lane.applied_events[event] = lane.clock
    horizon = lane.clock - _DUPLICATES_KNOWN_MS
    while True:
        oldest = next(iter(lane.applied_events))
        if lane.applied_events[oldest] >= horizon and len(lane.applied_events) <= _MOST_APPLIED_EVENTS:
            return
        del lane.applied_events[oldest]


def _keep_lane_until(turn: Turn, now: int) -> int:
    """Two days from now, longer than any cap or repetition looks back, and a day after the last deadline. An opt-out
    need not be kept here: the list of opt-outs has it."""
    until = max(turn.lane.clock, now) + _LANE_KEPT_MS
    for line in turn.lane.lines.values():
        if line.session is not None:
            until = max(until, session_expires_after(line.session, turn.survey_of(line.session)) + DAY_MS)
    return until
