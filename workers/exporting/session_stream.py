"""Which sessions are exported, with what they hold? A stream of them, oldest first, in constant memory.

Sessions come from one cursor, which the server holds (PostgreSQL) or steps through (SQLite); what a few hundred of them hold is
read together, by its index. All of it is of one moment, as the caller's transaction is.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Select, and_, func, select

from config.archive import tables
from config.archive.result_filters import ResultFilters, session_conditions
from engine.model.events import Attachment, SmsReceived, decode_records

SESSIONS_A_READ = 500
"""How many sessions are in memory at once."""

SESSION_FIELDS = (
    "session", "sender", "channel", "originator", "survey", "version", "language", "state", "why",
    "opened_at", "ended_at", "invited", "reference", "campaign", "asked_at", "not_before", "step", "misreads",
    "received", "sent", "segments", "cost_micros", "currency",
)  # fmt: skip
"""The columns of `sessions` that are read."""

ANSWER_FIELDS = (
    "session", "place", "choice", "step", "at", "type", "raw", "value", "value_number", "value_date",
    "value_time", "value_yes", "option", "option_index", "misreads", "seconds",
)  # fmt: skip


class StoredSession(msgspec.Struct):
    """A session as the archive has it: its row (SESSION_FIELDS), its variables' values by key, its answers, in order, each as
    rows (ANSWER_FIELDS), one for each chosen option, and what came with the person's SMS, in order."""

    row: Row[Any]
    variables: Mapping[str, str]
    answers: Sequence[Sequence[Row[Any]]]
    attachments: Sequence[Attachment] = ()


def count_sessions(connection: Connection, filters: ResultFilters) -> int:
    counted = select(func.count()).select_from(tables.sessions).where(*session_conditions(filters))
    return int(connection.execute(counted).scalar_one())


def stream_sessions(connection: Connection, filters: ResultFilters) -> Iterator[StoredSession]:
    """The sessions that meet the filters, in the order in which they opened; those that never did come first."""
    table = tables.sessions.c
    query = (
        select(*(table[name] for name in SESSION_FIELDS))
        .where(*session_conditions(filters))
        .order_by(table.survey, table.opened_ms, table.opened_seq, table.session)
        .execution_options(yield_per=SESSIONS_A_READ)
    )
    for rows in connection.execute(query).partitions():
        sessions = [row.session for row in rows]
        variables = _read_variables(connection, sessions)
        answers = _read_answers(connection, sessions)
        attachments = _read_attachments(connection, sessions)
        for row in rows:
            yield StoredSession(
                row,
                variables.get(row.session, {}),
                answers.get(row.session, ()),
                attachments.get(row.session, ()),
            )


def _read_variables(connection: Connection, sessions: Sequence[str]) -> Mapping[str, dict[str, str]]:
    table = tables.variables.c
    found: dict[str, dict[str, str]] = {}
    query = select(table.session, table.key, table.value).where(table.session.in_(sessions))
    for session, key, value in connection.execute(query):
        found.setdefault(session, {})[key] = value
    return found


def _read_answers(connection: Connection, sessions: Sequence[str]) -> Mapping[str, list[list[Row[Any]]]]:
    table = tables.answers.c
    query: Select[Any] = (
        select(*(table[name] for name in ANSWER_FIELDS))
        .where(table.session.in_(sessions))
        .order_by(table.session, table.place, table.choice)
    )
    found: dict[str, list[list[Row[Any]]]] = {}
    for row in connection.execute(query):
        answers = found.setdefault(row.session, [])
        if answers and answers[-1][0].place == row.place:
            answers[-1].append(row)
        else:
            answers.append([row])
    return found


def _read_attachments(connection: Connection, sessions: Sequence[str]) -> Mapping[str, list[Attachment]]:
    """What came with SMS, from the records of those that have any: `messages` has their number alone."""
    message, entry = tables.messages.c, tables.entries.c
    place = (
        message.shard == entry.shard,
        message.entry_ms == entry.entry_ms,
        message.entry_seq == entry.entry_seq,
    )
    query = (
        select(message.session, message.place, entry.records)
        .join(tables.entries, and_(*place))
        .where(message.session.in_(sessions), message.attachments > 0)
        .order_by(message.entry_ms, message.entry_seq, message.place)
    )
    found: dict[str, list[Attachment]] = {}
    for session, number, records in connection.execute(query):
        record = decode_records(records)[number]
        if isinstance(record, SmsReceived):
            found.setdefault(session, []).extend(record.attachments)
    return found


def variable_spellings(connection: Connection, filters: ResultFilters) -> dict[str, str]:
    """The variables that the sessions have: key -> how it is spelled most often, in alphabetical order."""
    table = tables.variables.c
    often = func.count()
    query = (
        select(table.key, table.name)
        .join(tables.sessions, tables.sessions.c.session == table.session)
        .where(*session_conditions(filters))
        .group_by(table.key, table.name)
        .order_by(table.key, often, table.name.desc())
    )
    return {row.key: row.name for row in connection.execute(query)}


def answered_steps(connection: Connection, survey: str) -> list[str]:
    """The steps of the survey that anybody has answered, in alphabetical order; each is found by the index."""
    table = tables.answers.c
    steps: list[str] = []
    following = select(func.min(table.step)).where(table.survey == survey)
    step = connection.execute(following).scalar()
    while step is not None:
        steps.append(step)
        step = connection.execute(following.where(table.step > step)).scalar()
    return steps
