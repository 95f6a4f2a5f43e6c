"""Events go into mailboxes, and then the workers that they need are rung for.

`accept` returns when the event is in its mailbox, and so, with the settings that ship, on disk; or in the spool
(ingest/intake/spool.py), if there is one and Redis cannot take it, or has not yet taken what is there. The ring follows on its
own: a ring that fails is counted and forgotten, since the lane's alarm rings again.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from time import perf_counter
from typing import Any, Literal, get_args

import msgspec
import redis
import redis.asyncio
import structlog

from config.store import keyspace
from config.telemetry import faults, metrics
from engine.model.events import Inbound, Sms, encode
from ingest.intake.batches import Batches
from ingest.intake.spool import NoRoom, Spool, Spooled, now_ms

log = structlog.get_logger()

MOST = 512
"""Events in one round trip."""

WRITE_S = 1.0
"""How long a write may take. A request meets two at most: the one in flight when it came, and its own."""


Kept = Literal["accepted", "spooled"]
"""Where an acknowledged event is: in its mailbox, or on its way there."""

KEPT: tuple[Kept, ...] = get_args(Kept)


class Unwritten(Exception):
    """Redis did not confirm in time. The event may be in the mailbox; sent again, it is applied once."""


class Misplaced(Unwritten):
    """What Redis has under one of the names is nothing of ours, so waiting does not help."""


class Unspooled(Unwritten):
    """Nor did the spool take it. `str` is a sentence that says why."""


Entry = tuple[str, bool, bytes]
"""A sender, whether it is a START, and the event as bytes."""


class Letter(msgspec.Struct, frozen=True):
    """An event on its way into the mailbox of `sender`. `arrived_s` is of the clock perf_counter."""

    sender: str
    event: Inbound
    arrived_s: float


class Store:
    """One of our Redis servers, with our functions: loaded when it says that it has none."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client

    async def run(self, commands: Sequence[keyspace.Command], within_s: float = WRITE_S) -> list[Any]:
        """The answers to function calls, in one round trip. Raises Unwritten."""
        try:
            async with asyncio.timeout(within_s):
                try:
                    return await self._call(commands)
                except redis.ResponseError as e:
                    if "Function not found" not in str(e):
                        raise
                await self._client.function_load(keyspace.FUNCTIONS, replace=True)
                return await self._call(commands)
        except redis.ResponseError as e:
            raise (Misplaced if str(e).startswith("WRONGTYPE") else Unwritten)(str(e)) from e
        except (redis.RedisError, OSError, TimeoutError) as e:
            raise Unwritten(str(e) or type(e).__name__) from e

    async def answers(self) -> bool:
        """Is the server there?"""
        try:
            async with asyncio.timeout(WRITE_S):
                return bool(await self._client.ping())
        except (redis.RedisError, OSError, TimeoutError):
            return False

    async def close(self) -> None:
        await self._client.aclose()

    async def _call(self, commands: Sequence[keyspace.Command]) -> list[Any]:
        if len(commands) == 1:
            return [await self._client.execute_command(*commands[0])]  # type: ignore[no-untyped-call]
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        answers: list[Any] = await pipeline.execute(
            raise_on_error=False
        )  # its own errors quote phone numbers
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers


