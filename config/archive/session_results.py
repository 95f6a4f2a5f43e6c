"""Which sessions are there, in which states, and what did the latest of them come to?"""

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, RowMapping, func, select

from config.archive import tables
from config.archive.result_columns import ResultColumn
from config.archive.result_filters import ResultFilters, last_answers, session_conditions


class SessionResult(msgspec.Struct, frozen=True, kw_only=True):
    """One session and its answers, by the heading of the question; several chosen options are a list. Moments are ms, 0 for none;
    `at` is when it opened, or was refused."""

    session: str
    sender: str
    channel: str
    version: str
    language: str
    state: str
    at: int
    ended_at: int
    answers: dict[str, str | list[str]]


class StateCount(msgspec.Struct, frozen=True):
    """So many sessions are in this state, of which so many opened: an invitation may be refused, or cancelled before it does."""

    state: str
    sessions: int
    opened: int


def count_states(connection: Connection, filters: ResultFilters) -> list[StateCount]:
    """How many sessions are in which state, the most frequent first."""
    table = tables.sessions.c
    rows = select(table.state, func.count(), func.count(table.opened_at)).where(*session_conditions(filters))
    ordered = rows.group_by(table.state).order_by(func.count().desc(), table.state)
    return [StateCount(*row) for row in connection.execute(ordered)]


class CostTotal(msgspec.Struct, frozen=True):
    """What sessions cost: SMS from and to people, segments as we count them, and millionths of `currency`, as far as providers
    have told; empty: they have told nothing."""

    currency: str
    sessions: int
    received: int
    sent: int
    segments: int
    cost_micros: int


def count_costs(connection: Connection, filters: ResultFilters) -> list[CostTotal]:
    """What the sessions came to, by currency."""
    table = tables.sessions.c
    counted = select(
        table.currency,
        func.count(),
        *(func.sum(column) for column in (table.received, table.sent, table.segments, table.cost_micros)),
    )
    rows = counted.where(*session_conditions(filters)).group_by(table.currency).order_by(table.currency)
    return [CostTotal(currency, *map(int, numbers)) for currency, *numbers in connection.execute(rows)]


def read_latest_results(
    connection: Connection, filters: ResultFilters, columns: Sequence[ResultColumn], limit: int
) -> list[SessionResult]:
    """The sessions that opened last, newest first; refused invitations only if the filters ask for that state."""
    table = tables.sessions.c
    rows = select(tables.sessions).where(*session_conditions(filters)).limit(limit)
    if "refused" in filters.states:
        rows = rows.order_by(func.coalesce(table.opened_at, table.ended_at).desc(), table.session.desc())
    else:
        rows = rows.where(table.opened_at.is_not(None)).order_by(table.opened_at.desc(), table.session.desc())
    found = connection.execute(rows).mappings().all()
    answers = _read_answers(connection, [row["session"] for row in found], columns)
    return [_result_of(row, answers.get(row["session"], {})) for row in found]


def _result_of(row: RowMapping, answers: dict[str, str | list[str]]) -> SessionResult:
    return SessionResult(
        session=row["session"],
        sender=row["sender"],
        channel=row["channel"],
        version=row["version"],
        language=row["language"],
        state=row["state"],
        at=row["opened_at"] or row["ended_at"] or 0,
        ended_at=row["ended_at"] or 0,
        answers=answers,
    )


def _read_answers(
    connection: Connection, sessions: Sequence[str], columns: Sequence[ResultColumn]
) -> dict[str, dict[str, str | list[str]]]:
    table = tables.answers.c
    found: dict[str, dict[str, str | list[str]]] = {}
    for at in range(0, len(sessions), _SESSIONS_A_QUERY):
        some = sessions[at : at + _SESSIONS_A_QUERY]
        rows = (
            select(table.session, table.step, table.type, table.version, table.value, table.raw, table.choice)
            .where(table.session.in_(some), last_answers())
            .order_by(table.session, table.place, table.choice)
        )
        options: dict[tuple[str, str], list[str]] = {}
        for row in connection.execute(rows):
            column = next((each for each in columns if each.holds(row.step, row.type, row.version)), None)
            heading = column.heading if column is not None else row.step
            listed = options.setdefault((row.session, heading), [])
            listed.append(row.raw if row.value is None else row.value)
            several = column is not None and column.type == "choices"
            found.setdefault(row.session, {})[heading] = listed if several or len(listed) > 1 else listed[0]
    return found


_SESSIONS_A_QUERY = 500
"""SQLite takes 32,766 variables in a statement."""
