"""How rows of the archive are deleted: those of sessions, and a page of those that meet a condition. Whoever deletes holds the
shard's lock."""

from collections.abc import Iterable, Sequence

from sqlalchemy import ColumnElement, Connection, Table, delete, select, tuple_

from config.archive import tables

SESSION_TABLES = ("answers", "variables", "sessions")
"""Those whose rows are a session's, and tell of nobody by themselves."""

ENTRY_TABLES = ("entries", "messages", "sends", "receipts")
"""Those whose rows bear an entry's place, a sender, and a session, if they are of one."""


def named_tables(names: Iterable[str]) -> list[tuple[str, Table]]:
    return [(name, tables.METADATA.tables[name]) for name in names]


def delete_of_sessions(
    connection: Connection, names: Iterable[str], sessions: Sequence[str]
) -> dict[str, int]:
    """Delete from the tables `names` the rows of these sessions; return how many there were in each."""
    return {
        name: connection.execute(delete(table).where(table.c.session.in_(sessions))).rowcount
        if sessions
        else 0
        for name, table in named_tables(names)
    }


def delete_page(connection: Connection, table: Table, condition: ColumnElement[bool], limit: int) -> int:
    """Delete up to `limit` rows; return how many. Neither database has a DELETE with a LIMIT, but both find rows by their
    key."""
    key = list(table.primary_key.columns)
    page = select(*key).where(condition).limit(limit)
    return connection.execute(delete(table).where(tuple_(*key).in_(page))).rowcount
