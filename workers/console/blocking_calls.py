"""Runs what waits for Redis, the archive or the disk beside the event loop, in a few threads: what a page needs is read by the same
functions as a command's screen, and those wait."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

CALL_THREADS = 8
"""Pages that are made at once, at the most; others wait."""

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


class BlockingCalls:
    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(CALL_THREADS, thread_name_prefix="page")

    async def run(
        self, call: Callable[Arguments, Answer], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Answer:
        """Return what the call returns, and raise what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(call, *args, **kwargs))

    def close(self) -> None:
        """Wait for no call that has begun, and begin no other."""
        self._threads.shutdown(wait=False, cancel_futures=True)
