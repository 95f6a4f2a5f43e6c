"""Whose is a session? By its id, or by the reference under which its invitation was asked for; in Redis, and then in the archive."""

import redis

from config.archive.archived_entries import find_session
from config.archive.database import ArchiveDatabase
from config.store import keyspace, redis_client
from engine.model.events import derive_session_id


def find_session_owner(
    lanes: redis.Redis, shards: int, archive: ArchiveDatabase | None, session: str
) -> str | None:
    """Return the person's number; None if nobody knows the session, or it was forgotten on purpose. Raises redis.RedisError, and
    SQLAlchemyError."""
    stored = redis_client.run_commands(
        lanes, [("GET", keyspace.session_key(k, session)) for k in range(shards)]
    )
    for value in stored:
        if value:
            _, _, sender = value.decode().partition(" ")
            return str(sender)
    if archive is None or any(value is not None for value in stored):
        return None
    with archive.reading() as connection:
        found = find_session(connection, session)
    return found.sender if found else None


def session_ids_of(wanted: str, channels: list[str]) -> list[str]:
    """The ids that `wanted` may name: it is one itself, or a reference on each of these channels."""
    return [wanted, *(derive_session_id(channel, wanted) for channel in channels)]
