"""Which settings of Redis are needed for what is promised, and which of them does a server not have?"""

import redis
import structlog

log = structlog.get_logger()

DURABILITY_SETTINGS = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
"""Redis settings without which an acknowledged SMS can be lost."""


def warn_of_durability_gaps(client: redis.Redis) -> None:
    """Log a warning for each Redis setting under which an acknowledged SMS can be lost."""
    for name, found in durability_gaps(client).items():
        log.warning(
            "Redis may lose what was acknowledged", setting=name, found=found, wanted=DURABILITY_SETTINGS[name],
            todo=f"CONFIG SET {name} {DURABILITY_SETTINGS[name]}",
        )  # fmt: skip


def durability_gaps(client: redis.Redis) -> dict[str, str]:
    """Return the server's settings that differ from DURABILITY_SETTINGS, by name, as the server has them. A setting
    that the server does not report (CONFIG is forbidden, or unknown) counts as right."""
    try:
        found = client.config_get(*DURABILITY_SETTINGS)
    except redis.ResponseError:
        return {}
    return {
        name: str(found[name])
        for name, wanted in DURABILITY_SETTINGS.items()
        if found.get(name, wanted) != wanted
    }
