"""Servers with which something is wrong, as long as somebody looks whether it still is."""

import os
from collections.abc import Callable

Address = tuple[str, int]
"""Host and port of a server."""


class WatchedServers:
    """`watch` is called for each that is added, and has it removed once all is well with it. After a fork, where nobody watches any
    more, there is none."""

    def __init__(self, watch: Callable[[Address], None]) -> None:
        self._watch = watch
        self._servers: set[Address] = set()
        self._pid = os.getpid()

    def __contains__(self, server: Address) -> bool:
        return server in self._servers and self._is_watched()

    def add(self, server: Address) -> None:
        if server not in self:
            self._servers.add(server)
            self._watch(server)

    def remove(self, server: Address) -> None:
        self._servers.discard(server)

    def _is_watched(self) -> bool:
        if os.getpid() != self._pid:
            self._servers, self._pid = set(), os.getpid()
        return bool(self._servers)
