"""How the archive is reached: a database on SQLite or PostgreSQL, transactions that read, and those that write.

Law: whoever writes holds the row of `positions` of the shard that it writes about, in one transaction with what it writes
(`writing`, then `lock_position`): what it reads after that, in the stream or here, is what it decides by. SQLite has one
writer at a time; there the transaction itself is the lock.
"""

import errno
import fcntl
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from math import ceil
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import sqlalchemy
from sqlalchemy import URL, Connection, Engine, bindparam, event, make_url, select, text, update

from config.archive import tables
from config.archive.filesystems import network_filesystem
from config.settings.config_errors import ConfigError, unwritable_problem
from config.store.entry_id import EntryId

BUSY_TIMEOUT_S = 30
"""How long a writer waits for another."""

_INSTRUCTIONS_PER_LOOK = 10_000
"""Of SQLite's machine, some 0.1 ms, between two looks at the time."""

EVENTS_SOURCE = "events"
"""The event streams, as `positions` calls them."""

WRITER_SILENCE_S = 60
"""A transaction that writes, and says nothing for so long, is ended by PostgreSQL: its process hangs, and holds up all who
want its rows. If it wakes, it commits nothing."""

_POSTGRESQL_OPTIONS = {
    "connect_timeout": 5,  # seconds, as all of these but the last, which is ms
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""Of a connection: a server that is gone without a word is noticed in seconds."""

_SQLITE_CACHE_KB = 32_768

_POSTGRESQL_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")

_OPTIONS = {"postgresql": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}, "sqlite": {}}
"""Of a transaction that reads: all that it reads is of one moment."""


class Position(msgspec.Struct, frozen=True):
    """How far a stream is in the archive: the id of its last entry here, and until when (ms, by Redis' clock) all that it had
    is here."""

    last_ms: int
    last_seq: int
    read_until_ms: int

    @property
    def entry_id(self) -> EntryId:
        return EntryId(self.last_ms, self.last_seq)


class ArchiveDatabase:
    """One archive. It is opened when it is first used, and outlives a server that goes away. `busy_timeout_s` is how long a
    lock is waited for."""

    def __init__(self, url: str, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self.url = read_archive_url(url)
        self.engine = _create_engine(self.url, busy_timeout_s)

    @property
    def shown_url(self) -> str:
        """The URL without its password."""
        return self.url.render_as_string(hide_password=True)

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @property
    def is_missing(self) -> bool:
        """Whether there is no file of it. Of PostgreSQL nobody knows without asking."""
        return self.is_sqlite and not Path(self.url.database or "").exists()

    @contextmanager
    def reading(self, within_s: float = 0) -> Iterator[Connection]:
        """A transaction that sees one moment of the archive, and changes nothing; each statement of it takes no longer than
        `within_s`, if that is given. For SQLite raises ConfigError if there is no file."""
        if self.is_missing:
            raise ConfigError([f"there is no archive at {self.url.database}: the process `archive` makes it"])
        options = _OPTIONS[self.url.get_backend_name()]
        with (
            self.engine.connect().execution_options(**options) as connection,
            connection.begin(),
            _bounded_statements(connection, within_s),
        ):
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is committed if the block ends, and undone if it raises."""
        with self.engine.connect().execution_options(parley_writes=True) as connection, connection.begin():
            if not self.is_sqlite:
                silence = f"SET LOCAL idle_in_transaction_session_timeout = '{WRITER_SILENCE_S}s'"
                connection.exec_driver_sql(silence)
            yield connection

    def checkpoint(self) -> bool:
        """Have what SQLite's log holds put into the file, and the log emptied, so that what was deleted is in neither. Returns
        whether that could be done: a reader may be in the way. PostgreSQL sees to it by itself, in its own time."""
        if not self.is_sqlite:
            return True
        with closing(self.engine.raw_connection()) as connection:
            (blocked, *_) = connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not blocked

    def lock_position(self, connection: Connection, source: str, shard: int) -> Position:
        """Lock the shard's row until the transaction ends, and return it; make it if there is none."""
        known = _select_position(source, shard).with_for_update()
        row = connection.execute(known).one_or_none()
        if row is None:
            insert = _insert_or_ignore(connection, tables.positions)
            connection.execute(insert, {"source": source, "shard": shard})
            row = connection.execute(known).one()
        return Position(*row)

    def try_lock_positions(
        self, connection: Connection, source: str, shards: Iterable[int]
    ) -> dict[int, Position]:
        """Lock these shards' rows, which there are, until the transaction ends. Answers those that nobody else has."""
        table = tables.positions.c
        known = (
            select(table.shard, table.last_ms, table.last_seq, table.read_until_ms)
            .where(table.source == source, table.shard.in_(list(shards)))
            .order_by(table.shard)
            .with_for_update(skip_locked=True)
        )
        return {shard: Position(*row) for shard, *row in connection.execute(known)}

    def make_positions(self, connection: Connection, source: str, shards: int) -> None:
        """Make the rows of shards that have none. Rows that are there are not touched: PostgreSQL would wait for whoever has
        moved one, and has not committed that."""
        table = tables.positions.c
        there = set(connection.execute(select(table.shard).where(table.source == source)).scalars())
        if missing := [{"source": source, "shard": k} for k in range(shards) if k not in there]:
            connection.execute(_insert_or_ignore(connection, tables.positions), missing)

    def move_position(self, connection: Connection, source: str, shard: int, to: Position) -> None:
        """Move a locked row."""
        self.move_positions(connection, source, {shard: to})

    def move_positions(self, connection: Connection, source: str, to: Mapping[int, Position]) -> None:
        """Move the locked rows of these shards."""
        table = tables.positions
        moved = update(table).where(table.c.source == source, table.c.shard == bindparam("of_shard"))
        rows = [{"of_shard": shard, **msgspec.structs.asdict(position)} for shard, position in to.items()]
        if rows:
            connection.execute(moved, rows)

    def close(self) -> None:
        self.engine.dispose()


def read_position(connection: Connection, source: str, shard: int) -> Position:
    """Return how far the shard is in the archive, in the moment that the transaction sees; 0-0 if nothing of it is there."""
    row = connection.execute(_select_position(source, shard)).one_or_none()
    return Position(*row) if row is not None else Position(0, 0, 0)


def describe_failure(error: sqlalchemy.exc.SQLAlchemyError) -> str:
    """Say in one line why a database failed. What SQLAlchemy adds is left out: the statement, and its parameters, in which
    there may be numbers."""
    cause = getattr(error, "orig", None) or error
    return str(cause).strip().partition("\n")[0] or type(cause).__name__


def _select_position(source: str, shard: int) -> "sqlalchemy.Select[Any]":
    table = tables.positions
    return select(table.c.last_ms, table.c.last_seq, table.c.read_until_ms).where(
        table.c.source == source, table.c.shard == shard
    )


def _insert_or_ignore(connection: Connection, table: sqlalchemy.Table) -> Any:
    return dialect_insert(connection, table).on_conflict_do_nothing()


def dialect_insert(connection: Connection, table: sqlalchemy.Table) -> Any:
    """An INSERT that can have ON CONFLICT, which both databases spell alike and SQLAlchemy has in each dialect's own."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert  # noqa: PLC0415 (an extra)

        return postgresql_insert(table)
    from sqlalchemy.dialects.sqlite import insert as sqlite_insert  # noqa: PLC0415 (the same)

    return sqlite_insert(table)


def read_archive_url(written: str) -> URL:
    """Read PARLEY_ARCHIVE_URL. Raises ConfigError; no mistake shows the password."""
    try:
        url = make_url(written)
    except sqlalchemy.exc.ArgumentError:
        url = None
    scheme = url.drivername if url is not None else ""
    if url is None or scheme not in ("sqlite", *_POSTGRESQL_SCHEMES) or not url.database:
        expected = "sqlite:///path/to/archive.db or postgresql://user:password@host/database"
        raise ConfigError([f"PARLEY_ARCHIVE_URL: expected {expected}"])
    if scheme == "sqlite":
        return url
    return url.set(drivername="postgresql+psycopg")


@contextmanager
def _bounded_statements(connection: Connection, within_s: float) -> Iterator[None]:
    """Have the database end each statement of this transaction that takes longer, whoever still waits for it. SQLite counts
    from now on."""
    if not within_s:
        yield
    elif connection.dialect.name == "postgresql":
        connection.execute(text(f"SET LOCAL statement_timeout = {ceil(within_s * 1_000)}"))
        yield
    else:
        driver: Any = connection.connection.driver_connection
        end_s = monotonic() + within_s
        driver.set_progress_handler(lambda: monotonic() > end_s, _INSTRUCTIONS_PER_LOOK)
        try:
            yield
        finally:
            driver.set_progress_handler(None, 0)


def _create_engine(url: URL, busy_timeout_s: float) -> Engine:
    if url.get_backend_name() == "sqlite":
        return _create_sqlite_engine(url, busy_timeout_s)
    try:
        engine = sqlalchemy.create_engine(
            url, pool_pre_ping=True, hide_parameters=True, connect_args=_POSTGRESQL_OPTIONS
        )
    except ModuleNotFoundError as e:
        found = "PARLEY_ARCHIVE_URL is of PostgreSQL, whose driver is not installed"
        raise ConfigError([f"{found}: pip install 'parley[postgres]'"]) from e

    @event.listens_for(engine, "connect")
    def _bound_locks(connection: Any, _record: object) -> None:
        connection.execute(f"SET lock_timeout = {ceil(busy_timeout_s * 1_000)}")
        connection.commit()

    return engine


def _create_sqlite_file(file: Path) -> None:
    """Make an empty database, which nobody else may read, as it holds people's numbers. It has its write-ahead log before it
    has its name, and one process makes it: SQLite waits for nobody who turns that on at the same time. Raises ConfigError
    where that cannot be."""
    try:
        _create_in_folder(file)
    except OSError as e:
        if e.errno in _PASSING_ERRORS:
            raise
        raise ConfigError([unwritable_problem(file, e, "PARLEY_ARCHIVE_URL or PARLEY_VAR")]) from e


_PASSING_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO)
"""What may be over by itself, and is waited for."""


def _create_in_folder(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with (
        _locked_folder(file.parent),
        tempfile.TemporaryDirectory(dir=file.parent, prefix=".archive.") as folder,
    ):
        made = Path(folder, file.name)
        os.close(os.open(made, os.O_CREAT | os.O_RDWR, 0o600))
        with closing(sqlite3.connect(made)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        if not file.exists():
            made.replace(file)


@contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    """Be the only one who makes something in it, of those who ask."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _create_sqlite_engine(url: URL, busy_timeout_s: float) -> Engine:
    file = Path(url.database or "")
    if kind := network_filesystem(file):
        found = f"{file} is on a network disk ({kind}), on which SQLite loses data"
        raise ConfigError([f"PARLEY_ARCHIVE_URL: {found}: expected a local disk, or PostgreSQL"])
    engine = sqlalchemy.create_engine(url, hide_parameters=True, connect_args={"timeout": busy_timeout_s})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself: `_begin` does
        pragmas = (
            "journal_mode=WAL",
            "synchronous=FULL",
            "secure_delete=ON",
            f"cache_size=-{_SQLITE_CACHE_KB}",
        )
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "do_connect")
    def _create_missing(*_: object) -> None:
        if not file.exists():
            _create_sqlite_file(file)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("parley_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
