"""The archive's schema is that of its tables, on both databases, however many migrate at once; and an archive that is not
reached as it must be is refused with a sentence that shows no password."""

import os
import sqlite3
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.util.exc import CommandError

from config.archive import archive_schema, tables
from config.archive.database import (
    EVENTS_SOURCE,
    ArchiveDatabase,
    Position,
    _create_sqlite_file,
    read_archive_url,
    read_position,
)
from config.archive.filesystems import network_filesystem
from config.archive.watermark import read_watermark
from config.settings.config_errors import ConfigError

SECRET = "a-secret-of-somebody"


@pytest.fixture
def local(tmp_path):
    """An archive on SQLite that nobody has opened yet."""
    database = ArchiveDatabase(f"sqlite:///{tmp_path / 'var' / 'archive.db'}")
    yield database
    database.close()


def test_the_migrations_come_to_the_tables(archive_database):
    """`alembic check`, on both."""
    with archive_database.writing() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.METADATA) == []
        command.check(archive_schema.alembic_config(connection))


def test_a_column_that_no_migration_makes_is_noticed(archive_database):
    with archive_database.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE refusals RENAME COLUMN reason TO cause")
        with pytest.raises(CommandError):
            command.check(archive_schema.alembic_config(connection))


def test_of_many_who_migrate_at_once_one_does(archive_url):
    databases = [ArchiveDatabase(archive_url) for _ in range(8)]
    with ThreadPoolExecutor(len(databases)) as pool:
        assert list(pool.map(archive_schema.migrate, databases)) == [None] * len(databases)
    with databases[0].reading() as connection:
        versions = connection.exec_driver_sql("SELECT version_num FROM alembic_version").all()
        assert len(versions) == 1
    for database in databases:
        archive_schema.require_schema(database)
        database.close()


def test_who_reads_an_archive_without_a_schema_is_told_what_to_do(archive_url):
    database = ArchiveDatabase(archive_url)
    with database.writing() as connection:
        connection.exec_driver_sql("CREATE TABLE something (else_ integer)")
    with pytest.raises(ConfigError, match="start the process `archive` of this release"):
        archive_schema.require_schema(database)
    database.close()


def test_who_reads_where_there_is_no_archive_makes_none(local):
    with pytest.raises(ConfigError, match="there is no archive at"), local.reading():
        pass
    assert not Path(local.url.database).exists()


def test_an_archive_in_a_file_is_its_owners_alone(local):
    os.umask(before := os.umask(0))
    archive_schema.migrate(local)
    os.umask(before)
    assert stat.S_IMODE(Path(local.url.database).stat().st_mode) == 0o600


def test_a_new_file_has_its_log_before_its_name_and_is_made_once(tmp_path):
    """Whoever turns the log on beside another is refused at once, and not made to wait."""
    file = tmp_path / "new" / "archive.db"
    _create_sqlite_file(file)
    made = file.stat().st_ino
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    _create_sqlite_file(file)
    assert file.stat().st_ino == made
    assert list(file.parent.iterdir()) == [file]


def test_what_a_file_has_acknowledged_is_on_disk(local):
    archive_schema.migrate(local)
    with local.writing() as connection:
        found = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")
        ]
    assert found == ["wal", 2], "2 is FULL"


def test_a_network_disk_is_refused(tmp_path, monkeypatch):
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"/dev/sda1 / ext4 rw 0 0\nserver:/x {tmp_path}/far nfs4 rw 0 0\nx {tmp_path}/my\\040own cifs rw 0 0\n"
    )
    for place, kind in (("near", ""), ("far/deep", "nfs4"), ("my own", "cifs")):
        assert network_filesystem(tmp_path / place / "archive.db", mounts) == kind
    monkeypatch.setattr(
        "config.archive.database.network_filesystem", lambda file: network_filesystem(file, mounts)
    )
    with pytest.raises(ConfigError, match=r"on a network disk \(nfs4\), on which SQLite loses data"):
        ArchiveDatabase(f"sqlite:///{tmp_path}/far/archive.db")
    assert not (tmp_path / "far").exists()


