"""How a Redis server is reached: clients, the server-side functions on it, and commands in one round trip.

Law: commands go out by `run_commands` (`run_commands_async` for asyncio) and `try_commands` alone: one trip, functions loaded
again into a server that says that it has none, and errors that quote no command, as redis-py's do in a pipeline: they would
name phone numbers. Redis Cluster and Sentinel need just this seam. A connection to a server that is not the primary any more is
left at its first word: after a failover, a new one leads to the one that is.
"""

from collections.abc import Sequence
from typing import Any

import hiredis
import redis
import redis.asyncio
from redis.asyncio import connection as asyncio_connection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from config.store.function_calls import Command
from config.store.lua_library import LIBRARY_NAME, LIBRARY_SOURCE
from engine.model.errors import ParleyError

SOCKET_TIMEOUT_S = 5.0  # longer than an fsync takes on a bad day
COMMAND_RETRIES = 3

_RETRIED_ERRORS = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)


def server_time_ms(client: redis.Redis) -> int:
    """Return the server's time."""
    return time_reply_ms(run_command(client, ("TIME",)))


def time_reply_ms(time: tuple[int | bytes, int | bytes]) -> int:
    """Return a server's time, of what it answers to TIME."""
    seconds, microseconds = time
    return int(seconds) * 1_000 + int(microseconds) // 1_000


# Commands, for threads


def run_command(client: redis.Redis, command: Command) -> Any:
    """Return the answer to one command. Raises redis.RedisError."""
    return run_commands(client, [command])[0]


def run_commands(client: redis.Redis, commands: Sequence[Command], *, transaction: bool = False) -> list[Any]:
    """Return the answers to `commands`, sent in one round trip; `transaction`: all of one moment. Raises the first error
    among them."""
    answers = try_commands(client, commands, transaction=transaction)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def try_commands(client: redis.Redis, commands: Sequence[Command], *, transaction: bool = False) -> list[Any]:
    """Return the same, with errors of the server in the places of answers. Raises redis.RedisError if it cannot be
    reached."""
    answers = _send(client, commands, transaction=transaction)
    if any(map(_lacks_functions, answers)):
        load_functions(client)
        answers = _send(client, commands, transaction=transaction)
    return answers


def _send(client: redis.Redis, commands: Sequence[Command], *, transaction: bool) -> list[Any]:
    if len(commands) == 1:
        try:
            return [client.execute_command(*commands[0])]  # type: ignore[no-untyped-call]
        except redis.ResponseError as e:
            return [e]
    pipeline = client.pipeline(transaction=transaction)
    for command in commands:
        pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
    answers: list[Any] = pipeline.execute(raise_on_error=False)
    return answers


def load_functions(client: redis.Redis) -> None:
    """Make the server-side functions known; safe beside running processes of any release. A server whose memory is full
    takes none, and need not if it has them: whoever empties it must be able to start."""
    try:
        client.function_load(LIBRARY_SOURCE, replace=True)
    except redis.exceptions.OutOfMemoryError:
        if not client.function_list(LIBRARY_NAME):
            raise


# The same, for asyncio


async def run_commands_async(client: "redis.asyncio.Redis", commands: Sequence[Command]) -> list[Any]:
    """Return the answers to `commands`, sent in one round trip. Raises the first error among them."""
    answers = await _send_async(client, commands)
    if any(map(_lacks_functions, answers)):
        await client.function_load(LIBRARY_SOURCE, replace=True)
        answers = await _send_async(client, commands)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


async def _send_async(client: "redis.asyncio.Redis", commands: Sequence[Command]) -> list[Any]:
    if len(commands) == 1:
        try:
            return [await client.execute_command(*commands[0])]  # type: ignore[no-untyped-call]
        except redis.ResponseError as e:
            return [e]
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    answers: list[Any] = await pipeline.execute(raise_on_error=False)
    return answers


def _lacks_functions(answer: Any) -> bool:
    return isinstance(answer, redis.ResponseError) and "Function not found" in str(answer)


# Clients


class _HiredisPacker:
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


class _LeavesReplica:
    """A connection that fails when its server says that it is not the primary, so that what was asked is repeated on a new
    one, as after any failure: it was refused, or may be done twice."""

    def read_response(self, *args: Any, **named: Any) -> Any:
        try:
            return super().read_response(*args, **named)  # type: ignore[misc]
        except _NOT_PRIMARY_ERRORS as e:
            self.disconnect()  # type: ignore[attr-defined]
            raise NotPrimaryError(str(e)) from e


class _TcpConnection(_LeavesReplica, redis.Connection):
    pass


class _TlsConnection(_LeavesReplica, redis.SSLConnection):
    pass


class _UnixConnection(_LeavesReplica, redis.UnixDomainSocketConnection):
    pass


class _AsyncLeavesReplica:
    """The same for asyncio, packing as we do."""

    async def read_response(self, *args: Any, **named: Any) -> Any:
        try:
            return await super().read_response(*args, **named)  # type: ignore[misc]
        except _NOT_PRIMARY_ERRORS as e:
            await self.disconnect(nowait=True)  # type: ignore[attr-defined]
            raise NotPrimaryError(str(e)) from e

    def pack_command(self, *args: Any) -> list[bytes]:
        return _HiredisPacker.pack(*args)


class _AsyncTcpConnection(_AsyncLeavesReplica, asyncio_connection.Connection):
    pass


class _AsyncTlsConnection(_AsyncLeavesReplica, asyncio_connection.SSLConnection):
    pass


class _AsyncUnixConnection(_AsyncLeavesReplica, asyncio_connection.UnixDomainSocketConnection):
    pass


_CONNECTIONS: dict[str, tuple[type, type]] = {
    "redis": (_TcpConnection, _AsyncTcpConnection),
    "rediss": (_TlsConnection, _AsyncTlsConnection),
    "unix": (_UnixConnection, _AsyncUnixConnection),
}
"""By a URL's scheme: for threads, and for asyncio."""


def connect(url: str, retries: int = COMMAND_RETRIES, timeout_s: float = SOCKET_TIMEOUT_S) -> redis.Redis:
    """A client whose calls are repeated when a reply was lost: every function of ours allows it."""
    client = redis.Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=1.0), retries),
        retry_on_error=list(_RETRIED_ERRORS),
        protocol=2,
        command_packer=_HiredisPacker,
        **_keepalive(url),
    )
    client.connection_pool.connection_class = _CONNECTIONS[_scheme(url)][0]
    return client


def connect_async(url: str, retries: int = 1) -> "redis.asyncio.Redis":
    """The same for asyncio. Whoever awaits a reply bounds the wait, which costs less than a timeout a read."""
    client = redis.asyncio.Redis.from_url(
        url,
        socket_timeout=None,
        socket_connect_timeout=1.0,
        retry=AsyncRetry(ExponentialWithJitterBackoff(base=0.05, cap=0.2), retries),
        retry_on_error=list(_RETRIED_ERRORS),
        protocol=2,
        **_keepalive(url),
    )
    client.connection_pool.connection_class = _CONNECTIONS[_scheme(url)][1]
    return client


def _scheme(url: str) -> str:
    return url.partition(":")[0].lower()


def _keepalive(url: str) -> dict[str, Any]:
    """The option that a unix socket does not know."""
    return {} if _scheme(url) == "unix" else {"socket_keepalive": True}
