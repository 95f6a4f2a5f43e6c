"""Which SMS may be tried now, and what came of the try? One try at a time for each sender, oldest SMS first."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

import msgspec
import redis

from config.connections.cluster_routing import AWAY_ERRORS
from config.host import THIS_HOST, Host
from config.store import keyspace, redis_client, stored_values
from config.store.event_entries import compact_records
from config.store.function_calls import Command, function_call
from config.store.outbox_states import SmsDisposition
from config.store.redis_client import NotReplicatedError
from config.store.server_functions import (
    BringForward,
    LeasedOutbox,
    LeaseSms,
    RestingOutbox,
    TurnBack,
    UpdateOutbox,
)
from config.telemetry import faults
from engine.model.events import InboundEvent, OutboundSms, encode_event
from workers.store.dead_letter_store import EncodedDeadLetter, FailedAttempt
from workers.store.failovers import FailoverGuard

OUTBOX_LEASE_MS = 15_000
"""Longer than a try can take that begins in time (MAX_START_DELAY_AFTER_LOOK_UP_S in workers/sending/send_steps.py, and
TRY_TIMEOUT_S in workers/sending/http_client.py, a deadline that it cannot outlive), so that nobody else begins one meanwhile."""

MAX_BROUGHT_FORWARD = 1_000
"""Senders of a shard that are brought forward when a channel's pause has ended by itself; others look a little later."""

FORWARD_PAGE_SIZE = 1_000

LONGEST_PAUSE_MS = 3_600_000
"""A channel's `pause_s` is no longer."""

UNCERTAIN_REST_MS = 10_000
"""How long an SMS rests that the provider may have, before it is asked: so that it has it by then, if at all. From the end of
a try on, or of its lease if the try never came back."""

UNREPLICATED_REST_MS = 1_000
"""How long an SMS rests whose lease is on too few replicas."""

UNLIMITED_SMS_PER_SECOND = 1_000.0
"""SMS a second by which a backlog is brought forward whose channel has no limit."""

LeasedSms = tuple["OutboxLease", OutboundSms]
"""A take, and its SMS, read."""


class OutboxLease(msgspec.Struct, frozen=True):
    """The oldest SMS of a sender, ours to try until the lease ends: taken at `now` (the server's ms), tried `attempts`
    times before, first at `since` (ms, 0 for never).

    `uncertain`: the provider may have the SMS: the last try ended so, or with its worker. `permit`: the epoch in which one
    was booked for now; -1: none was. `lost_before_ms`: tries of before then may not be known (0: all are), as the server has
    lost its tail.
    """

    sender: str
    fence: int
    now: int
    attempts: int
    first_attempt_ms: int
    uncertain: bool
    permit_epoch: int
    entry: bytes
    lost_before_ms: int = 0

    @property
    def sms_bytes(self) -> bytes:
        return stored_values.outbox_sms(self.entry)


class StoredAttempt(msgspec.Struct, frozen=True, array_like=True):
    """A failed attempt to send the SMS `sms`, as it is stored beside the outbox."""

    sms: str
    at: int
    code: str
    why: str


class OutboxUpdate(msgspec.Struct, frozen=True):
    """What came of a take: afterwards the sender rests for `rest_ms`; `records` go to the event stream, `lane_mail` to the lane.

    `uncertain`: the SMS stays, and the provider may have it. `ticket` is remembered, to be told apart from later SMS.
    `permit_epoch` is the one of a permit that is booked. `failed_attempt` is remembered while the SMS stays.
    """

    lease: OutboxLease
    disposition: SmsDisposition
    rest_ms: int = 0
    records: bytes = b""
    dead_letter: EncodedDeadLetter | None = None
    uncertain: bool = False
    ticket: str = ""
    lane_mail: InboundEvent | None = None
    permit_epoch: int = 0
    failed_attempt: StoredAttempt | None = None


_attempt_encoder = msgspec.msgpack.Encoder()
_decode_attempt = msgspec.msgpack.Decoder(StoredAttempt).decode


