"""An archive on SQLite or PostgreSQL with records in it, written as the process `archive` writes them."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import delete, insert

from config.archive import archive_schema, tables
from config.archive.database import ArchiveDatabase, Position
from engine.model.events import ArchiveRecord, encode_event
from engine.surveys.program import Survey
from tests.support.postgresql import PostgreSql, postgresql_programs
from workers.archiving.archive_rows import EntryPlace
from workers.archiving.page_writer import PageEntry, write_page
from workers.store.session_records import group_by_session

HAS_POSTGRESQL = postgresql_programs() is not None

ARCHIVE_KINDS = ("sqlite", "postgresql")


class PlayedArchive:
    """One archive; `keep_survey` and `write` add to it, `clear` takes all of it away."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.database = ArchiveDatabase(url)
        archive_schema.migrate(self.database)
        self._entry_ms = 1_000

    def keep_survey(self, survey: Survey) -> None:
        """Keep a version, newer than those that are kept."""
        self._entry_ms += 1
        row = {
            "version": survey.version,
            "name": survey.name,
            "file": survey.file,
            "source": survey.source,
            "first_at": self._entry_ms,
        }
        with self.database.writing() as connection:
            connection.execute(delete(tables.surveys).where(tables.surveys.c.version == survey.version))
            connection.execute(insert(tables.surveys), row)

    def write(self, sender: str, turns: Iterable[Sequence[ArchiveRecord]]) -> None:
        """Write the records of one person, turn by turn, as commits cut them into entries."""
        page = []
        for records in turns:
            for group in group_by_session(records):
                self._entry_ms += 1
                place = EntryPlace(0, self._entry_ms, 0)
                page.append(PageEntry(place, sender, group, encode_event(group)))
        with self.database.writing() as connection:
            self.database.lock_position(connection, "events", 0)
            write_page(connection, page, lambda number: f"hash of {number}")
            self.database.move_position(connection, "events", 0, Position(self._entry_ms, 0, self._entry_ms))

    def clear(self) -> None:
        with self.database.writing() as connection:
            for table in tables.METADATA.sorted_tables:
                if table.name not in ("positions", "deployment"):
                    connection.execute(delete(table))


@contextmanager
def run_archive(kind: str, folder: Path) -> Iterator[PlayedArchive]:
    """An empty archive on a database of this kind; that of PostgreSQL is a server of its own."""
    if kind == "sqlite":
        yield from _closing(PlayedArchive(f"sqlite:///{folder / f'archive-{os.getpid()}.db'}"))
        return
    with PostgreSql() as server:
        yield from _closing(PlayedArchive(server.url(server.create_database())))


def _closing(archive: PlayedArchive) -> Iterator[PlayedArchive]:
    try:
        yield archive
    finally:
        archive.database.close()
