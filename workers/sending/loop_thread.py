"""An event loop in a thread of its own, and calls that would hold a loop up, in threads of theirs. All are daemons: what outlasts
everyone's patience does not keep the process from ending."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import Any, TypeVar

Answer = TypeVar("Answer")

ROUND_INTERVAL_S = 1.0
"""How often a loop that has nothing to do goes round all the same, to be seen."""

AsyncWork = Callable[[], Coroutine[Any, Any, None]]


class LoopThread:
    """Runs what it is given, all at once. `close` cancels what is under way, and ends the thread. `went_round` is called in it as long as
    its loop goes round, whatever is waited for there."""

    def __init__(self, name: str, went_round: Callable[[], None] = lambda: None) -> None:
        self._went_round = went_round
        self._tasks: set[asyncio.Task[None]] = set()
        started: Future[asyncio.AbstractEventLoop] = Future()
        self.thread = Thread(target=self._run, args=(started,), name=name, daemon=True)
        self.thread.start()
        self.loop = started.result()

    def begin(self, works: Iterable[AsyncWork]) -> None:
        """Begin these, which raise nothing, without waiting for them."""
        self.loop.call_soon_threadsafe(self._begin, works)

    def close(self) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self.loop.call_soon_threadsafe(self._closed.set)

    def _run(self, started: "Future[asyncio.AbstractEventLoop]") -> None:
        try:
            asyncio.run(self._serve(started))
        except BaseException as e:
            if started.done():
                raise
            started.set_exception(e)

    async def _serve(self, started: "Future[asyncio.AbstractEventLoop]") -> None:
        self._closed = asyncio.Event()
        started.set_result(asyncio.get_running_loop())
        while not self._closed.is_set():
            self._went_round()
            with suppress(TimeoutError):
                async with asyncio.timeout(ROUND_INTERVAL_S):
                    await self._closed.wait()

    def _begin(self, works: Iterable[AsyncWork]) -> None:
        for work in works:
            task = self.loop.create_task(work())
            self._tasks.add(task)  # a loop keeps none alive
            task.add_done_callback(self._tasks.discard)


async def call_in_thread(call: Callable[[], Answer], name: str = "call") -> Answer:
    """Return what `call` returns, or raise what it raises; whoever is cancelled waits for it no longer."""
    answer: Future[Answer] = Future()

    def run() -> None:
        answer.set_running_or_notify_cancel()
        try:
            answer.set_result(call())
        except Exception as e:  # noqa: BLE001 (whoever waits gets it)
            answer.set_exception(e)

    Thread(target=run, name=name, daemon=True).start()
    return await asyncio.wrap_future(answer)
