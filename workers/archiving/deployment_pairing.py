"""Is this archive the one of this Redis? Both have the deployment's id, made by whoever is first, for good.

Entries of two deployments in one archive could never be told apart again: ids of streams, and the numbers of people, are
the same. A Redis that was flushed is another deployment.
"""

import secrets
from typing import Any

import redis
from sqlalchemy import Connection, Select, select

from config.archive import tables
from config.archive.archive_schema import has_schema
from config.archive.database import ArchiveDatabase, dialect_insert
from config.settings.config_errors import ConfigError
from config.store import keyspace, redis_client
from workers.archiving.stream_reader import begin_archived

_ID_NAME = "id"


def is_of_another_deployment(client: redis.Redis, connection: Connection) -> bool:
    """Whether the archive and Redis both have an id, and not the same: for who only looks, or erases."""
    stored = connection.execute(_stored_id()).scalar()
    found = redis_client.run_command(client, ("GET", keyspace.DEPLOYMENT_KEY))
    return bool(stored and found and stored != found)


def is_ours(client: redis.Redis, database: ArchiveDatabase) -> bool:
    """Return whether there is an archive, of this deployment."""
    if not has_schema(database):
        return False
    with database.reading() as connection:
        return not is_of_another_deployment(client, connection)


def pair_with_redis(client: redis.Redis, database: ArchiveDatabase, shards: int) -> bytes:
    """Return the id that both have, given to whichever has none. Raises ConfigError if they are not of one deployment."""
    mine = _deployment_id(client)
    with database.writing() as connection:
        table = tables.deployment
        make = dialect_insert(connection, table).on_conflict_do_nothing().returning(table.c.name)
        if connection.execute(make, {"name": _ID_NAME, "value": mine}).first():
            begin_archived(client, shards)
        stored: bytes = connection.execute(_stored_id()).scalar_one()
    require_deployment(stored, mine, database)
    return stored


def require_deployment(stored: bytes, found: bytes, database: ArchiveDatabase) -> None:
    """Raise ConfigError unless what Redis has is the id that the archive has."""
    if found == stored:
        return
    what = f"the archive at {database.shown_url} is of another deployment than the Redis of the lanes"
    todo = "set PARLEY_ARCHIVE_URL to another archive, which is made if there is none"
    else_todo = (
        "if Redis was put back from before it had an id, and is the same deployment, "
        f"set its key {keyspace.DEPLOYMENT_KEY} to {stored.decode()}"
    )
    raise ConfigError([f"{what}, or than that was before it was emptied: {todo}; {else_todo}"])


def _stored_id() -> Select[Any]:
    table = tables.deployment.c
    return select(table.value).where(table.name == _ID_NAME)


def _deployment_id(client: redis.Redis) -> bytes:
    """The id in Redis, made if there is none."""
    mine = secrets.token_hex(16).encode()
    _, found = redis_client.run_commands(
        client, [("SET", keyspace.DEPLOYMENT_KEY, mine, "NX"), ("GET", keyspace.DEPLOYMENT_KEY)]
    )
    kept: bytes = found
    return kept
