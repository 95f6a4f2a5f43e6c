"""Inserts many rows at once, as fast as each database takes them: PostgreSQL a statement with an array for each column,
SQLite the rows as they are. Moments are made of ms, and dates of their texts, by the database.

A NUL, which PostgreSQL has in no text, is written as U+FFFD in both.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import sqlalchemy
from sqlalchemy import Column, Connection, Table

from config.archive.tables import Moment

OnConflict = Literal["fail", "keep", "replace"]
"""What becomes of a row that is there already, by its primary key."""

_NUL, _REPLACEMENT = "\0", "\N{REPLACEMENT CHARACTER}"

_ARRAY_TYPES: tuple[tuple[type, str], ...] = (
    (Moment, "bigint"),
    (sqlalchemy.BigInteger, "bigint"),
    (sqlalchemy.Integer, "integer"),
    (sqlalchemy.Boolean, "boolean"),
    (sqlalchemy.Double, "double precision"),
    (sqlalchemy.LargeBinary, "bytea"),
    (sqlalchemy.Text, "text"),
    (sqlalchemy.Date, "text"),
)


def insert_rows(
    connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]], on_conflict: OnConflict = "fail"
) -> None:
    """Insert `rows`, each a tuple of all of the table's columns in their order: moments in ms (0: none), dates as
    YYYY-MM-DD."""
    if not rows:
        return
    statement = _insert_statement(table, connection.dialect.name, on_conflict)
    columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
    cleaned = _replace_nul(table, columns)
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(statement, tuple(map(_array_literal, columns)))
    else:
        connection.exec_driver_sql(statement, list(zip(*columns, strict=True)) if cleaned else list(rows))


def _replace_nul(table: Table, columns: list[Sequence[Any]]) -> bool:
    """Replace NULs in columns of texts; whether there were any."""
    found = False
    for at, column in enumerate(table.columns):
        if isinstance(column.type, sqlalchemy.Text) and _NUL in "".join(filter(None, columns[at])):
            columns[at] = [text and text.replace(_NUL, _REPLACEMENT) for text in columns[at]]
            found = True
    return found


@cache
def _insert_statement(table: Table, dialect: str, on_conflict: OnConflict) -> str:
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    source = _arrays_source(table) if dialect == "postgresql" else _values_source(table)
    return f"INSERT INTO {table.name} ({names}) {source}{_conflict_clause(table, on_conflict)}"


def _values_source(table: Table) -> str:
    """SQLite's: a parameter for each column, moments as SQLAlchemy writes them there."""
    moment = "strftime('%Y-%m-%d %H:%M:%f000', NULLIF(?, 0) / 1000.0, 'unixepoch')"
    values = (moment if isinstance(column.type, Moment) else "?" for column in table.columns)
    return f"VALUES ({', '.join(values)})"


def _arrays_source(table: Table) -> str:
    arrays = ", ".join(f"%s::{_array_type(column)}[]" for column in table.columns)
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    values = ", ".join(map(_array_value, table.columns))
    return f"SELECT {values} FROM unnest({arrays}) AS page ({names})"  # noqa: S608 (names of our own tables)


def _array_literal(values: Sequence[Any]) -> str:
    """A column as PostgreSQL writes arrays: a driver that looks at every value for its type takes longer than all else."""
    return f"{{{','.join(map(_array_element, values))}}}"


def _array_element(value: Any) -> str:
    match value:
        case str():
            escaped = (
                value.replace("\\", "\\\\").replace('"', '\\"') if '"' in value or "\\" in value else value
            )
            return f'"{escaped}"'
        case None:
            return "NULL"
        case bytes():
            return f'"\\\\x{value.hex()}"'
        case _:
            return str(value)


def _array_type(column: Column[Any]) -> str:
    return next(name for kind, name in _ARRAY_TYPES if isinstance(column.type, kind))


def _array_value(column: Column[Any]) -> str:
    quoted = f'"{column.name}"'
    if isinstance(column.type, Moment):
        return f"timestamptz 'epoch' + NULLIF({quoted}, 0) * interval '1 millisecond'"
    return f"{quoted}::date" if isinstance(column.type, sqlalchemy.Date) else quoted


def _conflict_clause(table: Table, on_conflict: OnConflict) -> str:
    if on_conflict == "fail":
        return ""
    if on_conflict == "keep":
        return " ON CONFLICT DO NOTHING"
    keys = ", ".join(f'"{column.name}"' for column in table.primary_key)
    changed = (
        f'"{column.name}" = excluded."{column.name}"' for column in table.columns if not column.primary_key
    )
    return f" ON CONFLICT ({keys}) DO UPDATE SET {', '.join(changed)}"
