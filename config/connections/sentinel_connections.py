"""Connects to whichever server is the primary of a service that Sentinels know.

Law: each connection asks the Sentinels anew. These may be behind, so a server that they name is believed when it calls itself a
primary. What the Sentinels announce (primary_watch.py), and what one connection of a process learns of a new primary, all its
others know: idle ones are closed, and those in use left after their reply.
"""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.asyncio import connection as asyncio_connection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from config.connections.primary_watch import Address, PrimaryWatch, read_named, watch_of
from config.connections.redis_url import SentinelService, scheme_of
from config.connections.server_connections import (
    KEEPALIVE,
    AsyncLeavesReplica,
    LeavesReplica,
    require_primary,
    server_options,
)
from engine.model.errors import ParleyError

SENTINEL_TIMEOUT_S = 0.5
"""How long a Sentinel may take before the next one is asked."""

HANDSHAKE_TIMEOUT_S = 1.0
"""How long a server that Sentinels name may take to let us in. One that hangs is named until they have agreed that it is gone."""


def sentinel_pool(
    service: SentinelService, options: Mapping[str, Any]
) -> redis.sentinel.SentinelConnectionPool:
    server = server_options(redis.connection.parse_url(service.server_url))  # type: ignore[no-untyped-call]
    asked = _Sentinels(service, {**_sentinel_options(service, server), "retry": Retry(NoBackoff(), 0)})
    kind = _PrimaryTlsConnection if _is_tls(service) else _PrimaryTcpConnection
    return _PrimaryPool(service, asked, connection_class=kind, **KEEPALIVE, **server, **options)


def async_sentinel_pool(
    service: SentinelService, options: Mapping[str, Any]
) -> redis.asyncio.sentinel.SentinelConnectionPool:
    server = server_options(asyncio_connection.parse_url(service.server_url))
    asked = _AsyncSentinels(
        service, {**_sentinel_options(service, server), "retry": AsyncRetry(NoBackoff(), 0)}
    )
    kind = _AsyncPrimaryTlsConnection if _is_tls(service) else _AsyncPrimaryTcpConnection
    return _AsyncPrimaryPool(service, asked, connection_class=kind, **KEEPALIVE, **server, **options)


def _is_tls(service: SentinelService) -> bool:
    return scheme_of(service.server_url) == "rediss"


def _sentinel_options(service: SentinelService, server: Mapping[str, Any]) -> dict[str, Any]:
    """How the Sentinels are reached: as their servers are, but by credentials of their own, and soon or not at all."""
    tls = {name: value for name, value in server.items() if name.startswith("ssl_")}
    return {
        **({"ssl": True} | tls if _is_tls(service) else {}),
        **service.credentials,
        "socket_timeout": SENTINEL_TIMEOUT_S,
        "socket_connect_timeout": SENTINEL_TIMEOUT_S,
        "protocol": 2,
    }


# Watching


def _watch(service: SentinelService) -> PrimaryWatch:
    """Return what all pools of this process to the servers of a service have."""
    return watch_of((service.sentinels, service.name), partial(_make_watch, service))


def _make_watch(service: SentinelService) -> PrimaryWatch:
    server = server_options(redis.connection.parse_url(service.server_url))  # type: ignore[no-untyped-call]
    options = {**_sentinel_options(service, server), **KEEPALIVE}

    def reach(sentinel: Address) -> redis.Redis:
        host, port = sentinel
        return redis.Redis(host=host, port=port, retry=Retry(NoBackoff(), 0), **options)

    return PrimaryWatch(
        service.name, service.sentinels, reach, partial(_calls_itself_primary, service, server)
    )


