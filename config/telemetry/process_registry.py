"""Which processes live? Each says so every few seconds, with its role, its release and what it runs; one that has been
silent for a few turns is gone. A clean end says so too.

They are in one hash, process -> what it said, which the release before this one reads and writes as well: it knew the
first two fields, and wrote once a minute. Redis away is only waited for: nothing but what operators see depends on it.
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
from config.telemetry.hot_reload import repeatedly

SAID: keyspace.Command = ("HGETALL", keyspace.RUNS)
"""Asks what `living` reads."""

SAY_S = 5.0
GONE_MS = 20_000
"""A process that has said nothing for this long lives no more."""

_GONE_EARLIER_MS = 180_000
"""The same for one of the earlier release, which speaks once a minute."""

PATIENCE_S = 1.0
"""How long a word may take; what is not said now is said at the next turn."""


ROLES = ("web", "ratelimit", "conversation", "delivery", "clock")
"""The Procfile's lines."""

UNHEARD = ("web", "delivery", "clock")
"""Those of which a process of the release before this one does not say that it lives."""


class Process(msgspec.Struct, frozen=True, array_like=True):
    """What a process said at `at`: the versions that it runs by survey (workers of lanes only), and who it is. It began
    at `since`, calls the server-side functions `library`, and is of the package's version `release`. `per_s` is how much
    it did a second since it spoke last: see WORK. Times are the server's ms. The release before this one told the first
    two alone."""

    at: int
    surveys: dict[str, str] = {}
    role: str = ""
    host: str = ""
    pid: int = 0
    since: int = 0
    library: str = ""
    release: str = ""
    per_s: float = 0.0

    @property
    def gone_ms(self) -> int:
        return GONE_MS if self.library else _GONE_EARLIER_MS


WORK: Mapping[str, Counter] = {
    "web": metrics.INBOUND,
    "ratelimit": metrics.TURNS,
    "conversation": metrics.TURNS,
    "delivery": metrics.SENDS,
    "clock": metrics.ALARMS,
}
"""What a process of each role does."""

_decode = msgspec.msgpack.Decoder(Process).decode
encode = msgspec.msgpack.encode

Said = Mapping[bytes, bytes] | Sequence[bytes]
"""The answer to SAID, as redis-py gives it by itself or in a pipeline."""


@contextmanager
def enlisted(
    url: str, role: str, surveys: Callable[[], dict[str, str]] = dict
) -> Iterator[Callable[[], None]]:
    """Meanwhile, this process is known to live, and to run `surveys()` (version by name). Gives what says so at once,
    which raises redis.RedisError."""
    client = keyspace.connect(url, retries=0, timeout_s=PATIENCE_S)
    host, pid, begun_s = socket.gethostname(), os.getpid(), monotonic()
    name = f"{role}@{host}:{pid}.{token_hex(2)}"  # containers may share a host's name, and all have the pid 1
    pace = _Pace(role)

    def say() -> None:
        now = keyspace.server_ms(client)
        since = now - round((monotonic() - begun_s) * 1_000)
        me = Process(now, surveys(), role, host, pid, since, keyspace.LIBRARY, release(), pace.per_s())
        put(client, name, me)

    try:
        with repeatedly(say, SAY_S, "registry"):
            yield say
    finally:
        with suppress(redis.RedisError):  # its silence will say so
            leave(client, [name])
        client.close()


class _Pace:
    """How much a process does a second."""

    def __init__(self, role: str) -> None:
        self._counter = WORK[role]
        self._last = (monotonic(), self._done())
        self._per_s = 0.0

    def per_s(self) -> float:
        """Since the last time that this was asked, if it was not just now."""
        (then_s, before), now_s = self._last, monotonic()
        if now_s - then_s >= 1:
            done = self._done()
            self._per_s = round((done - before) / (now_s - then_s), 1)
            self._last = (now_s, done)
        return self._per_s

    def _done(self) -> float:
        samples = (sample for metric in self._counter.collect() for sample in metric.samples)
        return sum(sample.value for sample in samples if sample.name.endswith("_total"))


def release() -> str:
    """The package's version; empty if it is not installed."""
    try:
        return version("parley")
    except PackageNotFoundError:
        return ""


def put(client: redis.Redis, name: str, process: Process) -> None:
    keyspace.ask(client, ("HSET", keyspace.RUNS, name, encode(process)))


def leave(client: redis.Redis, names: Iterable[str]) -> None:
    """These live no more."""
    if names := list(names):
        keyspace.ask(client, ("HDEL", keyspace.RUNS, *names))


def processes(client: redis.Redis) -> dict[str, Process]:
    """Those that live, by name."""
    return living(keyspace.ask(client, SAID), keyspace.server_ms(client))


def bury(client: redis.Redis) -> None:
    """Forget those that have gone without a word."""
    said = keyspace.ask(client, SAID)
    alive = living(said, keyspace.server_ms(client))
    leave(client, (name for name in map(bytes.decode, _pairs(said)) if name not in alive))


def living(said: Said, now: int) -> dict[str, Process]:
    """Of those that have said something, who lives at `now` (ms), by name. Whose word is of the future said it before the
    server's clock was set back, and would live until then."""
    read = {name.decode(): _read(name.decode(), blob) for name, blob in _pairs(said).items()}
    return {
        name: each
        for name, each in sorted(read.items())
        if each is not None and abs(now - each.at) <= each.gone_ms
    }


def last_heard(said: Said) -> dict[str, int]:
    """When one of each role last said something (ms), whether or not it lives: who was killed stays for an hour."""
    heard: dict[str, int] = {}
    for name, blob in _pairs(said).items():
        if (process := _read(name.decode(), blob)) is not None:
            heard[process.role] = max(process.at, heard.get(process.role, 0))
    return heard


def by_role(living: Mapping[str, Process]) -> Multiset[str]:
    return Multiset(each.role for each in living.values())


def _read(name: str, blob: bytes) -> Process | None:
    """What it said; None if a later release said it in a way that this one cannot read. Its role is in its name."""
    try:
        process = _decode(blob)
    except msgspec.MsgspecError:
        return None
    if process.role:
        return process
    role, _, place = name.partition("@")
    host, _, pid = place.rpartition(":")
    return msgspec.structs.replace(process, role=role, host=host, pid=int(pid) if pid.isdigit() else 0)


def _pairs(said: Said) -> Mapping[bytes, bytes]:
    return said if isinstance(said, Mapping) else dict(zip(said[::2], said[1::2], strict=True))
