"""Which sessions come next? Pages of sessions in a stable order, for whoever reads on where they stopped.

Laws:

- Sessions stand by the place of the entry that opened or ended them (ms, shard, seq), and those of one entry by their ids. A
  page reaches up to the watermark, below which nothing is added any more: whoever asks for what comes after the last
  place has every session once, in whatever order shards are archived, and whatever is erased meanwhile.
- However few sessions the filters let through, a page looks at MAX_EXAMINED of them at the most, and says how far it came.
"""

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, Literal, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, select, tuple_

from config.archive import tables
from config.archive.result_filters import ResultFilters, session_conditions
from config.archive.watermark import read_watermark

MAX_EXAMINED = 50_000
"""Sessions of one page, met by the filters or not; and those of the ms of the last of them."""

_SESSIONS_A_QUERY = 500
"""Whose answers are read in one go: SQLite takes 32,766 values in a statement."""

SessionOrder = Literal["opened", "ended"]


class SessionPlace(NamedTuple):
    """Where a session stands in an order."""

    ms: int
    shard: int
    seq: int
    session: str


BEFORE_ALL = SessionPlace(1, -1, 0, "")
"""ms 0 are those of what has not happened."""


class SessionRows(msgspec.Struct, frozen=True):
    """A row of `sessions`, its rows of `answers` in order, and of `variables`; `place` is that in the order asked for."""

    place: SessionPlace
    row: Any
    answers: Sequence[Any]
    variables: Sequence[Any]


class SessionPage(msgspec.Struct, frozen=True):
    """`last` is the place that the next page comes after, and `has_more` says that it need not wait. Every session before
    `complete_ms` is here or in an earlier page, once there is no more."""

    sessions: Sequence[SessionRows]
    last: SessionPlace
    has_more: bool
    complete_ms: int


def read_session_page(
    connection: Connection, filters: ResultFilters, order: SessionOrder, after: SessionPlace, limit: int
) -> SessionPage:
    """Read the first `limit` sessions after a place, of those that meet the filters."""
    place = _place_columns(order)
    moment, complete_ms = place[0], read_watermark(connection)
    span = [tables.sessions.c.survey == filters.survey, moment >= after.ms, moment < complete_ms]
    examined = select(moment).where(*span).order_by(moment).limit(1).offset(MAX_EXAMINED)
    bound_ms = connection.execute(examined).scalar()  # answered by the index alone
    if bound_ms is not None:
        span.append(moment <= bound_ms)
    query = select(tables.sessions).where(
        *span, tuple_(*place) > tuple_(*after), *session_conditions(filters)
    )
    found = connection.execute(query.order_by(*place).limit(limit + 1)).all()
    rows = found[:limit]
    last = after if bound_ms is None else _end_of(bound_ms)
    if rows and (bound_ms is None or len(found) > limit):
        last = _place_of(rows[-1], order)
    return SessionPage(
        sessions=_with_details(connection, rows, order),
        last=last,
        has_more=bound_ms is not None or len(found) > limit,
        complete_ms=complete_ms,
    )


def _place_columns(order: SessionOrder) -> Sequence[ColumnElement[Any]]:
    table = tables.sessions.c
    if order == "ended":
        return table.ended_ms, table.shard, table.ended_seq, table.session
    return table.opened_ms, table.shard, table.opened_seq, table.session


def _end_of(ms: int) -> SessionPlace:
    """After all that happened in this ms."""
    return SessionPlace(ms, 2**31 - 1, 2**63 - 1, "")


def _place_of(row: Row[Any], order: SessionOrder) -> SessionPlace:
    return SessionPlace(*(getattr(row, column.name) for column in _place_columns(order)))


def _with_details(connection: Connection, rows: Sequence[Row[Any]], order: SessionOrder) -> list[SessionRows]:
    answers: dict[str, list[Any]] = {}
    variables: dict[str, list[Any]] = {}
    for at in range(0, len(rows), _SESSIONS_A_QUERY):
        wanted = [row.session for row in rows[at : at + _SESSIONS_A_QUERY]]
        answers |= _rows_by_session(connection, tables.answers, wanted, ("place", "choice"))
        variables |= _rows_by_session(connection, tables.variables, wanted, ("key",))
    return [
        SessionRows(_place_of(row, order), row, answers.get(row.session, ()), variables.get(row.session, ()))
        for row in rows
    ]


def _rows_by_session(
    connection: Connection, table: Any, wanted: Sequence[str], order: Sequence[str]
) -> dict[str, list[Any]]:
    columns = [table.c[name] for name in ("session", *order)]
    query = select(table).where(table.c.session.in_(wanted)).order_by(*columns)
    return {session: [*rows] for session, rows in groupby(connection.execute(query), attrgetter("session"))}
