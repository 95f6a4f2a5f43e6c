"""What every connection to a Redis server has: it is left once that server is not the primary, and when its machine is silent."""

import socket
from collections.abc import Mapping
from typing import Any

import hiredis
import redis

from engine.model.errors import ParleyError

SILENT_MACHINE_S = 3
"""After so long a connection is left, idle or not, to a machine from which no packet comes, not even what its kernel sends while
a server hangs or writes to its disk."""

_KEEPALIVE_NUMBERS = {
    "TCP_KEEPIDLE": 1,
    "TCP_KEEPINTVL": 1,
    "TCP_KEEPCNT": SILENT_MACHINE_S - 1,
    "TCP_USER_TIMEOUT": SILENT_MACHINE_S * 1_000,
}

KEEPALIVE: Mapping[str, Any] = {
    "socket_keepalive": True,
    "socket_keepalive_options": {
        getattr(socket, name): number for name, number in _KEEPALIVE_NUMBERS.items() if hasattr(socket, name)
    },
}
"""As far as the system has them."""


def server_options(parsed: Mapping[str, Any]) -> dict[str, Any]:
    """Of what redis-py reads in a URL, what is the same on every server of a service."""
    return {name: value for name, value in parsed.items() if name not in ("host", "port", "connection_class")}


class HiredisPacker:
    """Packs a command as redis-py does, in half of its time (a quarter under asyncio, where it does not ask hiredis):
    what it looks into every argument for, bytearrays and memoryviews, is in none of ours."""

    @staticmethod
    def pack(*args: Any) -> list[bytes]:
        words = args[0].split()  # CONFIG GET, say
        return [hiredis.pack_command(args if len(words) == 1 else (*words, *args[1:]))]


class NotPrimaryError(ParleyError, redis.exceptions.ConnectionError):
    """The server is not, or not any more, the one that takes writes. A new connection leads to the one that is."""


_NOT_PRIMARY_ERRORS = (
    redis.exceptions.ReadOnlyError,
    redis.exceptions.MasterDownError,
    redis.exceptions.ClusterDownError,
)
"""What a server answers that a failover has made a replica, while its connections stay open. (One that is loading its data
is told by redis-py as a connection that failed.)"""


class LeavesReplica:
    """A connection that fails when its server says that it is not the primary, so that what was asked is repeated on a new
    one, as after any failure: it was refused, or may be done twice."""

    def read_response(self, *args: Any, **named: Any) -> Any:
        try:
            return super().read_response(*args, **named)  # type: ignore[misc]
        except _NOT_PRIMARY_ERRORS as e:
            self.disconnect()  # type: ignore[attr-defined]
            raise NotPrimaryError(str(e)) from e


class AsyncLeavesReplica:
    """The same for asyncio, packing as we do."""

    async def read_response(self, *args: Any, **named: Any) -> Any:
        try:
            return await super().read_response(*args, **named)  # type: ignore[misc]
        except _NOT_PRIMARY_ERRORS as e:
            await self.disconnect(nowait=True)  # type: ignore[attr-defined]
            raise NotPrimaryError(str(e)) from e

    def pack_command(self, *args: Any) -> list[bytes]:
        return HiredisPacker.pack(*args)


def require_primary(role: Any) -> None:
    """Raise NotPrimaryError unless this answer to ROLE is a primary's."""
    if role[0] != b"master":
        raise NotPrimaryError(f"the server that the Sentinels name is a {role[0].decode()}")