@pytest.mark.parametrize(
    "written",
    [f"mysql://ada:{SECRET}@db/parley", f"postgresql://ada:{SECRET}@db/", f"ada:{SECRET}", "sqlite://"],
)
def test_a_url_that_leads_nowhere_is_refused_and_shows_no_password(written):
    with pytest.raises(ConfigError) as refused:
        read_archive_url(written)
    assert "expected sqlite:///" in str(refused.value)
    assert SECRET not in str(refused.value)


def test_no_error_shows_a_password_or_what_people_wrote(archive_database):
    assert SECRET not in ArchiveDatabase(f"postgresql://ada:{SECRET}@127.0.0.1:1/parley").shown_url
    with pytest.raises(sqlalchemy.exc.OperationalError) as failed:  # noqa: SIM117 (which of them fails is the point)
        with ArchiveDatabase(f"postgresql://ada:{SECRET}@127.0.0.1:1/parley").writing():
            pass
    assert SECRET not in str(failed.value)
    with pytest.raises(sqlalchemy.exc.SQLAlchemyError) as refused, archive_database.writing() as connection:
        connection.execute(tables.sessions.insert(), {"session": "s", "sender": "+33612345678"})
    assert "+33612345678" not in str(refused.value).partition("DETAIL")[0]


def test_without_the_driver_of_postgresql_one_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"pip install 'parley\[postgres\]'"):
        ArchiveDatabase("postgresql://db/parley")


# Locks and the watermark


def test_whoever_locks_a_shard_has_it_alone(archive_database):
    """On PostgreSQL others take another shard meanwhile; a file has one writer."""
    if archive_database.is_sqlite:
        other = sqlite3.connect(archive_database.url.database, timeout=0)
        with archive_database.writing(), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.close()
        return
    with archive_database.writing() as connection:
        archive_database.make_positions(connection, EVENTS_SOURCE, 2)
    with archive_database.writing() as one, archive_database.writing() as two:
        assert archive_database.lock_position(one, EVENTS_SOURCE, 0) == Position(0, 0, 0)
        assert archive_database.try_lock_positions(two, EVENTS_SOURCE, [0, 1]) == {1: Position(0, 0, 0)}


def test_a_process_that_starts_does_not_wait_for_one_that_stands_still(postgresql_server):
    """As `archive` does at its start: it makes what rows there are not yet."""
    url = postgresql_server.url(postgresql_server.create_database())
    late, starting = ArchiveDatabase(url), ArchiveDatabase(url, busy_timeout_s=1)
    archive_schema.migrate(late)
    with late.writing() as connection:
        late.make_positions(connection, EVENTS_SOURCE, 2)
    with late.writing() as standing:
        late.move_position(standing, EVENTS_SOURCE, 0, Position(5, 0, 70))
        with starting.writing() as connection:
            starting.make_positions(connection, EVENTS_SOURCE, 3)
    with late.reading() as connection:
        moved = [read_position(connection, EVENTS_SOURCE, shard) for shard in range(3)]
    assert moved == [Position(5, 0, 70), Position(0, 0, 0), Position(0, 0, 0)]
    late.close()
    starting.close()


def test_the_watermark_is_that_of_the_shard_that_is_furthest_behind(archive_database):
    with archive_database.writing() as connection:
        assert read_watermark(connection) == 0
        archive_database.make_positions(connection, EVENTS_SOURCE, 2)
        archive_database.lock_position(connection, "audit", 0)
        archive_database.move_position(connection, EVENTS_SOURCE, 0, Position(5, 0, 70))
        assert read_watermark(connection) == 0
        archive_database.move_position(connection, EVENTS_SOURCE, 1, Position(9, 0, 60))
        assert read_watermark(connection) == 60