class Mailboxes:
    """The mailboxes of all senders, and the bells of the queues that work on them."""

    def __init__(self, shards: int, lanes: Store, broker: Store, spool: Spool | None = None) -> None:
        self._shards = shards
        self._lanes = lanes
        self._broker = broker
        self._spool = spool
        self._broker_fails = False
        self._letters = Batches(self._write, MOST)
        self._rings = Batches(self._ring, MOST)

    @property
    def behind(self) -> bool:
        """Has the spool something that goes first?"""
        return self._spool is not None and self._spool.in_use

    async def accept(self, letters: Sequence[Letter]) -> Kept:
        """Returns once every letter is in its mailbox, or some in the spool. Raises Unwritten."""
        kept: Kept = "accepted"
        for written in [self._letters.put(letter) for letter in letters]:
            if await written == "spooled":
                kept = "spooled"
        return kept

    async def hand_over(self, events: Sequence[Spooled], within_s: float) -> None:
        """Returns once what was spooled is in its mailboxes. Raises Unwritten."""
        now = now_ms()
        entries = [(each.sender, each.start, each.event) for each in events]
        await self._put(entries, [each.age_ms(now) for each in events], within_s)
        _count((each.channel, each.kind) for each in events)

    def ring(self, queue: str, sender: str) -> None:
        """Wake a worker of `queue` for `sender`, soon."""
        self._rings.put((queue, sender))

    async def close(self) -> None:
        """Finish what was begun, and let go of the servers."""
        await self._letters.drained()
        await self._rings.drained()
        await self._lanes.close()
        await self._broker.close()

    async def _write(self, letters: Sequence[Letter]) -> Kept:
        entries = [
            (letter.sender, type(letter.event) is Sms and letter.event.start, encode(letter.event))
            for letter in letters
        ]
        spool = self._spool
        if spool is not None and self.behind and await self._keep(spool, letters, entries):
            return "spooled"
        faults.reach("before_accept")
        try:
            await self._put(entries)
        except Unwritten as e:
            if spool is None or isinstance(e, Misplaced):
                raise
            await self._keep(spool, letters, entries, str(e))
            return "spooled"
        faults.reach("after_accept")
        metrics.WEBHOOK_SECONDS.observe(perf_counter() - letters[0].arrived_s)
        _count((letter.event.channel, _kind(letter)) for letter in letters)
        return "accepted"

    async def _put(
        self, entries: Sequence[Entry], ages_ms: Sequence[int] = (), within_s: float = WRITE_S
    ) -> None:
        """Have events in their mailboxes, and ring. Raises Unwritten."""
        commands, positions = keyspace.accept_commands(self._shards, entries, ages_ms)
        answers = await self._lanes.run(commands, within_s)
        for wakes, at in zip(answers, positions, strict=True):
            for wake, position in zip(wakes, at, strict=True):
                if wake:
                    self._rings.put((keyspace.QUEUE_OF[wake], entries[position][0]))

    async def _keep(
        self, spool: Spool, letters: Sequence[Letter], entries: Sequence[Entry], why: str = ""
    ) -> bool:
        """Have events in the spool. `why` they cannot go to their mailboxes; if they could once nothing is before them,
        it answers False when that is so, and has done nothing. Raises Unspooled."""
        now = now_ms()
        events = [
            Spooled(sender, event, start, now, letter.event.channel, _kind(letter))
            for letter, (sender, start, event) in zip(letters, entries, strict=True)
        ]
        channels = Counter(letter.event.channel for letter in letters)
        try:
            before = await asyncio.to_thread(spool.append, events, begin=bool(why))
        except NoRoom as e:
            for channel, count in channels.items():
                metrics.SPOOL_REFUSED.labels(channel, e.reason).inc(count)
            raise Unspooled(str(e)) from e
        if before < 0:
            return False
        if before == 0:
            log.warning("Redis takes no events; they are spooled until it does", error=why)
        for channel, count in channels.items():
            metrics.SPOOLED.labels(channel).inc(count)
        return True

    async def _ring(self, wakes: Sequence[tuple[str, str]]) -> None:
        """Ring for each (queue, sender). What cannot be rung is left to the alarms."""
        senders: dict[str, list[str]] = {}
        for queue, sender in wakes:
            senders.setdefault(queue, []).append(sender)
        faults.reach("before_ring")
        try:
            await self._broker.run([keyspace.ring_command(*ring) for ring in senders.items()])
            self._broker_fails = False
        except Unwritten as e:
            for queue, unrung in senders.items():
                metrics.RINGS_FAILED.labels(queue).inc(len(unrung))
            if not self._broker_fails:
                log.warning("the broker's Redis fails; the lanes' alarms will ring", error=str(e))
            self._broker_fails = True


def _kind(letter: Letter) -> str:
    return type(letter.event).__name__.lower()


def _count(events: Iterable[tuple[str, str]]) -> None:
    """Count events, of which channel and kind are told, as being in their mailboxes."""
    for (channel, kind), count in Counter(events).items():
        metrics.INBOUND.labels(channel, kind).inc(count)
