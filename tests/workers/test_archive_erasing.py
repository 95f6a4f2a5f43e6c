"""Of an erased person the archive has nothing either, whatever the archiver was about to write, on both databases."""

import json
import os
import sqlite3
from pathlib import Path
from threading import Thread

import msgspec
import pytest
from click.testing import CliRunner
from sqlalchemy import func, insert, or_, select, text

from config.archive import tables
from config.archive.database import ArchiveDatabase
from config.settings.config_errors import Secret
from config.store import keyspace
from engine.model.events import ReceiptRecorded, SessionOpened, SmsSent, encode_event
from tests.support.archiving import archive_everything
from tests.support.processes import Process, procfile
from tests.support.waiting import HANG_S, until
from workers.archiving import erasing
from workers.archiving.erasing import erase_sender
from workers.commands.erase import erase
from workers.commands.transcript import transcript
from workers.erasure.sender_eraser import ArchiveNotErasedError, SenderEraser
from workers.store.optouts import open_opt_out_list

ANNA, BORIS = "+33600000001", "+33600000002"
BY_SENDER = ("entries", "sessions", "messages", "sends", "receipts", "refusals")


@pytest.fixture
def town(pipeline, monkeypatch, tmp_path, valkey):
    """A pipeline, and an archive that there is not yet."""
    town = pipeline()
    monkeypatch.setenv("PARLEY_REDIS_URL", valkey.url)
    monkeypatch.setenv("PARLEY_BROKER_URL", valkey.broker_url)
    monkeypatch.setenv("PARLEY_CONFIG", str(tmp_path / "parley.toml"))
    return town


def shards(town):
    return town.world.settings.shards


def shard(town, sender):
    return keyspace.shard_of(sender, shards(town))


def eraser(town):
    return SenderEraser(town.world, open_opt_out_list(town.client, shards(town), ""))


def converse(town, sender):
    """Have a session that ends, one that does not, a stop, and a START that is refused, with sends and receipts."""
    town.accept(sender, "START", "Ada", "old", "36", "hello?", "START", "STOP", "again?")
    town.drain()
    session = next(record.session for record in town.records(sender) if isinstance(record, SessionOpened))
    for record in (
        SmsSent(1, "clinic", session, f"{session}x0", f"ticket-{sender}"),
        ReceiptRecorded(2, "clinic", f"ticket-{sender}", "DELIVERED", "delivered"),
    ):
        entry = {"to": sender, "e": encode_event([record])}
        town.client.xadd(keyspace.events_key(shard(town, sender)), entry)


def archived_rows(archive, sender):
    """How many rows of each table bear the number, or a session of theirs; without those that have none."""
    with archive.reading() as connection:
        entries = tables.entries.c
        theirs = select(entries.session).where(entries.sender == sender, entries.session != "")
        found = {}
        for table in tables.METADATA.sorted_tables:
            conditions = []
            if "sender" in table.c:
                conditions.append(table.c.sender == sender)
            if "session" in table.c:
                conditions.append(table.c.session.in_(theirs))
            if conditions:
                count = select(func.count()).select_from(table).where(or_(*conditions))
                found[table.name] = connection.execute(count).scalar_one()
    return {name: rows for name, rows in found.items() if rows}


def test_nothing_is_left_of_one_and_all_of_the_other(town, sqlite_archive):
    for sender in (ANNA, BORIS):
        converse(town, sender)
    archive_everything(town.client, shards(town), sqlite_archive)
    others, theirs = archived_rows(sqlite_archive, BORIS), archived_rows(sqlite_archive, ANNA)
    assert {"entries", "sessions", "answers", "messages", "sends", "receipts"} <= theirs.keys()
    looked, erased = eraser(town).count_traces(ANNA), eraser(town).erase(ANNA)
    assert looked == erased
    assert {name: getattr(erased, f"archive_{name}") for name in theirs} == theirs
    assert archived_rows(sqlite_archive, ANNA) == {}
    assert archived_rows(sqlite_archive, BORIS) == others
    with sqlite_archive.reading() as connection:
        hashes = connection.execute(select(tables.opt_outs.c.number_hash)).scalars().all()
    assert len(hashes) == 2, "that they said stop is kept, without the number"
    assert eraser(town).erase(ANNA).archive_entries == 0


