"""What takes long to count is counted beside the pages that show it, once for all who look; pages show what was counted last, and
say when. So no page waits for a million conversations to be counted.

What was counted is counted again once it is older than `FRESH_S`, and than as long again as counting took: whoever looks often does
not keep the archive busy all the time.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Generic, Literal, TypeVar, cast

import msgspec
import redis
import structlog
from sqlalchemy.exc import SQLAlchemyError

from config.archive.database import describe_failure
from engine.model.errors import ParleyError

log = structlog.get_logger()

FRESH_S = 4.0
FIRST_WAIT_S = 0.12
"""How long a page waits for what was never counted yet."""

COUNTING_THREADS = 2
"""For what the archive counts, which may take a minute. What is not the archive's has a thread of its own, and waits for none."""

ReadingThreads = Literal["counting", "proving", "searching"]
"""Which threads: those for what the archive counts; the one for proofs and drawings; the one that looks for a person among all."""

KEPT_READINGS = 100

What = TypeVar("What")


class KeptReading(msgspec.Struct, Generic[What], frozen=True):
    """What was counted, or why that failed; neither: it is being counted for the first time. `number` differs for each."""

    number: int
    what: What | None = None
    problem: str = ""

    @property
    def is_waited_for(self) -> bool:
        return self.what is None and not self.problem


class _Entry:
    """One thing that is counted."""

    def __init__(self) -> None:
        self.reading: KeptReading[object] = KeptReading(0)
        self.task: asyncio.Task[None] | None = None
        self.begun = self.took = 0.0


class KeptReadings:
    """Counts, and keeps what was counted. Its methods are called on the event loop."""

    def __init__(self) -> None:
        self._threads: dict[ReadingThreads, ThreadPoolExecutor] = {
            "counting": ThreadPoolExecutor(COUNTING_THREADS, thread_name_prefix="count"),
            "proving": ThreadPoolExecutor(1, thread_name_prefix="prove"),
            "searching": ThreadPoolExecutor(1, thread_name_prefix="search"),
        }
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._numbers = 0

    async def look(
        self,
        key: Hashable,
        count: Callable[[], What],
        *,
        lasts: bool = False,
        threads: ReadingThreads = "counting",
    ) -> KeptReading[What]:
        """What was counted last; begin to count again if that is old, unless it `lasts`. `count` runs in one of `threads`; what was
        never counted is waited for a moment."""
        entry = self._entry(key, count, self._threads[threads], lasts=lasts)
        if entry.reading.is_waited_for and entry.task is not None:
            await asyncio.wait({entry.task}, timeout=FIRST_WAIT_S)
        return cast("KeptReading[What]", entry.reading)

    def forget(self, key: Hashable) -> None:
        """Who asks next has it counted anew. What is being counted goes on."""
        if key in self._entries and self._entries[key].task is None:
            del self._entries[key]

    def close(self) -> None:
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)

    def _entry(
        self, key: Hashable, count: Callable[[], object], threads: ThreadPoolExecutor, *, lasts: bool
    ) -> _Entry:
        entry = self._entries.setdefault(key, _Entry())
        self._entries.move_to_end(key)
        is_old = entry.begun + max(FRESH_S, 2 * entry.took) <= monotonic() or not entry.begun
        if entry.task is None and is_old and not (lasts and entry.reading.what is not None):
            entry.begun = monotonic()
            entry.task = asyncio.get_running_loop().create_task(self._count(entry, count, threads))
        self._forget_old()
        return entry

    def _forget_old(self) -> None:
        for key in [*self._entries]:
            if len(self._entries) <= KEPT_READINGS:
                return
            if self._entries[key].task is None:
                del self._entries[key]

    async def _count(self, entry: _Entry, count: Callable[[], object], threads: ThreadPoolExecutor) -> None:
        self._numbers += 1
        try:
            what = await asyncio.get_running_loop().run_in_executor(threads, count)
            entry.reading = KeptReading(self._numbers, what)
        except SQLAlchemyError as e:
            entry.reading = KeptReading(self._numbers, problem=f"The archive failed: {describe_failure(e)}.")
        except redis.RedisError as e:
            entry.reading = KeptReading(self._numbers, problem=f"Redis does not answer ({type(e).__name__}).")
        except ParleyError as e:
            entry.reading = KeptReading(self._numbers, problem=f"{e}.")
        except Exception:
            log.exception("what a page of the console shows could not be counted")
            entry.reading = KeptReading(self._numbers, problem="This could not be counted; the log says why.")
        finally:
            entry.took, entry.task = monotonic() - entry.begun, None