class OutboxStore:
    def __init__(
        self,
        client: redis.Redis,
        shards: int,
        lease_ms: int = OUTBOX_LEASE_MS,
        longest_pause_ms: int = LONGEST_PAUSE_MS,
        channels: Collection[str] = (),
        host: Host = THIS_HOST,
        replicas: int = 0,
        *,
        compacts_records: bool = False,
    ) -> None:
        self._redis = client
        self._replicas = replicas
        self._compacts_records = compacts_records
        self._failovers = FailoverGuard(client, channels)
        self._shards = shards
        self._lease_ms = lease_ms
        self._longest_pause_ms = longest_pause_ms
        self._token_hex = host.token_hex

    def lease_oldest(self, senders: Sequence[str], asked_channels: Sequence[str] = ()) -> list[OutboxLease]:
        """Of these senders, those whose oldest SMS may be tried now, each with it. The providers of `asked_channels` are
        asked for an SMS that they may have, for UNCERTAIN_REST_MS after a try that never came back at the soonest.

        Once it returns, `replicas` have the leases, and so all that decided these SMS; where they have not, those rest. Raises
        redis.RedisError, NotReplicatedError among them, if there is none to return; senders whose server is away, while others
        of a cluster are not, are left to their alarms."""
        owner = self._token_hex(8)
        groups = keyspace.group_by_shard(senders, str, self._shards)
        commands = [
            function_call(
                LeaseSms(
                    fence=keyspace.fence_key(k),
                    outbox_alarms=keyspace.outbox_alarms_key(k),
                    server=keyspace.server_key(k),
                    owner=owner,
                    lease_ms=self._lease_ms,
                    longest_pause_ms=self._longest_pause_ms,
                    uncertain_rest_ms=UNCERTAIN_REST_MS,
                    outboxes=[_leased_outbox(k, sender) for sender in group],
                    asked_channels=asked_channels,
                )
            )
            for k, group in groups.items()
        ]
        answers = dict(
            zip(groups, self._failovers.run_commands(groups, commands, replicas=self._replicas), strict=True)
        )
        leased = {k: of_shard for k, of_shard in answers.items() if not isinstance(of_shard, Exception)}
        lacking = {k: e for k, e in answers.items() if isinstance(e, NotReplicatedError)}
        unreplicated = _parse_leases(groups, {k: e.answer for k, e in lacking.items()})
        with suppress(*AWAY_ERRORS):
            self.apply_updates([_leave_unreplicated(each) for each in unreplicated])
        if lacking and not leased:
            redis_client.raise_first_error(list(lacking.values()))
        for k, of_shard in leased.items():
            self._failovers.remember_fences(k, of_shard)
        faults.reach("after_take")
        return _parse_leases(groups, leased)

    def apply_updates(self, settled: Sequence[OutboxUpdate]) -> list[str]:
        """Say what came of these tries; each sender then rests. Answers whose next SMS may be taken at once. Raises
        redis.RedisError; tries of whose sender the server is away, while others of a cluster are not, are unsettled, as if
        nobody had come back from them."""
        answers = self.try_updates(settled)
        return [
            each.lease.sender
            for each, more in zip(settled, answers, strict=True)
            if more and not isinstance(more, Exception)
        ]

    def try_updates(self, settled: Sequence[OutboxUpdate]) -> list[int | Exception]:
        """The same; answers for each whether the sender's next SMS may be taken at once, or the error of a server that is away."""
        if not settled:
            return []
        faults.reach("before_settle")
        shards = [keyspace.shard_of(each.lease.sender, self._shards) for each in settled]
        answers = self._failovers.run_commands(shards, [self._update_command(each) for each in settled])
        faults.reach("after_settle")
        return answers

    def _update_command(self, each: OutboxUpdate) -> Command:
        sender, dead = each.lease.sender, each.dead_letter
        k = keyspace.shard_of(sender, self._shards)
        return function_call(
            UpdateOutbox(
                outbox_alarms=keyspace.outbox_alarms_key(k),
                events=keyspace.events_key(k),
                dead_letters=keyspace.dead_letters_key(k),
                dead_letter_index=keyspace.dead_letter_index_key(k),
                outbox=keyspace.outbox_key(k, sender),
                outbox_lock=keyspace.outbox_lock_key(k, sender),
                tickets=keyspace.tickets_key(k, sender),
                lane_alarms=keyspace.lane_alarms_key(k),
                mailbox=keyspace.mailbox_key(k, sender),
                dead_letter_reasons=keyspace.dead_letter_reasons_key(k),
                failed_attempts=keyspace.failed_attempts_key(k, sender),
                server=keyspace.server_key(k),
                sender=sender,
                fence=each.lease.fence,
                entry=each.lease.entry,
                disposition=each.disposition,
                permit_epoch=each.permit_epoch,
                uncertain=1 if each.uncertain else 0,
                rest_ms=each.rest_ms,
                records=compact_records(each.records) if self._compacts_records else each.records,
                dead_letter_id=dead.id if dead else "",
                dead_letter=dead.content if dead else b"",
                ticket=each.ticket,
                lane_mail=keyspace.REPLY_PREFIX + encode_event(each.lane_mail) if each.lane_mail else b"",
                first_attempt_ms=each.lease.first_attempt_ms,
                failed_attempt=_attempt_encoder.encode(each.failed_attempt) if each.failed_attempt else b"",
            )
        )

    def failed_attempts(self, sender: str, sms: str) -> list[FailedAttempt]:
        """The failed tries of this SMS, if it is the oldest of its outbox, oldest first; no more than the last 20."""
        k = keyspace.shard_of(sender, self._shards)
        attempts = map(
            _decode_attempt,
            redis_client.run_command(self._redis, ("LRANGE", keyspace.failed_attempts_key(k, sender), 0, -1)),
        )
        return [FailedAttempt(each.at, each.code, each.why) for each in attempts if each.sms == sms]

    def bring_forward(self, channel: str, rate: float, most: int | None = None) -> int:
        """Let those look again who rest because their channel let nothing leave: from now on, at its `rate` (SMS a second;
        0: no limit), and replies first; none whose SMS the provider may have before UNCERTAIN_REST_MS are over. Of each shard at most so many, those that would look soonest. Answers how many. Whoever lies on a server that is away, while others of a cluster are not, rests on."""
        step_ms = 1000 / (rate or UNLIMITED_SMS_PER_SECOND)
        last = -1 if most is None else most - 1
        shards = redis_client.try_commands(
            self._redis, [("ZRANGE", keyspace.outbox_alarms_key(k), 0, last) for k in range(self._shards)]
        )
        redis_client.raise_unless_alone(self._redis, shards)
        waiting = 0
        for unasked in (0, 1):
            for k, resting in enumerate(shards):
                if isinstance(resting, Exception):
                    continue
                for at in range(0, len(resting), FORWARD_PAGE_SIZE):
                    page = [sender.decode() for sender in resting[at : at + FORWARD_PAGE_SIZE]]
                    call = BringForward(
                        outbox_alarms=keyspace.outbox_alarms_key(k),
                        channel=channel,
                        unasked=unasked,
                        first_ms=waiting * step_ms,
                        step_ms=step_ms,
                        uncertain_rest_ms=UNCERTAIN_REST_MS,
                        outboxes=[_resting_outbox(k, sender) for sender in page],
                    )
                    waiting += redis_client.run_command(self._redis, function_call(call))
        return waiting

    def turn_back(self, shards: Sequence[int], behind_ms: int) -> int:
        """Move what every sender of these shards rests for, as their server's clock was set back by so much. Answers how many have
        moved."""
        found = redis_client.run_commands(
            self._redis, [("ZRANGE", keyspace.outbox_alarms_key(k), 0, -1) for k in shards]
        )
        moved = 0
        for k, resting in zip(shards, found, strict=True):
            for at in range(0, len(resting), FORWARD_PAGE_SIZE):
                page = [sender.decode() for sender in resting[at : at + FORWARD_PAGE_SIZE]]
                call = TurnBack(
                    outbox_alarms=keyspace.outbox_alarms_key(k),
                    behind_ms=behind_ms,
                    outboxes=[_resting_outbox(k, sender) for sender in page],
                )
                moved += redis_client.run_command(self._redis, function_call(call))
        return moved

    def recent_tickets(self, sender: str) -> set[str]:
        """The tickets of this sender's last SMS that were accepted where repeats are not known."""
        k = keyspace.shard_of(sender, self._shards)
        tickets = redis_client.run_command(self._redis, ("LRANGE", keyspace.tickets_key(k, sender), 0, -1))
        return {ticket.decode() for ticket in tickets}


