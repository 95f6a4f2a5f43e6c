"""Keeps the file of every version of a survey that a session in the archive was opened with: Redis forgets those that nobody
uses any more."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
import redis
import structlog
from sqlalchemy import Connection, select

from config.archive import tables
from config.archive.database import dialect_insert
from engine.model.events import SessionOpened
from workers.archiving.projection import PageEntry
from workers.store.survey_versions import decode_survey_file, stored_versions

log = structlog.get_logger()


class SurveyMover:
    """Moves versions of surveys, each when a session is archived that was opened with it, in the same transaction."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._done: set[str] = set()

    def move_versions(self, connection: Connection, page: Sequence[PageEntry]) -> set[str]:
        """Move what this page refers to and the archive has not. Answers the versions to be confirmed by `note_committed`.
        Raises redis.RedisError."""
        opened = _first_opened(page, self._done)
        if not opened:
            return set()
        table = tables.surveys
        known = connection.execute(select(table.c.version).where(table.c.version.in_(list(opened)))).scalars()
        for version in known:
            del opened[version]
        files = stored_versions(self._redis, list(opened))
        rows = [  # in one order, or two that move the same would wait for each other
            row
            for version, file in sorted(files.items())
            if (row := _survey_row(opened[version], file)) is not None
        ]
        if rows:
            connection.execute(dialect_insert(connection, table).on_conflict_do_nothing(), rows)
        if lacking := sorted(opened.keys() - files.keys()):
            log.warning(
                "versions of surveys are not in Redis any more, and cannot be archived", versions=lacking
            )
        return {
            record.version for entry in page for record in entry.records if isinstance(record, SessionOpened)
        }

    def note_committed(self, versions: Collection[str]) -> None:
        """Look for these no more: the transaction in which they were moved is committed."""
        self._done.update(versions)


def _first_opened(page: Sequence[PageEntry], done: set[str]) -> dict[str, SessionOpened]:
    """By version, the first session of the page that was opened with it, of versions that are not done."""
    opened: dict[str, SessionOpened] = {}
    for entry in page:
        for record in entry.records:
            if isinstance(record, SessionOpened) and record.version not in done:
                opened.setdefault(record.version, record)
    return opened


def _survey_row(opened: SessionOpened, stored: bytes) -> Mapping[str, Any] | None:
    try:
        file, source = decode_survey_file(stored)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return {
        "version": opened.version,
        "name": opened.survey,
        "file": file,
        "source": source,
        "first_at": opened.at,
    }