def _calls_itself_primary(service: SentinelService, server: Mapping[str, Any], address: Address) -> bool:
    host, port = address
    kind = redis.SSLConnection if _is_tls(service) else redis.Connection
    connection = kind(
        host=host, port=port, retry=Retry(NoBackoff(), 0), protocol=2,
        socket_timeout=HANDSHAKE_TIMEOUT_S, socket_connect_timeout=HANDSHAKE_TIMEOUT_S, **server,
    )  # fmt: skip
    try:
        connection.connect()  # type: ignore[no-untyped-call]
        connection.send_command("ROLE")  # type: ignore[no-untyped-call]
        return bool(connection.read_response()[0] == b"master")
    except (redis.RedisError, OSError):
        return False
    finally:
        connection.disconnect()  # type: ignore[no-untyped-call]


# Connections


class NoPrimaryError(ParleyError, redis.exceptions.ConnectionError):
    """No Sentinel names a primary: they do not answer, do not know the service, or are about to promote another."""

    def __init__(self, service: str, sentinels: Iterable[redis.Redis | redis.asyncio.Redis]) -> None:
        asked = [each.connection_pool.connection_kwargs for each in sentinels]
        hosts = ", ".join(f"{options['host']}:{options['port']}" for options in asked)
        super().__init__(f"no Sentinel of {hosts} answers with a primary of {service!r}")


class _FollowsSentinels(LeavesReplica):
    """A connection to the primary that the Sentinels name when it is made: each time, where redis-py goes to where it was
    before if a command fails."""

    def _connect_retry(self) -> None:
        if not self._sock:  # type: ignore[attr-defined]
            self.connect_check_health(  # type: ignore[attr-defined]
                check_health=False, retry_socket_connect=False
            )

    def _connect(self) -> Any:
        pool: _PrimaryPool = self.connection_pool.connection_pool_ref()  # type: ignore[attr-defined]
        self.host, self.port = pool.find_primary()
        return super()._connect()  # type: ignore[misc]

    def on_connect_check_health(self, *args: Any, **named: Any) -> None:
        self._sock.settimeout(HANDSHAKE_TIMEOUT_S)  # type: ignore[attr-defined]
        super().on_connect_check_health(*args, **named)  # type: ignore[misc]
        self.send_command("ROLE", check_health=False)  # type: ignore[attr-defined]
        require_primary(self.read_response())
        self._sock.settimeout(self.socket_timeout)  # type: ignore[attr-defined]


class _PrimaryTcpConnection(_FollowsSentinels, redis.sentinel.SentinelManagedConnection):
    pass


class _PrimaryTlsConnection(_FollowsSentinels, redis.sentinel.SentinelManagedSSLConnection):
    pass


class _HeedsWatch:
    """Sentinels, of which none is believed that is behind what is known."""

    def __init__(self, service: SentinelService, options: Mapping[str, Any]) -> None:
        super().__init__(service.sentinels, sentinel_kwargs=options)  # type: ignore[call-arg]
        self._service = service

    def known_address(self) -> Address | None:
        known = _watch(self._service).known
        return known.address if known is not None else None

    def check_master_state(self, state: Any, service_name: str) -> bool:
        known = _watch(self._service).known
        is_behind = known is not None and read_named(state).epoch < known.epoch
        return not is_behind and super().check_master_state(state, service_name)  # type: ignore[misc]


class _Sentinels(_HeedsWatch, redis.sentinel.Sentinel):
    """Sentinels whose errors say no more than where was asked, and for what."""

    def discover_master(self, service_name: str) -> tuple[str, int]:
        try:
            return super().discover_master(service_name)  # type: ignore[no-any-return, no-untyped-call]
        except redis.sentinel.MasterNotFoundError as e:
            if address := self.known_address():
                return address
            raise NoPrimaryError(service_name, self.sentinels) from e.__cause__


