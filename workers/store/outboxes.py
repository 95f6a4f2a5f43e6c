"""Which SMS may be tried now, and what came of the try? One try at a time for each sender, oldest SMS first."""

import secrets
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Literal

import msgspec
import redis

from config.store import keyspace, stored_values
from config.telemetry import faults
from engine.model.events import Inbound, Outbound, encode
from workers.store.lanes import Letter

Verdict = Literal["done", "again", "untried", "booked"]
"""The SMS goes (accepted or buried); it stays and the try counts; it stays and no try counts; it stays, with a permit for
when it has rested."""

MOST_FORWARD = 1_000
"""Senders of a shard that are brought forward when a channel's pause has ended by itself; others look a little later."""

PAGE = 1_000

UNSURE_MS = 10_000
"""How long an SMS rests that the provider may have, before it is asked: so that it has it by then, if at all."""

UNLIMITED = 1_000.0
"""SMS a second by which a backlog is brought forward whose channel has no limit."""

Taken = tuple["Take", Outbound]
"""A take, and its SMS, read."""


class Take(msgspec.Struct, frozen=True):
    """The oldest SMS of a sender, ours to try until the lease ends: taken at `now` (the server's ms), tried `attempts`
    times before, first at `since` (ms, 0 for never).

    `unknown`: the provider may have the SMS: the last try ended so, or with its worker. `permit`: the epoch in which one
    was booked for now; -1: none was.
    """

    sender: str
    fence: int
    now: int
    attempts: int
    since: int
    unknown: bool
    permit: int
    entry: bytes

    @property
    def sms(self) -> bytes:
        return stored_values.sms_in(self.entry)


class Attempt(msgspec.Struct, frozen=True, array_like=True):
    """What a failed try of an SMS came to, as it is kept beside the outbox. `at` is ms."""

    sms: str
    at: int
    code: str
    why: str


class Settled(msgspec.Struct, frozen=True):
    """What came of a take: afterwards the sender rests for `rest_ms`; `records` go to the archive, `mail` to the lane.

    `uncertain`: the SMS stays, and the provider may have it. `ticket` is remembered, to be told apart from later SMS.
    `epoch` is the one of a permit that is booked. `failed` is remembered while the SMS stays.
    """

    take: Take
    verdict: Verdict
    rest_ms: int = 0
    records: bytes = b""
    dead: Letter | None = None
    uncertain: bool = False
    ticket: str = ""
    mail: Inbound | None = None
    epoch: int = 0
    failed: Attempt | None = None


_attempt = msgspec.msgpack.Encoder()
_read_attempt = msgspec.msgpack.Decoder(Attempt).decode


class Outboxes:
    def __init__(self, client: redis.Redis, shards: int, keep_events_ms: int, lease_ms: int) -> None:
        self._redis = client
        self._shards = shards
        self._keep_events_ms = keep_events_ms
        self._lease_ms = lease_ms

    def take(self, senders: Sequence[str]) -> list[Take]:
        """Of these senders, those whose oldest SMS may be tried now, each with it."""
        owner = secrets.token_hex(8)
        groups = keyspace.by_shard(senders, str, self._shards)
        answers = keyspace.run(
            self._redis,
            [
                keyspace.call("take", _take_keys(k, group), (owner, self._lease_ms, *group))
                for k, group in groups.items()
            ],
        )
        faults.reach("after_take")
        answered = zip(chain.from_iterable(groups.values()), chain.from_iterable(answers), strict=True)
        return [_take(sender, answer) for sender, answer in answered if answer]

    def settle(self, settled: Sequence[Settled]) -> list[str]:
        """Say what came of these tries; each sender then rests. Answers whose next SMS may be taken at once."""
        if not settled:
            return []
        faults.reach("before_settle")
        answers = keyspace.run(self._redis, [self._settle(each) for each in settled])
        faults.reach("after_settle")
        return [each.take.sender for each, more in zip(settled, answers, strict=True) if more]

    def _settle(self, each: Settled) -> keyspace.Command:
        sender, dead = each.take.sender, each.dead
        k = keyspace.shard_of(sender, self._shards)
        keys = [
            keyspace.outbox_alarms(k), keyspace.events(k), keyspace.dead(k), keyspace.dead_index(k),
            keyspace.outbox(k, sender), keyspace.outbox_lock(k, sender),
            keyspace.tickets(k, sender), keyspace.alarms(k), keyspace.mailbox(k, sender), keyspace.dead_reasons(k),
            keyspace.tries(k, sender),
        ]  # fmt: skip
        args = (
            sender, each.take.fence, each.take.entry, f"{each.verdict}{each.epoch or ''}", each.rest_ms, self._keep_events_ms, each.records,
            dead.id if dead else "", dead.content if dead else b"", "?" if each.uncertain else "", each.ticket,
            keyspace.REPLY + encode(each.mail) if each.mail is not None else b"", each.take.since,
            _attempt.encode(each.failed) if each.failed else b"",
        )  # fmt: skip
        return keyspace.call("settle", keys, args)

    def tries(self, sender: str, sms: str) -> list[Attempt]:
        """The failed tries of this SMS, if it is the oldest of its outbox, oldest first; no more than the last 20."""
        k = keyspace.shard_of(sender, self._shards)
        attempts = map(_read_attempt, keyspace.ask(self._redis, ("LRANGE", keyspace.tries(k, sender), 0, -1)))
        return [attempt for attempt in attempts if attempt.sms == sms]

    def bring_forward(self, channel: str, rate: float, most: int | None = None) -> int:
        """Let those look again who rest because their channel let nothing leave: from now on, at its `rate` (SMS a second;
        0: no limit), and replies first; none whose SMS the provider may have before UNSURE_MS are over. Of each shard at most so many, those that would look soonest. Answers how many."""
        step_ms = 1000 / (rate or UNLIMITED)
        last = -1 if most is None else most - 1
        shards = keyspace.run(
            self._redis, [("ZRANGE", keyspace.outbox_alarms(k), 0, last) for k in range(self._shards)]
        )
        waiting = 0
        for unasked in (0, 1):
            for k, resting in enumerate(shards):
                for at in range(0, len(resting), PAGE):
                    page = [sender.decode() for sender in resting[at : at + PAGE]]
                    keys = [keyspace.outbox_alarms(k), *_outbox_keys(k, page)]
                    args = (channel, unasked, waiting * step_ms, step_ms, UNSURE_MS, *page)
                    waiting += keyspace.ask(self._redis, keyspace.call("forward", keys, args))
        return waiting

    def tickets(self, sender: str) -> set[str]:
        """The tickets of this sender's last SMS that were accepted where repeats are not known."""
        k = keyspace.shard_of(sender, self._shards)
        tickets = keyspace.ask(self._redis, ("LRANGE", keyspace.tickets(k, sender), 0, -1))
        return {ticket.decode() for ticket in tickets}


def _take(sender: str, answer: list[Any]) -> Take:
    fence, now, attempts, since, left, permit, entry = answer
    return Take(sender, fence, now, attempts, since, bool(left), permit, entry)


def _take_keys(k: int, senders: Sequence[str]) -> list[str]:
    return [keyspace.fence(k), keyspace.outbox_alarms(k), *_outbox_keys(k, senders)]


def _outbox_keys(k: int, senders: Sequence[str]) -> Iterator[str]:
    for sender in senders:
        yield keyspace.outbox(k, sender)
        yield keyspace.outbox_lock(k, sender)
