"""Who did or read what? The acts that the archive has."""

from collections.abc import Iterator
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, select

from config.archive import tables

_ROWS_A_FETCH = 500


class AuditFilter(msgspec.Struct, frozen=True):
    """Acts since a moment (ms), and before another, in whose actor and action these texts are, in any case. Empty: all."""

    since: int = 0
    actor: str = ""
    action: str = ""
    before: int = 0

    def lets_through(self, at: int, actor: str, action: str) -> bool:
        return (
            at >= self.since
            and (not self.before or at < self.before)
            and self.actor.lower() in actor.lower()
            and self.action.lower() in action.lower()
        )


def scan_archived_acts(connection: Connection, wanted: AuditFilter) -> Iterator[Row[Any]]:
    """Rows of `audit`, newest first."""
    table = tables.audit.c
    query = select(tables.audit).order_by(table.at.desc(), table.entry_seq.desc(), table.source, table.shard)
    if wanted.since:
        query = query.where(table.at >= wanted.since)
    if wanted.before:
        query = query.where(table.at < wanted.before)
    if wanted.actor:
        query = query.where(table.actor.icontains(wanted.actor, autoescape=True))
    if wanted.action:
        query = query.where(table.action.icontains(wanted.action, autoescape=True))
    yield from connection.execution_options(yield_per=_ROWS_A_FETCH).execute(query)


def find_newest_since(connection: Connection, before: int, many: int) -> int:
    """Return the moment (ms) since which there are so many acts before `before` (0: now); 0 if there are no more than that."""
    table = tables.audit.c
    query = select(table.at).order_by(table.at.desc()).offset(many).limit(1)
    query = query.where(table.at < before) if before else query
    found: int | None = connection.execute(query).scalar()
    return found or 0
