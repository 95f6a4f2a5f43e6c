"""Is the lanes' Redis reached as what it is? A server of a cluster refuses what one that is alone is asked for at once: calls for
several shards."""

import redis

from config.settings.config_errors import ConfigError
from config.store import redis_client


def require_server_mode(client: redis.Redis) -> None:
    """Raise ConfigError if it is a server of a cluster, and its URL says that it is one server alone; one that does not say is
    believed. Raises redis.RedisError."""
    if redis_client.is_cluster(client):
        return
    try:
        is_of_cluster = str(client.info("cluster").get("cluster_enabled")) == "1"
    except redis.ResponseError:  # forbidden
        return
    if is_of_cluster:
        raise ConfigError([_PROBLEM])


_PROBLEM = (
    "the Redis of the lanes is a server of a cluster (cluster-enabled yes), if perhaps its only one: "
    "PARLEY_REDIS_URL must begin with redis+cluster:// (rediss+cluster:// with TLS)"
)
