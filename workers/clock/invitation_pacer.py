"""Invitations wait for their turn, and people in conversation go first.

What is accepted is held, in its person's shard, until it may be sent: at the channel's pace, within its day's SMS and
its new sessions a minute, while nothing else waits for workers or for the provider, not before the moment that was asked
for, and not in quiet hours where the person is. Then it becomes mail, like a START. Any number of clocks may do this: an
invitation is released once, and permits come from buckets that all share. A permit taken and not used is lost.

On a cluster, what is held on a server that is away waits, and so does a channel whose pace is there; the others go on. What was
reserved for it of the day's SMS counts as spent until its end.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product

import msgspec
import redis
import structlog

from config.host import THIS_HOST, Host
from config.settings.channels import Channel
from config.store import keyspace, redis_client
from config.store.counts import campaigns
from config.store.counts.campaigns import FORGOTTEN, refused_state
from config.store.function_calls import Command, function_call, withdraw_invitation_command
from config.store.held_invitations import HeldInvitation, decode_held_invitation
from config.store.server_functions import (
    CountDueInvitations,
    ReadDueInvitations,
    ReleasedInvitation,
    ReleaseInvitations,
    TakeTokens,
)
from config.telemetry import faults, metrics
from engine.model.events import OpeningRefused, encode_event
from engine.surveys.survey_registry import SurveyRegistry
from engine.turns.opening_sms import max_opening_sms
from workers.store.channel_state import ChannelStore
from workers.store.event_stream import forget_references
from workers.turns.committing import WorkerWaker, wake_queues

log = structlog.get_logger()

MAX_LANES_WAITING = 64
"""With so many lanes waiting for a worker, nobody else is invited."""

RELEASE_PAUSE_S = 0.05
"""Between two releases: many at once would be a crowd that a reply has to wait behind."""

RELEASE_RUN_S = 5.0
"""How long one run of `release_until_done` lasts at the most."""

PACE_BURST_S = 0.1
"""The pace's permits gather for no longer, so that a backlog which had to stop does not catch up in a rush."""

RESERVATION_SPAN_MS = 60_000
"""What was released in this and the last such span counts against the day's SMS, as it may not be decided yet."""

HELD_SCAN_COUNT = 1_000

PAUSED_MIN_MS, PAUSED_EACH_MS = 10_000, 5
"""An invitation of a campaign that is paused is looked at again after the first, or after the second for each that its channel holds,
if that is later: so many that are paused keep no others waiting."""


class ChannelBacklog(msgspec.Struct, frozen=True):
    """A channel's backlog by shard, at `now` (ms): what is held in all, and what may be released by now."""

    now: int
    held: int
    due: Mapping[int, int]


