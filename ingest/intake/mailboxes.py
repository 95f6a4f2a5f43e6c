"""Puts events into mailboxes, and then wakes a worker for each sender that needs one.

`accept` returns when the event is in its mailbox (on disk, with the settings that ship) or in the spool
(ingest/intake/spool.py), if there is one and Redis fails or spooled events go first. Wake-ups are sent afterwards; one that
fails is counted and dropped, since the lane's alarm makes up for it."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from time import perf_counter
from typing import Any, Literal, get_args

import msgspec
import redis
import redis.asyncio
import structlog

from config.store import keyspace, redis_client
from config.store.function_calls import MAILBOX_FULL, Command, accept_commands, wake_command
from config.telemetry import faults, metrics
from engine.model.errors import ParleyError
from engine.model.events import InboundEvent, InboundSms, encode_event, kind_of
from ingest.intake.batches import WriteBatcher
from ingest.intake.spool import Spool, SpooledEvent, SpoolError, now_ms

log = structlog.get_logger()

MAX_EVENTS_PER_WRITE = 512
"""Events in one round trip."""

WRITE_TIMEOUT_S = 1.0
"""How long a write may take. A request meets two at most: the one in flight when it came, and its own."""


AcceptOutcome = Literal["accepted", "spooled"]
"""Where an acknowledged event is: in its mailbox, or on its way there."""

ACCEPT_OUTCOMES: tuple[AcceptOutcome, ...] = get_args(AcceptOutcome)


class RedisUnavailableError(ParleyError):
    """Redis did not confirm in time. The event may be in the mailbox; sent again, it is applied once."""


class WrongRedisTypeError(RedisUnavailableError):
    """Redis holds a value of another type under one of our keys (WRONGTYPE), so another try will not help."""


class MailboxFullError(RedisUnavailableError):
    """Too many events of the sender wait already. None was lost: it was not acknowledged, and may be sent again."""


class RedisAndSpoolUnavailableError(RedisUnavailableError):
    """Redis did not confirm, and the spool did not take the event either. `str` is a sentence that says why."""


MailEntry = tuple[str, bool, bytes]
"""A sender, whether it is a START, and the event as bytes."""


class InboundItem(msgspec.Struct, frozen=True):
    """An event on its way into the mailbox of `sender`. `arrived_s` is of the clock perf_counter."""

    sender: str
    event: InboundEvent
    arrived_s: float


class AsyncRedisClient:
    """One of our Redis servers, within a limit of time. Before anything is asked of it, `admit` has to return once; it raises
    RedisUnavailableError while it does not."""

    def __init__(
        self, client: redis.asyncio.Redis, admit: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self._client = client
        self._admit = admit

    async def run_commands(self, commands: Sequence[Command], within_s: float = WRITE_TIMEOUT_S) -> list[Any]:
        """The answers to function calls, in one round trip. Raises RedisUnavailableError."""
        try:
            async with asyncio.timeout(within_s):
                if self._admit is not None:
                    await self._admitted(self._admit)
                return await redis_client.run_commands_async(self._client, commands)
        except redis.ResponseError as e:
            raise (WrongRedisTypeError if str(e).startswith("WRONGTYPE") else RedisUnavailableError)(
                str(e)
            ) from e
        except (redis.RedisError, OSError, TimeoutError) as e:
            raise RedisUnavailableError(str(e) or type(e).__name__) from e

    async def is_reachable(self) -> bool:
        """Is the server there?"""
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                if self._admit is not None:
                    await self._admitted(self._admit)
                return bool(await self._client.ping())
        except (RedisUnavailableError, redis.RedisError, OSError, TimeoutError):
            return False

    async def _admitted(self, admit: Callable[[], Awaitable[None]]) -> None:
        await admit()
        self._admit = None

    async def close(self) -> None:
        await self._client.aclose()


class MailboxWriter:
    """The mailboxes of all senders, and the bells of the queues that work on them."""

    def __init__(
        self, shards: int, lanes: AsyncRedisClient, broker: AsyncRedisClient, spool: Spool | None = None
    ) -> None:
        self._shards = shards
        self._lanes = lanes
        self._broker = broker
        self._spool = spool
        self._broker_fails = False
        self._item_writes = WriteBatcher(self._write_items, MAX_EVENTS_PER_WRITE)
        self._wakeup_writes = WriteBatcher(self._send_wakeups, MAX_EVENTS_PER_WRITE)

    @property
    def spool_in_use(self) -> bool:
        """Whether the spool holds events, which go into the mailboxes before any new one."""
        return self._spool is not None and self._spool.in_use

    async def accept(self, items: Sequence[InboundItem]) -> AcceptOutcome:
        """Returns once every item is in its mailbox, or some in the spool. Raises RedisUnavailableError, of which
        MailboxFullError is one."""
        kept: AcceptOutcome = "accepted"
        refused = False
        for item, written in [(item, self._item_writes.submit(item)) for item in items]:
            outcome, full = await written
            refused = refused or item.sender in full
            if outcome == "spooled":
                kept = "spooled"
        if refused:
            raise MailboxFullError("too many SMS of this number wait")
        return kept

    async def accept_spooled(self, events: Sequence[SpooledEvent], within_s: float) -> None:
        """Returns once what was spooled is in its mailboxes. Raises RedisUnavailableError."""
        now = now_ms()
        entries = [(each.sender, each.start, each.event) for each in events]
        await self._put_in_mailboxes(entries, [each.age_ms(now) for each in events], within_s)
        _count_inbound((each.channel, each.kind) for each in events)

    def wake(self, queue: str, sender: str) -> None:
        """Wake a worker of `queue` for `sender`, soon."""
        self._wakeup_writes.submit((queue, sender))

    async def close(self) -> None:
        """Finish what was begun, and let go of the servers."""
        await self._item_writes.wait_drained()
        await self._wakeup_writes.wait_drained()
        await self._lanes.close()
        await self._broker.close()

    async def _write_items(self, items: Sequence[InboundItem]) -> tuple[AcceptOutcome, Collection[str]]:
        """Write events, and answer where they are, but for those of senders whose mailboxes are full."""
        entries = [
            (
                item.sender,
                type(item.event) is InboundSms and item.event.start,
                encode_event(item.event),
            )
            for item in items
        ]
        spool = self._spool
        if spool is not None and self.spool_in_use and await self._put_in_spool(spool, items, entries):
            return "spooled", ()
        faults.reach("before_accept")
        try:
            full = await self._put_in_mailboxes(entries)
        except RedisUnavailableError as e:
            if spool is None or isinstance(e, WrongRedisTypeError):
                raise
            await self._put_in_spool(spool, items, entries, str(e))
            return "spooled", ()
        faults.reach("after_accept")
        metrics.WEBHOOK_SECONDS.observe(perf_counter() - items[0].arrived_s)
        _count_inbound((item.event.channel, _event_kind(item)) for item in items if item.sender not in full)
        return "accepted", full

    async def _put_in_mailboxes(
        self, entries: Sequence[MailEntry], ages_ms: Sequence[int] = (), within_s: float = WRITE_TIMEOUT_S
    ) -> Collection[str]:
        """Have events in their mailboxes, and ring. Answers senders some of whose were refused, as their mailboxes are full.
        Raises RedisUnavailableError."""
        commands, positions = accept_commands(self._shards, entries, ages_ms)
        answers = await self._lanes.run_commands(commands, within_s)
        full: set[str] = set()
        for wakes, at in zip(answers, positions, strict=True):
            for wake, position in zip(wakes, at, strict=True):
                if wake == MAILBOX_FULL:
                    full.add(entries[position][0])
                    continue
                for queue in keyspace.QUEUES_BY_NUMBER[wake]:
                    self._wakeup_writes.submit((queue, entries[position][0]))
        return full

    async def _put_in_spool(
        self, spool: Spool, items: Sequence[InboundItem], entries: Sequence[MailEntry], why: str = ""
    ) -> bool:
        """Have events in the spool. `why` they cannot go to their mailboxes; if they could once nothing is before them,
        it answers False when that is so, and has done nothing. Raises RedisAndSpoolUnavailableError."""
        now = now_ms()
        events = [
            SpooledEvent(sender, event, start, now, item.event.channel, _event_kind(item))
            for item, (sender, start, event) in zip(items, entries, strict=True)
        ]
        channels = Counter(item.event.channel for item in items)
        try:
            before = await asyncio.to_thread(spool.append, events, begin=bool(why))
        except SpoolError as e:
            for channel, count in channels.items():
                metrics.SPOOL_REFUSED.labels(channel, e.reason).inc(count)
            raise RedisAndSpoolUnavailableError(str(e)) from e
        if before < 0:
            return False
        if before == 0:
            log.warning("Redis takes no events; they are spooled until it does", error=why)
        for channel, count in channels.items():
            metrics.SPOOLED.labels(channel).inc(count)
        return True

    async def _send_wakeups(self, wakes: Sequence[tuple[str, str]]) -> None:
        """Ring for each (queue, sender). What cannot be rung is left to the alarms."""
        senders: dict[str, list[str]] = {}
        for queue, sender in wakes:
            senders.setdefault(queue, []).append(sender)
        faults.reach("before_ring")
        try:
            await self._broker.run_commands([wake_command(*ring) for ring in senders.items()])
            self._broker_fails = False
        except RedisUnavailableError as e:
            for queue, unrung in senders.items():
                metrics.RINGS_FAILED.labels(queue).inc(len(unrung))
            if not self._broker_fails:
                log.warning("the broker's Redis fails; the lanes' alarms will ring", error=str(e))
            self._broker_fails = True


def _event_kind(item: InboundItem) -> str:
    return kind_of(item.event)


def _count_inbound(events: Iterable[tuple[str, str]]) -> None:
    """Count events, of which channel and kind are told, as being in their mailboxes."""
    for (channel, kind), count in Counter(events).items():
        metrics.INBOUND.labels(channel, kind).inc(count)
