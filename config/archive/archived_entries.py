"""What does the archive know of a person, of a session, of a shard? Its entries as the event streams had them, decoded, in
the order in which they happened, found by an index.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, desc, func, select, tuple_

from config.archive import tables
from config.archive.database import EVENTS_SOURCE, read_position
from config.store.entry_id import BEGINNING, EntryId
from engine.model.events import ArchiveRecord, decode_records


class ArchivedEntry(NamedTuple):
    """An entry of an event stream, as the archive has it."""

    id: EntryId
    sender: str
    content: bytes

    @property
    def records(self) -> list[ArchiveRecord]:
        """The records in it. Raises msgspec.MsgspecError."""
        return decode_records(self.content)


class ArchivedSession(NamedTuple):
    """Whose a session is: its person's shard and number, and from when on (ms) there are entries of it."""

    shard: int
    sender: str
    since: int


def read_end(connection: Connection, shard: int) -> EntryId:
    """Return the id of the last entry of a shard's event stream that the archive has read, kept or not."""
    return read_position(connection, EVENTS_SOURCE, shard).entry_id


def read_last_contents(connection: Connection, shards: Iterable[int]) -> dict[int, bytes]:
    """Return what the archive has of the entries at the positions of these shards, but for those that it has not."""
    position, entry = tables.positions.c, tables.entries.c
    is_last = (
        (entry.shard == position.shard)
        & (entry.entry_ms == position.last_ms)
        & (entry.entry_seq == position.last_seq)
    )
    query = (
        select(entry.shard, entry.records)
        .join_from(tables.positions, tables.entries, is_last)
        .where(position.source == EVENTS_SOURCE, position.shard.in_(list(shards)))
    )
    return {row.shard: row.records for row in connection.execute(query)}


def read_shard_entries(
    connection: Connection, shard: int, after: EntryId, until_ms: int, limit: int
) -> list[ArchivedEntry]:
    """Return the next entries of a shard after `after`, and no later than `until_ms`."""
    table = tables.entries.c
    within = (table.shard == shard, _is_after(after), table.entry_ms <= until_ms)
    return list(_read_entries(connection, *within, limit=limit))


def read_last_before(connection: Connection, shard: int, before_ms: int) -> EntryId:
    """Return the id of a shard's last entry before this time; BEGINNING if there is none."""
    table = tables.entries.c
    query = (
        select(table.entry_ms, table.entry_seq)
        .where(table.shard == shard, table.entry_ms < before_ms)
        .order_by(desc(table.entry_ms), desc(table.entry_seq))
        .limit(1)
    )
    found = connection.execute(query).one_or_none()
    return EntryId(*found) if found is not None else BEGINNING


def read_sender_entries(connection: Connection, sender: str, after: EntryId) -> list[ArchivedEntry]:
    """Return a person's entries after `after`."""
    return list(_read_entries(connection, tables.entries.c.sender == sender, _is_after(after)))


def read_session_entries(connection: Connection, session: str, after: EntryId) -> list[ArchivedEntry]:
    """Return a session's entries after `after`."""
    return list(_read_entries(connection, tables.entries.c.session == session, _is_after(after)))


def read_last_entries(
    connection: Connection, sender: str, limit: int, before: EntryId | None = None
) -> list[ArchivedEntry]:
    """Return a person's last entries, of those before `before` if it is given, oldest first."""
    table = tables.entries.c
    within = () if before is None else (tuple_(table.entry_ms, table.entry_seq) < before,)
    query = (
        select(table.entry_ms, table.entry_seq, table.sender, table.records)
        .where(table.sender == sender, *within)
        .order_by(desc(table.entry_ms), desc(table.entry_seq))
        .limit(limit)
    )
    return [_entry(row) for row in reversed(connection.execute(query).all())]


def find_session(connection: Connection, session: str) -> ArchivedSession | None:
    """Find whose the session is; None if the archive does not know it. An invitation that was refused is one too."""
    table = tables.sessions.c
    query = select(table.shard, table.sender).where(table.session == session)
    found = connection.execute(query).one_or_none()
    if found is None:
        return None
    entries = tables.entries.c
    since = connection.execute(select(func.min(entries.entry_ms)).where(entries.session == session)).scalar()
    return ArchivedSession(found.shard, found.sender, since or 0)


def _is_after(after: EntryId) -> ColumnElement[bool]:
    table = tables.entries.c
    return tuple_(table.entry_ms, table.entry_seq) > after


def _read_entries(
    connection: Connection, *conditions: ColumnElement[bool], limit: int | None = None
) -> Iterator[ArchivedEntry]:
    table = tables.entries.c
    query = (
        select(table.entry_ms, table.entry_seq, table.sender, table.records)
        .where(*conditions)
        .order_by(table.entry_ms, table.entry_seq)
        .limit(limit)
    )
    return map(_entry, connection.execute(query))


def _entry(row: Sequence[Any]) -> ArchivedEntry:
    ms, seq, sender, content = row
    return ArchivedEntry(EntryId(ms, seq), sender, content)
