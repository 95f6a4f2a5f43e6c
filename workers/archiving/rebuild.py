"""Makes all that is made of `entries` anew: after a release that makes more of them, or that can read what its predecessor
could not.

Each shard is one transaction, under its lock: who reads meanwhile sees the old rows until the new ones are all there, the
shard's archiving waits, and a run that dies has changed nothing of the shard that it was at. `opt_outs` stay, and get what
is read for the first time; so does the audit.
"""

from collections.abc import Callable, Iterator

from sqlalchemy import Connection, delete, func, select, tuple_

from config.archive import tables
from config.archive.database import EVENTS_SOURCE, ArchiveDatabase
from config.store.entry_id import BEGINNING, EntryId
from workers.archiving.archive_rows import EntryPlace
from workers.archiving.page_writer import HashNumber, write_page
from workers.archiving.projection import PageEntry
from workers.archiving.stream_reader import parse_records

ENTRIES_A_STEP = 1_000

_OF_SESSIONS = ("answers", "variables")
"""Tables whose rows are found by their session."""

_OF_SHARDS = ("messages", "sends", "receipts", "refusals", "sessions")
"""Tables whose rows bear their shard."""


def rebuild_shard(
    database: ArchiveDatabase,
    k: int,
    hash_number: HashNumber,
    on_progress: Callable[[int], object] = lambda _: None,
) -> int:
    """Make the derived rows of a shard anew; answer how many entries could not be read. `on_progress` is called with how many
    more are done. Raises SQLAlchemyError; then nothing has changed."""
    unreadable = 0
    with database.writing() as connection:
        database.lock_position(connection, EVENTS_SOURCE, k)
        _delete_derived(connection, k)
        for page in _read_pages(connection, k):
            unreadable += sum(not entry.records for entry in page)
            unreadable += len(write_page(connection, page, hash_number, rebuilds=True))
            on_progress(len(page))
    return unreadable


def count_entries(connection: Connection, k: int) -> int:
    """How many entries the archive has of a shard."""
    return connection.execute(select(func.count()).where(tables.entries.c.shard == k)).scalar_one()


def _delete_derived(connection: Connection, k: int) -> None:
    sessions = select(tables.sessions.c.session).where(tables.sessions.c.shard == k)
    for name in _OF_SESSIONS:
        table = tables.METADATA.tables[name]
        connection.execute(delete(table).where(table.c.session.in_(sessions)))
    for name in _OF_SHARDS:
        table = tables.METADATA.tables[name]
        connection.execute(delete(table).where(table.c.shard == k))


def _read_pages(connection: Connection, k: int) -> Iterator[list[PageEntry]]:
    """The shard's entries in their order, a page at a time."""
    table = tables.entries.c
    after = BEGINNING
    query = (
        select(table.entry_ms, table.entry_seq, table.sender, table.records)
        .where(table.shard == k)
        .order_by(table.entry_ms, table.entry_seq)
        .limit(ENTRIES_A_STEP)
    )
    while True:
        found = connection.execute(
            query.where(tuple_(table.entry_ms, table.entry_seq) > tuple_(*after))
        ).all()
        if not found:
            return
        yield [
            PageEntry(EntryPlace(k, ms, seq), sender, parse_records(stored) or (), stored)
            for ms, seq, sender, stored in found
        ]
        after = EntryId(*found[-1][:2])
