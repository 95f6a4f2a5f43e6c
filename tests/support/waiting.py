"""Nothing here sleeps for a guess: a condition is looked at until it holds, or a deadline says that it never will."""

import socket
from collections.abc import Callable
from time import monotonic, sleep
from typing import TypeVar

T = TypeVar("T")

LOOK_S = 0.01


def until(holds: Callable[[], T], deadline_s: float, what: str) -> T:
    """What `holds` answers once that is true. Raises TimeoutError, naming `what`, after `deadline_s`."""
    end = monotonic() + deadline_s
    while True:
        if answer := holds():
            return answer
        if monotonic() > end:
            raise TimeoutError(f"not within {deadline_s:g} s: {what}")
        sleep(LOOK_S)


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
