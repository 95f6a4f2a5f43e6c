"""Asks for the addresses of names, without anybody waiting longer than they want to."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from threading import BoundedSemaphore
from typing import Any, NamedTuple

from workers.sending.loop_thread import call_in_thread

RESOLVING_TIMEOUT_S = 5.0
"""How long a name is waited for by all who want it together; then it is asked for anew."""

Addresses = Sequence[tuple[Any, ...]]
GetAddrInfo = Callable[..., Addresses]
"""As socket.getaddrinfo."""


class ResolvedAddress(NamedTuple):
    """Where a name leads to. The numbers are socket's."""

    family: int
    protocol: int
    host: str
    port: int


class ThreadResolver:
    """Asks for addresses in threads that nobody waits for: neither a try beyond its deadline, nor the process as it ends."""

    def __init__(self, resolve: GetAddrInfo = socket.getaddrinfo, *, names_at_once: int) -> None:
        self._resolve = resolve
        self._names_at_once = names_at_once
        self._room = BoundedSemaphore(names_at_once)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolvedAddress]:
        """Return where a name leads to. Raises OSError, TimeoutError after RESOLVING_TIMEOUT_S, and what the resolver raises."""
        if not self._room.acquire(blocking=False):
            raise OSError(f"{self._names_at_once} questions to the resolver are unanswered")

        def ask() -> Addresses:
            try:
                kind, flags = socket.SOCK_STREAM, socket.AI_ADDRCONFIG
                return self._resolve(host, port, family=family, type=kind, flags=flags)
            finally:
                self._room.release()

        try:
            found = await asyncio.wait_for(call_in_thread(ask, "resolve"), RESOLVING_TIMEOUT_S)
        except RuntimeError as e:  # no thread could be started
            self._room.release()
            raise OSError(str(e)) from e
        return [ResolvedAddress(kind, protocol, at[0], at[1]) for kind, _, protocol, _, at in found]
