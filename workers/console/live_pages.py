"""Keeps pages that are looked at up to date: one ticker reads once for all who look, and sends each what has changed, as server-sent
events. Nobody looks: nothing is read. Whoever comes, or comes again after their connection was lost, is sent at once how things
stand: read after they came, as their page may be newer than what was read last.

An open stream ends with the process, and with the session: it is looked at again every SESSION_CHECK_S.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from time import monotonic
from typing import Any

import redis
import structlog
from falcon.asgi import Request, SSEvent

log = structlog.get_logger()

TICK_S = 2.0
SOONEST_S = 0.2
"""So long nothing is read again, however many come."""

SESSION_CHECK_S = 10.0
HEARTBEAT_S = 15.0
"""So often something is sent, so that whoever is between keeps the connection."""

UPDATE_EVENT, UNREADABLE_EVENT = "update", "unreadable"


def is_renewal(req: Request) -> bool:
    """Whether a page that is open asks, for a part of it, and nobody who comes to it."""
    return req.get_header("HX-Request") == "true"


class LivePage:
    """One page that is kept up to date. `read` makes what is sent; it waits, and runs beside the event loop. Raises nothing: what
    could not be read is sent as that."""

    def __init__(self, read: Callable[[], Awaitable[str]], stopping: asyncio.Event) -> None:
        self._read = read
        self._stopping = stopping
        self._viewers: set[asyncio.Queue[SSEvent]] = set()
        self._newcomers: set[asyncio.Queue[SSEvent]] = set()
        self._has_newcomers = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def viewers(self) -> int:
        return len(self._viewers)

    @property
    def is_read(self) -> bool:
        """Whether it is read again and again, as somebody looks or has just left."""
        return self._task is not None

    async def watch(self, is_signed_in: Callable[[], Awaitable[bool]]) -> AsyncIterator[SSEvent]:
        """Yield what one viewer is sent, until they leave, sign out, or the process is told to stop."""
        queue: asyncio.Queue[SSEvent] = asyncio.Queue(maxsize=1)
        self._viewers.add(queue)
        self._newcomers.add(queue)
        self._has_newcomers.set()
        if self._task is None:
            self._task = asyncio.create_task(self._tick_while_watched())
        checked = told = monotonic()
        try:
            while not self._stopping.is_set():
                event = await self._next_event(queue)
                if self._stopping.is_set():
                    return
                if monotonic() - checked >= SESSION_CHECK_S:
                    if not await is_signed_in():
                        return
                    checked = monotonic()
                if event is not None or monotonic() - told >= HEARTBEAT_S:
                    told = monotonic()
                    yield event or SSEvent(comment="still here")
        finally:
            self._viewers.discard(queue)
            self._newcomers.discard(queue)

    async def _next_event(self, queue: "asyncio.Queue[SSEvent]") -> SSEvent | None:
        """The next event, None if there is none for TICK_S, or the process stops."""
        found = await _first_of(queue.get(), self._stopping.wait(), timeout_s=TICK_S)
        return found if isinstance(found, SSEvent) else None

    async def _tick_while_watched(self) -> None:
        last: SSEvent | None = None
        while self._viewers and not self._stopping.is_set():
            newcomers, self._newcomers = self._newcomers, set()
            self._has_newcomers.clear()
            event = await self._read_event()
            is_news = last is None or (event.data, event.text, event.event) != (
                last.data,
                last.text,
                last.event,
            )
            last = event
            for queue in self._viewers if is_news else self._viewers & newcomers:
                if queue.full():  # a slow viewer is sent the newest alone
                    queue.get_nowait()
                queue.put_nowait(event)
            await _first_of(self._stopping.wait(), timeout_s=min(SOONEST_S, TICK_S))
            await _first_of(self._stopping.wait(), self._has_newcomers.wait(), timeout_s=TICK_S - SOONEST_S)
        self._task = None

    async def _read_event(self) -> SSEvent:
        try:
            return SSEvent(data=_as_event_lines(await self._read()), event=UPDATE_EVENT)
        except redis.RedisError as e:
            return SSEvent(text=type(e).__name__, event=UNREADABLE_EVENT)
        except Exception:
            log.exception("a page of the console could not be made")
            return SSEvent(text="unexpected", event=UNREADABLE_EVENT)


async def _first_of(*waits: Coroutine[Any, Any, object], timeout_s: float) -> object:
    """What the first of these comes to; None if none does in time. The others are not waited for any more."""
    tasks = [asyncio.create_task(each) for each in waits]
    try:
        done, _ = await asyncio.wait(tasks, timeout=max(0.0, timeout_s), return_when=asyncio.FIRST_COMPLETED)
        return next((task.result() for task in tasks if task in done), None)
    finally:
        for task in tasks:
            task.cancel()


def _as_event_lines(page: str) -> bytes:
    """A text of several lines as the field `data` of an event, which has one line each."""
    return page.strip().replace("\n", "\ndata: ").encode()
