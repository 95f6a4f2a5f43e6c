"""Ctrl-C while something is watched: it ends between two looks, as a library may not stand to be broken off anywhere."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue


@contextmanager
def until_interrupted() -> Iterator[Callable[[float], bool]]:
    """In the block the first Ctrl-C breaks nothing off. Yield what waits so many seconds, less if Ctrl-C comes or came, and returns
    whether to look again. The second Ctrl-C is a KeyboardInterrupt, for a look that takes too long."""
    # unlike an Event, a handler may use it whatever its thread does
    interrupts: SimpleQueue[int] = SimpleQueue()

    def take_first(number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        interrupts.put(number)

    def wait_to_look(seconds: float) -> bool:
        try:
            interrupts.get(timeout=seconds)
        except Empty:
            return True
        return False

    before = signal.signal(signal.SIGINT, take_first)
    try:
        yield wait_to_look
    finally:
        signal.signal(signal.SIGINT, before)
