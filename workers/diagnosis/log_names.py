"""Who is it that logs and the audit name by a hash? Found by hashing whoever lies in Redis or in the archive: nothing else knows, and
no table of names is kept, from which numbers could be read."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import redis
from sqlalchemy import select

from config.archive import tables
from config.archive.database import ArchiveDatabase
from config.store import keyspace, redis_client
from config.telemetry.logs import hash_sender
from workers.store import dead_letter_store

KEYS_IN_STEP = 2_000

_OWNED = "{[0-9]*}:[lmo]*:*"
"""Names of lanes, locks, mailboxes and outboxes, for SCAN."""


def find_by_log_name(
    client: redis.Redis,
    shards: Sequence[int],
    keys: Sequence[bytes],
    name: str,
    looked_at: Callable[[int], None] = lambda _: None,
) -> str | None:
    """Return the number whose hash by one of `keys` is `name`, if Redis has anything of it; `looked_at` is told of so many more
    keys. Raises redis.RedisError."""
    owners = _owners(client, looked_at)
    fallen = (each.letter.sender for k in shards for each in dead_letter_store.scan_in_order(client, k))
    return _first_named(owners, keys, name) or _first_named(fallen, keys, name)


def find_archived_by_log_name(
    archive: ArchiveDatabase, keys: Sequence[bytes], name: str, within_s: float = 0
) -> str | None:
    """The same of the archive, whose statement takes no longer than `within_s`, if that is given. Raises SQLAlchemyError."""
    with archive.reading(within_s) as connection:
        senders = connection.execute(select(tables.entries.c.sender).distinct()).scalars()
        return _first_named(senders, keys, name)


def count_keys(client: redis.Redis) -> int:
    """Return how many keys there are to look at. Raises redis.RedisError."""
    counted = 0
    for server in redis_client.servers_of(client):
        database = server.info("keyspace").get(f"db{server.connection_pool.connection_kwargs.get('db') or 0}")
        counted += int(database["keys"]) if database else 0
    return counted


def _first_named(senders: Iterator[str], keys: Sequence[bytes], name: str) -> str | None:
    return next((sender for sender in senders if any(hash_sender(key, sender) == name for key in keys)), None)


def _owners(client: redis.Redis, looked_at: Callable[[int], None]) -> Iterator[str]:
    """Whose the keys of lanes are; many more than once."""
    for server in redis_client.servers_of(client):
        cursor = -1
        while cursor:
            cursor, names = server.scan(max(0, cursor), _OWNED, KEYS_IN_STEP)
            looked_at(KEYS_IN_STEP)
            for name in names:
                with suppress(UnicodeDecodeError):
                    key = keyspace.parse_shard_key(name.decode() if isinstance(name, bytes) else name)
                    if key is not None and key.owner:
                        yield key.owner
