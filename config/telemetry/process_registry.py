"""Which processes live? Each says so every few seconds, with its role, its release and what it runs; one that has been
silent for a few turns is gone. A clean end says so too.

They are in one hash, process -> what it said, in which each release reads what those beside it write: a field may be
appended. Redis away is only waited for: nothing but what operators see depends on it.
"""

import os
import socket
import time
from collections import Counter as Multiset
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from secrets import token_hex
from time import monotonic

import msgspec
import redis
import structlog
from prometheus_client import Counter

from config.store import function_calls, keyspace, lua_library, redis_client
from config.telemetry import metrics
from config.telemetry.periodic_task import run_periodically

log = structlog.get_logger()

HEARTBEATS_COMMAND: function_calls.Command = ("HGETALL", keyspace.PROCESSES_KEY)
"""Asks what `living` reads."""

HEARTBEAT_INTERVAL_S = 5.0
HEARTBEAT_EXPIRY_MS = 20_000
"""A process that has said nothing for this long lives no more, or hangs."""

SILENT_KEPT_MS = 900_000
"""How long one that ended without a word, or hangs, is told of."""

HEARTBEAT_TIMEOUT_S = 1.0
"""How long storing a heartbeat may take; if it fails, the next one follows in HEARTBEAT_INTERVAL_S."""


CLOCK_TOLERANCE_MS = 1_000
"""By how much a process's clock may differ from that of the lanes' Redis before it is said."""

ROLES = ("web", "ratelimit", "conversation", "delivery", "clock", "archive", "hooks", "console")
"""The Procfile's lines."""

OPTIONAL_ROLES = ("console",)
"""Lines that nothing depends on: that nobody runs one is not wrong."""

ROLE_OF_QUEUE: Mapping[str, str] = {
    keyspace.STARTS_QUEUE: "ratelimit",
    keyspace.REPLIES_QUEUE: "conversation",
    keyspace.OUTBOUND_QUEUE: "delivery",
}
"""Who works on a queue."""


class ProcessHeartbeat(msgspec.Struct, frozen=True, array_like=True):
    """What a process said at `at`: the versions that it runs by survey (workers of lanes only), and who it is. It began
    at `since`, calls the server-side functions `library`, and is of the package's version `release`. `per_s` is how much
    it did a second since it spoke last: see WORK_COUNTERS. `held_shards` are those that an `archive` process holds back, as its
    archive is ahead of Redis. One that is not ready has begun, and waits for what it needs. Times are the server's ms."""

    at: int
    surveys: dict[str, str] = {}
    role: str = ""
    host: str = ""
    pid: int = 0
    since: int = 0
    library: str = ""
    release: str = ""
    per_s: float = 0.0
    clock_ahead_ms: int = 0
    held_shards: int = 0
    is_ready: bool = True


WORK_COUNTERS: Mapping[str, Counter] = {
    "web": metrics.INBOUND,
    "ratelimit": metrics.TURNS,
    "conversation": metrics.TURNS,
    "delivery": metrics.SENDS,
    "clock": metrics.WAKEUPS,
    "archive": metrics.ARCHIVED_ENTRIES,
    "hooks": metrics.HOOK_EVENTS,
    "console": metrics.CONSOLE_REQUESTS,
}
"""The counter of each role's work."""

_decode_heartbeat = msgspec.msgpack.Decoder(ProcessHeartbeat).decode
encode_heartbeat = msgspec.msgpack.encode

HeartbeatsReply = Mapping[bytes, bytes]
"""The answer to HEARTBEATS_COMMAND: process -> what it said."""


@contextmanager
def send_heartbeats(
    url: str,
    role: str,
    surveys: Callable[[], dict[str, str]] = dict,
    is_ready: Callable[[], bool] = lambda: True,
) -> Iterator[Callable[[], None]]:
    """Send this process's heartbeats until the block ends; `surveys()` gives the versions that it runs by name, `is_ready()`
    whether it works.
    Yields a function that sends one at once, and raises redis.RedisError."""
    client = redis_client.connect(url, retries=0, timeout_s=HEARTBEAT_TIMEOUT_S)
    host, pid, begun_s = socket.gethostname(), os.getpid(), monotonic()
    name = f"{role}@{host}:{pid}.{token_hex(2)}"  # containers may share a host's name, and all have the pid 1
    pace, clock = _WorkRate(role), ClockComparison()

    def send_heartbeat() -> None:
        asked_ms = _own_time_ms()
        times = redis_client.server_times_ms(client)
        now = times[0]
        ahead_ms = clock.note_worst(times, asked_ms, _own_time_ms())
        since = now - round((monotonic() - begun_s) * 1_000)
        me = ProcessHeartbeat(
            now, surveys(), role, host, pid, since, lua_library.LIBRARY_NAME, package_version(), pace.per_s(),
            ahead_ms, _held_shards(), is_ready(),
        )  # fmt: skip
        store_heartbeat(client, name, me)

    try:
        with run_periodically(send_heartbeat, HEARTBEAT_INTERVAL_S, "registry"):
            yield send_heartbeat
    finally:
        with suppress(redis.RedisError):  # its silence will say so
            remove_processes(client, [name])
        client.close()


def _held_shards() -> int:
    """How many this process holds back, as it has counted."""
    return round(
        sum(sample.value for each in metrics.ARCHIVE_HELD_SHARDS.collect() for sample in each.samples)
    )


