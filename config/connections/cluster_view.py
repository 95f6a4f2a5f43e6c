"""What a process knows of a cluster's servers: who has which slots, as they tell, and who is not asked until it answers again."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any

from config.connections.cluster_routing import ServerAwayError, SlotTable
from config.connections.watched_servers import Address, WatchedServers

LOOK_AROUND_INTERVAL_S = 0.5
"""How often a worker looks at all servers, so that one that hangs is known before work on a lane waits for it."""

LOOK_INTERVAL_S = 0.1
"""After how long a server that has failed is looked at again."""

REFRESH_INTERVAL_S = 0.1
"""How long what was told last is good, whatever fails."""

ASKED_AT_ONCE = 16
"""How many servers are asked together who has what, once one has not told: those that hang cost no longer than one does."""

REFRESH_COMMANDS = (("CLUSTER", "INFO"), ("CLUSTER", "SLOTS"))


def take_view(table: SlotTable, asked: Address, told: Sequence[Any]) -> bool:
    """Take what a server told to REFRESH_COMMANDS. Return False if it is not believed: a server that calls the cluster down may
    be cut off, and still claims what others have by now; one with an older epoch than we know is behind."""
    info, slots = told
    epoch = epoch_told(info)
    if not slots or cluster_facts(info).get("cluster_state") != "ok" or epoch < table.epoch:
        return False
    table.replace(epoch, slots, asked)
    return True


def epoch_told(info: bytes) -> int:
    """Return the epoch that a server tells to CLUSTER INFO: the later, the more it knows of who has what."""
    return int(cluster_facts(info).get("cluster_current_epoch", 0))


def cluster_facts(info: bytes) -> dict[str, str]:
    """Return what a server answers to CLUSTER INFO, by name."""
    return dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)


class Absences:
    """Which servers have failed, and have not been seen to answer since. `watch` is called for each that fails, and calls `answered`
    once the server does."""

    def __init__(self, watch: Callable[[Address], None]) -> None:
        self._absent = WatchedServers(watch)

    def require_present(self, address: Address) -> None:
        """Raise ServerAwayError if the server has failed, and nobody has seen it answer since."""
        if address in self._absent:
            raise ServerAwayError(f"the server at {address[0]}:{address[1]} does not answer")

    def failed(self, address: Address) -> None:
        self._absent.add(address)

    def answered(self, address: Address) -> None:
        self._absent.remove(address)

    def present_first(self, addresses: Sequence[Address]) -> list[Address]:
        """Return these, each once, those that are absent at the end."""
        return sorted(dict.fromkeys(addresses), key=self._absent.__contains__)

    def in_turns(self, addresses: Sequence[Address]) -> Iterator[Sequence[Address]]:
        """Yield the same in groups, each to be asked at once if nobody of those before has told: first one alone."""
        ordered = self.present_first(addresses)
        yield ordered[:1]
        for begin in range(1, len(ordered), ASKED_AT_ONCE):
            yield ordered[begin : begin + ASKED_AT_ONCE]


class RefreshLimit:
    """Lets one thread at a time ask, and not too often."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked_s = -REFRESH_INTERVAL_S

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Answer whether it is our turn to ask; False once another thread has asked meanwhile."""
        came_s = monotonic()
        with self._lock:
            if self._asked_s > came_s - REFRESH_INTERVAL_S:
                yield False
                return
            try:
                yield True
            finally:
                self._asked_s = monotonic()
