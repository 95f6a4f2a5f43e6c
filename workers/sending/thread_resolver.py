"""Asks for the addresses of names, for aiohttp, without anybody waiting longer than they want to."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import BoundedSemaphore, Thread
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

RESOLVING_TIMEOUT_S = 5.0
"""How long a name is waited for by all who want it together; then it is asked for anew."""

Addresses = Sequence[tuple[Any, ...]]
GetAddrInfo = Callable[..., Addresses]
"""As socket.getaddrinfo."""


class ThreadResolver(AbstractResolver):
    """Asks for addresses in threads that nobody waits for: neither a try beyond its deadline, nor the process as it ends."""

    def __init__(self, resolve: GetAddrInfo = socket.getaddrinfo, *, names_at_once: int) -> None:
        self._resolve = resolve
        self._names_at_once = names_at_once
        self._room = BoundedSemaphore(names_at_once)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        if not self._room.acquire(blocking=False):
            raise OSError(f"{self._names_at_once} questions to the resolver are unanswered")
        answer: Future[Addresses] = Future()

        def ask() -> None:
            answer.set_running_or_notify_cancel()
            try:
                kind, flags = socket.SOCK_STREAM, socket.AI_ADDRCONFIG
                answer.set_result(self._resolve(host, port, family=family, type=kind, flags=flags))
            except Exception as e:  # noqa: BLE001 (whoever waits gets it)
                answer.set_exception(e)
            finally:
                self._room.release()

        Thread(target=ask, name="resolve", daemon=True).start()
        found = await asyncio.wait_for(asyncio.wrap_future(answer), RESOLVING_TIMEOUT_S)
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=at[0], port=at[1], family=kind, proto=proto, flags=flags)
            for kind, _, proto, _, at in found
        ]

    async def close(self) -> None:
        """There is nothing to be closed."""
