"""Which settings of Redis are needed for what is promised, and which of them does a server not have?"""

import redis
import structlog

log = structlog.get_logger()

DURABLE = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
"""Redis settings without which an acknowledged SMS can be lost."""


def warn_of_forgetful(client: redis.Redis) -> None:
    """Say which settings of the server break a promise."""
    for name, found in forgetful(client).items():
        log.warning(
            "Redis may lose what was acknowledged", setting=name, found=found, wanted=DURABLE[name],
            todo=f"CONFIG SET {name} {DURABLE[name]}",
        )  # fmt: skip


def forgetful(client: redis.Redis) -> dict[str, str]:
    """The settings of the server that break a promise, as they are. A server that does not tell is taken at its word."""
    try:
        found = client.config_get(*DURABLE)
    except redis.ResponseError:
        return {}
    return {name: str(found[name]) for name, wanted in DURABLE.items() if found.get(name, wanted) != wanted}
