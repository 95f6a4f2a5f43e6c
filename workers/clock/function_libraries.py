"""Which server-side functions does nobody call any more? Each release brings its own library (config/store/keyspace.py), on
both servers. One that no living process uses, and none has used for a day, is deleted. Should it be missed all the
same, whoever misses it loads it again.

What nobody has spoken of is taken to have been in use when it was first seen here.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

import redis
import structlog

from config.store import keyspace, lua_library, redis_client
from config.telemetry import process_registry

log = structlog.get_logger()

UNUSED_LIBRARY_KEPT_MS = 86_400_000
"""How long a library is kept that nobody uses."""

_LIBRARY_NAME = re.compile(r"parley_[0-9a-f]{8}")


def delete_unused_libraries(lanes: redis.Redis, servers: Iterable[redis.Redis]) -> list[str]:
    """Delete from `servers`, and of a cluster from each of its servers that answers, the libraries that are of no use any more;
    answers which. `lanes` knows who lives."""
    loaded = dict(_libraries_by_server(servers))
    now = redis_client.server_time_ms(lanes)
    used = {each.library for each in process_registry.living_processes(lanes).values() if each.library} | {
        lua_library.LIBRARY_NAME
    }
    _record_use(lanes, used, sorted(set().union(*loaded.values())), now)
    unused = _unused_since(lanes, now - UNUSED_LIBRARY_KEPT_MS)
    for server, names in loaded.items():
        for name in sorted(names & unused):
            _delete_library(server, name)
    if unused:
        lanes.zrem(keyspace.LIBRARIES_KEY, *unused)
        log.info("server-side functions of an earlier release deleted", libraries=sorted(unused))
    return sorted(unused)


def _libraries_by_server(servers: Iterable[redis.Redis]) -> Iterator[tuple[redis.Redis, set[str]]]:
    for each in servers:
        for server in redis_client.servers_of(each):
            try:
                yield server, _loaded_libraries(server)
            except redis.RedisError as e:
                if not redis_client.is_alone(each, e):
                    raise


def _loaded_libraries(server: redis.Redis) -> set[str]:
    """The libraries of ours on one server."""
    answers: Sequence[Sequence[bytes]] = redis_client.run_command(
        server, ("FUNCTION", "LIST", "LIBRARYNAME", "parley_*")
    )
    names = (dict(zip(each[::2], each[1::2], strict=True))[b"library_name"].decode() for each in answers)
    return {name for name in names if _LIBRARY_NAME.fullmatch(name)}


def _record_use(lanes: redis.Redis, used: Iterable[str], loaded: Sequence[str], now: int) -> None:
    lanes.zadd(keyspace.LIBRARIES_KEY, dict.fromkeys(used, now), gt=True)
    if loaded:
        lanes.zadd(keyspace.LIBRARIES_KEY, dict.fromkeys(loaded, now), nx=True)


def _unused_since(lanes: redis.Redis, horizon: int) -> set[str]:
    names: list[bytes] = redis_client.run_command(
        lanes, ("ZRANGEBYSCORE", keyspace.LIBRARIES_KEY, "-inf", horizon)
    )
    return {name.decode() for name in names}


def _delete_library(server: redis.Redis, name: str) -> None:
    try:
        redis_client.run_command(server, ("FUNCTION", "DELETE", name))
    except redis.ResponseError as e:
        if "not found" not in str(e).lower():  # another clock was faster, or both databases are on one server
            raise
