"""Is this archive the one of this Redis? Both have the deployment's id, made by whoever is first, for good.

Entries of two deployments in one archive could never be told apart again: ids of streams, and the numbers of people, are
the same. A Redis that was flushed is another deployment.
"""

from typing import Any

import redis
from sqlalchemy import Connection, Select, insert, select, update

from config.archive import tables
from config.archive.archive_schema import has_schema
from config.archive.database import ArchiveDatabase, dialect_insert
from config.host import THIS_HOST, Host
from config.settings.config_errors import ConfigError
from config.store import keyspace, redis_client
from workers.archiving.stream_reader import begin_archived

_ID_NAME = "id"

_SHARDS_NAME = "shards"
"""By how many the archive's rows and positions lie."""


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


def pair_with_redis(
    client: redis.Redis, database: ArchiveDatabase, shards: int, host: Host = THIS_HOST
) -> bytes:
    """Return the id that both have, given to whichever has none. Raises ConfigError if they are not of one deployment, or not
    divided into as many shards."""
    mine = _deployment_id(client, host)
    with database.writing() as connection:
        table = tables.deployment
        make = dialect_insert(connection, table).on_conflict_do_nothing().returning(table.c.name)
        if connection.execute(make, {"name": _ID_NAME, "value": mine}).first():
            begin_archived(client, shards)
        stored: bytes = connection.execute(_stored_id()).scalar_one()
        require_deployment(stored, mine, database)
        if (divided := read_archived_shards(connection) or shards) != shards:
            raise ConfigError([_wrong_shards_problem(database, divided, shards)])
        store_archived_shards(connection, shards)
    return stored


def read_archived_shards(connection: Connection) -> int | None:
    """Return by how many shards the archive lies; None if nobody has said so yet."""
    table = tables.deployment.c
    stored = connection.execute(select(table.value).where(table.name == _SHARDS_NAME)).scalar()
    return int(stored) if stored else None


def store_archived_shards(connection: Connection, shards: int) -> None:
    """Say by how many the archive lies."""
    table, value = tables.deployment, b"%d" % shards
    if read_archived_shards(connection) is None:
        connection.execute(insert(table), {"name": _SHARDS_NAME, "value": value})
    else:
        connection.execute(update(table).where(table.c.name == _SHARDS_NAME).values(value=value))


def _wrong_shards_problem(database: ArchiveDatabase, divided: int, shards: int) -> str:
    found = f"the archive at {database.shown_url} is divided into {divided} shards, the Redis of the lanes"
    todo = f"stop all processes, and run `parley reshard --to {max(shards, divided)}`, which divides both"
    return f"{found} into {shards}: {todo}"


def require_deployment(stored: bytes, found: bytes | None, database: ArchiveDatabase) -> None:
    """Raise ConfigError unless what Redis has is the id that the archive has, or cannot be known, as the server of a cluster that
    has it is away: it was that when they were paired."""
    if found is None or found == stored:
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


def _deployment_id(client: redis.Redis, host: Host) -> bytes:
    """The id in Redis, made if there is none."""
    mine = host.token_hex(16).encode()
    _, found = redis_client.run_commands(
        client, [("SET", keyspace.DEPLOYMENT_KEY, mine, "NX"), ("GET", keyspace.DEPLOYMENT_KEY)]
    )
    kept: bytes = found
    return kept
