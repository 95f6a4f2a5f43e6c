"""Writes a page of entries into the archive, in the transaction that its caller has, with the shard's position locked."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, insert, select

from config.archive import tables
from config.archive.database import dialect_insert
from engine.model.events import ArchiveRecord, ReceiptRecorded, SessionEnded
from workers.archiving.projection import EntryPlace, KnownBefore, PageProjection, PageRows, SessionRow
from workers.store.session_records import session_of_record

IDS_A_QUERY = 500
"""SQLite takes 32,766 variables in a statement; PostgreSQL 65,535."""


class PageEntry(msgspec.Struct, frozen=True):
    """An entry of a stream: its place, whose it is, and its records, decoded and as they are stored."""

    place: EntryPlace
    sender: str
    records: Sequence[ArchiveRecord]
    stored: bytes


def write_page(
    connection: Connection, page: Sequence[PageEntry], hash_number: Callable[[str], str]
) -> PageRows:
    """Write entries of one shard, which follow those that the archive has."""
    known = _read_known(connection, page)
    projection = PageProjection(known, hash_number)
    for entry in page:
        projection.add_entry(entry.place, entry.sender, entry.records)
    rows = projection.rows
    rows.entries = [_entry_row(entry, known) for entry in page]
    _insert_rows(connection, rows)
    return rows


def _entry_row(entry: PageEntry, known: KnownBefore) -> dict[str, Any]:
    first = entry.records[0] if entry.records else None
    session = session_of_record(first) if first is not None else ""
    if isinstance(first, ReceiptRecorded) and not first.sms:
        session = known.sms_by_ticket.get(first.ticket, ("", ""))[1]
    return {
        **entry.place._asdict(),
        "sender": entry.sender,
        "session": session,
        "records": entry.stored,
    }


def _read_known(connection: Connection, page: Sequence[PageEntry]) -> KnownBefore:
    sessions: set[str] = set()
    ending: set[str] = set()
    tickets: set[str] = set()
    for entry in page:
        for record in entry.records:
            sessions.add(session_of_record(record))
            if isinstance(record, SessionEnded):
                ending.add(record.session)
            elif isinstance(record, ReceiptRecorded) and not record.sms:
                tickets.add(record.ticket)
    known = KnownBefore({}, {}, {}, {})
    for ticket, sms, session in _select_in(
        connection, tables.sends, tables.sends.c.ticket, tickets, ("ticket", "sms", "session")
    ):
        known.sms_by_ticket[ticket] = (sms, session)
    sessions |= {session for _, session in known.sms_by_ticket.values()}
    names = SessionRow.__struct_fields__
    for values in _select_in(connection, tables.sessions, tables.sessions.c.session, sessions - {""}, names):
        row = msgspec.convert([0 if value is None else value for value in values], SessionRow)
        known.sessions[row.session] = row
    for session, step in _select_in(
        connection, tables.answers, tables.answers.c.session, ending, ("session", "step")
    ):
        known.answered_steps.setdefault(session, set()).add(step)
    for session, key, name in _select_in(
        connection, tables.variables, tables.variables.c.session, ending, ("session", "key", "name")
    ):
        known.variable_names.setdefault(session, {})[key] = name
    return known


def _select_in(
    connection: Connection, table: Any, column: Any, wanted: Iterable[str], names: Sequence[str]
) -> Iterable[Any]:
    ids = sorted(wanted)
    for at in range(0, len(ids), IDS_A_QUERY):
        query = select(*(table.c[name] for name in names)).where(column.in_(ids[at : at + IDS_A_QUERY]))
        yield from connection.execute(query)


def _insert_rows(connection: Connection, rows: PageRows) -> None:
    for name in ("entries", "answers", "messages", "sends", "receipts", "refusals", "opt_outs"):
        if added := getattr(rows, name):
            connection.execute(insert(tables.METADATA.tables[name]), added)
    _replace_rows(connection, tables.variables, ("session", "key"), list(rows.variables.values()))
    changed = [msgspec.structs.asdict(row) for row in rows.sessions.values()]
    _replace_rows(connection, tables.sessions, ("session",), changed)


def _replace_rows(
    connection: Connection, table: Any, key: Sequence[str], rows: Sequence[dict[str, Any]]
) -> None:
    if rows:
        new = dialect_insert(connection, table)
        changed = {name: new.excluded[name] for name in rows[0] if name not in key}
        connection.execute(new.on_conflict_do_update(index_elements=list(key), set_=changed), rows)
