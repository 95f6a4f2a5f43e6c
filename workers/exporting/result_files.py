"""Octopush's original way: a text file for each session that came to its end, as the tutorial's PHP script leaves them.

`<sender>-result-<time>.txt`, the time in seconds since 1970; in it every SMS in and out, a line each, then `SESSION OVER`. A
reply that could not be read and that nothing answered is in none, as the script ends before it writes it down.
(https://octopush.com/en/blog/interactive-sms-dialogue-with-api-free-download/)
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, Select, select

from config.archive import tables
from config.archive.result_filters import ResultFilters, session_conditions
from workers.exporting.session_stream import SESSIONS_A_READ

LAST_LINE = "SESSION OVER"

ENDED_PROPERLY = "completed"
"""The state of the sessions whose file the script gives a time."""


def write_result_files(connection: Connection, filters: ResultFilters, folder: Path) -> Iterator[int]:
    """Write the files into `folder`, and yield 1 for each. Two sessions of one person that end in the same second, which the
    script would make one of, have numbers behind the time."""
    for session, lines in _read_results(connection, filters):
        path = _free_path(folder, f"{session.sender}-result-{session.ended_at // 1000}")
        path.write_text("".join(f"{line}\n" for line in [*lines, LAST_LINE]), encoding="utf-8", newline="")
        yield 1


def _free_path(folder: Path, stem: str) -> Path:
    path, n = folder / f"{stem}.txt", 1
    while path.exists():
        n += 1
        path = folder / f"{stem}-{n}.txt"
    return path


def _read_results(connection: Connection, filters: ResultFilters) -> Iterator[tuple[Row[Any], Sequence[str]]]:
    """Every session that was completed, and the texts of its SMS."""
    table = tables.sessions.c
    query: Select[Any] = (
        select(table.session, table.sender, table.ended_at)
        .where(*session_conditions(filters), table.state == ENDED_PROPERLY)
        .order_by(table.survey, table.ended_ms, table.ended_seq, table.session)
        .execution_options(yield_per=SESSIONS_A_READ)
    )
    for rows in connection.execute(query).partitions():
        messages = _read_messages(connection, [row.session for row in rows])
        for row in rows:
            yield row, _lines(messages.get(row.session, ()))


def _read_messages(connection: Connection, sessions: Sequence[str]) -> dict[str, list[Row[Any]]]:
    table = tables.messages.c
    query: Select[Any] = (
        select(
            table.session,
            table.shard,
            table.entry_ms,
            table.entry_seq,
            table.direction,
            table.kind,
            table.text,
        )
        .where(table.session.in_(sessions))
        .order_by(table.shard, table.entry_ms, table.entry_seq, table.place)
    )
    found: dict[str, list[Row[Any]]] = {}
    for row in connection.execute(query):
        found.setdefault(row.session, []).append(row)
    return found


def _lines(messages: Sequence[Row[Any]]) -> Sequence[str]:
    answered = {_entry_of(row) for row in messages if row.direction == "out"}
    return [row.text for row in messages if row.kind != "misread" or _entry_of(row) in answered]


def _entry_of(row: Row[Any]) -> tuple[int, int, int]:
    return row.shard, row.entry_ms, row.entry_seq