def test_what_only_the_archive_has_is_removed_too(town, sqlite_archive):
    converse(town, ANNA)
    archive_everything(town.client, shards(town), sqlite_archive)
    town.client.delete(*town.client.keys("*:events"), *town.client.keys("*:lane:*"))
    assert eraser(town).erase(ANNA).archive_entries > 0
    assert archived_rows(sqlite_archive, ANNA) == {}


def test_a_person_of_many_pages_is_removed_whole(town, sqlite_archive, monkeypatch):
    monkeypatch.setattr(erasing, "ROWS_A_PAGE", 2)
    converse(town, ANNA)
    archive_everything(town.client, shards(town), sqlite_archive)
    rows = archived_rows(sqlite_archive, ANNA)
    assert rows["messages"] > 4
    erased = erase_sender(sqlite_archive, shard(town, ANNA), ANNA)
    assert {name: getattr(erased, name) for name in rows} == rows
    assert archived_rows(sqlite_archive, ANNA) == {}


def test_without_an_archive_there_is_nothing_to_erase_there(town, sqlite_archive):
    converse(town, ANNA)
    assert eraser(town).erase(ANNA).archive_entries == 0
    assert sqlite_archive.is_missing, "erasing makes none"


# The number's bytes


def bytes_of(sqlite_url):
    """What is on the disk of the archive, its log included."""
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    return b"".join(each.read_bytes() for each in file.parent.glob(f"{file.name}*"))


def test_the_number_is_gone_from_the_file(town, sqlite_archive, sqlite_url):
    """SQLite leaves what is deleted in free space, unless told otherwise, and in its log."""
    for sender in (ANNA, BORIS):
        converse(town, sender)
    archive_everything(town.client, shards(town), sqlite_archive)
    assert ANNA.encode() in bytes_of(sqlite_url)
    town_eraser = eraser(town)
    town_eraser.erase(ANNA)
    assert not town_eraser.log_is_held
    assert ANNA.encode() not in bytes_of(sqlite_url)
    assert BORIS.encode() in bytes_of(sqlite_url)


def test_a_reader_that_keeps_it_in_the_log_is_told(town, sqlite_archive, sqlite_url, monkeypatch):
    converse(town, ANNA)
    archive_everything(town.client, shards(town), sqlite_archive)
    monkeypatch.setattr(
        "workers.erasure.sender_eraser.ArchiveDatabase", lambda url: ArchiveDatabase(url, 0.1)
    )
    reader = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM entries").fetchone()
    try:
        done = CliRunner().invoke(erase, [ANNA, "--yes"])
    finally:
        reader.close()
    assert done.exit_code == 0
    assert "the archive is being read" in done.stderr
    assert archived_rows(sqlite_archive, ANNA) == {}


# An archive that is away


def test_an_archive_that_cannot_be_written_is_told_and_the_next_time_it_is_erased(
    town, sqlite_archive, sqlite_url, monkeypatch
):
    converse(town, ANNA)
    archive_everything(town.client, shards(town), sqlite_archive)
    monkeypatch.setattr(
        "workers.erasure.sender_eraser.ArchiveDatabase", lambda url: ArchiveDatabase(url, 0.1)
    )
    writer = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    try:
        done = CliRunner().invoke(erase, [ANNA, "--yes", "--json"])
    finally:
        writer.close()
    assert done.exit_code == 1
    assert (
        "Redis has nothing of them any more, but the archive has what it had: database is locked"
        in done.stderr
    )
    assert done.stdout == "", "no counts that look like success"
    assert archived_rows(sqlite_archive, ANNA)
    again = CliRunner().invoke(erase, [ANNA, "--yes", "--json"])
    assert again.exit_code == 0
    assert json.loads(again.stdout)["archive_entries"] > 0
    assert archived_rows(sqlite_archive, ANNA) == {}


