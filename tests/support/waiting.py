"""Nothing here sleeps for a guess: a condition is looked at until it holds, or a deadline says that it never will.

A deadline only bounds a hang, and no test may depend on how busy the machine is. What is to be quick is told by processor
time (`used_s`), by counts, or against something that was measured in the same run.
"""

import os
import random
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from resource import RUSAGE_CHILDREN, getrusage
from time import monotonic, sleep, thread_time
from typing import TypeVar

T = TypeVar("T")

LOOK_S = 0.01

PATIENCE = 6
"""A deadline is what a machine takes at the most that does nothing else; a busy one is given so many times as long."""

HANG_S = 60
"""After so long nobody answers any more."""


def until(holds: Callable[[], T], deadline_s: float, what: str) -> T:
    """What `holds` answers once that is true. Raises TimeoutError, naming `what`, after PATIENCE times `deadline_s`."""
    end = monotonic() + deadline_s * PATIENCE
    while True:
        if answer := holds():
            return answer
        if monotonic() > end:
            raise TimeoutError(f"not within {deadline_s * PATIENCE:g} s: {what}")
        sleep(LOOK_S)


def used_s(do: Callable[[], object]) -> float:
    """How much processor time `do` takes, of this thread and of processes that it starts and waits for."""
    begun_s = thread_time() + _children_s()
    do()
    return thread_time() + _children_s() - begun_s


def _children_s() -> float:
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


_SERVER_PORTS = range(10_000, 32_768)
"""Below those that the system gives to whoever connects somewhere, of which one may be gone before a server has it."""


def _own_ports() -> range:
    """Those of this test process: two that look at once would find the same one free."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return _SERVER_PORTS[int(worker) :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]


def free_port() -> int:
    """A loopback port that nobody listens on, that nobody connects from by chance, and that nobody was told of lately, who may not listen
    there yet."""
    while True:
        port = _chance.choice(_own_ports())
        if port in _told:
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _told.append(port)
            return port


_chance = random.SystemRandom()
_told: deque[int] = deque(maxlen=500)
