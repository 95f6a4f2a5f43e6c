"""Connects to a Redis server, to whichever server is the primary of a service that Sentinels know, or to a cluster.

Law: a connection to a server that is not the primary any more is left at its first word, and a new one leads to the one that
is: where the URL's name leads, or by the word of the Sentinels (sentinel_connections.py).
"""

from collections.abc import Mapping
from typing import Any

import redis
import redis.asyncio
from redis.asyncio import connection as asyncio_connection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from config.connections.async_cluster_client import AsyncClusterClient
from config.connections.cluster_client import HELD_UP_S, ClusterClient
from config.connections.redis_url import Cluster, read_cluster_url, read_sentinel_url, scheme_of
from config.connections.sentinel_connections import HANDSHAKE_TIMEOUT_S, async_sentinel_pool, sentinel_pool
from config.connections.server_connections import (
    KEEPALIVE,
    AsyncLeavesReplica,
    HiredisPacker,
    LeavesReplica,
    server_options,
)

SOCKET_TIMEOUT_S = 5.0  # longer than an fsync takes on a bad day
COMMAND_RETRIES = 3

NODE_HANDSHAKE_TIMEOUT_S = HELD_UP_S
"""The same of a server of a cluster, beside which others are asked."""

_RETRIED_ERRORS = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)


def connect(url: str, retries: int = COMMAND_RETRIES, timeout_s: float = SOCKET_TIMEOUT_S) -> redis.Redis:
    """A client whose calls are repeated when a reply was lost: every function of ours allows it."""
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.05, cap=1.0), retries),
        "retry_on_error": list(_RETRIED_ERRORS),
        "protocol": 2,
        "command_packer": HiredisPacker,
    }
    if cluster := read_cluster_url(url):
        options["socket_connect_timeout"] = min(timeout_s, NODE_HANDSHAKE_TIMEOUT_S)
        return ClusterClient(cluster.seeds, *_node_connections(cluster, options, _NODE_CONNECTIONS))
    if service := read_sentinel_url(url):
        options["socket_connect_timeout"] = min(timeout_s, HANDSHAKE_TIMEOUT_S)
        return redis.Redis.from_pool(sentinel_pool(service, options))
    client = redis.Redis.from_url(url, **options, **_keepalive(url))
    client.connection_pool.connection_class = _CONNECTIONS[scheme_of(url)][0]
    return client


def connect_async(url: str, retries: int = 1) -> "redis.asyncio.Redis":
    """The same for asyncio. Whoever awaits a reply bounds the wait, which costs less than a timeout a read."""
    options: dict[str, Any] = {
        "socket_timeout": None,
        "socket_connect_timeout": 1.0,
        "retry": AsyncRetry(ExponentialWithJitterBackoff(base=0.05, cap=0.2), retries),
        "retry_on_error": list(_RETRIED_ERRORS),
        "protocol": 2,
    }
    if cluster := read_cluster_url(url):
        options["socket_connect_timeout"] = NODE_HANDSHAKE_TIMEOUT_S
        return AsyncClusterClient(
            cluster.seeds, *_node_connections(cluster, options, _ASYNC_NODE_CONNECTIONS)
        )
    if service := read_sentinel_url(url):
        return redis.asyncio.Redis.from_pool(async_sentinel_pool(service, options))
    client = redis.asyncio.Redis.from_url(url, **options, **_keepalive(url))
    client.connection_pool.connection_class = _CONNECTIONS[scheme_of(url)][1]
    return client


def _node_connections(
    cluster: Cluster, options: Mapping[str, Any], classes: Mapping[str, type]
) -> tuple[type, Mapping[str, Any]]:
    """Return the class and the options of connections to the servers of a cluster."""
    parsed = redis.connection.parse_url(cluster.server_url)  # type: ignore[no-untyped-call]
    server = {name: value for name, value in server_options(parsed).items() if name != "db"}
    return classes[scheme_of(cluster.server_url)], {**KEEPALIVE, **server, **options}


def _keepalive(url: str) -> Mapping[str, Any]:
    """The options that a unix socket does not know."""
    return {} if scheme_of(url) == "unix" else KEEPALIVE


# Connections


class _TcpConnection(LeavesReplica, redis.Connection):
    pass


class _TlsConnection(LeavesReplica, redis.SSLConnection):
    pass


class _UnixConnection(LeavesReplica, redis.UnixDomainSocketConnection):
    pass


class _ShakesHandsSoon:
    """A connection to a server of a cluster, which has to let us in soon: one that hangs still takes connections."""

    def on_connect_check_health(self, *args: Any, **named: Any) -> None:
        self._sock.settimeout(self.socket_connect_timeout)  # type: ignore[attr-defined]
        super().on_connect_check_health(*args, **named)  # type: ignore[misc]
        self._sock.settimeout(self.socket_timeout)  # type: ignore[attr-defined]


class _NodeTcpConnection(_ShakesHandsSoon, redis.Connection):
    pass


class _NodeTlsConnection(_ShakesHandsSoon, redis.SSLConnection):
    pass


class _AsyncTcpConnection(AsyncLeavesReplica, asyncio_connection.Connection):
    pass


class _AsyncTlsConnection(AsyncLeavesReplica, asyncio_connection.SSLConnection):
    pass


class _AsyncUnixConnection(AsyncLeavesReplica, asyncio_connection.UnixDomainSocketConnection):
    pass


_CONNECTIONS: dict[str, tuple[type, type]] = {
    "redis": (_TcpConnection, _AsyncTcpConnection),
    "rediss": (_TlsConnection, _AsyncTlsConnection),
    "unix": (_UnixConnection, _AsyncUnixConnection),
}
"""By a URL's scheme: for threads, and for asyncio."""

_NODE_CONNECTIONS: dict[str, type] = {"redis": _NodeTcpConnection, "rediss": _NodeTlsConnection}
_ASYNC_NODE_CONNECTIONS: dict[str, type] = {
    "redis": asyncio_connection.Connection,
    "rediss": asyncio_connection.SSLConnection,
}
