"""asyncio in virtual time: the event loop of a simulated process is one of its actors, and so is each of its threads."""

import asyncio
from asyncio import base_events
from collections.abc import Callable
from typing import Any

from tests.simulated.world.scheduler import Process


class _Selector:
    """Waits as an actor where a real loop waits for sockets."""

    def __init__(self, process: Process, loop: "SimulatedLoop") -> None:
        self._process = process
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None or timeout > 0:
            self._process.scheduler.wait(
                self._loop, None if timeout is None else round(timeout * 1_000_000) + 1
            )
        return []

    def close(self) -> None:
        pass


class SimulatedLoop(base_events.BaseEventLoop):
    """The loop of one life of a process. `run_forever` is what its actor does."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self._process = process
        self._clock_resolution = (
            0.000_001  # less than that is lost beside so many seconds, and what is due now never comes
        )
        self._selector = _Selector(process, self)
        self._clock_resolution = 1e-6  # a time of so many seconds is no finer
        self.set_exception_handler(self._note_error)

    def __del__(self) -> None:
        """Say nothing: the loop of a process that died is closed by nobody."""

    def time(self) -> float:
        return self._process.scheduler.now_us / 1_000_000

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":
        done: asyncio.Future[Any] = self.create_future()

        def work() -> None:
            try:
                result = func(*args)
            except Exception as e:  # noqa: BLE001 (whoever waits is told)
                error = e
                self.call_soon_threadsafe(lambda: done.done() or done.set_exception(error))
            else:
                self.call_soon_threadsafe(lambda: done.done() or done.set_result(result))

        self._process.spawn("thread", work)
        return done

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        self._process.scheduler.notify(self)

    def _note_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, Exception):
            self._process.scheduler.crashed(self._process.scheduler.current, error)
