"""Removes every row of the archive that is about one person, but that they opted out, which is a keyed hash here too.

Law: whoever erases removes from Redis first, and here afterwards, under the lock of the shard. Who archives reads the stream
only once he has that lock, so what he has read before is committed before, and removed here; and what he reads later is
gone. A page at a time, so that nobody waits long for the lock; once the first is begun, nothing comes back.
"""

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, func, select

from config.archive import tables
from config.archive.database import EVENTS_SOURCE, ArchiveDatabase
from workers.archiving.row_deletion import (
    ENTRY_TABLES,
    SESSION_TABLES,
    delete_of_sessions,
    delete_page,
    named_tables,
)

ROWS_A_PAGE = 500
"""Of each table, in one transaction."""

_TABLES_BY_SENDER = (*ENTRY_TABLES, "refusals")


class ArchivedTraces(msgspec.Struct):
    """How many rows of each table are about a person, or were."""

    entries: int = 0
    sessions: int = 0
    answers: int = 0
    variables: int = 0
    messages: int = 0
    sends: int = 0
    receipts: int = 0
    refusals: int = 0

    def add(self, other: "ArchivedTraces") -> None:
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def is_empty(self) -> bool:
        return not any(msgspec.structs.astuple(self))


def erase_sender(database: ArchiveDatabase, shard: int, sender: str) -> ArchivedTraces:
    """Remove what is about `sender`, and count it. Raises SQLAlchemyError: then some of it may be left."""
    erased = ArchivedTraces()
    while True:
        with database.writing() as connection:
            database.lock_position(connection, EVENTS_SOURCE, shard)
            page = _erase_page(connection, sender)
        if page.is_empty:
            return erased
        erased.add(page)


def count_sender(connection: Connection, sender: str) -> ArchivedTraces:
    """Count what `erase_sender` would remove."""
    table = tables.sessions.c
    theirs = select(table.session).where(table.sender == sender)
    counts = {
        name: _count(connection, table, table.c.sender == sender)
        for name, table in named_tables(_TABLES_BY_SENDER)
    }
    counts |= {
        name: _count(connection, table, table.c.session.in_(theirs))
        for name, table in named_tables(SESSION_TABLES)
    }
    return ArchivedTraces(**counts)


def _erase_page(connection: Connection, sender: str) -> ArchivedTraces:
    """Remove up to ROWS_A_PAGE rows of each table; of answers and variables those of so many sessions."""
    counts = {
        name: delete_page(connection, table, table.c.sender == sender, ROWS_A_PAGE)
        for name, table in named_tables(_TABLES_BY_SENDER)
    }
    table = tables.sessions.c
    query = select(table.session).where(table.sender == sender).limit(ROWS_A_PAGE)
    sessions = connection.execute(query).scalars().all()
    return ArchivedTraces(**counts, **delete_of_sessions(connection, SESSION_TABLES, sessions))


def _count(connection: Connection, table: Table, condition: ColumnElement[bool]) -> int:
    return connection.execute(select(func.count()).select_from(table).where(condition)).scalar_one()
