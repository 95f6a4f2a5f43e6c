"""Who did or read what? The acts that the archive has."""

from collections.abc import Iterator
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, select

from config.archive import tables

_ROWS_A_FETCH = 500


class AuditFilter(msgspec.Struct, frozen=True):
    """Acts since a moment (ms), in whose actor and action these texts are, in any case. Empty: all."""

    since: int = 0
    actor: str = ""
    action: str = ""

    def lets_through(self, at: int, actor: str, action: str) -> bool:
        return (
            at >= self.since and self.actor.lower() in actor.lower() and self.action.lower() in action.lower()
        )


def scan_archived_acts(connection: Connection, wanted: AuditFilter) -> Iterator[Row[Any]]:
    """Rows of `audit`, newest first."""
    table = tables.audit.c
    query = select(tables.audit).order_by(table.at.desc(), table.entry_seq.desc(), table.source, table.shard)
    if wanted.since:
        query = query.where(table.at >= wanted.since)
    if wanted.actor:
        query = query.where(table.actor.icontains(wanted.actor, autoescape=True))
    if wanted.action:
        query = query.where(table.action.icontains(wanted.action, autoescape=True))
    yield from connection.execution_options(yield_per=_ROWS_A_FETCH).execute(query)
