"""Joins concurrent writes: items that arrive while a write is in flight share the next one.

An item that arrives while nothing is in flight is written at once. If a write fails, the items that wait behind it
fail with it, without another try. Of a cluster, what is for one server waits for no other."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class WriteBatcher(Generic[T, R]):
    """Writes items with `write`, at most `most` at a time and one write at a time, in the order given."""

    def __init__(self, write: Callable[[Sequence[T]], Awaitable[R]], most: int) -> None:
        self._write = write
        self._max_items = most
        self._items: list[T] = []
        self._written: list[asyncio.Future[R]] = []
        self._writer: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, item: T) -> asyncio.Future[R]:
        """Queue `item`; return a future of the answer, or the exception, of the write that holds it."""
        if self._loop is None:  # looked up once: Python 3.11 makes a system call of it
            self._loop = asyncio.get_running_loop()
        written = self._loop.create_future()
        self._items.append(item)
        self._written.append(written)
        if self._writer is None:
            self._writer = self._loop.create_task(self._write_all())
        return written

    async def wait_drained(self) -> None:
        """Wait until no item is waiting to be written."""
        while self._writer is not None:
            await asyncio.wait([self._writer])

    async def _write_all(self) -> None:
        try:
            while self._items:
                await self._write_next()
        finally:
            self._writer = None

    async def _write_next(self) -> None:
        most = self._max_items
        items, self._items = self._items[:most], self._items[most:]
        written, self._written = self._written[:most], self._written[most:]
        try:
            answer = await self._write(items)
        except Exception as e:  # noqa: BLE001 - whoever waits is told, whatever it was
            written += self._written
            self._items, self._written = [], []
            _fail_futures(written, e)
        else:
            for future in written:
                if not future.done():
                    future.set_result(answer)


class ServerBatcher(Generic[T, R]):
    """A WriteBatcher for each server, which `server_of` tells when an item is submitted. What one has written is so before its
    future tells: an item that is submitted then is later, wherever its server is by now."""

    def __init__(
        self,
        write: Callable[[Sequence[T]], Awaitable[R]],
        most: int,
        server_of: Callable[[T], Hashable],
    ) -> None:
        self._write = write
        self._max_items = most
        self._server_of = server_of
        self._batchers: dict[Hashable, WriteBatcher[T, R]] = {}

    def submit(self, item: T) -> asyncio.Future[R]:
        """Queue `item` behind what is for its server; return a future as WriteBatcher does."""
        server = self._server_of(item)
        if server not in self._batchers:
            self._batchers[server] = WriteBatcher(self._write, self._max_items)
        return self._batchers[server].submit(item)

    async def wait_drained(self) -> None:
        """Wait until no item is waiting to be written."""
        for batcher in list(self._batchers.values()):
            await batcher.wait_drained()


def _fail_futures(written: Sequence["asyncio.Future[R]"], why: Exception) -> None:
    for future in written:
        if not future.done():
            future.set_exception(why)
            future.exception()  # seen, should its request have gone away meanwhile
