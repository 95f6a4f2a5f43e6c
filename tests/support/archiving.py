"""Entries of event streams, the way of some of them into an archive, and what that has of them."""

from collections.abc import Iterable, Sequence
from typing import Any

import redis
from sqlalchemy import func, select

from config.archive import archive_schema, tables
from config.archive.database import EVENTS_SOURCE, ArchiveDatabase, Position
from config.store import keyspace, redis_client
from config.store.entry_id import EntryId
from engine.model.events import (
    Answer,
    ArchiveRecord,
    ReceiptRecorded,
    SessionEnded,
    SessionOpened,
    SmsDecided,
    SmsReceived,
    SmsSent,
    encode_event,
)
from workers.archiving.archive_loop import PARTS
from workers.archiving.page_writer import write_page
from workers.archiving.projection import PageEntry
from workers.archiving.rebuild import rebuild_shard
from workers.archiving.stream_archiver import StreamArchiver
from workers.archiving.stream_reader import note_archived, parse_entry, read_after
from workers.store import event_stream

DERIVED = ("sessions", "answers", "variables", "messages", "sends", "receipts", "refusals", "opt_outs")
"""Tables that are made of `entries`."""

ARCHIVED_PAGE = 100

Records = Sequence[ArchiveRecord]


def hash_number(sender: str) -> str:
    return f"hash of {sender[-3:]}"


def talk(session: str, at: int, answer: str = "98.6") -> list[Records]:
    """The entries of a short session, oldest first."""
    said = f"{session}x0"
    return [
        [
            SessionOpened(at, "clinic", session, "clinic", "v1", "en"),
            SmsReceived(at, "clinic", session, session, "START"),
            SmsDecided(at, "clinic", session, said, "temperature", "What is your temperature?", "ask"),
        ],
        [SmsSent(at + 100, "clinic", session, said, f"ticket {session}", 1, 50_000, "EUR")],
        [
            SmsReceived(
                at + 5_000, "clinic", session, f"{session}a", answer, step="temperature", answer=Answer(answer, 98.6),
                answer_type="number",
            ),
            SmsDecided(at + 5_000, "clinic", session, f"{session}x1", "completed", "Thank you.", "fixed"),
            SessionEnded(at + 5_000, "clinic", session, "completed", {"temperature": Answer(answer, 98.6)}),
        ],
        [ReceiptRecorded(at + 6_000, "clinic", f"ticket {session}", "DELIVERED", "delivered")],
    ]  # fmt: skip


def add_entries(
    client: redis.Redis, k: int, sender: str, entries: Iterable[Records], ids: Iterable[str] = ()
) -> list[bytes]:
    """Add entries to a shard's stream, with the ids that the server gives, or with these. Answers the ids."""
    given = iter(ids)
    key = keyspace.events_key(k)
    return [
        redis_client.run_command(
            client, ("XADD", key, next(given, "*"), "to", sender, "e", encode_event(list(records)))
        )
        for records in entries
    ]


def archive_everything(client: redis.Redis, shards: int, database: ArchiveDatabase) -> None:
    """Bring an archive, which is made if there is none, to where the streams are."""
    archive_schema.migrate(database)
    for k in range(shards):
        while archive_page(client, k, database):
            pass


def run_rounds(archiver: StreamArchiver) -> None:
    """Let an archiver move all that there is: a round with nothing more says nothing of parts that have not had their turn."""
    for _ in range(PARTS):
        while archiver.run_round():
            pass


def shard_groups(client: redis.Redis, shards: int) -> list[range]:
    """As a deployment on this client's server has them, whose archive is SQLite."""
    return keyspace.shard_groups(shards, 1 if redis_client.is_cluster(client) else shards)


def archive_page(client: redis.Redis, k: int, database: ArchiveDatabase, size: int = ARCHIVED_PAGE) -> int:
    """Archive the next page of a shard; answers how many entries it had."""
    with database.writing() as connection:
        position = database.lock_position(connection, EVENTS_SOURCE, k)
        page = read_after(client, k, position.entry_id, size)
        entries = [parse_entry(k, *entry)[0] for entry in page.entries]
        write_page(connection, entries, hash_number)
        last = EntryId(*entries[-1].place[1:]) if entries else position.entry_id
        database.move_position(connection, EVENTS_SOURCE, k, Position(last.ms, last.seq, page.now_ms))
    if entries:
        note_archived(client, {k: (last, len(entries))})
    return len(entries)


def table_rows(database: ArchiveDatabase, name: str) -> list[tuple[Any, ...]]:
    """All rows of a table, in the order of its key."""
    table = tables.METADATA.tables[name]
    with database.reading() as connection:
        return [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]


def derived_rows(database: ArchiveDatabase) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of all that is made of `entries`, by table."""
    return {name: table_rows(database, name) for name in DERIVED}


def stream_entries(client: redis.Redis, shards: int) -> list[tuple[Any, ...]]:
    """What is in the streams, as `entries` has it, but for the session."""
    return [
        (k, *entry.id, entry.sender, entry.content)
        for k in range(shards)
        for entry in event_stream.scan_entries(client, k)
    ]


def archived_entries(database: ArchiveDatabase) -> list[tuple[Any, ...]]:
    """`entries`, but for the session."""
    return [(*row[:4], row[5]) for row in table_rows(database, "entries")]


def count_archived(database: ArchiveDatabase) -> int:
    with database.reading() as connection:
        return connection.execute(select(func.count()).select_from(tables.entries)).scalar_one()


def projected_at_once(entries: Iterable[tuple[Any, ...]], url: str) -> dict[str, list[tuple[Any, ...]]]:
    """The derived rows of these entries (as `archived_entries` has them), each shard's in one page, in an archive at `url`
    that is made for it."""
    database = ArchiveDatabase(url)
    archive_schema.migrate(database)
    pages: dict[int, list[PageEntry]] = {}
    for k, ms, seq, sender, stored in entries:
        entry, _ = parse_entry(k, b"%d-%d" % (ms, seq), {b"to": sender.encode(), b"e": stored})
        pages.setdefault(k, []).append(entry)
    with database.writing() as connection:
        for page in pages.values():
            write_page(connection, page, hash_number)
    try:
        return derived_rows(database)
    finally:
        database.close()


def rebuild_all(database: ArchiveDatabase, shards: int) -> int:
    """Rebuild every shard; answer how many entries could not be read."""
    return sum(rebuild_shard(database, k, hash_number) for k in range(shards))


def empty_archive(database: ArchiveDatabase) -> None:
    """Leave nothing in it."""
    with database.writing() as connection:
        for table in tables.METADATA.sorted_tables:
            connection.execute(table.delete())
