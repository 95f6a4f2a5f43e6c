"""Hears from every Sentinel of a service which server is its primary, so that nobody stays with one that has another beside it.

Law: a primary that is cut off from its replicas goes on and fails nobody who has a connection to it, and the Sentinel beside it
names it as ever. So all Sentinels are listened to at once, each by a thread of its own, and the word with the highest epoch holds,
once the server that it names calls itself a primary. An announcement may be lost with a connection: a Sentinel is asked whenever
it is subscribed to anew, and about once a second while that cannot be.

Threads begin with the first connection of a process, in a fork as well, and end when the last pool is closed.
"""

import os
from collections import Counter, deque
from collections.abc import Callable, Collection
from threading import Event, Lock, RLock, Thread
from typing import Any, NamedTuple, Protocol
from weakref import WeakSet, WeakValueDictionary

import redis

Address = tuple[str, int]

CHANNEL = "+switch-master"

LISTEN_S = 1.0
"""How long a thread listens before it looks whether it is to end, and how soon a Sentinel that is away is tried again."""


class NamedPrimary(NamedTuple):
    """What a Sentinel says: a server, and the epoch of that, which each failover raises."""

    epoch: int
    address: Address


class ServedPool(Protocol):
    """Connections to the primary."""

    def leave_others(self, address: Address) -> None:
        """Leave all connections to other servers than this one: what is in use, after its reply. Any thread may call it."""


def read_named(state: Any) -> NamedPrimary:
    """Read what redis-py makes of an answer about a service."""
    return NamedPrimary(int(state.get("config-epoch", 0)), (state["ip"], int(state["port"])))


def most_believed(
    words: Collection[NamedPrimary], known: NamedPrimary | None, sentinels: int
) -> NamedPrimary | None:
    """Return whom to follow, of what each of so many Sentinels says that can be heard. An epoch below the known one is of a
    Sentinel that is behind; unless most of them say it, as they do once they were set up anew."""
    newest = max(words, default=None)
    if newest is None or known is None or newest.epoch >= known.epoch:
        return newest or known
    address, times = Counter(word.address for word in words).most_common(1)[0]
    if times * 2 > sentinels:
        return max(word for word in words if word.address == address)
    return known


class PrimaryWatch:
    """Of one service, which these Sentinels know. `reach` makes a client of one of them, and `is_primary` asks a server for its
    role."""

    def __init__(
        self,
        service: str,
        sentinels: Collection[Address],
        reach: Callable[[Address], redis.Redis],
        is_primary: Callable[[Address], bool],
    ) -> None:
        self.known: NamedPrimary | None = None
        self._service = service
        self._sentinels = sentinels
        self._reach = reach
        self._is_primary = is_primary
        self._words: dict[Address, NamedPrimary] = {}
        self._pools: WeakSet[ServedPool] = WeakSet()
        self._leaving: deque[ServedPool] = deque()
        self._lock = Lock()
        self._ended = Event()
        self._ended.set()

    def serve(self, pool: ServedPool) -> None:
        """Tell a pool from now on, until `forget`."""
        with self._lock:
            self._take_leave()
            self._pools.add(pool)
            if not self._ended.is_set():
                return
            self._ended = Event()
            for sentinel in self._sentinels:
                Thread(
                    target=self._listen, args=(sentinel, self._ended), name="sentinel", daemon=True
                ).start()

    def forget(self, pool: ServedPool) -> None:
        """Serve it no more. A client that is collected as garbage closes its pool in the midst of whatever its thread does, which
        may be one of these methods: nobody waits for the lock here, and who has it takes leave, or a listener a little later."""
        self._leaving.append(pool)
        if self._lock.acquire(blocking=False):
            try:
                self._take_leave()
            finally:
                self._lock.release()

    def pools(self) -> list[ServedPool]:
        with self._lock:
            self._take_leave()
            return list(self._pools)

    def _take_leave(self) -> None:
        while self._leaving:
            self._pools.discard(self._leaving.popleft())
        if not self._pools:
            self._ended.set()

    def _listen(self, sentinel: Address, ended: Event) -> None:
        client = self._reach(sentinel)
        while not ended.is_set():
            try:
                with client.pubsub() as news:  # type: ignore[no-untyped-call]
                    news.subscribe(CHANNEL)
                    while not self._is_over(ended):
                        if news.get_message(timeout=LISTEN_S) is not None:  # the first says that it has begun
                            self._hear(sentinel, client)
                        self._follow()
            except (redis.RedisError, OSError):
                self._hear(sentinel, client)
                self._follow()
                ended.wait(LISTEN_S)
        client.close()

    def _is_over(self, ended: Event) -> bool:
        """Whether it is to end: also if all pools went without a word."""
        with self._lock:
            self._take_leave()
        return ended.is_set()

    def _hear(self, sentinel: Address, client: redis.Redis) -> None:
        """Ask a Sentinel. What one said that does not answer any more counts for nothing."""
        try:
            word = read_named(client.sentinel_master(self._service))
        except (redis.RedisError, OSError, KeyError, ValueError):
            self._words.pop(sentinel, None)
        else:
            self._words[sentinel] = word

    def _follow(self) -> None:
        """Lead the pools to whom is believed now, unless that is whom they follow."""
        found = most_believed([*self._words.values()], self.known, len(self._sentinels))
        if found is None or found == self.known or not self._is_primary(found.address):
            return
        self.known = found
        for pool in self.pools():
            pool.leave_others(found.address)


_watches: WeakValueDictionary[Any, PrimaryWatch] = WeakValueDictionary()
_watches_lock = RLock()
"""Of this process. A pool that is closed as garbage is collected, in the midst of `watch_of`, asks for its own there."""


def watch_of(key: Any, make: Callable[[], PrimaryWatch]) -> PrimaryWatch:
    """Return the watch of a service, which all pools of this process have."""
    with _watches_lock:
        watch = _watches.get(key)
        if watch is None:
            watch = _watches[key] = make()
        return watch


def _begin_anew() -> None:
    """A fork has none of the threads."""
    global _watches, _watches_lock
    _watches, _watches_lock = WeakValueDictionary(), RLock()


os.register_at_fork(after_in_child=_begin_anew)
