"""Who empties the spool, and when? Any `web` process of the machine whose turn it is, once a second, as soon as Redis
takes events again. The law is the spool's: see ingest/intake/spool.py.

Parts are small at first and grow while all goes well, so that a Redis that does not say what it has taken is not filled
with copies; one is under way at a time, and new requests are served between two.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import TypeVar

import structlog

from config.telemetry import faults, metrics
from ingest.intake.mailboxes import WRITE_S, Mailboxes, Misplaced, Store, Unwritten
from ingest.intake.spool import NoRoom, Part, Place, Spool, Spooled, line_of, now_ms

log = structlog.get_logger()

LOOK_S = 1.0
FIRST_PART, LARGEST_PART = 16, 128
"""Events. A lane remembers as many (engine/turns/advance.py), so that a part which is handed over twice is known even if all of
it is one person's."""

PATIENCE_S = 3.0
"""How long a part may take, as nobody waits for it."""

T = TypeVar("T")


class HandOver:
    """Looks after the spool from `begin` until `end`."""

    def __init__(self, spool: Spool, mailboxes: Mailboxes, lanes: Store) -> None:
        self._spool = spool
        self._mailboxes = mailboxes
        self._lanes = lanes
        self._over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    def begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def end(self) -> None:
        """Finish the part that is under way."""
        self._over.set()
        if self._task is not None:
            await self._task

    async def _watch(self) -> None:
        while not self._over.is_set():
            try:
                await self.look()
                self._failing = False
            except Exception as e:  # noqa: BLE001 - tried again, whatever it is
                if not self._failing:
                    log.warning("the spool cannot be handed over; it is tried again", error=_sentence(e))
                self._failing = True
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), LOOK_S)

    async def look(self) -> None:
        """Hand over what there is, if it is this process's turn and Redis answers."""
        if not self._spool.in_use:
            return
        with self._spool.turn() as ours:
            if ours and await self._lanes.answers():
                await self._empty()

    async def _empty(self) -> None:
        """Hand over part by part. Raises Unwritten, NoRoom and OSError; what was handed over by then is noted."""
        place, most, settled = await _thread(self._spool.place), FIRST_PART, 0
        while not self._over.is_set():
            part = await _thread(self._spool.read, place, most, settled)
            if part.last:
                if await self._finish(place, most):
                    return
                continue
            if part.place == place:
                settled = await _thread(self._spool.settled)
                continue
            await self._deliver(part, PATIENCE_S)
            await _thread(self._spool.move, part.place)
            faults.reach("after_move")
            place, most = part.place, min(2 * most, LARGEST_PART)

    async def _finish(self, place: Place, most: int) -> bool:
        """Hand over the last part while nobody can add another, and empty the file. False if it is not the last."""
        with ExitStack() as stack:
            file = await _thread(stack.enter_context, self._spool.closed())
            part = await _thread(self._spool.read, place, most)
            if not part.last:
                return False
            await self._deliver(part, WRITE_S)
            faults.reach("before_finish")
            await _thread(self._spool.empty, file)
        faults.reach("after_finish")
        seconds = round((now_ms() - place.begun) / 1000, 1) if place.begun else None
        log.info("what was spooled is handed over", events=part.place.lines, seconds=seconds)
        return True

    async def _deliver(self, part: Part, within_s: float) -> None:
        """Have a part's events in the mailboxes, and what cannot be there put aside. Raises Unwritten."""
        faults.reach("before_hand_over")
        if part.events:
            try:
                await self._mailboxes.hand_over(part.events, within_s)
            except Misplaced:
                await self._deliver_singly(part.events, within_s)
        faults.reach("after_hand_over")
        if part.damaged:
            await self._aside(part.damaged, "they cannot be read")

    async def _deliver_singly(self, events: Sequence[Spooled], within_s: float) -> None:
        for event in events:
            try:
                await self._mailboxes.hand_over([event], within_s)
            except Misplaced:
                await self._aside([line_of(event)], "what lies at their mailbox's name is none")

    async def _aside(self, lines: Sequence[bytes], why: str) -> None:
        await _thread(self._spool.put_aside, lines)
        metrics.SPOOL_REFUSED.labels("", "damaged").inc(len(lines))
        log.error("spooled events are put aside", events=len(lines), why=why, file=str(self._spool.damaged))


async def _thread(function: Callable[..., T], *arguments: object) -> T:
    return await asyncio.to_thread(function, *arguments)


def _sentence(error: Exception) -> str:
    known = isinstance(error, (Unwritten, NoRoom))
    return str(error) if known and str(error) else f"{type(error).__name__}: {error}"
