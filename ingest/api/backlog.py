"""Invitations are accepted: under their reference, once, and held until the pacer (workers/clock/invitation_pacer.py) lets them go.

Each has an answer of its own: None if what it needs was not answered, which keeps no other from going on.

Two steps, each of which may be repeated. First the reference is taken, where it is one for all numbers; then the
invitation is held, in its person's shard, unless it ever was. Whoever comes second, at whatever moment the first one
died, finishes what was begun or finds it done.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from config.host import THIS_HOST, Host
from config.settings.channels import Channel
from config.settings.settings import Settings
from config.store import keyspace
from config.store.channel_readings import daily_sms_key
from config.store.counts import campaigns
from config.store.function_calls import Command, function_call
from config.store.server_functions import (
    HoldInvitations,
    InvitationToHold,
    ServerFunction,
    TakenReference,
    TakeReferences,
)
from config.telemetry import faults
from engine.model.events import OpeningRefused, encode_event
from ingest.api.invitation_parser import InvitationRequest
from ingest.intake.mailboxes import AsyncRedisClient, RedisUnavailableError

InvitationOutcome = Literal["accepted", "repeated", "conflict", "late"]
"""`repeated`: accepted before, with this content; `conflict`: with another. `late`: it was not, and comes too late."""

ACCEPT_TRIES = 3
RETRY_PAUSE_S = 0.2
"""Between two tries, growing."""

SHARDS_PER_TRIP = 64
"""Shards of one round trip. Further ones go beside it, on a connection of their own: the server works on the first while the next is
made, and no step of ours takes longer than about a millisecond."""

QUEUE_READ_S = 1.0
"""How long what is known of a channel's queue is taken for what it is."""

MOMENTS_KNOWN = 1_000
"""For which it is known how many are due then."""