class InvitationPacer:
    """Releases invitations: a clock calls `release_until_done` every MAX_TICK_S."""

    def __init__(
        self,
        lanes: redis.Redis,
        broker: redis.Redis,
        channels: Mapping[str, Channel],
        surveys: SurveyRegistry,
        channel_store: ChannelStore,
        waker: WorkerWaker,
        *,
        shard_groups: Sequence[Sequence[int]],
        host: Host = THIS_HOST,
    ) -> None:
        self._lanes = lanes
        self._broker = broker
        self._channels = channels
        self._surveys = surveys
        self._waker = waker
        self._channel_store = channel_store
        self._shard_groups = shard_groups
        self._host = host
        self._away: set[str] = set()  # what could not be read or released, when it was looked at last
        self._first_channel = 0  # whose turn it is to come first, where there is not room for all channels
        self._backlog_commands = [
            function_call(
                CountDueInvitations(
                    held_ids=[keyspace.held_ids_key(k, name) for k in group for name in channels]
                )
            )
            for group in shard_groups
        ]

    def release_until_done(self) -> None:
        """Release what may be released, a little at a time, until nothing is due or it is time to be asked again."""
        until_s = self._host.monotonic_s() + RELEASE_RUN_S
        while self.release_round() and self._host.monotonic_s() < until_s:
            self._host.sleep(RELEASE_PAUSE_S)

    def release_round(self) -> bool:
        """Release what may be released now. False if nothing is due on any channel."""
        standings = self._read_backlogs()
        if not any(any(each.due.values()) for each in standings.values()):
            return False
        room = MAX_LANES_WAITING - self._lanes_waiting()
        names = list(standings)
        self._first_channel = (self._first_channel + 1) % len(names)
        for name in names[self._first_channel :] + names[: self._first_channel]:
            due = sum(standings[name].due.values())
            if due and room > 0:
                room -= self._release_if_there(name, standings[name], min(due, room))
        return True

    def _release_if_there(self, name: str, standing: ChannelBacklog, wanted: int) -> int:
        """Release up to `wanted` of a channel, none if its server is away; how many were."""
        try:
            released = self._release_on_channel(name, standing, wanted)
        except redis.RedisError as e:
            if not redis_client.is_alone(self._lanes, e):
                raise
            self._note_away(f"the channel {name}", is_away=True)
            return 0
        self._note_away(f"the channel {name}", is_away=False)
        return released

    def _note_away(self, what: str, *, is_away: bool) -> None:
        """Say once that the server of this is away, and that it is back."""
        if is_away and what not in self._away:
            log.warning("invitations wait, as a server of the cluster is away", of=what)
        elif not is_away and what in self._away:
            log.info("invitations are released again", of=what)
        (self._away.add if is_away else self._away.discard)(what)

    def _read_backlogs(self) -> dict[str, ChannelBacklog]:
        answers = redis_client.try_commands(self._lanes, self._backlog_commands)
        redis_client.raise_refusals(answers)
        there = [
            (group, answer)
            for group, answer in zip(self._shard_groups, answers, strict=True)
            if not isinstance(answer, Exception)
        ]
        self._note_away("some shards", is_away=len(there) < len(answers))
        now = there[0][1][0]
        held, due = dict.fromkeys(self._channels, 0), {name: dict[int, int]() for name in self._channels}
        for group, (_, *counts) in there:
            of = product(group, self._channels)
            for (k, name), held_there, due_there in zip(of, counts[::2], counts[1::2], strict=True):
                held[name] += held_there
                due[name][k] = due_there
        return {name: ChannelBacklog(now, held[name], due[name]) for name in self._channels}

    def _lanes_waiting(self) -> int:
        """Lanes that wait for the busiest kind of worker."""
        queues = (keyspace.STARTS_QUEUE, keyspace.REPLIES_QUEUE, keyspace.OUTBOUND_QUEUE)
        bells = [("ZCARD", keyspace.wakeup_queue_key(queue)) for queue in queues]
        return max(int(waiting) for waiting in redis_client.run_commands(self._broker, bells))

    def _release_on_channel(self, name: str, standing: ChannelBacklog, wanted: int) -> int:
        """Release up to `wanted` of a channel; how many were."""
        wanted = self._channel_store.spare_send_permits(name, wanted, standing.now)
        oldest, paused = self._oldest_due(name, standing, wanted) if wanted else ([], frozenset())
        awake = self._outside_quiet_hours(name, standing, oldest, paused)
        permitted = self._within_limits(name, standing.now, awake)
        if not permitted:
            return 0
        faults.reach("before_release")
        rings = self._release_to_mailboxes(name, permitted)
        faults.reach("after_release")
        metrics.INVITATIONS_RELEASED.labels(name, "released").inc(sum(ring >= 0 for _, ring in rings))
        wake_queues(
            self._waker, [(sender, keyspace.QUEUES_BY_NUMBER.get(ring, ())) for sender, ring in rings]
        )
        return len(rings)

    def _oldest_due(
        self, name: str, standing: ChannelBacklog, wanted: int
    ) -> tuple[list[HeldInvitation], Collection[str]]:
        """Up to `wanted` that are due, from each shard by its share of them; and which campaigns are paused on the channel."""
        shares = {k: share for k, share in _split_by_shard(standing.due, wanted).items() if share}
        answers = redis_client.try_commands(
            self._lanes,
            [
                function_call(
                    ReadDueInvitations(
                        held_ids=keyspace.held_ids_key(k, name),
                        held_invitations=keyspace.held_invitations_key(k),
                        max_invitations=share,
                    )
                )
                for k, share in shares.items()
            ]
            + [campaigns.pauses_command(name)],
        )
        redis_client.raise_refusals(answers)
        *pages, pauses = answers
        if isinstance(pauses, Exception):  # without its server nothing goes on the channel
            return [], frozenset()
        found = [
            each
            for k, answer in zip(shares, pages, strict=True)
            if not isinstance(answer, Exception)
            for each in _decode_held(k, answer[1:])
        ]
        return found, campaigns.decode_pauses(pauses).keys()

    def _outside_quiet_hours(
        self, name: str, standing: ChannelBacklog, oldest: Sequence[HeldInvitation], paused: Collection[str]
    ) -> list[HeldInvitation]:
        """Return the invitations whose person may be texted now, but for those of campaigns that are `paused`. The others are put
        off, or refused if they expired meanwhile."""
        channel, now = self._channels[name], standing.now
        awake = []
        later: list[Command] = []
        expired: list[HeldInvitation] = []
        for each in oldest:
            if _is_expired(each, now):
                expired.append(each)
            elif each.event.campaign in paused:
                moment = now + max(PAUSED_MIN_MS, standing.held * PAUSED_EACH_MS)
                later.append(("ZADD", keyspace.held_ids_key(each.k, name), "XX", moment, each.id))
            elif (
                channel.quiet
                and (moment := channel.quiet.next_awake_at(each.sender, now, channel.timezone)) > now
            ):
                later.append(("ZADD", keyspace.held_ids_key(each.k, name), "XX", moment, each.id))
            else:
                awake.append(each)
        if later:
            redis_client.raise_refusals(redis_client.try_commands(self._lanes, later))
        self._refuse_expired(name, now, expired)
        return awake

    def _refuse_expired(self, name: str, now: int, expired: Sequence[HeldInvitation]) -> None:
        if expired:
            answers = redis_client.try_commands(
                self._lanes,
                [
                    _withdraw_command(
                        each,
                        encode_event(
                            [
                                OpeningRefused(
                                    now, name, each.id, "expired", each.event if each.is_readable else None
                                )
                            ]
                        ),
                    )
                    for each in expired
                ],
            )
            redis_client.raise_refusals(answers)
            refused = sum(not isinstance(answer, Exception) for answer in answers)
            metrics.INVITATIONS_RELEASED.labels(name, "expired").inc(refused)

    def _within_limits(
        self, name: str, now: int, awake: Sequence[HeldInvitation]
    ) -> Sequence[HeldInvitation]:
        """Return as many as the channel's pace, its day's SMS and its new sessions a minute allow."""
        paced = self._take_pace_permits(name, len(awake))
        admitted = self._channel_store.admit_sessions(name, paced, now)[0] if paced else 0
        return awake[: self._reserve_daily_sms(name, now, awake[:admitted])]

    def _take_pace_permits(self, name: str, wanted: int) -> int:
        if not wanted:
            return 0
        pace = self._channels[name].limits.invitation_pace
        bucket = keyspace.invitation_bucket_key(name)
        granted: int = redis_client.run_command(
            self._lanes,
            function_call(
                TakeTokens(bucket=bucket, rate_per_s=pace, burst=max(1.0, pace * PACE_BURST_S), wanted=wanted)
            ),
        )
        return granted

    def _reserve_daily_sms(self, name: str, now: int, wanted: Sequence[HeldInvitation]) -> int:
        """Count how many of these the day's SMS allow, if what was released a moment ago is not decided yet."""
        cap = self._channels[name].limits.sms_per_day
        if not cap or not wanted:
            return len(wanted)
        needs = [self._opening_sms_of(each.event.survey) for each in wanted]
        slot = keyspace.released_sms_key(name, now // RESERVATION_SPAN_MS)
        before = keyspace.released_sms_key(name, now // RESERVATION_SPAN_MS - 1)
        # of one moment, or a failover leaves a count without an end
        ends = ("PEXPIRE", slot, 3 * RESERVATION_SPAN_MS)
        reserved, _, earlier = redis_client.run_commands(
            self._lanes, [("INCRBY", slot, sum(needs)), ends, ("GET", before)], transaction=True
        )
        left = (
            cap - self._channel_store.sms_today(name, now) - int(earlier or 0) - (int(reserved) - sum(needs))
        )
        fitting = 0
        while fitting < len(needs) and sum(needs[: fitting + 1]) <= left:
            fitting += 1
        if unused := sum(needs[fitting:]):
            redis_client.run_commands(self._lanes, [("DECRBY", slot, unused), ends], transaction=True)
        return fitting

    def _opening_sms_of(self, survey: str) -> int:
        known = self._surveys.current(survey)
        return max_opening_sms(known) if known else 1

    def _release_to_mailboxes(self, name: str, permitted: Sequence[HeldInvitation]) -> list[tuple[str, int]]:
        """Make them mail. Answers (sender, whom to wake) for each, as the function `release_invitations` does, but for those of a
        server that is away."""
        groups: dict[int, list[HeldInvitation]] = {}
        for each in permitted:
            groups.setdefault(each.k, []).append(each)
        commands = []
        for k, group in groups.items():
            call = ReleaseInvitations(
                lane_alarms=keyspace.lane_alarms_key(k),
                held_ids=keyspace.held_ids_key(k, name),
                held_invitations=keyspace.held_invitations_key(k),
                campaigns=keyspace.campaigns_key(k),
                campaign_sessions=keyspace.campaign_sessions_key(k),
                invitations=[
                    ReleasedInvitation(
                        mailbox=keyspace.mailbox_key(k, each.sender), id=each.id, sender=each.sender
                    )
                    for each in group
                ],
            )
            commands.append(function_call(call))
        answers = redis_client.try_commands(self._lanes, commands)
        redis_client.raise_refusals(answers)
        return [
            (each.sender, ring)
            for group, rings in zip(groups.values(), answers, strict=True)
            if not isinstance(rings, Exception)
            for each, ring in zip(group, rings, strict=True)
        ]


def forget_invitations(client: redis.Redis, shards: int, sender: str) -> int:
    """Drop whatever is held for a person, without a trace of it but that its references are taken; how many it was."""
    dropped = 0
    for held in held_for(client, keyspace.shard_of(sender, shards), sender):
        forget_references(client, shards, [held.id])
        dropped += redis_client.run_command(client, _withdraw_command(held))
    return dropped


def held_for(client: redis.Redis, k: int, sender: str) -> Iterator[HeldInvitation]:
    """Whatever is held for a person of shard `k`."""
    for id_, mail in client.hscan_iter(keyspace.held_invitations_key(k), count=HELD_SCAN_COUNT):
        if mail.startswith(sender.encode() + b"\0"):
            yield from _decode_held(k, [id_, mail])


def _withdraw_command(held: HeldInvitation, records: bytes = b"") -> Command:
    """Hold it no more, as it is expired: the records say so; or forget it, without records."""
    state = refused_state("expired") if records else FORGOTTEN
    return withdraw_invitation_command(held.k, held.event.channel, held.id, held.sender, records, state)


def _decode_held(k: int, answer: Sequence[bytes]) -> Iterator[HeldInvitation]:
    """(id, invitation) ... as the function `read_due_invitations` answers."""
    for identity, stored in zip(answer[::2], answer[1::2], strict=True):
        yield decode_held_invitation(identity.decode(), k, stored)


def _is_expired(held: HeldInvitation, now: int) -> bool:
    held_since = max(held.at, held.event.not_before)  # until then it waited because it was asked to
    return (
        bool(held.event.expires_at and held.event.expires_at <= now)
        or now - held_since > keyspace.MAX_HELD_MS
    )


def _split_by_shard(due: Mapping[int, int], wanted: int) -> dict[int, int]:
    """`wanted` spread over the shards as what is due is: the rests go to those with the largest."""
    total = sum(due.values())
    if total <= wanted:
        return dict(due)
    exact = {k: count * wanted / total for k, count in due.items()}
    shares = {k: int(share) for k, share in exact.items()}
    rests = sorted(exact, key=lambda k: (shares[k] - exact[k], k))
    for k in rests[: wanted - sum(shares.values())]:
        shares[k] += 1
    return shares