class ClockComparison:
    """Says in the log and in a gauge by how much this machine's clock differs from the server's."""

    def __init__(self) -> None:
        self._differed = False

    def note_worst(self, servers_ms: Sequence[int], asked_ms: int, answered_ms: int) -> int:
        """The same, with that of several servers which differs most."""
        return self.note(
            max(servers_ms, key=lambda each: abs(_ahead_ms(each, asked_ms, answered_ms))),
            asked_ms,
            answered_ms,
        )

    def note(self, server_ms: int, asked_ms: int, answered_ms: int) -> int:
        """Return by how much the own clock is ahead (ms, negative if behind), at the least: the server was asked at
        `asked_ms` of it, and answered by `answered_ms`. What differs is logged when it begins, and when it is over."""
        ahead_ms = _ahead_ms(server_ms, asked_ms, answered_ms)
        metrics.CLOCK_DIFFERENCE_SECONDS.set(ahead_ms / 1_000)
        differs = abs(ahead_ms) > CLOCK_TOLERANCE_MS
        if differs and not self._differed:
            log.warning(
                "this machine's clock is not that of Redis; set both by NTP", ahead_s=ahead_ms / 1_000
            )
        elif self._differed and not differs:
            log.info("this machine's clock is that of Redis again")
        self._differed = differs
        return ahead_ms


def _ahead_ms(server_ms: int, asked_ms: int, answered_ms: int) -> int:
    return max(0, asked_ms - server_ms) or min(0, answered_ms - server_ms)


def _own_time_ms() -> int:
    return time.time_ns() // 1_000_000


class _WorkRate:
    """Measures how much a process does a second."""

    def __init__(self, role: str) -> None:
        self._counter = WORK_COUNTERS[role]
        self._last_reading = (monotonic(), self._work_done())
        self._per_s = 0.0

    def per_s(self) -> float:
        """Since the last time that this was asked, if it was not just now."""
        (then_s, before), now_s = self._last_reading, monotonic()
        if now_s - then_s >= 1:
            done = self._work_done()
            self._per_s = round((done - before) / (now_s - then_s), 1)
            self._last_reading = (now_s, done)
        return self._per_s

    def _work_done(self) -> float:
        samples = (sample for metric in self._counter.collect() for sample in metric.samples)
        return sum(sample.value for sample in samples if sample.name.endswith("_total"))


def package_version() -> str:
    """The package's version; empty if it is not installed."""
    try:
        return version("parley")
    except PackageNotFoundError:
        return ""


def store_heartbeat(client: redis.Redis, name: str, process: ProcessHeartbeat) -> None:
    redis_client.run_command(client, ("HSET", keyspace.PROCESSES_KEY, name, encode_heartbeat(process)))


def remove_processes(client: redis.Redis, names: Iterable[str]) -> None:
    """These live no more."""
    if names := list(names):
        redis_client.run_command(client, ("HDEL", keyspace.PROCESSES_KEY, *names))


def living_processes(client: redis.Redis) -> dict[str, ProcessHeartbeat]:
    """Read the processes that live, by name."""
    return parse_living(
        redis_client.run_command(client, HEARTBEATS_COMMAND), redis_client.server_time_ms(client)
    )


def remove_dead_processes(client: redis.Redis) -> None:
    """Forget those that have gone without a word, once all have been told of it."""
    said = redis_client.run_command(client, HEARTBEATS_COMMAND)
    now = redis_client.server_time_ms(client)
    told = {**parse_living(said, now), **parse_silent(said, now)}
    remove_processes(client, (name for name in map(bytes.decode, said) if name not in told))


def parse_living(said: HeartbeatsReply, now: int) -> dict[str, ProcessHeartbeat]:
    """Return the processes, by name, whose heartbeat is at most HEARTBEAT_EXPIRY_MS from `now` (ms, the server's).
    One from the future was stored before the server's clock was set back, and counts as dead too if it is further
    off than that."""
    return {name: each for name, each in _parsed(said) if abs(now - each.at) <= HEARTBEAT_EXPIRY_MS}


def parse_silent(said: HeartbeatsReply, now: int) -> dict[str, ProcessHeartbeat]:
    """Return the processes, by name, that have said nothing for more than HEARTBEAT_EXPIRY_MS and have not said that they end:
    they were killed, or hang. After SILENT_KEPT_MS nobody asks."""
    return {
        name: each for name, each in _parsed(said) if HEARTBEAT_EXPIRY_MS < now - each.at <= SILENT_KEPT_MS
    }


def _parsed(said: HeartbeatsReply) -> Iterator[tuple[str, ProcessHeartbeat]]:
    for name, blob in sorted(said.items()):
        if (process := _parse_heartbeat(blob)) is not None:
            yield name.decode(), process


def last_heard(said: HeartbeatsReply) -> dict[str, int]:
    """When one of each role last said something (ms), whether or not it lives: who was killed stays for an hour or so."""
    heard: dict[str, int] = {}
    for blob in said.values():
        if (process := _parse_heartbeat(blob)) is not None:
            heard[process.role] = max(process.at, heard.get(process.role, 0))
    return heard


def count_by_role(living: Mapping[str, ProcessHeartbeat]) -> Multiset[str]:
    return Multiset(each.role for each in living.values())


def _parse_heartbeat(blob: bytes) -> ProcessHeartbeat | None:
    """Decode a heartbeat; None if a later release wrote it in a way that this one cannot read."""
    try:
        return _decode_heartbeat(blob)
    except msgspec.MsgspecError:
        return None
