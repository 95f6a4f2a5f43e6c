"""Runs a function again and again in a thread of its own, and outlives its failures: each kind is logged once in a row."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

import redis
import structlog

from config.store.missing_rights import failure_words

log = structlog.get_logger()

JOIN_TIMEOUT_S = 1.0
"""How long a call that is under way may take once the thread is to end."""


@contextmanager
def run_periodically(do: Callable[[], None], every_s: float, what: str) -> Iterator[None]:
    """Call `do` at once and every `every_s` seconds until the block ends, in a thread of its own that is called `what`."""
    stop = Event()

    def loop() -> None:
        failed = _run_once(do, what, "")
        while not stop.wait(every_s):
            failed = _run_once(do, what, failed)

    thread = Thread(target=loop, name=what, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(JOIN_TIMEOUT_S)


def _run_once(do: Callable[[], None], what: str, failed: str) -> str:
    """Call `do`. Return how it failed, "" if it did not; a failure is logged unless it equals `failed`, the last one."""
    try:
        do()
    except redis.RedisError as e:
        failure = failure_words(e)
        if failure != failed:
            log.warning("Redis failed; it is tried again", what=what, error=failure)
    except Exception as e:
        failure = repr(e)
        if failure != failed:
            log.exception("failed; it is tried again", what=what)
    else:
        return ""
    return failure
