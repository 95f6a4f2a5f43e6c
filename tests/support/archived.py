"""What the archiver does, as small as it can be: an archive is filled from the event streams, page by page, each under the lock
of its shard."""

import redis

from config.archive import archive_schema
from config.archive.database import ArchiveDatabase, Position
from config.store import keyspace, redis_client
from config.store.entry_id import EntryId
from engine.model.events import decode_records
from workers.archiving.archive_rows import EntryPlace
from workers.archiving.page_writer import write_page
from workers.archiving.projection import PageEntry

PAGE_SIZE = 100


def archive_everything(client: redis.Redis, shards: int, database: ArchiveDatabase) -> None:
    """Bring an archive, which is made if there is none, to where the streams are."""
    archive_schema.migrate(database)
    for k in range(shards):
        while archive_page(client, k, database):
            pass


def archive_page(client: redis.Redis, k: int, database: ArchiveDatabase, size: int = PAGE_SIZE) -> int:
    """Archive the next page of a shard; answers how many entries it had."""
    with database.writing() as connection:
        position = database.lock_position(connection, "events", k)
        page = _read_page(client, k, position, size)
        write_page(connection, page, lambda sender: f"hash of {sender[-1]}")
        now = redis_client.server_time_ms(client)
        last = page[-1].place if page else EntryPlace(k, position.last_ms, position.last_seq)
        to = Position(last.entry_ms, last.entry_seq, now)
        database.move_position(connection, "events", k, to)
    if page:
        redis_client.run_command(client, ("SET", keyspace.archived_key(k), str(to.entry_id)))
    return len(page)


def _read_page(client: redis.Redis, k: int, position: Position, size: int) -> list[PageEntry]:
    after = f"({position.entry_id}"
    found = redis_client.run_command(client, ("XRANGE", keyspace.events_key(k), after, "+", "COUNT", size))
    return [
        PageEntry(
            EntryPlace(k, *EntryId.parse(entry_id)),
            fields[b"to"].decode(),
            decode_records(fields[b"e"]),
            fields[b"e"],
        )
        for entry_id, fields in found
    ]
