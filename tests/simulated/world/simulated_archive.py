"""The archive of a run: a real file of SQLite, in which no process waits for another but in virtual time.

A transaction that writes waits until that of another process is over, as SQLite does, but lets others go on meanwhile. What a
process had not committed when it died is undone at that moment. A commit is a call like any other: a process dies before or
after it, the database refuses it, or does it and nobody hears of that.
"""

import sqlite3
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import QueuePool

from config.archive import archive_schema
from config.archive.database import BUSY_TIMEOUT_S, EVENTS_SOURCE, ArchiveDatabase
from config.archive.pseudonyms import read_pseudonyms
from config.store.entry_id import BEGINNING, EntryId
from tests.simulated.world import faults
from tests.simulated.world.faults import Fault
from tests.simulated.world.scheduler import Call, Process, Scheduler

_FOLDER = "/dev/shm"


class SimulatedArchive:
    """One archive. `positions` is what is committed of each shard; `committed` are called after each commit that writes."""

    def __init__(self, scheduler: Scheduler, shards: int) -> None:
        self.scheduler = scheduler
        self.positions = dict.fromkeys(range(shards), BEGINNING)
        self.committed: list[Callable[[], None]] = []
        self._folder = TemporaryDirectory(dir=_FOLDER if Path(_FOLDER).is_dir() else None)
        self._file = Path(self._folder.name) / "archive.db"
        self._file.write_bytes(_empty_archive())
        self._writer: _ArchiveConnection | None = None
        self._onlooker = self._connect(None)
        self._connections: list[_ArchiveConnection] = [self._onlooker]

    def database(self, process: Process | None = None) -> ArchiveDatabase:
        """The archive as one life of a process has it; or as somebody who looks on, to whom nothing happens."""
        return _SimulatedDatabase(str(self._file), lambda: self._connect(process))

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """What is committed, without any call."""
        return self._onlooker.execute(statement, values).fetchall()

    def close(self) -> None:
        for each in self._connections:
            each.drop()
        self._folder.cleanup()

    def take_writer(self, connection: "_ArchiveConnection") -> bool:
        """Whether this connection is the one that may write."""
        if self._writer is None:
            self._writer = connection
        return self._writer is connection

    def end_writing(self, connection: "_ArchiveConnection") -> None:
        if self._writer is connection:
            self._writer = None
            self.scheduler.notify(self)

    def note_commit(self) -> None:
        rows = self.query("SELECT shard, last_ms, last_seq FROM positions WHERE source = ?", EVENTS_SOURCE)
        self.positions |= {k: EntryId(ms, seq) for k, ms, seq in rows}
        for each in self.committed:
            each()

    def _connect(self, process: Process | None) -> "_ArchiveConnection":
        connection = sqlite3.connect(
            self._file, factory=_ArchiveConnection, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA synchronous=OFF")
        if process is not None:
            connection.begin_life(self, process)
            self._connections.append(connection)
        return connection


class _ArchiveConnection(sqlite3.Connection):
    """A process's connection, or an onlooker's."""

    _archive: SimulatedArchive | None = None
    _process: Process | None = None
    _writes = False
    _is_dropped = False

    def begin_life(self, archive: SimulatedArchive, process: Process) -> None:
        self._archive = archive
        self._process = process
        process.at_death.append(self.drop)

    def drop(self) -> None:
        """Break, as when the process is gone, or its machine."""
        if not self._is_dropped:
            self._is_dropped = True
            super().rollback()
            self._end_writing()
            super().close()

    def begin(self, *, writes: bool) -> None:
        """Begin a transaction. Raises sqlite3.OperationalError if another one writes for too long."""
        if self._archive is None:
            self.execute("BEGIN")
            return
        scheduler = self._archive.scheduler
        self._writes = writes
        until_us = scheduler.now_us + BUSY_TIMEOUT_S * 1_000_000
        what = "archive begin" if writes else "archive read"
        while not scheduler.call(Call(what, self._try_to_begin, faults.ARCHIVE_BEGIN)):
            left_us = until_us - scheduler.now_us
            if left_us <= 0:
                raise sqlite3.OperationalError("database is locked")
            scheduler.wait(self._archive, left_us)

    def _try_to_begin(self, fault: Fault | None) -> bool:
        assert self._archive is not None
        if fault is not None and fault.kind == "database_away":
            raise sqlite3.OperationalError("the database does not answer")
        if self._writes and not self._archive.take_writer(self):
            return False
        self.execute("BEGIN IMMEDIATE" if self._writes else "BEGIN")
        return True

    def commit(self) -> None:
        if self._is_dropped or not self.in_transaction:
            return
        if self._writes and self._archive is not None:
            self._archive.scheduler.call(Call("archive commit", self._commit, faults.ARCHIVE_COMMIT))
        else:
            super().commit()

    def _commit(self, fault: Fault | None) -> None:
        assert self._archive is not None
        kind = fault.kind if fault is not None else ""
        if kind == "refuse_commit":
            self.rollback()
            raise sqlite3.OperationalError("database or disk is full")
        super().commit()
        self._end_writing()
        self._archive.note_commit()
        if kind == "lose_commit_reply":
            raise sqlite3.OperationalError("the connection was lost")

    def rollback(self) -> None:
        if not self._is_dropped:
            super().rollback()
            self._end_writing()

    def close(self) -> None:
        self.drop()

    def _end_writing(self) -> None:
        if self._archive is not None:
            self._archive.end_writing(self)


class _SimulatedDatabase(ArchiveDatabase):
    """ArchiveDatabase with connections of the simulation's. All share what SQLAlchemy has made of statements."""

    def __init__(self, file: str, connect: Callable[[], sqlite3.Connection]) -> None:
        self.url = make_url(f"sqlite:///{file}")
        pool = QueuePool(connect, pool_size=2, max_overflow=-1)
        self.engine = Engine(
            pool, _dialect(), self.url, hide_parameters=True, execution_options={"compiled_cache": _COMPILED}
        )
        event.listen(self.engine, "begin", _begin)


def _begin(connection: Connection) -> None:
    driver: Any = connection.connection.driver_connection
    try:
        driver.begin(writes=bool(connection.get_execution_options().get("parley_writes")))
    except sqlite3.OperationalError as e:
        raise OperationalError("BEGIN", None, e) from e


_COMPILED: dict[Any, Any] = {}


@cache
def _dialect() -> Any:
    engine = create_engine("sqlite://")
    with engine.connect():
        return engine.dialect


@cache
def _empty_archive() -> bytes:
    """The file of an archive with this release's schema, in which nothing is yet but the key of its pseudonyms."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "archive.db"
        database = ArchiveDatabase(f"sqlite:///{file}")
        archive_schema.migrate(database)
        read_pseudonyms(database)
        database.checkpoint()
        database.close()
        return file.read_bytes()
