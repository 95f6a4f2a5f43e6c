"""Does the lanes' Redis keep what it has acknowledged? By its settings, as far as it shows them.

Law: by default a process that acknowledges, remembers or speaks does not start on a server that may forget what it said.
Whoever wants that all the same says so: PARLEY_DURABILITY=relaxed. A server that does not show its settings, as those of
some hosts do not, is believed on the operator's word alone: PARLEY_DURABILITY=managed.
"""

from collections.abc import Mapping
from typing import assert_never

import redis
import structlog

from config.settings.config_errors import ConfigError
from config.settings.settings import Durability
from config.store import redis_client

log = structlog.get_logger()

DURABILITY_SETTINGS = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
"""Redis settings without which an acknowledged SMS can be lost."""


def require_durability(client: redis.Redis, wanted: Durability) -> None:
    """Raise ConfigError if the server may lose what it acknowledges, or does not show whether it does, and `wanted` allows
    neither. What is allowed is logged as a warning. Raises redis.RedisError."""
    match wanted:
        case "managed":
            return
        case "relaxed":
            for name, found in (durability_gaps(client) or {}).items():
                log.warning(
                    "Redis may lose what was acknowledged", setting=name, found=found, wanted=wanted_of(name)
                )
        case "strict":
            if problems := durability_problems(durability_gaps(client)):
                raise ConfigError(problems)
        case _:
            assert_never(wanted)


def durability_gaps(client: redis.Redis) -> dict[str, str] | None:
    """Return the server's settings that differ from DURABILITY_SETTINGS, by name, as the server has them; None if it does
    not show them all. Of a cluster, those of each server that answers: `appendfsync at 10.0.0.7:6379`, None if one does not
    show them. Raises redis.RedisError."""
    if not redis_client.is_cluster(client):
        return _gaps_of(client)
    gaps: dict[str, str] = {}
    away: list[Exception] = []
    servers = redis_client.servers_of(client)
    for server in servers:
        try:
            found = _gaps_of(server)
        except redis.RedisError as e:
            away.append(e)
            continue
        if found is None:
            return None
        gaps |= {f"{name}{_AT}{redis_client.address_of(server)}": value for name, value in found.items()}
    if len(away) == len(servers):
        raise away[0]
    return gaps


def wanted_of(gap: str) -> str:
    """Return what a setting should be that `durability_gaps` names."""
    return DURABILITY_SETTINGS[gap.partition(_AT)[0]]


_AT = " at "


def _gaps_of(server: redis.Redis) -> dict[str, str] | None:
    try:
        found = server.config_get(*DURABILITY_SETTINGS)
    except redis.ResponseError:  # forbidden, or unknown
        return None
    if not found.keys() >= DURABILITY_SETTINGS.keys():
        return None
    return {name: str(found[name]) for name, wanted in DURABILITY_SETTINGS.items() if found[name] != wanted}


def durability_problems(gaps: Mapping[str, str] | None) -> list[str]:
    """Return what stands in the way of a strict start, a sentence each, with what to do."""
    if gaps is None:
        needed = ", ".join(" ".join(each) for each in DURABILITY_SETTINGS.items())
        todo = f"see that it has {needed}, and set PARLEY_DURABILITY=managed"
        return [f"the Redis of the lanes does not show its settings (CONFIG GET): {todo}"]
    return [
        f"the Redis of the lanes may lose what it acknowledged: {name} is {found!r}; CONFIG SET "
        f"{name.partition(_AT)[0]} {wanted_of(name)} there and in its file, or set PARLEY_DURABILITY=relaxed "
        "if it may"
        for name, found in gaps.items()
    ]
