"""A worker of Parley's with something odd about it, to see that nobody minds:

python -m tests.support.odd_worker conversation dies-of-deadly
"""

import os
import signal
import sys
import time
from collections.abc import Callable

from engine.events import Mail
from workers import __main__, drafts


def die_of_deadly() -> None:
    """The process dies of every event whose text is `deadly`, while it reads it."""
    read = drafts.read_entry

    def read_entry(entry: bytes) -> Mail:
        if b"deadly" in entry:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(entry)

    drafts.read_entry = read_entry


def shift_clock(by_s: int) -> Callable[[], None]:
    """The process takes it to be `by_s` seconds later than it is."""

    def shift() -> None:
        now, now_ns = time.time, time.time_ns
        time.time = lambda: now() + by_s
        time.time_ns = lambda: now_ns() + by_s * 1_000_000_000

    return shift


ODDITIES: dict[str, Callable[[], None]] = {
    "dies-of-deadly": die_of_deadly,
    "clock-5min-ahead": shift_clock(300),
    "clock-5min-behind": shift_clock(-300),
}

if __name__ == "__main__":
    ODDITIES[sys.argv[2]]()
    __main__.main([sys.argv[1]])
