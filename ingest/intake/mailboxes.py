"""Puts events into mailboxes, and then wakes a worker for each sender that needs one.

`accept` returns when the event is in its mailbox (on disk, with the settings that ship) or in the spool
(ingest/intake/spool.py), if there is one and Redis fails or spooled events go first. Wake-ups are sent afterwards; one that
fails is counted and dropped, since the lane's alarm makes up for it.

Law, where the lanes are on a cluster: events whose shards are on different servers are written apart and wait for none of each
other, and only those fail, or are spooled, whose server did not confirm."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, get_args

import msgspec
import redis
import redis.asyncio
import structlog

from config.connections.async_cluster_client import AsyncClusterClient
from config.connections.cluster_routing import slot_of_key
from config.connections.redis_failures import failure_clause
from config.host import THIS_HOST, Host
from config.store import keyspace, redis_client
from config.store.function_calls import MAILBOX_FULL, Command, accept_commands, wake_command
from config.store.missing_rights import MissingRightError
from config.telemetry import faults, metrics
from engine.model.errors import ParleyError
from engine.model.events import InboundEvent, InboundSms, encode_event, kind_of
from ingest.intake.batches import ServerBatcher, WriteBatcher
from ingest.intake.spool import Spool, SpooledEvent, SpoolError

log = structlog.get_logger()

MAX_EVENTS_PER_WRITE = 512
"""Events in one round trip."""

WRITE_TIMEOUT_S = 1.0
"""How long a write may take. A request meets two at most: the one in flight when it came, and its own."""


LOG_INTERVAL_S = 30.0
"""How often it is logged that a right is missing."""

AcceptOutcome = Literal["accepted", "spooled"]
"""Where an acknowledged event is: in its mailbox, or on its way there."""

ACCEPT_OUTCOMES: tuple[AcceptOutcome, ...] = get_args(AcceptOutcome)


class RedisUnavailableError(ParleyError):
    """Redis did not confirm in time. The event may be in the mailbox; sent again, it is applied once."""

    @property
    def title(self) -> str:
        """What is the matter with Redis, for whoever asked: `Redis is full`."""
        return f"Redis {failure_clause(self)}"


class WrongRedisTypeError(RedisUnavailableError):
    """Redis holds a value of another type under one of our keys (WRONGTYPE), so another try will not help."""


class MailboxFullError(RedisUnavailableError):
    """Too many events of the sender wait already. None was lost: it was not acknowledged, and may be sent again."""

    @property
    def title(self) -> str:
        return "too many SMS of this number wait"


class RedisAndSpoolUnavailableError(RedisUnavailableError):
    """Redis did not confirm, and the spool did not take the event either. `str` is a sentence that says why the spool did not, and
    `title` what is the matter with Redis, as far as is known."""

    redis_failure: RedisUnavailableError | None = None

    @property
    def title(self) -> str:
        return self.redis_failure.title if self.redis_failure is not None else super().title


MailEntry = tuple[str, bool, bytes]
"""A sender, whether it is a START, and the event as bytes."""

Wakeup = tuple[str, str]
"""A queue, and the sender that a worker of it has to look at."""


class InboundItem(msgspec.Struct, frozen=True):
    """An event on its way into the mailbox of `sender`. `arrived_s` is of the host's monotonic clock."""

    sender: str
    event: InboundEvent
    arrived_s: float


OutgoingEvent = tuple[InboundItem, MailEntry]
"""An event as it came, and as it goes on."""


Probe = Callable[[str], Command]
"""Makes of a key a command that changes nothing, and that its server does if all is well."""


def existence_probe(key: str) -> Command:
    return ("EXISTS", key)


class _CommandRunner(Protocol):
    """One of redis_client's."""

    async def __call__(
        self, client: redis.asyncio.Redis, commands: Sequence[Command], *, replicas: int = 0
    ) -> list[Any]: ...