class InvitationIntake:
    def __init__(self, shards: int, lanes: AsyncRedisClient) -> None:
        self._shards = shards
        self._lanes = lanes

    @property
    def is_divided(self) -> bool:
        """Whether the lanes are on several servers, of which some may answer and others not."""
        return self._lanes.is_cluster

    async def accept(
        self, asked: Sequence[InvitationRequest], most_tries: int = ACCEPT_TRIES
    ) -> list[InvitationOutcome | None]:
        """What came of each, in this order. What is accepted is on disk; what has no outcome may be repeated. Raises
        RedisUnavailableError if the one server does not answer, and may be repeated then."""
        outcomes: list[InvitationOutcome | None] = [None] * len(asked)
        for tried in range(1, most_tries + 1):
            left = [at for at, outcome in enumerate(outcomes) if outcome is None]
            try:
                for at, outcome in zip(
                    left, await self._accept_once([asked[at] for at in left]), strict=True
                ):
                    outcomes[at] = outcome
            except RedisUnavailableError:
                if tried == most_tries and len(left) == len(asked):
                    raise
            if None not in outcomes:
                break
            if tried < most_tries:
                await asyncio.sleep(RETRY_PAUSE_S * tried)
        return outcomes

    async def _accept_once(self, asked: Sequence[InvitationRequest]) -> list[InvitationOutcome | None]:
        outcomes: list[InvitationOutcome | None] = ["accepted"] * len(asked)
        late = [at for at, each in enumerate(asked) if each.late_errors]
        for at, known in zip(late, await self._already_accepted([asked[at] for at in late]), strict=True):
            if known is not True:
                outcomes[at] = "late" if known is False else None
        await self._take_references(asked, outcomes)
        faults.reach("after_refer")
        await self._hold_invitations(asked, outcomes)
        faults.reach("after_hold")
        return outcomes

    async def foresee(self, asked: Sequence[InvitationRequest]) -> list[InvitationOutcome | None]:
        """What would come of each if it were accepted now; nothing is written. Raises RedisUnavailableError."""
        names = [keyspace.reference_key(self._shards, each.event.id) for each in asked]
        found = await self._lanes.try_commands([("GET", name) for name in names]) if names else []
        outcomes: list[InvitationOutcome | None] = []
        for stored, each in zip(found, asked, strict=True):
            if isinstance(stored, RedisUnavailableError):
                outcomes.append(None)
            elif stored is None or not each.event.reference:
                outcomes.append("late" if each.late_errors else "accepted")
            else:
                is_same = stored in (each.fingerprint.encode(), b"")
                outcomes.append("repeated" if is_same else "conflict")
        return outcomes

    async def _already_accepted(self, asked: Sequence[InvitationRequest]) -> list[bool | None]:
        """Return for each whether its reference is stored with the same content, or was erased on purpose (an empty
        value); None if its server does not say."""
        names = [keyspace.reference_key(self._shards, each.event.id) for each in asked]
        found = await self._lanes.try_commands([("GET", name) for name in names]) if names else []
        return [
            None if isinstance(stored, RedisUnavailableError) else stored in (each.fingerprint.encode(), b"")
            for stored, each in zip(found, asked, strict=True)
        ]

    async def _take_references(
        self, asked: Sequence[InvitationRequest], outcomes: list[InvitationOutcome | None]
    ) -> None:
        """Take the references of those that have one; without, nothing can be the same."""
        wanted = [at for at in _accepted_positions(outcomes) if asked[at].event.reference]
        groups = keyspace.group_by_shard(wanted, lambda at: asked[at].event.id, self._shards)

        def take(_: int, group: Sequence[int]) -> TakeReferences:
            return TakeReferences(
                references=[
                    TakenReference(
                        reference=keyspace.reference_key(self._shards, asked[at].event.id),
                        fingerprint=asked[at].fingerprint,
                        until_ms=asked[at].known_until,
                    )
                    for at in group
                ]
            )

        await self._call_and_record(groups, take, outcomes, {0: "conflict", -1: "repeated"})

    async def _hold_invitations(
        self, asked: Sequence[InvitationRequest], outcomes: list[InvitationOutcome | None]
    ) -> None:
        groups = keyspace.group_by_shard(
            _accepted_positions(outcomes), lambda at: asked[at].sender, self._shards
        )

        def hold(k: int, group: Sequence[int]) -> HoldInvitations:
            return HoldInvitations(
                held_invitations=keyspace.held_invitations_key(k),
                events=keyspace.events_key(k),
                campaigns=keyspace.campaigns_key(k),
                campaign_sessions=keyspace.campaign_sessions_key(k),
                invitations=[_held_invitation(k, asked[at]) for at in group],
            )

        await self._call_and_record(groups, hold, outcomes, {0: "repeated"})
        for at, each in enumerate(asked):
            if outcomes[at] == "repeated" and not each.event.reference:
                outcomes[at] = "accepted"  # by a try whose reply was lost

    async def _call_and_record(
        self,
        groups: Mapping[int, Sequence[int]],
        call_for: Callable[[int, Sequence[int]], ServerFunction],
        outcomes: list[InvitationOutcome | None],
        meaning: Mapping[int, InvitationOutcome],
    ) -> None:
        """Make a call for each shard's group of positions, and set the outcome of each invitation whose answer `meaning` lists;
        None if there is no answer. Raises RedisUnavailableError if the one server answers none."""
        shards = [*groups.items()]
        trips = [shards[at : at + SHARDS_PER_TRIP] for at in range(0, len(shards), SHARDS_PER_TRIP)]
        answered = await asyncio.gather(*(self._make_trip(trip, call_for) for trip in trips))
        failures = [each for each in answered if isinstance(each, RedisUnavailableError)]
        if failures and len(failures) == len(trips):
            raise failures[0]
        for trip, answers in zip(trips, answered, strict=True):
            each_answer = [answers] * len(trip) if isinstance(answers, RedisUnavailableError) else answers
            for (_, group), answer in zip(trip, each_answer, strict=True):
                _record_answer(group, answer, outcomes, meaning)

    async def _make_trip(
        self,
        shards: Sequence[tuple[int, Sequence[int]]],
        call_for: Callable[[int, Sequence[int]], ServerFunction],
    ) -> list[Any] | RedisUnavailableError:
        commands = [function_call(call_for(k, group)) for k, group in shards]
        try:
            return await self._lanes.try_write(commands)
        except RedisUnavailableError as e:
            return e


def _record_answer(
    group: Sequence[int],
    answer: Sequence[int] | RedisUnavailableError,
    outcomes: list[InvitationOutcome | None],
    meaning: Mapping[int, InvitationOutcome],
) -> None:
    if isinstance(answer, RedisUnavailableError):
        for at in group:
            outcomes[at] = None
    else:
        for at, each in zip(group, answer, strict=True):
            outcomes[at] = meaning.get(each, outcomes[at])