def _parse_leases(
    groups: Mapping[int, Sequence[str]], answers: Mapping[int, Sequence[Any]]
) -> list[OutboxLease]:
    """Return the leases among the answers for the senders of these shards, as far as there are any."""
    answered = chain.from_iterable(zip(groups[k], of_shard, strict=True) for k, of_shard in answers.items())
    return [_parse_lease(sender, answer) for sender, answer in answered if answer]


def _leave_unreplicated(lease: OutboxLease) -> OutboxUpdate:
    return OutboxUpdate(lease, "untried", rest_ms=UNREPLICATED_REST_MS, uncertain=lease.uncertain)


def _parse_lease(sender: str, answer: list[Any]) -> OutboxLease:
    fence, now, attempts, since, left, permit, lost, entry = answer
    return OutboxLease(sender, fence, now, attempts, since, bool(left), permit, entry, lost)


def _leased_outbox(k: int, sender: str) -> LeasedOutbox:
    return LeasedOutbox(
        mailbox=keyspace.mailbox_key(k, sender),
        outbox=keyspace.outbox_key(k, sender),
        outbox_lock=keyspace.outbox_lock_key(k, sender),
        sender=sender,
    )


def _resting_outbox(k: int, sender: str) -> RestingOutbox:
    return RestingOutbox(
        outbox=keyspace.outbox_key(k, sender), outbox_lock=keyspace.outbox_lock_key(k, sender), sender=sender
    )
