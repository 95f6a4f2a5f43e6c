"""Is the archive the one of this Redis? Whoever archives has given both the deployment's id; a command that looks or erases
compares them, since ids of streams, and people's numbers, are the same in two deployments."""

import redis
from sqlalchemy import Connection, select

from config.archive import tables
from config.store import keyspace, redis_client


def is_of_another_deployment(client: redis.Redis, connection: Connection) -> bool:
    """Whether both have an id, and not the same."""
    table = tables.deployment.c
    stored = connection.execute(select(table.value).where(table.name == "id")).scalar()
    found = redis_client.run_command(client, ("GET", keyspace.DEPLOYMENT_KEY))
    return bool(stored and found and stored != found)
