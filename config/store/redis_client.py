"""Runs commands on a Redis server in one round trip, with the server-side functions on it.

Law: commands go out by `run_commands` (`run_commands_async` for asyncio) and `try_commands` alone: one trip, functions loaded
again into a server that says that it has none, and errors that quote no command, as redis-py's do in a pipeline: they would
name phone numbers. On a cluster each command goes to the server that has its keys, and one server's error is not another's.

What must outlive a failover asks for `replicas`: then an answer stands only once so many have all that was written before,
by whomever, as the stream that replicas follow is one (config/connections/replication.py).
"""

from collections.abc import Sequence
from typing import Any

import redis
import redis.asyncio

from config.connections.async_cluster_client import AsyncClusterClient
from config.connections.cluster_client import ClusterClient
from config.connections.cluster_routing import AWAY_ERRORS, ServerAwayError
from config.connections.redis_connections import connect, connect_async
from config.connections.replication import NotReplicatedError, with_wait, without_wait
from config.store.function_calls import Command, join_calls, split_answers
from config.store.lua_library import LIBRARY_NAME, LIBRARY_SOURCE
from config.store.missing_rights import explain_refusals

__all__ = [
    "AWAY_ERRORS",
    "NotReplicatedError",
    "ServerAwayError",
    "address_of",
    "ask_each",
    "connect",
    "connect_async",
    "is_alone",
    "is_away",
    "is_cluster",
    "load_functions",
    "raise_first_error",
    "raise_refusals",
    "raise_unless_alone",
    "require_answer",
    "run_command",
    "run_commands",
    "run_commands_async",
    "seeds_of",
    "server_of",
    "server_time_ms",
    "server_times_ms",
    "servers_of",
    "time_reply_ms",
    "try_commands",
    "try_commands_async",
]


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


def run_commands(
    client: redis.Redis, commands: Sequence[Command], *, transaction: bool = False, replicas: int = 0
) -> list[Any]:
    """Return the answers to `commands`, sent in one round trip; `transaction`: all of one moment. Raises the first error
    among them, NotReplicatedError if there is no other."""
    answers = try_commands(client, commands, transaction=transaction, replicas=replicas)
    raise_first_error(answers)
    return answers


def raise_first_error(answers: Sequence[Any]) -> None:
    """Raise the first error among these answers, if there is one; NotReplicatedError if there is no other."""
    errors = [answer for answer in answers if isinstance(answer, Exception)]
    if errors:
        raise next((e for e in errors if not isinstance(e, NotReplicatedError)), errors[0])


def is_away(answer: Any) -> bool:
    """Whether this is the error of a server that is away: nobody knows then whether the command was worked on."""
    return isinstance(answer, AWAY_ERRORS)


def raise_refusals(answers: Sequence[Any]) -> None:
    """Raise the first error among these answers that is not of a server that is away, or one of those if there is nothing else.
    NotReplicatedError counts as an answer."""
    errors = [e for e in answers if isinstance(e, Exception) and not isinstance(e, NotReplicatedError)]
    refusals = [e for e in errors if not is_away(e)]
    if refusals or (errors and len(errors) == len(answers)):
        raise (refusals or errors)[0]


def servers_of(client: redis.Redis) -> list[redis.Redis]:
    """Return a client of each server that takes writes: of a cluster all primaries. Raises redis.RedisError."""
    return client.servers() if isinstance(client, ClusterClient) else [client]


def server_of(client: redis.Redis, key: str) -> redis.Redis:
    """Return a client of the one server that has this key. Raises redis.RedisError."""
    return client.server_of(key) if isinstance(client, ClusterClient) else client


def address_of(server: redis.Redis) -> str:
    """Return a server's host and port, as one of `servers_of` has them."""
    options = server.connection_pool.connection_kwargs
    return f"{options.get('host')}:{options.get('port')}"


def is_cluster(client: redis.Redis) -> bool:
    """Whether there may be several servers, of which one may be away while others are not."""
    return isinstance(client, ClusterClient)


def seeds_of(client: redis.Redis) -> frozenset[tuple[str, int]]:
    """Return the servers that the URL of a cluster names; none of one server."""
    return frozenset(client.seeds) if isinstance(client, ClusterClient) else frozenset()


def is_alone(client: redis.Redis, error: redis.RedisError) -> bool:
    """Whether this error is one server's of several: what lies on the others goes on."""
    return is_cluster(client) and (is_away(error) or isinstance(error, NotReplicatedError))


def raise_unless_alone(client: redis.Redis, answers: Sequence[Any]) -> None:
    """Raise the first error among these answers that is not one server's of several."""
    raise_first_error([e for e in answers if not (isinstance(e, redis.RedisError) and is_alone(client, e))])


def ask_each(client: redis.Redis, commands: Sequence[Command], *, replicas: int = 0) -> dict[str, list[Any]]:
    """Return what each server that answers at all answers to `commands`, with errors among it, by its address; the one server
    has none. Of a cluster, of all primaries at once. Raises redis.RedisError if none answers."""
    if not isinstance(client, ClusterClient):
        return {"": try_commands(client, commands, replicas=replicas)}
    _, told = client.ask_primaries(commands, replicas=replicas)
    raise_refusals([*told.values()])
    return {
        f"{host}:{port}": answers
        for (host, port), answers in told.items()
        if not isinstance(answers, Exception)
    }


