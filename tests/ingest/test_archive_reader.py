"""The archive is read beside the event loop, within bounds: one that is slow, locked or dead holds up nobody else."""

import asyncio
import sqlite3
import time
from threading import Event, active_count

import pytest
from sqlalchemy import text

from config.archive import archive_schema
from config.archive.database import ArchiveDatabase
from ingest.api.archive_reader import MAX_READS, ArchiveReader, ArchiveUnavailableError
from tests.support.waiting import HANG_S, until

SHORT_S = 0.3
ENDLESS = text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n")


@pytest.fixture
def url(tmp_path):
    """An archive without anything in it."""
    url = f"sqlite:///{tmp_path / 'archive.db'}"
    database = ArchiveDatabase(url)
    archive_schema.migrate(database)
    database.close()
    return url


def one(connection):
    return connection.execute(text("SELECT 1")).scalar()


def read(url, *functions, deadline_s=SHORT_S):
    """What comes of these reads, made at once, each an answer or an error."""

    async def run():
        reader = ArchiveReader(url, deadline_s)
        try:
            async with asyncio.timeout(HANG_S):
                return await asyncio.gather(*(reader.run(each) for each in functions), return_exceptions=True)
        finally:
            reader.close()

    return asyncio.run(run())


def test_a_read_is_answered_and_what_it_raises_is_raised(url):
    def fail(connection):
        raise LookupError("nothing there")

    answered, raised = read(url, one, fail, deadline_s=HANG_S)
    assert answered == 1
    assert isinstance(raised, LookupError)


def test_more_reads_than_there_are_places_take_turns(url):
    assert read(url, *[one] * (3 * MAX_READS), deadline_s=HANG_S) == [1] * (3 * MAX_READS)


def test_an_archive_that_is_not_there_is_said_to_be_away_and_is_not_made(tmp_path):
    (error,) = read(f"sqlite:///{tmp_path / 'none.db'}", one)
    assert isinstance(error, ArchiveUnavailableError)
    assert (error.status_code, error.headers["Retry-After"]) == (503, "5")
    assert str(tmp_path) not in (error.description or ""), "a stranger is told no path"
    assert not (tmp_path / "none.db").exists()


def test_one_without_tables_is_said_to_be_away(tmp_path):
    sqlite3.connect(tmp_path / "empty.db").close()
    (error,) = read(f"sqlite:///{tmp_path / 'empty.db'}", one)
    assert isinstance(error, ArchiveUnavailableError)


def test_a_statement_that_takes_too_long_is_ended_by_its_database(url):
    """Or its thread would go on, and the places would soon be taken by what nobody waits for."""
    threads = active_count()
    (error,) = read(url, lambda connection: connection.execute(ENDLESS).scalar())
    assert isinstance(error, ArchiveUnavailableError)
    until(lambda: active_count() <= threads, 5, "the read's thread has ended")


def test_what_stands_still_keeps_no_more_than_its_places_and_the_loop_goes_on(url):
    going_on, begun = Event(), []

    def stand_still(connection):
        begun.append(1)
        going_on.wait(HANG_S)
        return 1

    async def run():
        reader = ArchiveReader(url, SHORT_S)
        beats = 0
        reads = asyncio.gather(*(reader.run(stand_still) for _ in range(20)), return_exceptions=True)
        while not reads.done():
            await asyncio.sleep(SHORT_S / 100)
            beats += 1
        late = await reads
        with pytest.raises(ArchiveUnavailableError):
            await reader.run(one)
        going_on.set()
        async with asyncio.timeout(HANG_S):
            while True:
                try:
                    return late, beats, await reader.run(one)
                except ArchiveUnavailableError:
                    pass

    late, beats, answer = asyncio.run(run())
    assert [type(each) for each in late] == [ArchiveUnavailableError] * 20
    assert len(begun) == MAX_READS
    assert beats >= 3
    assert answer == 1


def test_a_locked_file_is_waited_for_no_longer_than_the_deadline(url, tmp_path):
    threads = active_count()
    locked = sqlite3.connect(tmp_path / "archive.db", isolation_level=None)
    locked.execute("PRAGMA locking_mode=EXCLUSIVE")
    locked.execute("BEGIN EXCLUSIVE")
    try:
        begun_s = time.monotonic()
        (error,) = read(url, one)
        assert isinstance(error, ArchiveUnavailableError)
        assert time.monotonic() - begun_s < HANG_S / 2
    finally:
        locked.close()
    until(lambda: active_count() <= threads, 5, "the read's thread has ended")
    assert read(url, one, deadline_s=HANG_S) == [1]
