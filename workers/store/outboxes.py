"""Which SMS may be tried now, and what came of the try? One try at a time for each sender, oldest SMS first."""

import secrets
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Literal

import msgspec
import redis

from config.store import keyspace, stored_values
from config.telemetry import faults
from engine.model.events import InboundEvent, OutboundSms, encode_event
from workers.store.dead_letter_store import EncodedDeadLetter

SmsDisposition = Literal["done", "again", "untried", "booked"]
"""The SMS goes (accepted or buried); it stays and the try counts; it stays and no try counts; it stays, with a permit for
when it has rested."""

MAX_BROUGHT_FORWARD = 1_000
"""Senders of a shard that are brought forward when a channel's pause has ended by itself; others look a little later."""

FORWARD_PAGE_SIZE = 1_000

UNCERTAIN_REST_MS = 10_000
"""How long an SMS rests that the provider may have, before it is asked: so that it has it by then, if at all."""

UNLIMITED_SMS_PER_SECOND = 1_000.0
"""SMS a second by which a backlog is brought forward whose channel has no limit."""

LeasedSms = tuple["OutboxLease", OutboundSms]
"""A take, and its SMS, read."""


class OutboxLease(msgspec.Struct, frozen=True):
    """The oldest SMS of a sender, ours to try until the lease ends: taken at `now` (the server's ms), tried `attempts`
    times before, first at `since` (ms, 0 for never).

    `uncertain`: the provider may have the SMS: the last try ended so, or with its worker. `permit`: the epoch in which one
    was booked for now; -1: none was.
    """

    sender: str
    fence: int
    now: int
    attempts: int
    first_attempt_ms: int
    uncertain: bool
    permit_epoch: int
    entry: bytes

    @property
    def sms_bytes(self) -> bytes:
        return stored_values.outbox_sms(self.entry)


class StoredAttempt(msgspec.Struct, frozen=True, array_like=True):
    """What a failed try of an SMS came to, as it is kept beside the outbox. `at` is ms."""

    sms: str
    at: int
    code: str
    why: str


class OutboxUpdate(msgspec.Struct, frozen=True):
    """What came of a take: afterwards the sender rests for `rest_ms`; `records` go to the archive, `lane_mail` to the lane.

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
    def __init__(self, client: redis.Redis, shards: int, keep_events_ms: int, lease_ms: int) -> None:
        self._redis = client
        self._shards = shards
        self._keep_events_ms = keep_events_ms
        self._lease_ms = lease_ms

    def lease_oldest(self, senders: Sequence[str]) -> list[OutboxLease]:
        """Of these senders, those whose oldest SMS may be tried now, each with it."""
        owner = secrets.token_hex(8)
        groups = keyspace.group_by_shard(senders, str, self._shards)
        answers = keyspace.run_commands(
            self._redis,
            [
                keyspace.function_call("take", _lease_keys(k, group), (owner, self._lease_ms, *group))
                for k, group in groups.items()
            ],
        )
        faults.reach("after_take")
        answered = zip(chain.from_iterable(groups.values()), chain.from_iterable(answers), strict=True)
        return [_parse_lease(sender, answer) for sender, answer in answered if answer]

    def apply_updates(self, settled: Sequence[OutboxUpdate]) -> list[str]:
        """Say what came of these tries; each sender then rests. Answers whose next SMS may be taken at once."""
        if not settled:
            return []
        faults.reach("before_settle")
        answers = keyspace.run_commands(self._redis, [self._update_command(each) for each in settled])
        faults.reach("after_settle")
        return [each.lease.sender for each, more in zip(settled, answers, strict=True) if more]

    def _update_command(self, each: OutboxUpdate) -> keyspace.Command:
        sender, dead = each.lease.sender, each.dead_letter
        k = keyspace.shard_of(sender, self._shards)
        keys = [
            keyspace.outbox_alarms_key(k), keyspace.events_key(k), keyspace.dead_letters_key(k), keyspace.dead_letter_index_key(k),
            keyspace.outbox_key(k, sender), keyspace.outbox_lock_key(k, sender),
            keyspace.tickets_key(k, sender), keyspace.lane_alarms_key(k), keyspace.mailbox_key(k, sender), keyspace.dead_letter_reasons_key(k),
            keyspace.failed_attempts_key(k, sender),
        ]  # fmt: skip
        args = (
            sender, each.lease.fence, each.lease.entry, f"{each.disposition}{each.permit_epoch or ''}", each.rest_ms, self._keep_events_ms, each.records,
            dead.id if dead else "", dead.content if dead else b"", "?" if each.uncertain else "", each.ticket,
            keyspace.REPLY_PREFIX + encode_event(each.lane_mail) if each.lane_mail is not None else b"", each.lease.first_attempt_ms,
            _attempt_encoder.encode(each.failed_attempt) if each.failed_attempt else b"",
        )  # fmt: skip
        return keyspace.function_call("settle", keys, args)

    def failed_attempts(self, sender: str, sms: str) -> list[StoredAttempt]:
        """The failed tries of this SMS, if it is the oldest of its outbox, oldest first; no more than the last 20."""
        k = keyspace.shard_of(sender, self._shards)
        attempts = map(
            _decode_attempt,
            keyspace.run_command(self._redis, ("LRANGE", keyspace.failed_attempts_key(k, sender), 0, -1)),
        )
        return [attempt for attempt in attempts if attempt.sms == sms]

    def bring_forward(self, channel: str, rate: float, most: int | None = None) -> int:
        """Let those look again who rest because their channel let nothing leave: from now on, at its `rate` (SMS a second;
        0: no limit), and replies first; none whose SMS the provider may have before UNSURE_MS are over. Of each shard at most so many, those that would look soonest. Answers how many."""
        step_ms = 1000 / (rate or UNLIMITED_SMS_PER_SECOND)
        last = -1 if most is None else most - 1
        shards = keyspace.run_commands(
            self._redis, [("ZRANGE", keyspace.outbox_alarms_key(k), 0, last) for k in range(self._shards)]
        )
        waiting = 0
        for unasked in (0, 1):
            for k, resting in enumerate(shards):
                for at in range(0, len(resting), FORWARD_PAGE_SIZE):
                    page = [sender.decode() for sender in resting[at : at + FORWARD_PAGE_SIZE]]
                    keys = [keyspace.outbox_alarms_key(k), *_outbox_keys(k, page)]
                    args = (channel, unasked, waiting * step_ms, step_ms, UNCERTAIN_REST_MS, *page)
                    waiting += keyspace.run_command(
                        self._redis, keyspace.function_call("forward", keys, args)
                    )
        return waiting

    def recent_tickets(self, sender: str) -> set[str]:
        """The tickets of this sender's last SMS that were accepted where repeats are not known."""
        k = keyspace.shard_of(sender, self._shards)
        tickets = keyspace.run_command(self._redis, ("LRANGE", keyspace.tickets_key(k, sender), 0, -1))
        return {ticket.decode() for ticket in tickets}


def _parse_lease(sender: str, answer: list[Any]) -> OutboxLease:
    fence, now, attempts, since, left, permit, entry = answer
    return OutboxLease(sender, fence, now, attempts, since, bool(left), permit, entry)


def _lease_keys(k: int, senders: Sequence[str]) -> list[str]:
    return [keyspace.fence_key(k), keyspace.outbox_alarms_key(k), *_outbox_keys(k, senders)]


def _outbox_keys(k: int, senders: Sequence[str]) -> Iterator[str]:
    for sender in senders:
        yield keyspace.outbox_key(k, sender)
        yield keyspace.outbox_lock_key(k, sender)
