"""Which processes live? Each says so every few seconds, with its role, its release and what it runs; one that has been
silent for a few turns is gone. A clean end says so too.

They are in one hash, process -> what it said, in which each release reads what those beside it write: a field may be
appended. Redis away is only waited for: nothing but what operators see depends on it.
"""

import os
import socket
from collections import Counter as Multiset
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from secrets import token_hex
from time import monotonic

import msgspec
import redis
from prometheus_client import Counter

from config.store import keyspace
from config.telemetry import metrics
from config.telemetry.periodic_task import run_periodically

HEARTBEATS_COMMAND: keyspace.Command = ("HGETALL", keyspace.PROCESSES_KEY)
"""Asks what `living` reads."""

HEARTBEAT_INTERVAL_S = 5.0
HEARTBEAT_EXPIRY_MS = 20_000
"""A process that has said nothing for this long lives no more."""

HEARTBEAT_TIMEOUT_S = 1.0
"""How long a word may take; what is not said now is said at the next turn."""


ROLES = ("web", "ratelimit", "conversation", "delivery", "clock")
"""The Procfile's lines."""


class ProcessHeartbeat(msgspec.Struct, frozen=True, array_like=True):
    """What a process said at `at`: the versions that it runs by survey (workers of lanes only), and who it is. It began
    at `since`, calls the server-side functions `library`, and is of the package's version `release`. `per_s` is how much
    it did a second since it spoke last: see WORK_COUNTERS. Times are the server's ms."""

    at: int
    surveys: dict[str, str] = {}
    role: str = ""
    host: str = ""
    pid: int = 0
    since: int = 0
    library: str = ""
    release: str = ""
    per_s: float = 0.0


WORK_COUNTERS: Mapping[str, Counter] = {
    "web": metrics.INBOUND,
    "ratelimit": metrics.TURNS,
    "conversation": metrics.TURNS,
    "delivery": metrics.SENDS,
    "clock": metrics.WAKEUPS,
}
"""What a process of each role does."""

_decode_heartbeat = msgspec.msgpack.Decoder(ProcessHeartbeat).decode
encode_heartbeat = msgspec.msgpack.encode

HeartbeatsReply = Mapping[bytes, bytes] | Sequence[bytes]
"""The answer to SAID, as redis-py gives it by itself or in a pipeline."""


@contextmanager
def send_heartbeats(
    url: str, role: str, surveys: Callable[[], dict[str, str]] = dict
) -> Iterator[Callable[[], None]]:
    """Meanwhile, this process is known to live, and to run `surveys()` (version by name). Gives what says so at once,
    which raises redis.RedisError."""
    client = keyspace.connect(url, retries=0, timeout_s=HEARTBEAT_TIMEOUT_S)
    host, pid, begun_s = socket.gethostname(), os.getpid(), monotonic()
    name = f"{role}@{host}:{pid}.{token_hex(2)}"  # containers may share a host's name, and all have the pid 1
    pace = _WorkRate(role)

    def send_heartbeat() -> None:
        now = keyspace.server_time_ms(client)
        since = now - round((monotonic() - begun_s) * 1_000)
        me = ProcessHeartbeat(
            now, surveys(), role, host, pid, since, keyspace.LIBRARY_NAME, package_version(), pace.per_s()
        )
        store_heartbeat(client, name, me)

    try:
        with run_periodically(send_heartbeat, HEARTBEAT_INTERVAL_S, "registry"):
            yield send_heartbeat
    finally:
        with suppress(redis.RedisError):  # its silence will say so
            remove_processes(client, [name])
        client.close()


class _WorkRate:
    """How much a process does a second."""

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
    keyspace.run_command(client, ("HSET", keyspace.PROCESSES_KEY, name, encode_heartbeat(process)))


def remove_processes(client: redis.Redis, names: Iterable[str]) -> None:
    """These live no more."""
    if names := list(names):
        keyspace.run_command(client, ("HDEL", keyspace.PROCESSES_KEY, *names))


def living_processes(client: redis.Redis) -> dict[str, ProcessHeartbeat]:
    """Those that live, by name."""
    return parse_living(keyspace.run_command(client, HEARTBEATS_COMMAND), keyspace.server_time_ms(client))


def remove_dead_processes(client: redis.Redis) -> None:
    """Forget those that have gone without a word."""
    said = keyspace.run_command(client, HEARTBEATS_COMMAND)
    alive = parse_living(said, keyspace.server_time_ms(client))
    remove_processes(client, (name for name in map(bytes.decode, _reply_pairs(said)) if name not in alive))


def parse_living(said: HeartbeatsReply, now: int) -> dict[str, ProcessHeartbeat]:
    """Of those that have said something, who lives at `now` (ms), by name. Whose word is of the future said it before the
    server's clock was set back, and would live until then."""
    read = {name.decode(): _parse_heartbeat(blob) for name, blob in _reply_pairs(said).items()}
    return {
        name: each
        for name, each in sorted(read.items())
        if each is not None and abs(now - each.at) <= HEARTBEAT_EXPIRY_MS
    }


def last_heard(said: HeartbeatsReply) -> dict[str, int]:
    """When one of each role last said something (ms), whether or not it lives: who was killed stays for an hour."""
    heard: dict[str, int] = {}
    for blob in _reply_pairs(said).values():
        if (process := _parse_heartbeat(blob)) is not None:
            heard[process.role] = max(process.at, heard.get(process.role, 0))
    return heard


def count_by_role(living: Mapping[str, ProcessHeartbeat]) -> Multiset[str]:
    return Multiset(each.role for each in living.values())


def _parse_heartbeat(blob: bytes) -> ProcessHeartbeat | None:
    """What a process said; None if a later release said it in a way that this one cannot read."""
    try:
        return _decode_heartbeat(blob)
    except msgspec.MsgspecError:
        return None


def _reply_pairs(said: HeartbeatsReply) -> Mapping[bytes, bytes]:
    return said if isinstance(said, Mapping) else dict(zip(said[::2], said[1::2], strict=True))
