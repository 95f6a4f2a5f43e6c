"""What fails while it is archived is waited for: a full disk, a commit whose reply is lost, a process that was late."""

from contextlib import contextmanager
from threading import Event, Thread

import pytest
import sqlalchemy
from structlog.testing import capture_logs

from config.archive import archive_schema
from config.archive.database import EVENTS_SOURCE, ArchiveDatabase
from config.store import keyspace
from config.telemetry import metrics
from tests.support.archiving import (
    add_entries,
    archived_entries,
    hash_number,
    shard_groups,
    stream_entries,
    talk,
)
from tests.support.proxy import Proxy
from tests.support.waiting import until
from workers.archiving import archive_loop, stream_archiver
from workers.archiving.archive_loop import archive_until_stopped, error_reason
from workers.archiving.deployment_pairing import pair_with_redis
from workers.archiving.stream_archiver import StreamArchiver
from workers.store import survey_versions

SHARDS = 2
AT = 1_700_000_000_000
ANNA = "+33600000001"


@pytest.fixture
def client(valkey):
    client = valkey.client()
    client.hset(
        keyspace.SURVEYS_KEY, "v1", survey_versions.encode_survey_file(("clinic.yaml", b"survey: clinic"))
    )
    return client


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(archive_loop, "POLL_INTERVAL_S", 0.01)
    monkeypatch.setattr(archive_loop, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(archive_loop, "LONGEST_PAUSE_S", 0.05)


class Stop:
    """As a process's StopSignal."""

    def __init__(self):
        self.told = Event()

    def wait(self, timeout_s=None):
        return self.told.wait(timeout_s)


def preparing(client, database):
    def prepare():
        archive_schema.migrate(database)
        deployment = pair_with_redis(client, database, SHARDS)
        with database.writing() as connection:
            database.make_positions(connection, EVENTS_SOURCE, SHARDS)
        return StreamArchiver(client, database, shard_groups(client, SHARDS), deployment, hash_number)

    return prepare


@contextmanager
def archiving(client, database):
    """Meanwhile, a process's loop runs."""
    stop = Stop()
    thread = Thread(target=archive_until_stopped, args=(preparing(client, database), stop))
    thread.start()
    try:
        yield
    finally:
        stop.told.set()
        thread.join()


def failures(reason):
    return metrics.ARCHIVE_ERRORS.labels(reason)._value.get()


def test_a_full_disk_is_waited_for_and_loses_nothing(client, tmp_path):
    database = ArchiveDatabase(f"sqlite:///{tmp_path / 'archive.db'}")
    archive_schema.migrate(database)
    pages = []

    @sqlalchemy.event.listens_for(database.engine, "connect")
    def limit(connection, _record):
        if pages:
            connection.execute(f"PRAGMA max_page_count={pages[0]}")

    with database.writing() as connection:
        pages.append(connection.exec_driver_sql("PRAGMA page_count").scalar() + 2)
    database.engine.dispose()
    before = failures("disk_full")
    for n in range(40):
        add_entries(client, n % SHARDS, ANNA, talk(f"s{n}", AT + n))
    with capture_logs() as logs, archiving(client, database):
        until(lambda: failures("disk_full") > before + 3, 20, "the disk is full, again and again")
        pages.clear()
        database.engine.dispose()
        until(lambda: archived_entries(database) == stream_entries(client, SHARDS), 20, "all is archived")
    told = [each["event"] for each in logs]
    assert told == ["nothing is archived; it is tried again", "archiving again"]
    assert (logs[0]["reason"], logs[0]["why"]) == ("disk_full", "database or disk is full")
    database.close()


def test_a_commit_whose_reply_is_lost_is_not_made_twice(client, postgresql_server):
    name = postgresql_server.create_database()
    with Proxy(postgresql_server.url(name)) as proxy:
        database = ArchiveDatabase(postgresql_server.url(name, proxy.port))
        looked_at = ArchiveDatabase(postgresql_server.url(name))  # which commits too
        archive_schema.migrate(database)
        add_entries(client, 0, ANNA, talk("s0", AT))
        with archiving(client, database):
            until(lambda: len(archived_entries(looked_at)) == 4, 20, "it archives")
            before = failures("database")
            proxy.lose_replies(b"COMMIT", times=3)
            for n in range(1, 20):
                add_entries(client, n % SHARDS, ANNA, talk(f"s{n}", AT + n))
            until(
                lambda: archived_entries(looked_at) == stream_entries(client, SHARDS), 20, "all is archived"
            )
            until(lambda: proxy.lost == 3, 20, "replies were lost")
        assert failures("database") > before
        assert archived_entries(looked_at) == stream_entries(client, SHARDS)
        looked_at.close()
        database.close()
    postgresql_server.drop_database(name)


def test_one_that_hangs_in_a_transaction_is_ended_by_the_server_and_commits_nothing(
    client, postgresql_server, monkeypatch
):
    """Else it would keep its shard from everybody for ever."""
    monkeypatch.setattr("config.archive.database.WRITER_SILENCE_S", 1)
    monkeypatch.setattr(stream_archiver, "GROUPS_AT_ONCE", 1)
    name = postgresql_server.create_database()
    databases = [ArchiveDatabase(postgresql_server.url(name)) for _ in range(2)]
    late, other = (preparing(client, database)() for database in databases)
    add_entries(client, 0, ANNA, talk("s0", AT))
    hangs, wakes = Event(), Event()
    errors = []

    def reach(place):
        if place == "before_commit_page" and not hangs.is_set():
            hangs.set()
            wakes.wait()

    def run_late():
        try:
            late.run_round()
        except sqlalchemy.exc.SQLAlchemyError as e:
            errors.append(error_reason(e))

    monkeypatch.setattr(stream_archiver.faults, "reach", reach)
    thread = Thread(target=run_late)
    thread.start()
    try:
        assert hangs.wait(30)
        until(
            lambda: other.run_round() or archived_entries(databases[1]), 20, "the other takes the shard over"
        )
    finally:
        wakes.set()
        thread.join()
    assert errors == ["database"]
    assert archived_entries(databases[1]) == stream_entries(client, SHARDS)
    for database in databases:
        database.close()
    postgresql_server.drop_database(name)


def test_what_is_in_the_way_has_a_word():
    full = sqlalchemy.exc.OperationalError("", {}, type("DiskFull", (Exception,), {"sqlstate": "53100"})())
    assert error_reason(full) == "disk_full"
    assert (
        error_reason(sqlalchemy.exc.OperationalError("", {}, Exception("connection refused"))) == "database"
    )
    assert error_reason(KeyError("x")) == "unexpected"
