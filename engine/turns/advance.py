"""The engine's one door: what becomes of a lane when these events have come in.

No clock, no randomness, no I/O: the same lane, mail, now, surveys and policy give the same bytes. Time is that of
the events; a lane's time never runs backwards.
"""

from collections.abc import Sequence
from typing import assert_never

import msgspec

from engine.model.events import (
    Cancel,
    Invitation,
    Mail,
    Outbound,
    Part,
    ProviderStop,
    Receipt,
    Record,
    Sms,
)
from engine.model.lane import Lane
from engine.model.policy import ChannelPolicy, Policy
from engine.surveys.survey_registry import Surveys
from engine.turns.deadlines import apply_due, expires_after, hear_gathered, next_of
from engine.turns.inbound_sms import cancel, hear, invite, may_be_stop, opt_out
from engine.turns.multipart import gather
from engine.turns.receipts import receive
from engine.turns.turn import DAY_MS, HOUR_MS, Turn, UnknownChannel, UnknownVersion, Withdrawal

__all__ = [
    "Advance",
    "ChannelPolicy",
    "Policy",
    "UnknownChannel",
    "UnknownVersion",
    "advance",
    "missing_versions",
    "stop_alone",
]

_SEEN_MS = DAY_MS
_MOST_SEEN = 128
_REMEMBERED_MS = 48 * HOUR_MS


class Advance(msgspec.Struct):
    """What is to be committed, all of it or nothing.

    `alarm` (ms) is when `advance` wants to be called though no SMS comes; it may lie in the past. `silenced` are
    channels whose queued, unsent SMS are withdrawn in the same commit, `withdrawn` are sessions whose are, and why;
    `outbox` leaves after that. `sessions` are (id, since when in ms) of those that opened, and of invitations that opened
    none; `opened` counts by channel those that an SMS opened, as invitations have their permits already. `opt_outs` are
    channel -> (since when in ms, or 0: in again; by whose word: "person", "provider", or an operator's list). From
    `keep_until` (ms) on the lane may be forgotten. `duplicates` counts mail that had been applied before.
    """

    lane: Lane
    outbox: list[Outbound]
    records: list[Record]
    alarm: int | None
    silenced: list[str]
    withdrawn: dict[str, Withdrawal]
    sessions: list[tuple[str, int]]
    opened: dict[str, int]
    opt_outs: dict[str, tuple[int, str]]
    keep_until: int
    duplicates: int


def advance(
    lane: Lane, sender: str, mail: Sequence[Mail], now: int, surveys: Surveys, policy: Policy
) -> Advance:
    """Apply `mail` in order, or, if there is none, the deadlines that are due at `now` (ms). Changes `lane`.

    Raises UnknownVersion and UnknownChannel.
    """
    turn = Turn(lane, sender, surveys, policy, now)
    for each in mail:
        _apply(turn, each)
    if not mail:
        apply_due(turn, now)
    deadline = next_of(turn)
    return Advance(
        lane=lane,
        outbox=turn.outbox,
        records=turn.records,
        alarm=deadline.at if deadline is not None else None,
        silenced=turn.silenced,
        withdrawn=turn.withdrawn,
        sessions=turn.sessions,
        opened=turn.opened,
        opt_outs=turn.opt_outs,
        keep_until=_keep_until(turn, now),
        duplicates=turn.duplicates,
    )


def stop_alone(lane: Lane, sender: str, mail: Mail) -> Advance | None:
    """Apply `mail` to a lane that cannot be advanced, if it is a STOP, or a word that may be one, and new. No survey is
    asked, so nothing is said, and `alarm` and `keep_until` mean nothing. Changes `lane`."""
    event = mail.event
    if not (isinstance(event, ProviderStop) or (isinstance(event, Sms) and may_be_stop(event))):
        return None
    if event.id in lane.seen:
        return None
    turn = Turn(lane, sender, Surveys(), {})
    turn.begin(max(lane.clock, mail.at), event.id)
    if isinstance(event, Sms):
        turn.heard(event, None)
    opt_out(turn, event)
    _remember(lane, event.id)
    return Advance(
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


def missing_versions(lane: Lane, surveys: Surveys) -> set[str]:
    """The versions that open sessions are pinned to and `surveys` does not know."""
    pinned = {line.session.version for line in lane.lines.values() if line.session is not None}
    return {version for version in pinned if surveys.version(version) is None}


def _apply(turn: Turn, mail: Mail) -> None:
    event = mail.event
    if event.id in turn.lane.seen:
        turn.duplicates += 1
        return
    policy = turn.channel_policy(event.channel)
    now = max(turn.lane.clock, mail.at)
    apply_due(turn, now)
    turn.begin(now, event.id, mail.at, unasked=type(event) is Invitation)
    match event:
        case Sms():
            hear(turn, event, policy)
        case Part():
            for gathered in gather(turn.lane, event, now):
                hear_gathered(turn, gathered)
        case Invitation():
            invite(turn, event, policy)
        case Cancel():
            cancel(turn, event)
        case ProviderStop():
            opt_out(turn, event)
        case Receipt():
            receive(turn, event)
            return  # what is known of an SMS tells copies from news
        case _:
            assert_never(event)
    _remember(turn.lane, event.id)


def _remember(lane: Lane, event: str) -> None:
    """Note that the event is applied, and forget those so old that no provider sends them again."""
    lane.seen[event] = lane.clock
    horizon = lane.clock - _SEEN_MS
    while True:
        oldest = next(iter(lane.seen))
        if lane.seen[oldest] >= horizon and len(lane.seen) <= _MOST_SEEN:
            return
        del lane.seen[oldest]


def _keep_until(turn: Turn, now: int) -> int:
    """Two days from now, longer than any cap or repetition looks back, and a day after the last deadline. An opt-out
    need not be kept here: the list of opt-outs has it."""
    until = max(turn.lane.clock, now) + _REMEMBERED_MS
    for line in turn.lane.lines.values():
        if line.session is not None:
            until = max(until, expires_after(line.session, turn.survey_of(line.session)) + DAY_MS)
    return until