def test_an_archive_that_has_been_seen_and_is_not_here_is_not_taken_for_none(town):
    town.client.set(keyspace.archived_key(3), "1-0")
    done = CliRunner().invoke(erase, [ANNA, "--yes"])
    assert done.exit_code == 1
    assert "not where PARLEY_ARCHIVE_URL says" in done.stderr
    assert CliRunner().invoke(erase, [ANNA, "--dry-run"]).exit_code == 1


def test_an_archive_of_another_deployment_is_left_alone(town, sqlite_archive):
    converse(town, ANNA)
    archive_everything(town.client, shards(town), sqlite_archive)
    with sqlite_archive.writing() as connection:
        connection.execute(insert(tables.deployment), {"name": "id", "value": b"one"})
    town.client.set(keyspace.DEPLOYMENT_KEY, "another")
    rows = archived_rows(sqlite_archive, ANNA)
    done = CliRunner().invoke(erase, [ANNA, "--yes"])
    assert (done.exit_code, "is of another deployment" in done.stderr) == (1, True)
    assert archived_rows(sqlite_archive, ANNA) == rows
    assert "it is of another deployment" in CliRunner().invoke(transcript, [ANNA]).stderr
    town.client.set(keyspace.DEPLOYMENT_KEY, "one")
    assert CliRunner().invoke(erase, [ANNA, "--yes"]).exit_code == 0
    assert archived_rows(sqlite_archive, ANNA) == {}


def test_a_postgresql_that_does_not_answer_is_told(town):
    converse(town, ANNA)
    elsewhere = on_archive(town, "postgresql://parley@127.0.0.1:1/postgres")
    with pytest.raises(ArchiveNotErasedError, match="refused"):
        SenderEraser(elsewhere, open_opt_out_list(town.client, shards(town), "")).erase(ANNA)
    assert town.records(ANNA) == []


# The archiver is about to write


def on_archive(town, url):
    """The deployment, whose archive is another."""
    settings = msgspec.structs.replace(town.world.settings, archive_url=Secret(url))
    return msgspec.structs.replace(town.world, settings=settings)


def waits_for_a_lock(database):
    """Whether somebody does. SQLite does not tell, but lets no two write at once."""
    if database.is_sqlite:
        return True
    with database.reading() as connection:
        query = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return bool(connection.execute(query).scalar())


@pytest.mark.processes
@pytest.mark.parametrize("place", ["after_lock_position", "after_read_stream", "before_commit_page"])
def test_an_archiver_that_stands_still_brings_nobody_back(
    town, archive_url, archive_database, place, tmp_path, valkey
):
    """The real process has locked the shard, and has read the person's entries or is about to; they are erased; it goes on."""
    numbers = map("+3361000{:04}".format, range(999))
    hers, neighbour, *_ = (each for each in numbers if shard(town, each) == 0)  # which is looked at first
    for sender in (hers, neighbour):
        converse(town, sender)
    town.client.set(keyspace.ARCHIVE_RETENTION_KEY, "")  # or it would wait for the lock itself
    environment = {
        **os.environ,
        "PARLEY_REDIS_URL": valkey.url,
        "PARLEY_BROKER_URL": valkey.broker_url,
        "PARLEY_CONFIG": str(tmp_path / "parley.toml"),
        "PARLEY_SURVEYS": str(tmp_path / "surveys"),
        "PARLEY_ARCHIVE_URL": archive_url,
        "PARLEY_FAULT": f"stop:{place}",
    }
    archiver = Process("archive", procfile()["archive"], environment, tmp_path / "archive.log")
    try:
        archiver.wait_stopped()
        optouts = open_opt_out_list(town.client, shards(town), "")
        erasing_it = Thread(target=SenderEraser(on_archive(town, archive_url), optouts).erase, args=[hers])
        erasing_it.start()
        until(lambda: town.records(hers) == [], 10, "Redis has nothing of her any more")
        until(
            lambda: waits_for_a_lock(archive_database) or not erasing_it.is_alive(),
            10,
            "the archive's turn has come",
        )
        archiver.sigcont()
        erasing_it.join(HANG_S)
        until(
            lambda: archived_rows(archive_database, neighbour).get("messages", 0) > 4,
            10,
            "the other's is archived",
        )
    finally:
        archiver.kill9()
    assert archived_rows(archive_database, hers) == {}
