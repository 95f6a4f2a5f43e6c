"""Writes a page of entries into the archive, in the transaction that its caller has, with the shard's position locked.

Law: no entry stops its shard. One that cannot be read, or that a database does not take, is kept as it was in `entries`
alone, where `parley archive rebuild` finds it once a release can read it.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import structlog
from sqlalchemy import ARRAY, ColumnElement, Connection, Text, any_, bindparam, func, select
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from config.archive import tables
from engine.model.events import (
    OpeningRefused,
    ReceiptRecorded,
    SessionEnded,
    SessionInvited,
    SessionOpened,
)
from workers.archiving.archive_rows import PageRows, SessionRow
from workers.archiving.bulk_insert import OnConflict, insert_rows
from workers.archiving.projection import KnownBefore, PageEntry, PageProjection, ProviderTicket, TicketedSms
from workers.store.session_records import session_of_record

__all__ = ["PageEntry", "PageRows", "write_page"]

log = structlog.get_logger()

HashNumber = Callable[[str], str]
"""Hides a number as Redis' list of opt-outs does."""

_ADDED = ("answers", "messages", "sends", "receipts", "refusals")
"""Tables to which a page only adds."""

_SESSION_FIELDS = SessionRow.__struct_fields__


def write_page(
    connection: Connection, page: Sequence[PageEntry], hash_number: HashNumber, *, rebuilds: bool = False
) -> list[PageEntry]:
    """Write entries, those of a shard in their order, which follow those that the archive has; answer those of them that it could
    not take but as they are. `rebuilds`: `entries` and `opt_outs` have them already, and all else is made anew."""
    writer = _PageWriter(connection, hash_number, rebuilds=rebuilds)
    if not page or writer.try_write(page) is None:
        return []
    return [entry for entry in page if writer.write_alone(entry)]


class _PageWriter:
    """Writes a page in one go; and one that the archive does not take, entry by entry."""

    def __init__(self, connection: Connection, hash_number: HashNumber, *, rebuilds: bool) -> None:
        self._connection = connection
        self._hash_number = hash_number
        self._entries: OnConflict = "replace" if rebuilds else "fail"
        self._opt_outs: OnConflict = "keep" if rebuilds else "fail"

    def try_write(self, page: Sequence[PageEntry]) -> Exception | None:
        """Write all of it, or nothing; then what was wrong with it."""
        try:
            with self._connection.begin_nested():
                self._write_rows(project_page(self._connection, page, self._hash_number))
        except Exception as e:
            if not _is_of_the_data(e):
                raise
            return e
        return None

    def write_alone(self, entry: PageEntry) -> bool:
        """Write one entry; whether it could only be kept as it is."""
        error = self.try_write([entry])
        if error is None:
            return False
        log.error(
            "an entry is kept as it is, since the archive cannot take it",
            entry=f"{entry.place.entry_ms}-{entry.place.entry_seq}",
            shard=entry.place.shard,
            error=type(error).__name__,  # its text would quote what people wrote
        )
        as_it_is = msgspec.structs.replace(entry, records=())
        self._write_rows(project_page(self._connection, [as_it_is], self._hash_number))
        return True

    def _write_rows(self, rows: PageRows) -> None:
        insert_rows(self._connection, tables.entries, rows.entries, self._entries)
        for name in _ADDED:
            insert_rows(self._connection, tables.METADATA.tables[name], getattr(rows, name))
        insert_rows(self._connection, tables.opt_outs, rows.opt_outs, self._opt_outs)
        insert_rows(self._connection, tables.variables, list(rows.variables.values()), "replace")
        sessions = [msgspec.structs.astuple(row) for row in rows.sessions.values()]
        insert_rows(self._connection, tables.sessions, sessions, "replace")


def _is_of_the_data(error: Exception) -> bool:
    """Was it what was to be written that failed, and not the database?"""
    return not isinstance(error, DBAPIError) or isinstance(error, DataError | IntegrityError)


def project_page(connection: Connection, page: Sequence[PageEntry], hash_number: HashNumber) -> PageRows:
    """What these entries come to, after what the archive has."""
    projection = PageProjection(_read_known(connection, page), hash_number)
    for entry in page:
        projection.add_entry(entry)
    return projection.rows


def _read_known(connection: Connection, page: Sequence[PageEntry]) -> KnownBefore:
    sessions: set[str] = set()
    ending: set[str] = set()
    described: set[str] = set()
    tickets: dict[int, set[str]] = {}
    for entry in page:
        for record in entry.records:
            session = session_of_record(record)
            sessions.add(session)
            match record:
                case SessionEnded():
                    ending.add(session)
                    described.add(session)
                case SessionOpened() | SessionInvited() | OpeningRefused():
                    described.add(session)
                case ReceiptRecorded(sms="", ticket=ticket) if ticket:
                    tickets.setdefault(entry.place.shard, set()).add(ticket)
                case _:
                    pass
    known = KnownBefore(sms_by_ticket=_read_tickets(connection, tickets))
    sessions |= {each.session for each in known.sms_by_ticket.values()}
    for values in _select_by(connection, tables.sessions, "session", sessions - {""}, _SESSION_FIELDS):
        row = msgspec.convert([0 if value is None else value for value in values], SessionRow)
        known.sessions[row.session] = row
    for session, step in _select_by(connection, tables.answers, "session", ending, ("session", "step")):
        known.answered_steps.setdefault(session, set()).add(step)
    names = ("session", "key", "name")
    for session, key, name in _select_by(connection, tables.variables, "session", described - {""}, names):
        if name != key:
            known.variable_names.setdefault(session, {})[key] = name
    return known


def _read_tickets(
    connection: Connection, tickets: Mapping[int, Collection[str]]
) -> dict[ProviderTicket, TicketedSms]:
    """The SMS that these tickets were given to last, each in its shard."""
    if not tickets:
        return {}
    table = tables.sends.c
    wanted = {ticket for of_shard in tickets.values() for ticket in of_shard}
    query = (
        select(table.shard, table.channel, table.ticket, table.sms, table.session)
        .where(table.shard.in_(list(tickets)), _is_among(connection, table.ticket, wanted))
        .order_by(table.entry_ms, table.entry_seq, table.place)
    )
    return {
        ProviderTicket(shard, channel, ticket): TicketedSms(sms, session)
        for shard, channel, ticket, sms, session in connection.execute(query)
    }


def _select_by(
    connection: Connection, table: Any, key: str, wanted: Collection[str], names: Sequence[str]
) -> Iterable[Any]:
    """The columns `names` of the rows whose `key` is wanted."""
    if not wanted:
        return ()
    query = select(*(table.c[name] for name in names)).where(_is_among(connection, table.c[key], wanted))
    return connection.execute(query)


def _is_among(connection: Connection, column: Any, wanted: Collection[str]) -> ColumnElement[bool]:
    """One parameter, however many are wanted, so that the statement is always the same."""
    condition: ColumnElement[bool]
    if connection.dialect.name == "postgresql":
        condition = column == any_(bindparam("wanted", sorted(wanted), ARRAY(Text)))
    else:
        listed = func.json_each(bindparam("wanted", json.dumps(sorted(wanted)))).table_valued("value")
        condition = column.in_(select(listed.c.value))
    return condition
