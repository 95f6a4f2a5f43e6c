"""Drains the spool into the mailboxes. Each `web` process of a machine looks once a second; the one that gets the
drain lock does it, as soon as Redis takes events again. ingest/intake/spool.py states the law. Where there are several servers,
shard_drain.py says what is handed over.

Parts begin at 16 events and double to 128 while all goes well, so that a Redis which loses its replies is not filled
with copies. One part is under way at a time; requests are served between two."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import TypeVar

import structlog

from config.host import THIS_HOST, Host
from config.telemetry import faults, metrics
from ingest.intake.mailboxes import (
    WRITE_TIMEOUT_S,
    AsyncRedisClient,
    MailboxWriter,
    RedisUnavailableError,
    WrongRedisTypeError,
)
from ingest.intake.shard_drain import ShardDrain
from ingest.intake.spool import (
    FIRST_PART_EVENTS,
    LARGEST_PART_EVENTS,
    PART_TIMEOUT_S,
    Spool,
    SpooledEvent,
    SpoolError,
    SpoolPart,
    SpoolPosition,
    encode_line,
)

log = structlog.get_logger()

DRAIN_INTERVAL_S = 1.0
T = TypeVar("T")


class SpoolDrain:
    """Drains the spool in a task of its own, from `start` until `stop`."""

    def __init__(
        self, spool: Spool, mailboxes: MailboxWriter, lanes: AsyncRedisClient, host: Host = THIS_HOST
    ) -> None:
        self._spool = spool
        self._mailboxes = mailboxes
        self._lanes = lanes
        self._host = host
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failing = False
        self._by_shard = (
            ShardDrain(spool, spool.marks, mailboxes, lanes, self._put_aside, host) if spool.marks else None
        )

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._drain_repeatedly())

    async def stop(self) -> None:
        """Finish the part that is under way."""
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def _drain_repeatedly(self) -> None:
        while not self._stopping.is_set():
            try:
                await self.drain_if_ours()
                self._failing = False
            except Exception as e:  # noqa: BLE001 - tried again, whatever it is
                if not self._failing:
                    log.warning(
                        "the spool cannot be handed over; it is tried again", error=_error_sentence(e)
                    )
                self._failing = True
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), DRAIN_INTERVAL_S)

    async def drain_if_ours(self) -> None:
        """Drain the spool if it holds anything, Redis answers and no other process does so."""
        if not self._spool.in_use:
            return
        with self._spool.drain_lock() as ours:
            if ours and self._by_shard is not None:
                await self._by_shard.drain(self._stopping)
            elif ours and await self._lanes.is_reachable():
                await self._drain_parts()

    async def _drain_parts(self) -> None:
        """Hand over part by part. Raises RedisUnavailableError, SpoolError and OSError; what was handed over by then is noted."""
        place, most, settled = await _in_thread(self._spool.read_position), FIRST_PART_EVENTS, 0
        while not self._stopping.is_set():
            part = await _in_thread(self._spool.read_part, place, most, settled)
            if part.last:
                if await self._drain_last_part(place, most):
                    return
                continue
            if part.end_position == place:
                settled = await _in_thread(self._spool.settled_bytes)
                continue
            await self._deliver_part(part, PART_TIMEOUT_S)
            await _in_thread(self._spool.save_position, part.end_position)
            faults.reach("after_move")
            place, most = part.end_position, min(2 * most, LARGEST_PART_EVENTS)

    async def _drain_last_part(self, place: SpoolPosition, most: int) -> bool:
        """Hand over the last part while the file is locked, and empty the file. Return False if another part follows
        after all."""
        with ExitStack() as stack:
            file = await _in_thread(stack.enter_context, self._spool.locked_file())
            part = await _in_thread(self._spool.read_part, place, most)
            if not part.last:
                return False
            await self._deliver_part(part, WRITE_TIMEOUT_S)
            faults.reach("before_finish")
            await _in_thread(self._spool.truncate_file, file)
        faults.reach("after_finish")
        seconds = round((self._host.wall_ms() - place.begun_ms) / 1000, 1) if place.begun_ms else None
        log.info("what was spooled is handed over", events=part.end_position.lines, seconds=seconds)
        return True

    async def _deliver_part(self, part: SpoolPart, within_s: float) -> None:
        """Put a part's events into their mailboxes, and set aside those that cannot be. Raises RedisUnavailableError."""
        faults.reach("before_hand_over")
        if part.events:
            try:
                await self._mailboxes.accept_spooled(part.events, within_s)
            except WrongRedisTypeError:
                await self._deliver_singly(part.events, within_s)
        faults.reach("after_hand_over")
        if part.damaged:
            await self._put_aside(part.damaged, "they cannot be read")

    async def _deliver_singly(self, events: Sequence[SpooledEvent], within_s: float) -> None:
        for event in events:
            try:
                await self._mailboxes.accept_spooled([event], within_s)
            except WrongRedisTypeError:
                await self._put_aside([encode_line(event)], "what lies at their mailbox's name is none")

    async def _put_aside(self, lines: Sequence[bytes], why: str) -> None:
        await _in_thread(self._spool.put_aside, lines)
        metrics.SPOOL_REFUSED.labels("", "damaged").inc(len(lines))
        log.error(
            "spooled events are put aside", events=len(lines), why=why, file=str(self._spool.damaged_file)
        )


async def _in_thread(function: Callable[..., T], *arguments: object) -> T:
    return await asyncio.to_thread(function, *arguments)


def _error_sentence(error: Exception) -> str:
    known = isinstance(error, (RedisUnavailableError, SpoolError))
    return str(error) if known and str(error) else f"{type(error).__name__}: {error}"