class AsyncRedisClient:
    """One of our Redis servers, or a cluster of them, within a limit of time. Before anything is asked of it, `admit` has to return
    once; it raises RedisUnavailableError while it does not. What is to be acknowledged is on so many `replicas` of it."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        admit: Callable[[], Awaitable[None]] | None = None,
        replicas: int = 0,
    ) -> None:
        self._client = client
        self._cluster = client if isinstance(client, AsyncClusterClient) else None
        self._admit = admit
        self._replicas = replicas
        self._told_s: dict[str, float] = {}

    @property
    def is_cluster(self) -> bool:
        return self._cluster is not None

    def server_of(self, key: str) -> Hashable:
        """Return what stands for the server that has a key now, as far as is known."""
        return self._cluster and self._cluster.owner(slot_of_key(key))

    async def run_commands(self, commands: Sequence[Command], within_s: float = WRITE_TIMEOUT_S) -> list[Any]:
        """The answers to function calls, in one round trip. Raises RedisUnavailableError."""
        return await self._bounded(redis_client.run_commands_async, commands, within_s, 0)

    async def write(self, commands: Sequence[Command], within_s: float = WRITE_TIMEOUT_S) -> list[Any]:
        """The same, for what is acknowledged or said then: a failover does not lose it, if there are replicas. Raises
        RedisUnavailableError, also if it is written but on too few of them."""
        return await self._bounded(redis_client.run_commands_async, commands, within_s, self._replicas)

    async def try_commands(self, commands: Sequence[Command], within_s: float = WRITE_TIMEOUT_S) -> list[Any]:
        """The same as `run_commands`; on a cluster, for which it never raises, with a RedisUnavailableError in the place of each
        answer that a server owes."""
        return await self._each_apart(commands, within_s, 0)

    async def try_write(self, commands: Sequence[Command], within_s: float = WRITE_TIMEOUT_S) -> list[Any]:
        """The same as `write`, with errors as in `try_commands`."""
        return await self._each_apart(commands, within_s, self._replicas)

    async def _each_apart(self, commands: Sequence[Command], within_s: float, replicas: int) -> list[Any]:
        if not self.is_cluster:
            return await self._bounded(redis_client.run_commands_async, commands, within_s, replicas)
        try:
            answers = await self._bounded(redis_client.try_commands_async, commands, within_s, replicas)
        except RedisUnavailableError as e:
            return [e] * len(commands)
        return [self._as_unavailable(each) if isinstance(each, Exception) else each for each in answers]

    async def _bounded(
        self, run: _CommandRunner, commands: Sequence[Command], within_s: float, replicas: int
    ) -> list[Any]:
        try:
            async with asyncio.timeout(within_s):
                if self._admit is not None:
                    await self._admitted(self._admit)
                return await run(self._client, commands, replicas=replicas)
        except (redis.RedisError, OSError, TimeoutError) as e:
            raise self._as_unavailable(e) from e

    async def find_silent(
        self, keys: Iterable[str], probe: Probe = existence_probe
    ) -> Mapping[str, RedisUnavailableError]:
        """Return which of these keys lie on a server of the cluster that does not do what `probe` asks of it, by itself or as its
        replicas are not there, and why."""
        by_server: dict[Hashable, list[str]] = {}
        for key in keys:
            by_server.setdefault(self.server_of(key), []).append(key)
        answers = await self.try_write([probe(first) for first, *_ in by_server.values()])
        return {
            key: answer
            for answer, found in zip(answers, by_server.values(), strict=True)
            if isinstance(answer, RedisUnavailableError)
            for key in found
        }

    def slots_beside(self, key: str) -> str:
        """Return the slots of the server of the cluster that has a key: `0-5460`."""
        return self._cluster.slots_of(self._cluster.owner(slot_of_key(key))) if self._cluster else ""

    def _as_unavailable(self, error: Exception) -> RedisUnavailableError:
        is_refusal = isinstance(error, redis.ResponseError)
        if is_refusal:
            self._tell_refusal(error)
        kind = (
            WrongRedisTypeError
            if is_refusal and str(error).startswith("WRONGTYPE")
            else RedisUnavailableError
        )
        unavailable = kind(str(error) or type(error).__name__)
        unavailable.__cause__ = error
        return unavailable

    def _tell_refusal(self, error: Exception) -> None:
        """Log now and then which right our user lacks: whoever asked is told no more than that it is to ask again."""
        if isinstance(error, MissingRightError):
            why, now_s = str(error), asyncio.get_running_loop().time()
            if now_s - self._told_s.get(why, float("-inf")) >= LOG_INTERVAL_S:
                self._told_s[why] = now_s
                log.error("Redis refuses what is asked of it", why=why)

    async def is_reachable(self) -> bool:
        """Is the server there, and are its replicas?"""
        return await self.find_failure(("PING",)) is None

    async def find_failure(self, probe: Command) -> RedisUnavailableError | None:
        """Why the server, or its replicas, do not do what `probe` asks; None if they do."""
        try:
            await self.write([probe])
        except RedisUnavailableError as e:
            return e
        return None

    async def _admitted(self, admit: Callable[[], Awaitable[None]]) -> None:
        await admit()
        self._admit = None

    async def close(self) -> None:
        await self._client.aclose()


class WrittenBatch(msgspec.Struct, frozen=True):
    """What became of events that were written together, by their senders: whose mailboxes are `full`, whose events are `spooled`,
    and why others are nowhere."""

    full: Collection[str] = ()
    spooled: Collection[str] = ()
    failed: Mapping[str, RedisUnavailableError] = {}


class MailboxWriter:
    """The mailboxes of all senders, and the bells of the queues that work on them."""

    def __init__(
        self,
        shards: int,
        lanes: AsyncRedisClient,
        broker: AsyncRedisClient,
        spool: Spool | None = None,
        host: Host = THIS_HOST,
        bells_database: keyspace.BellsDatabase = "",
    ) -> None:
        self._shards = shards
        self._bells_database = bells_database
        self._lanes = lanes
        self._broker = broker
        self._spool = spool
        self._host = host
        self._unrung_queues: set[str] = set()
        self._last_failure: RedisUnavailableError | None = None  # for which an event was to be spooled
        self._item_writes = self._batches_of_items()
        self._wakeup_writes = self._batches_of_wakeups()

    def _batches_of_items(
        self,
    ) -> WriteBatcher[InboundItem, WrittenBatch] | ServerBatcher[InboundItem, WrittenBatch]:
        if not self._lanes.is_cluster:
            return WriteBatcher(self._write_items, MAX_EVENTS_PER_WRITE)
        keys = shard_keys(self._shards)

        def server_of(item: InboundItem) -> Hashable:
            return self._lanes.server_of(keys[keyspace.shard_of(item.sender, self._shards)])

        return ServerBatcher(self._write_items, MAX_EVENTS_PER_WRITE, server_of)

    def _batches_of_wakeups(self) -> WriteBatcher[Wakeup, None] | ServerBatcher[Wakeup, None]:
        if not self._broker.is_cluster:
            return WriteBatcher(self._send_wakeups, MAX_EVENTS_PER_WRITE)

        def server_of(wake: Wakeup) -> Hashable:
            return self._broker.server_of(keyspace.wakeup_queue_key(wake[0]))

        return ServerBatcher(self._send_wakeups, MAX_EVENTS_PER_WRITE, server_of)

    @property
    def shards(self) -> int:
        return self._shards

    @property
    def spool_in_use(self) -> bool:
        """Whether the spool holds events, which go into the mailboxes before any new one of their shards."""
        return self._spool is not None and self._spool.in_use

    def is_held(self, sender: str) -> bool:
        """Whether an event of this sender would go behind others in the spool."""
        return self._spool is not None and self._spool.in_use and bool(self._spool.held_senders([sender]))

    async def accept(self, items: Sequence[InboundItem]) -> AcceptOutcome:
        """Returns once every item is in its mailbox, or some in the spool. Raises RedisUnavailableError, of which
        MailboxFullError is one."""
        kept: AcceptOutcome = "accepted"
        refused = False
        for item, written in [(item, self._item_writes.submit(item)) for item in items]:
            batch = await written
            if item.sender in batch.failed:
                raise batch.failed[item.sender]
            refused = refused or item.sender in batch.full
            if item.sender in batch.spooled:
                kept = "spooled"
        if refused:
            raise MailboxFullError("too many SMS of this number wait")
        return kept

    async def accept_spooled(self, events: Sequence[SpooledEvent], within_s: float) -> None:
        """Returns once what was spooled is in its mailboxes. Raises RedisUnavailableError."""
        for error in (await self.try_accept_spooled(events, within_s)).values():
            raise error

    async def try_accept_spooled(
        self, events: Sequence[SpooledEvent], within_s: float
    ) -> Mapping[str, RedisUnavailableError]:
        """The same; on a cluster it answers whose events are in no mailbox, and why."""
        now = self._host.wall_ms()
        entries = [(each.sender, each.start, each.event) for each in events]
        _, failed = await self._put_in_mailboxes(entries, [each.age_ms(now) for each in events], within_s)
        _count_inbound((each.channel, each.kind) for each in events if each.sender not in failed)
        return failed

    def wake(self, queue: str, sender: str) -> None:
        """Wake a worker of `queue` for `sender`, soon."""
        self._wakeup_writes.submit((queue, sender))

    async def close(self) -> None:
        """Finish what was begun, and let go of the servers."""
        await self._item_writes.wait_drained()
        await self._wakeup_writes.wait_drained()
        await self._lanes.close()
        await self._broker.close()

    async def _write_items(self, items: Sequence[InboundItem]) -> WrittenBatch:
        """Write events, and answer where they are. Raises RedisUnavailableError if that is nowhere, for all of them."""
        outgoing = [
            (
                item,
                (item.sender, type(item.event) is InboundSms and item.event.start, encode_event(item.event)),
            )
            for item in items
        ]
        spool = self._spool
        if spool is not None and self.spool_in_use:
            written = await self._write_behind_spooled(spool, outgoing)
        else:
            written = await self._write_to_mailboxes(outgoing)
        if written.failed and all(item.sender in written.failed for item in items):
            raise written.failed[items[0].sender]
        return written

    async def _write_behind_spooled(self, spool: Spool, outgoing: Sequence[OutgoingEvent]) -> WrittenBatch:
        """Write events of senders with something before them in the spool there, and the others to their mailboxes meanwhile."""
        held = spool.held_senders([item.sender for item, _ in outgoing])
        behind = [each for each in outgoing if each[0].sender in held]
        if len(behind) == len(outgoing):
            return await self._write_held(spool, behind)
        others = self._write_to_mailboxes([each for each in outgoing if each[0].sender not in held])
        if not behind:
            return await others
        return _joined(*await asyncio.gather(self._write_held(spool, behind), others))

    async def _write_held(self, spool: Spool, outgoing: Sequence[OutgoingEvent]) -> WrittenBatch:
        """Write events to the spool, or to their mailboxes if nothing is before them any more."""
        try:
            free = await self._put_in_spool(spool, outgoing)
        except RedisAndSpoolUnavailableError as e:
            e.redis_failure = self._last_failure
            return WrittenBatch(failed={item.sender: e for item, _ in outgoing})
        spooled = WrittenBatch(spooled={item.sender for item, _ in outgoing} - set(free))
        if not free:
            return spooled
        return _joined(
            spooled, await self._write_to_mailboxes([each for each in outgoing if each[0].sender in free])
        )

    async def _write_to_mailboxes(self, outgoing: Sequence[OutgoingEvent]) -> WrittenBatch:
        """Write events to their mailboxes; to the spool, if there is one, what is confirmed by nobody."""
        faults.reach("before_accept")
        spooled: Collection[str] = ()
        try:
            full, failed = await self._put_in_mailboxes([entry for _, entry in outgoing])
        except RedisUnavailableError as e:
            full, failed = (), {item.sender: e for item, _ in outgoing}
        if failed:
            spooled, failed = await self._spool_failed(outgoing, failed)
            accepted = [
                item for item, _ in outgoing if item.sender not in failed and item.sender not in spooled
            ]
        else:
            accepted = [item for item, _ in outgoing]
        if accepted:
            faults.reach("after_accept")
            metrics.WEBHOOK_SECONDS.observe(self._host.monotonic_s() - accepted[0].arrived_s)
            _count_inbound(
                (item.event.channel, _event_kind(item)) for item in accepted if item.sender not in full
            )
        return WrittenBatch(full, spooled, failed)

    async def _spool_failed(
        self, outgoing: Sequence[OutgoingEvent], failed: Mapping[str, RedisUnavailableError]
    ) -> tuple[Collection[str], Mapping[str, RedisUnavailableError]]:
        """Write what is in no mailbox to the spool, if there is one. Answers whose is there, and why others' is not."""
        hopeless = {sender: e for sender, e in failed.items() if isinstance(e, WrongRedisTypeError)}
        spooling = failed.keys() - hopeless.keys()
        if self._spool is None or not spooling:
            return (), failed
        self._last_failure = failure = next(failed[sender] for sender in failed if sender in spooling)
        try:
            await self._put_in_spool(
                self._spool, [each for each in outgoing if each[0].sender in spooling], str(failure)
            )
        except RedisAndSpoolUnavailableError as e:
            e.redis_failure = failure
            return (), {**hopeless, **dict.fromkeys(spooling, e)}
        return spooling, hopeless

    async def _put_in_mailboxes(
        self, entries: Sequence[MailEntry], ages_ms: Sequence[int] = (), within_s: float = WRITE_TIMEOUT_S
    ) -> tuple[Collection[str], Mapping[str, RedisUnavailableError]]:
        """Have events in their mailboxes, and ring. Answers senders some of whose were refused, as their mailboxes are full; and
        on a cluster, those whose server did not confirm, and why. Raises RedisUnavailableError if the one server did not."""
        commands, positions = accept_commands(self._shards, entries, ages_ms, self._bells_database)
        answers = await self._lanes.try_write(commands, within_s)
        full: set[str] = set()
        failed: dict[str, RedisUnavailableError] = {}
        for wakes, at in zip(answers, positions, strict=True):
            if isinstance(wakes, RedisUnavailableError):
                failed |= {entries[position][0]: wakes for position in at}
                continue
            for wake, position in zip(wakes, at, strict=True):
                if wake == MAILBOX_FULL:
                    full.add(entries[position][0])
                    continue
                for queue in keyspace.QUEUES_BY_NUMBER[wake]:
                    self._wakeup_writes.submit((queue, entries[position][0]))
        return full, failed

    async def _put_in_spool(
        self, spool: Spool, outgoing: Sequence[OutgoingEvent], why: str = ""
    ) -> Collection[str]:
        """Have events in the spool. `why` they cannot go to their mailboxes; if they could once nothing is before them, it answers
        the senders of whom that is so, and has written nothing of theirs. Raises RedisAndSpoolUnavailableError."""
        now = self._host.wall_ms()
        events = [
            SpooledEvent(sender, event, start, now, item.event.channel, _event_kind(item))
            for item, (sender, start, event) in outgoing
        ]
        free: Collection[str] = ()
        try:
            if not why:
                free = await asyncio.to_thread(spool.append_held, events)
            elif await asyncio.to_thread(spool.append, events, begin=True) == 0:
                log.warning("Redis takes no events; they are spooled until it does", error=why)
        except SpoolError as e:
            for channel, count in Counter(each.channel for each in events).items():
                metrics.SPOOL_REFUSED.labels(channel, e.reason).inc(count)
            raise RedisAndSpoolUnavailableError(str(e)) from e
        for channel, count in Counter(each.channel for each in events if each.sender not in free).items():
            metrics.SPOOLED.labels(channel).inc(count)
        return free

    async def _send_wakeups(self, wakes: Sequence[Wakeup]) -> None:
        """Ring for each (queue, sender). What cannot be rung is left to the alarms."""
        senders: dict[str, list[str]] = {}
        for queue, sender in wakes:
            senders.setdefault(queue, []).append(sender)
        faults.reach("before_ring")
        try:
            answers = await self._broker.try_commands([wake_command(*ring) for ring in senders.items()])
        except RedisUnavailableError as e:
            answers = [e] * len(senders)
        failed = {
            queue: e
            for queue, e in zip(senders, answers, strict=True)
            if isinstance(e, RedisUnavailableError)
        }
        for queue, error in failed.items():
            metrics.RINGS_FAILED.labels(queue).inc(len(senders[queue]))
            if queue not in self._unrung_queues:
                log.warning(
                    "the broker's Redis fails; the lanes' alarms will ring", queue=queue, error=str(error)
                )
        self._unrung_queues = (self._unrung_queues - senders.keys()) | failed.keys()


def shard_keys(shards: int) -> list[str]:
    """Return a key of each shard, by which it is found."""
    return [keyspace.lane_alarms_key(k) for k in range(shards)]


def _joined(first: WrittenBatch, second: WrittenBatch) -> WrittenBatch:
    return WrittenBatch(
        {*first.full, *second.full}, {*first.spooled, *second.spooled}, {**first.failed, **second.failed}
    )


def _event_kind(item: InboundItem) -> str:
    return kind_of(item.event)


def _count_inbound(events: Iterable[tuple[str, str]]) -> None:
    """Count events, of which channel and kind are told, as being in their mailboxes."""
    for (channel, kind), count in Counter(events).items():
        metrics.INBOUND.labels(channel, kind).inc(count)