class _PrimaryPool(redis.sentinel.SentinelConnectionPool):
    """The connections to the primary. With them, those to the Sentinels are closed."""

    def __init__(self, service: SentinelService, asked: redis.sentinel.Sentinel, **options: Any) -> None:
        super().__init__(service.name, asked, **options)  # type: ignore[no-untyped-call]
        self._service = service

    def find_primary(self) -> Address:
        """Return the host and port that the Sentinels name, and have this process leave others: each connection would have to
        find out by a timeout of its own."""
        watch = _watch(self._service)
        watch.serve(self)
        known, address = watch.known, self.get_master_address()  # type: ignore[no-untyped-call]
        while watch.known is not known:  # a Sentinel was asked before that was known
            known, address = watch.known, self.get_master_address()  # type: ignore[no-untyped-call]
        for each in watch.pools():
            each.leave_others(address)
        found: Address = address
        return found

    def leave_others(self, address: Address) -> None:
        if self.master_address not in (None, address):
            self.proxy.master_address = address  # what is in use to another is not taken back
            self.disconnect(inuse_connections=False)

    def disconnect(self, inuse_connections: bool = True) -> None:
        super().disconnect(inuse_connections)
        if inuse_connections:
            self.sentinel_manager.close()
            _watch(self._service).forget(self)


class _AsyncFollowsSentinels(AsyncLeavesReplica):
    """The same for asyncio."""

    async def _connect_retry(self) -> None:
        if not self._reader:  # type: ignore[attr-defined]
            await self.connect_check_health(  # type: ignore[attr-defined]
                check_health=False, retry_socket_connect=False
            )

    async def _connect(self) -> None:
        self.host, self.port = await self.connection_pool.get_master_address()  # type: ignore[attr-defined]
        await super()._connect()  # type: ignore[misc]

    async def on_connect_check_health(self, *args: Any, **named: Any) -> None:
        await super().on_connect_check_health(*args, **named)  # type: ignore[misc]
        await self.send_command("ROLE", check_health=False)  # type: ignore[attr-defined]
        require_primary(await self.read_response())


class _AsyncPrimaryTcpConnection(_AsyncFollowsSentinels, redis.asyncio.sentinel.SentinelManagedConnection):
    pass


class _AsyncPrimaryTlsConnection(_AsyncFollowsSentinels, redis.asyncio.sentinel.SentinelManagedSSLConnection):
    pass


class _AsyncSentinels(_HeedsWatch, redis.asyncio.sentinel.Sentinel):
    """The same for asyncio."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        try:
            return await super().discover_master(service_name)  # type: ignore[no-any-return]
        except redis.asyncio.sentinel.MasterNotFoundError as e:
            if address := self.known_address():
                return address
            raise NoPrimaryError(service_name, self.sentinels) from e.__cause__


class _AsyncPrimaryPool(redis.asyncio.sentinel.SentinelConnectionPool):
    """The same for asyncio. It is told by threads."""

    def __init__(
        self, service: SentinelService, asked: redis.asyncio.sentinel.Sentinel, **options: Any
    ) -> None:
        super().__init__(service.name, asked, **options)  # type: ignore[no-untyped-call]
        self._service = service
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leaving: asyncio.Task[None] | None = None

    async def get_master_address(self) -> Address:
        self._loop = asyncio.get_running_loop()
        watch = _watch(self._service)
        watch.serve(self)
        known, address = watch.known, await super().get_master_address()  # type: ignore[no-untyped-call]
        while watch.known is not known:
            known, address = watch.known, await super().get_master_address()  # type: ignore[no-untyped-call]
        found: Address = address
        return found

    def leave_others(self, address: Address) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # it is closed
                self._loop.call_soon_threadsafe(self._begin_to_leave, address)

    def _begin_to_leave(self, address: Address) -> None:
        if self.master_address not in (None, address):
            self.master_address = address
            self._leaving = asyncio.get_running_loop().create_task(self._leave_all())

    async def _leave_all(self) -> None:
        await self.update_active_connections_for_reconnect()  # type: ignore[no-untyped-call]
        await self.disconnect(inuse_connections=False)

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for each in self.sentinel_manager.sentinels:
                await each.aclose()
            _watch(self._service).forget(self)
