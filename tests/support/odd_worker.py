"""A process of Parley's with something odd about it, to see that nobody minds:

python -m tests.support.odd_worker conversation deadly+clock-5min-ahead
"""

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import redis

import ingest.__main__
import workers.__main__
from config.store import redis_client
from config.telemetry.supervision import LoopRounds
from engine.model.effects import Effects
from engine.model.events import InboundSms, Mail
from engine.model.lane import Lane
from engine.turns.advance import advance
from workers.sending import http_client
from workers.store import lanes
from workers.turns import drafts

MEMORY = 512 << 20
"""What a process may take beside what it has, in bytes."""


def deadly() -> None:
    """What happens to whoever handles an event that says so: killed, ended at once, out of memory, or an error."""
    read = drafts.decode_mail

    def read_entry(entry: bytes) -> Mail:
        if b"deadly" in entry:
            os.kill(os.getpid(), signal.SIGKILL)
        if b"fatal" in entry:
            os._exit(1)
        return read(entry)

    def step(lane: Lane, sender: str, mail: Sequence[Mail], *more: Any, **named: Any) -> Effects:
        said = {each.event.text for each in mail if isinstance(each.event, InboundSms)}
        if "greedy" in said:
            with_little_memory(lambda: bytearray(4 * MEMORY))
        if "faulty" in said:
            raise RuntimeError("this event is not for us")
        return advance(lane, sender, mail, *more, **named)

    drafts.decode_mail = read_entry
    vars(drafts)[advance.__name__] = step


def sick() -> None:
    """Who handles whatever event is killed."""

    def step(*_: Any, **_named: Any) -> Effects:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("it lives")

    vars(drafts)[advance.__name__] = step


def short_lease() -> None:
    """A lane that was left is free after a second."""
    _lease_ms, *others = lanes.LaneStore.__init__.__defaults__ or ()
    lanes.LaneStore.__init__.__defaults__ = (1_000, *others)


def holding_loop() -> None:
    """A try holds up the event loop that it is in, for good."""

    async def send(*_: Any) -> None:
        time.sleep(86_400)  # noqa: ASYNC251 (as one that should not)

    http_client.ProviderClient.send = send  # type: ignore[method-assign, assignment]


def soon_hanging() -> None:
    """A loop hangs that has not gone round for five seconds."""
    LoopRounds.__init__.__defaults__ = (5.0,)


def with_little_memory(work: Callable[[], object]) -> None:
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    was = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, was[1]))
    try:
        work()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, was)


def retry(times: int) -> Callable[[], None]:
    """The process repeats so often what Redis did not answer, where nothing else is said."""

    def patch() -> None:
        plain, plain_async = redis_client.connect, redis_client.connect_async

        def connect(url: str, *more: Any, **named: Any) -> redis.Redis:
            return plain(url, *more, **named) if more or named else plain(url, times)

        redis_client.connect = connect
        redis_client.connect_async = partial(plain_async, retries=times)

    return patch


def shift_clock(by_s: int) -> Callable[[], None]:
    """The process takes it to be `by_s` seconds later than it is."""

    def shift() -> None:
        now, now_ns = time.time, time.time_ns
        time.time = lambda: now() + by_s
        time.time_ns = lambda: now_ns() + by_s * 1_000_000_000

    return shift


ODDITIES: dict[str, Callable[[], None]] = {
    "deadly": deadly,
    "sick": sick,
    "holds-loop": holding_loop,
    "hangs-after-5s": soon_hanging,
    "lease-1s": short_lease,
    "clock-5min-ahead": shift_clock(300),
    "clock-5min-behind": shift_clock(-300),
    "retries-0": retry(0),
    "retries-10": retry(10),
}

if __name__ == "__main__":
    role, oddities = sys.argv[1:]
    for oddity in oddities.split("+"):
        ODDITIES[oddity]()
    if role == "web":
        ingest.__main__.main()
    else:
        workers.__main__.main([role])
