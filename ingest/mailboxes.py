"""Events go into mailboxes, and then the workers that they need are rung for.

`accept` returns when the event is in its mailbox, and so, with the settings that ship, on disk. The ring follows on
its own: a ring that fails is counted and forgotten, since the lane's alarm rings again.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import msgspec
import redis
import redis.asyncio
import structlog

from config import faults, keyspace, metrics
from engine.events import Inbound, Sms, encode
from ingest.batches import Batches

log = structlog.get_logger()

MOST = 512
"""Events in one round trip."""

WRITE_S = 1.0
"""How long a write may take. A request meets two at most: the one in flight when it came, and its own."""


class Unwritten(Exception):
    """Redis did not confirm in time. The event may be in the mailbox; sent again, it is applied once."""


class Letter(msgspec.Struct, frozen=True):
    """An event on its way into the mailbox of `sender`. `arrived_s` is of the clock perf_counter."""

    sender: str
    event: Inbound
    arrived_s: float


class Store:
    """One of our Redis servers, with our functions: loaded before they are first called, and when they got lost."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._loaded = False

    async def run(self, commands: Sequence[keyspace.Command]) -> list[Any]:
        """The answers to function calls, in one round trip. Raises Unwritten."""
        try:
            async with asyncio.timeout(WRITE_S):
                if not self._loaded:
                    await self._client.function_load(keyspace.FUNCTIONS, replace=True)
                    self._loaded = True
                return await self._call(commands)
        except redis.ResponseError as e:
            self._loaded = False
            raise Unwritten(str(e)) from e
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
        answers: list[Any] = await pipeline.execute()
        return answers


class Mailboxes:
    """The mailboxes of all senders, and the bells of the queues that work on them."""

    def __init__(self, shards: int, lanes: Store, broker: Store) -> None:
        self._shards = shards
        self._lanes = lanes
        self._broker = broker
        self._broker_fails = False
        self._letters = Batches(self._write, MOST)
        self._rings = Batches(self._ring, MOST)

    async def accept(self, letters: Sequence[Letter]) -> None:
        """Returns once every letter is in its mailbox. Raises Unwritten."""
        for written in [self._letters.put(letter) for letter in letters]:
            await written

    def ring(self, queue: str, sender: str) -> None:
        """Wake a worker of `queue` for `sender`, soon."""
        self._rings.put((queue, sender))

    async def close(self) -> None:
        """Finish what was begun, and let go of the servers."""
        await self._letters.drained()
        await self._rings.drained()
        await self._lanes.close()
        await self._broker.close()

    async def _write(self, letters: Sequence[Letter]) -> None:
        events = [
            (letter.sender, type(letter.event) is Sms and letter.event.start, encode(letter.event))
            for letter in letters
        ]
        commands, positions = keyspace.accept_commands(self._shards, events)
        faults.reach("before_accept")
        answers = await self._lanes.run(commands)
        faults.reach("after_accept")
        metrics.WEBHOOK_SECONDS.observe(perf_counter() - letters[0].arrived_s)
        _count(letters)
        for wakes, at in zip(answers, positions, strict=True):
            for wake, position in zip(wakes, at, strict=True):
                if wake:
                    self._rings.put((keyspace.QUEUE_OF[wake], letters[position].sender))

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


def _count(letters: Sequence[Letter]) -> None:
    counts = Counter((letter.event.channel, type(letter.event).__name__.lower()) for letter in letters)
    for (channel, kind), count in counts.items():
        metrics.INBOUND.labels(channel, kind).inc(count)
