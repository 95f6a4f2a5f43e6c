"""kill -9 of `archive` at every step, while a database or Redis goes away, beside others that are late: each entry is in the
archive once, in order, and what is made of them is as if nothing had happened."""

import time

import pytest

from config.archive.database import ArchiveDatabase
from config.settings.settings import DEFAULT_SHARDS
from config.store import keyspace
from config.store.keyspace import SHARDS_TOGETHER
from tests.support.archiving import (
    add_entries,
    archived_entries,
    derived_rows,
    projected_at_once,
    stream_entries,
    table_rows,
    talk,
)
from tests.support.waiting import until
from workers.archiving.stream_archiver import GROUPS_AT_ONCE

SHARDS = DEFAULT_SHARDS
AT = round(time.time() * 1000) - 3_600_000
"""An hour ago, so that it is to be kept."""
STEPS = (
    "after_lock_position",
    "after_read_stream",
    "before_commit_page",
    "after_commit_page",
    "after_note_archived",
)
SAME = ("sessions", "answers", "variables", "messages", "sends", "receipts", "refusals")
"""Tables in which no number is hidden by the deployment's key."""


@pytest.fixture
def client(own_valkey):
    """Of a deployment that has begun, or what is said before anybody starts would be taken for 0.1.0's."""
    client = own_valkey.client()
    client.set(keyspace.SHARDS_KEY, SHARDS)
    return client


@pytest.fixture
def database(archive_url):
    database = ArchiveDatabase(archive_url)
    yield database
    database.close()


def sender(n):
    return f"+336{n:08}"


def say(client, sessions):
    """Let these people talk, each in their shard."""
    for n in sessions:
        add_entries(client, keyspace.shard_of(sender(n), SHARDS), sender(n), talk(f"s{n}", AT + n))


def has_all(client, database):
    return bool(table_rows_or_none(database)) and archived_entries(database) == stream_entries(client, SHARDS)


def table_rows_or_none(database):
    """The positions; None while there is no schema yet."""
    try:
        return table_rows(database, "positions")
    except Exception:  # noqa: BLE001 (there is no file, or no table)
        return None


def judge(client, database, tmp_path):
    """All is there, once and in order, and so is what is made of it."""
    until(lambda: has_all(client, database), 30, "all is archived")
    found = derived_rows(database)
    at_once = projected_at_once(stream_entries(client, SHARDS), f"sqlite:///{tmp_path / 'at-once.db'}")
    assert {name: found[name] for name in SAME} == {name: at_once[name] for name in SAME}


def noted_all(client):
    """Does Redis know that the archive has everything?"""
    for k in range(SHARDS):
        last = client.xrevrange(keyspace.events_key(k), count=1)
        if last and client.get(keyspace.archived_key(k)).split()[0] != last[0][0]:
            return False
    return True


@pytest.mark.parametrize("fault", STEPS)
def test_a_death_at_any_step_loses_nothing_and_doubles_nothing(
    deployment, client, database, archive_url, tmp_path, fault
):
    say(client, range(20))
    victim = deployment.spawn("archive", fault, PARLEY_ARCHIVE_URL=archive_url)
    victim.wait_dead()
    say(client, range(20, 30))
    victim.restart()
    judge(client, database, tmp_path)
    until(lambda: noted_all(client), 10, "Redis is told")
    assert victim.alive


def test_one_that_stands_still_in_a_transaction_does_no_harm_when_it_wakes(
    deployment, client, database, archive_url, tmp_path
):
    """On PostgreSQL another goes on with all other groups of shards; a file waits."""
    say(client, range(20))
    late = deployment.spawn("archive", "stop:before_commit_page", PARLEY_ARCHIVE_URL=archive_url)
    late.wait_stopped()
    other = deployment.spawn("archive", PARLEY_ARCHIVE_URL=archive_url)
    if not database.is_sqlite:

        def waiting_groups():
            done = {row[0] for row in archived_entries(database)}
            return {row[0] // SHARDS_TOGETHER for row in stream_entries(client, SHARDS) if row[0] not in done}

        until(
            lambda: 1 <= len(waiting_groups()) <= GROUPS_AT_ONCE + 1,
            30,
            "all are archived but those that it has, and what it may be tidying",
        )
    late.sigcont()
    say(client, range(20, 30))
    judge(client, database, tmp_path)
    assert other.alive
    assert late.alive


def test_a_database_that_goes_away_is_waited_for(deployment, client, own_postgresql, tmp_path):
    url = own_postgresql.url(own_postgresql.create_database())
    own_postgresql.stop()
    process = deployment.spawn("archive", PARLEY_ARCHIVE_URL=url)
    until(lambda: b"nothing is archived" in process.log.read_bytes(), 20, "it says that the database is away")
    own_postgresql.start()
    database = ArchiveDatabase(url)
    say(client, range(10))
    judge(client, database, tmp_path)
    own_postgresql.stop()
    say(client, range(10, 20))
    until(lambda: process.log.read_bytes().count(b"nothing is archived") >= 2, 20, "it says so again")
    own_postgresql.start()
    (tmp_path / "at-once.db").unlink()
    judge(client, database, tmp_path)
    assert process.alive, "it was never started again"
    assert b"a-password" not in process.log.read_bytes()
    database.close()


def test_a_redis_that_goes_away_is_waited_for(deployment, own_valkey, database, archive_url, tmp_path):
    process = deployment.spawn("archive", PARLEY_ARCHIVE_URL=archive_url)
    until(lambda: b"running" in process.log.read_bytes(), 20, "it runs")
    until(lambda: table_rows_or_none(database), 20, "it is paired")
    own_valkey.kill9()
    until(
        lambda: b'"reason":"redis"' in process.log.read_bytes().replace(b" ", b""),
        20,
        "it says that Redis is away",
    )
    own_valkey.start()
    say(own_valkey.client(), range(10))
    judge(own_valkey.client(), database, tmp_path)
    assert process.alive


def test_one_on_another_deployments_redis_ends_and_is_not_started_again(
    deployment, client, own_valkey, database, archive_url
):
    say(client, range(3))
    process = deployment.spawn("archive", PARLEY_ARCHIVE_URL=archive_url)
    until(lambda: has_all(client, database), 30, "all is archived")
    own_valkey.client().flushall()
    assert process.wait_dead() == 2
    said = process.log.read_text()
    assert "set PARLEY_ARCHIVE_URL to another archive" in said
    assert "a-password" not in said
    assert len(archived_entries(database)) == 12


def test_conversations_are_archived_while_they_go_on(
    deployment, play, client, database, archive_url, tmp_path
):
    """With two copies, one of which dies on and on."""
    deployment.start(archive=0)
    first = deployment.spawn("archive", "before_commit_page@2", PARLEY_ARCHIVE_URL=archive_url)
    with deployment.respawning():
        died = first.pid
        play.hold(range(3))
        until(lambda: first.pid != died, 30, "it has died once")
        second = deployment.spawn("archive", PARLEY_ARCHIVE_URL=archive_url)
        play.hold(range(3, 6))
        until(lambda: has_all(client, database), 30, "all is archived")
    assert second.alive
    play.judge()
    judge(client, database, tmp_path)
    sessions = table_rows(database, "sessions")
    assert [row[8] for row in sessions] == ["completed"] * 6
    assert {row[1] for row in table_rows(database, "surveys")} == {"clinic"}