class InvitationQueue:
    """Says when an invitation that is accepted now has its turn at the soonest: once those have gone that wait before it, at the
    channel's pace and within its day's SMS."""

    def __init__(self, settings: Settings, lanes: AsyncRedisClient, host: Host = THIS_HOST) -> None:
        self._channels = settings.channels
        self._shards = settings.shards
        self._lanes = lanes
        self._host = host
        self._waiting: dict[str, tuple[float, int, int]] = {}
        self._beside: dict[tuple[str, int], tuple[float, int]] = {}

    async def starts_at(self, asked: InvitationRequest, ahead: int = 0) -> int:
        """The moment (ms), with so many more `ahead` of it. What a server says that does not answer is left out: nobody is kept from
        inviting by it."""
        channel = self._channels[asked.event.channel]
        now = self._host.wall_ms()
        waiting, sms_today = await self._read_waiting(channel, now)
        pace = channel.limits.pace_left(channel.timezone, sms_today)
        starts = pace.turn_at(now, waiting + ahead) if waiting + ahead else now
        if asked.not_before > now:
            beside = ahead + await self._count_beside(channel, asked.not_before)
            starts = max(starts, asked.not_before + round(beside * 1000 / pace.per_second))
        starts = max(starts, asked.not_before)
        return (
            channel.quiet.next_awake_at(asked.sender, starts, channel.timezone) if channel.quiet else starts
        )

    async def _read_waiting(self, channel: Channel, now: int) -> tuple[int, int]:
        """How many of the channel's invitations are due, and what is decided of its day's SMS; both may be a second old."""
        second = self._host.monotonic_s()
        known_s, waiting, sms_today = self._waiting.get(channel.name, (-QUEUE_READ_S, 0, 0))
        if second - known_s >= QUEUE_READ_S:
            waiting = await self._count_held(channel, "-inf", now)
            if channel.limits.sms_per_day:
                sms_today = await self._sum_counts(
                    [("GET", daily_sms_key(channel.name, channel.timezone, now))]
                )
            self._waiting[channel.name] = second, waiting, sms_today
        return waiting, sms_today

    async def _count_beside(self, channel: Channel, moment: int) -> int:
        """How many of the channel's invitations are due at that very moment, as those of a campaign are; a second old perhaps."""
        second = self._host.monotonic_s()
        known_s, count = self._beside.get((channel.name, moment), (-QUEUE_READ_S, 0))
        if second - known_s >= QUEUE_READ_S:
            count = await self._count_held(channel, moment, moment)
            if len(self._beside) >= MOMENTS_KNOWN:
                self._beside.clear()
            self._beside[channel.name, moment] = second, count
        return count

    async def _count_held(self, channel: Channel, since: int | str, until: int) -> int:
        return await self._sum_counts(
            [("ZCOUNT", keyspace.held_ids_key(k, channel.name), since, until) for k in range(self._shards)]
        )

    async def _sum_counts(self, commands: Sequence[Command]) -> int:
        try:
            answers = await self._lanes.try_commands(commands)
        except RedisUnavailableError:
            return 0
        return sum(int(each or 0) for each in answers if not isinstance(each, RedisUnavailableError))


def _held_invitation(k: int, asked: InvitationRequest) -> InvitationToHold:
    event, reason = asked.event, asked.refusal
    refused = [OpeningRefused(event.asked_at, event.channel, event.id, reason, event)] if reason else None
    return InvitationToHold(
        held_ids=keyspace.held_ids_key(k, event.channel),
        session=keyspace.session_key(k, event.id),
        id=event.id,
        not_before_ms=asked.not_before,
        until_ms=asked.known_until,
        sender=asked.sender,
        event=encode_event(refused or event),
        state=campaigns.refused_state(reason) if reason else campaigns.HELD,
        campaign=event.campaign,
        campaign_part=campaigns.campaign_part(event.channel, event.survey),
    )


def _accepted_positions(outcomes: Sequence[InvitationOutcome | None]) -> list[int]:
    return [at for at, outcome in enumerate(outcomes) if outcome == "accepted"]