def look_around(client: redis.Redis) -> None:
    """See which servers of a cluster hang, before anybody waits for them. Of one server, do nothing."""
    if isinstance(client, ClusterClient):
        client.look_around()


def require_answer(client: redis.Redis) -> None:
    """Raise redis.RedisError unless the server answers, or one of a cluster's."""
    if is_cluster(client):
        ask_each(client, [("PING",)])
    else:
        client.ping()


def server_times_ms(client: redis.Redis) -> list[int]:
    """Return the time of each server that answers. Raises redis.RedisError if none does."""
    if not is_cluster(client):
        return [server_time_ms(client)]
    times = [answers[0] for answers in ask_each(client, [("TIME",)]).values()]
    raise_first_error(times)
    return [time_reply_ms(time) for time in times]


def try_commands(
    client: redis.Redis, commands: Sequence[Command], *, transaction: bool = False, replicas: int = 0
) -> list[Any]:
    """Return the same, with errors in the places of answers: of the server, NotReplicatedError, and on a cluster those of servers
    that cannot be reached. Raises redis.RedisError if the one server cannot."""
    if not commands:
        return []
    answers = _send(client, commands, transaction=transaction, replicas=replicas)
    lacking = [at for at, answer in enumerate(answers) if _lacks_functions(answer)]
    if lacking:
        load_functions(client)
        again = [commands[at] for at in lacking]
        for at, answer in zip(
            lacking, _send(client, again, transaction=transaction, replicas=replicas), strict=True
        ):
            answers[at] = answer
    return _explained(commands, answers)


def _explained(commands: Sequence[Command], answers: list[Any]) -> list[Any]:
    is_refused = any(isinstance(each, redis.ResponseError) for each in answers)
    return explain_refusals(commands, answers) if is_refused else answers


def _send(client: redis.Redis, commands: Sequence[Command], *, transaction: bool, replicas: int) -> list[Any]:
    if isinstance(client, ClusterClient):
        return client.try_commands(commands, transaction=transaction, replicas=replicas)
    sent, sizes = join_calls(with_wait(commands, replicas))
    if len(sent) == 1:
        try:
            return split_answers([client.execute_command(*sent[0])], sizes)  # type: ignore[no-untyped-call]
        except redis.ResponseError as e:
            return [e] * len(commands)
    pipeline = client.pipeline(transaction=transaction)
    for command in sent:
        pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
    replies = split_answers(pipeline.execute(raise_on_error=False), sizes)
    return without_wait(replies, replicas)


def load_functions(client: redis.Redis) -> None:
    """Make the server-side functions known; safe beside running processes of any release. A server whose memory is full
    takes none, and need not if it has them: whoever empties it must be able to start."""
    for server in servers_of(client):
        try:
            server.function_load(LIBRARY_SOURCE, replace=True)
        except redis.exceptions.OutOfMemoryError:
            if not server.function_list(LIBRARY_NAME):
                raise
        except (
            redis.exceptions.ConnectionError,
            redis.exceptions.TimeoutError,
        ):  # of a cluster, others are there
            if server is client:
                raise


# The same, for asyncio


async def run_commands_async(
    client: "redis.asyncio.Redis", commands: Sequence[Command], *, replicas: int = 0
) -> list[Any]:
    """Return the answers to `commands`, sent in one round trip. Raises the first error among them, and
    NotReplicatedError."""
    answers = await try_commands_async(client, commands, replicas=replicas)
    raise_first_error(answers)
    return answers


async def try_commands_async(
    client: "redis.asyncio.Redis", commands: Sequence[Command], *, replicas: int = 0
) -> list[Any]:
    """Return the same, with errors in the places of answers, as `try_commands`."""
    answers = await _send_async(client, commands, replicas)
    lacking = [at for at, answer in enumerate(answers) if _lacks_functions(answer)]
    if lacking:
        await _load_functions_async(client)
        again = await _send_async(client, [commands[at] for at in lacking], replicas)
        for at, answer in zip(lacking, again, strict=True):
            answers[at] = answer
    return _explained(commands, answers)


async def _load_functions_async(client: "redis.asyncio.Redis") -> None:
    servers = await client.servers() if isinstance(client, AsyncClusterClient) else [client]
    for server in servers:
        try:
            await server.function_load(LIBRARY_SOURCE, replace=True)
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
            if server is client:
                raise


async def _send_async(client: "redis.asyncio.Redis", commands: Sequence[Command], replicas: int) -> list[Any]:
    if isinstance(client, AsyncClusterClient):
        return await client.try_commands(commands, replicas=replicas)
    sent, sizes = join_calls(with_wait(commands, replicas))
    if len(sent) == 1:
        try:
            answer = await client.execute_command(*sent[0])  # type: ignore[no-untyped-call]
            return split_answers([answer], sizes)
        except redis.ResponseError as e:
            return [e] * len(commands)
    pipeline = client.pipeline(transaction=False)
    for command in sent:
        pipeline.execute_command(*command)
    replies = split_answers(await pipeline.execute(raise_on_error=False), sizes)
    return without_wait(replies, replicas)


def _lacks_functions(answer: Any) -> bool:
    return isinstance(answer, redis.ResponseError) and "Function not found" in str(answer)
