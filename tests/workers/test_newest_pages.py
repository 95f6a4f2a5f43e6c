"""What happened with a person is read from the newest, page by page, of stream and archive: no entry twice, and none left out."""

import pytest
from sqlalchemy import update

from config.archive import tables
from config.archive.archived_entries import read_end
from config.store import keyspace
from tests.support.archiving import archive_everything, archive_page
from tests.workers.test_joined_history import shard, trim
from workers.history import newest_pages
from workers.history.newest_pages import NewestPagesReader
from workers.history.session_owner import find_session_owner

ANNA, BORIS = "+33600000001", "+33600000002"


@pytest.fixture
def town(deploy):
    """Two conversations in one shard."""
    town = deploy(shards=1)
    for text in ("hello", "START", "Ada", "old", "36", "START", "STOP"):
        for sender in (ANNA, BORIS):
            town.accept(sender, text)
            town.drain()
    return town


def pages(town, archive, limit, sender=ANNA):
    """Every page, the newest first."""
    reader, before = NewestPagesReader(town.client, archive), None
    found = []
    while True:
        page = reader.read_page(shard(town, sender), sender, before, limit)
        assert page.unread == []
        found.append(page.records)
        if page.before is None:
            return found
        before = page.before


def whole(town, archive, limit):
    return [record for page in reversed(pages(town, archive, limit)) for record in page]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("archived", [None, 0, 1, 5, 100])
@pytest.mark.parametrize("trimmed", [False, True])
def test_pages_are_the_whole_history_wherever_it_is(town, sqlite_archive, limit, archived, trimmed):
    expected = town.records(ANNA)
    if archived is not None:
        archive_everything(town.client, 0, sqlite_archive)  # the tables
        if archived:
            archive_page(town.client, 0, sqlite_archive, size=archived)
            if trimmed:
                trim(town, 0)
    assert whole(town, sqlite_archive if archived is not None else None, limit) == expected


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_an_archive_that_goes_on_meanwhile_leaves_nothing_out(town, sqlite_archive, monkeypatch, limit):
    archive_everything(town.client, 0, sqlite_archive)
    archive_page(town.client, 0, sqlite_archive, size=2)
    expected = town.records(ANNA)
    looks = []

    def looked(connection, k):
        """Each look at the archive finds it further, and the stream trimmed, than a moment before."""
        looks.append(k)
        return read_end(connection, k)

    read_stream = NewestPagesReader._read_stream

    def read_and_go_on(self, *arguments):
        found = read_stream(self, *arguments)
        archive_page(town.client, 0, sqlite_archive, size=2)
        trim(town, 0)
        return found

    monkeypatch.setattr(newest_pages, "read_end", looked)
    monkeypatch.setattr(NewestPagesReader, "_read_stream", read_and_go_on)
    assert whole(town, sqlite_archive, limit) == expected
    assert looks


def test_no_more_of_a_stream_is_looked_through_than_a_few_pages(town, monkeypatch):
    monkeypatch.setattr(newest_pages, "STREAM_PAGE_SIZE", 2)
    monkeypatch.setattr(newest_pages, "MAX_STREAM_PAGES", 1)
    found = pages(town, None, 100)
    assert len(found) > 3
    assert [record for page in reversed(found) for record in page] == town.records(ANNA)


def test_what_cannot_be_read_is_said_and_hides_nothing_else(town, sqlite_archive):
    archive_everything(town.client, 1, sqlite_archive)
    with sqlite_archive.writing() as connection:
        first = town.client.xrange(keyspace.events_key(0))[0][0].partition(b"-")[0]
        connection.execute(
            update(tables.entries).where(tables.entries.c.entry_ms == int(first)).values(records=b"\xff")
        )
    page = NewestPagesReader(town.client, sqlite_archive).read_page(0, ANNA, None, 100)
    assert [sentence for sentence in page.unread if "cannot be read" in sentence]
    assert page.records


def test_a_session_leads_to_its_person_by_redis_and_by_the_archive(town, sqlite_archive):
    archive_everything(town.client, 1, sqlite_archive)
    session = next(record.session for record in town.records(BORIS) if getattr(record, "session", ""))
    assert find_session_owner(town.client, 1, None, session) == BORIS
    town.client.delete(keyspace.session_key(0, session))
    assert find_session_owner(town.client, 1, None, session) is None
    assert find_session_owner(town.client, 1, sqlite_archive, session) == BORIS
    town.client.set(keyspace.session_key(0, session), "")
    assert find_session_owner(town.client, 1, sqlite_archive, session) is None, "it was forgotten on purpose"
