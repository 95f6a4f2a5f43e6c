"""What happened is read from the archive and from the stream as if they were one: no entry twice, none left out."""

import json

import pytest
from click.testing import CliRunner
from sqlalchemy import insert

from config.archive import tables
from config.store import keyspace
from config.store.entry_id import EntryId
from config.store.event_entries import plain_records
from tests.support.archiving import archive_everything, archive_page
from workers.commands.lane import lane
from workers.commands.replay import replay
from workers.commands.transcript import transcript
from workers.history import joined_history
from workers.history.joined_history import HistoryReader
from workers.store import event_stream

ANNA, BORIS = "+33600000001", "+33600000002"
NEVER_MS = 2**50


@pytest.fixture(params=["0", "1"], ids=["plain", "compact"])
def town(deploy, request):
    """A pipeline with two conversations, one of them with every kind of reply."""
    town = deploy(compact_records=request.param)
    for sender in (ANNA, BORIS):
        for text in ("hello", "START", "Ada", "old", "36", "START", "STOP"):
            town.accept(sender, text)
            town.drain()
    return town


def shards(town):
    return town.world.settings.shards


def shard(town, sender):
    return keyspace.shard_of(sender, shards(town))


def history(town, archive, sender):
    read = HistoryReader(town.client, archive).read_sender(shard(town, sender), sender)
    return [record for entry in read for record in entry.records]


def whole(town, archive, k):
    """What is read of a whole shard, entry by entry."""
    return [entry.content for entry in HistoryReader(town.client, archive).read_shard(k, NEVER_MS)]


def in_stream(town, k):
    return [plain_records(fields[b"e"]) for _, fields in town.client.xrange(keyspace.events_key(k))]


def trim(town, k):
    """Trim the stream as far as the archive is, as when the days are over for which Redis keeps it."""
    archived, _, _ = town.client.get(keyspace.archived_key(k)).partition(b" ")
    kept_from = str(EntryId.parse(archived).following)
    town.client.xtrim(keyspace.events_key(k), minid=kept_from, approximate=False)


@pytest.fixture
def lagging(town, sqlite_archive):
    """The archive has the first entries of each conversation, and the stream all."""
    archive_everything_of_none(town, sqlite_archive)
    for sender in (ANNA, BORIS):
        archive_page(town.client, shard(town, sender), sqlite_archive, size=3)
    return sqlite_archive


def archive_everything_of_none(town, archive):
    """Make the tables alone."""
    archive_everything(town.client, 0, archive)


def test_an_archive_that_lags_is_gone_on_with_from_the_stream(town, lagging):
    for sender in (ANNA, BORIS):
        assert history(town, lagging, sender) == town.records(sender)
        assert whole(town, lagging, shard(town, sender)) == in_stream(town, shard(town, sender))


def test_what_the_stream_has_not_any_more_comes_from_the_archive(town, lagging):
    records, entries = town.records(ANNA), in_stream(town, shard(town, ANNA))
    trim(town, shard(town, ANNA))
    assert len(town.records(ANNA)) < len(records)
    assert history(town, lagging, ANNA) == records
    assert whole(town, lagging, shard(town, ANNA)) == entries
    archive_everything(town.client, shards(town), lagging)
    trim(town, shard(town, ANNA))
    assert town.records(ANNA) == []
    assert history(town, lagging, ANNA) == records


def test_pages_of_one_entry_are_put_together_as_well(town, lagging, monkeypatch):
    monkeypatch.setattr(joined_history, "ARCHIVE_PAGE_SIZE", 1)
    monkeypatch.setattr(event_stream, "STREAM_PAGE_SIZE", 1)
    k = shard(town, ANNA)
    assert whole(town, lagging, k) == in_stream(town, k)


@pytest.mark.parametrize("page_size", [1, 2, 1_000])
@pytest.mark.parametrize("much", ["all", "some"])
@pytest.mark.parametrize("moment", ["before the stream is read", "after a page of it was read"])
def test_an_archive_that_goes_on_meanwhile_leaves_nothing_out(
    town, lagging, monkeypatch, moment, much, page_size
):
    """It takes what there is, and the stream is trimmed, between two looks of the reader."""
    monkeypatch.setattr(event_stream, "STREAM_PAGE_SIZE", page_size)
    k = shard(town, ANNA)
    expected = in_stream(town, k)
    going_on = [True]
    scan = joined_history.scan_pages

    def go_on():
        if going_on and going_on.pop():
            archive_page(town.client, k, lagging, size=1_000 if much == "all" else 2)
            trim(town, k)

    def scanned(*arguments):
        if moment.startswith("before"):
            go_on()
        for page in scan(*arguments):
            go_on()
            yield page

    monkeypatch.setattr(joined_history, "scan_pages", scanned)
    assert whole(town, lagging, k) == expected
    assert not going_on


def test_without_an_archive_the_stream_is_all(town):
    assert history(town, None, ANNA) == town.records(ANNA)


# Commands


def call(command, *arguments):
    return CliRunner().invoke(command, arguments)


@pytest.fixture
def kept(town, sqlite_archive):
    """All is in the archive, and nothing in Redis but the lanes: neither streams nor versions of surveys."""
    said = {sender: call(transcript, sender).stdout for sender in (ANNA, BORIS)}
    archive_everything(town.client, shards(town), sqlite_archive)
    survey = town.world.surveys.current("clinic")
    row = {
        "version": survey.version,
        "name": "clinic",
        "file": survey.file,
        "source": survey.source,
        "first_at": 1,
    }
    with sqlite_archive.writing() as connection:
        connection.execute(insert(tables.surveys), row)
    for name in (*town.client.keys("*:events"), keyspace.SURVEYS_KEY):
        town.client.delete(name)
    return said


def test_a_transcript_outlives_redis(town, kept):
    for sender in (ANNA, BORIS):
        assert call(transcript, sender).stdout == kept[sender]
    assert len(kept[ANNA].splitlines()) > 10


def test_conversations_run_again_from_the_archive(town, kept):
    done = call(replay, ANNA)
    assert done.exit_code == 0, done.output
    assert "come out the same, byte for byte" in done.output
    everything = call(replay, "--all")
    assert everything.output == "sessions: 4 same, 0 different, 0 cannot be run again\n"


def test_a_lane_shows_what_happened_last(town, kept):
    told = json.loads(call(lane, ANNA, "--json").stdout)
    assert [record["event"] for record in told["records"]] == [
        json.loads(line)["event"] for line in call(transcript, ANNA, "--json").stdout.splitlines()[-10:]
    ]


def test_a_lane_shows_first_what_the_archive_has_not_yet(town, kept, sqlite_archive):
    town.accept(ANNA, "and now?")
    town.drain()
    (fresh,) = (record for record in town.records(ANNA) if record.text == "and now?")
    told = json.loads(call(lane, ANNA, "--json").stdout)
    assert told["records"][-1]["text"] == fresh.text
    assert len(told["records"]) == 10
    archive_everything(town.client, shards(town), sqlite_archive)
    assert json.loads(call(lane, ANNA, "--json").stdout)["records"] == told["records"]


@pytest.mark.parametrize("command", [transcript, replay])
def test_an_archive_that_cannot_be_read_is_told_beside_what_redis_has(town, command, monkeypatch):
    monkeypatch.setenv("PARLEY_ARCHIVE_URL", "postgresql://parley@127.0.0.1:1/postgres")
    done = call(command, ANNA)
    assert done.exit_code == 0, done.output
    assert "the archive cannot be read: " in done.stderr
    assert "What follows is what Redis still has." in done.stderr


def test_a_lane_tells_that_the_archive_cannot_be_read(town, monkeypatch):
    monkeypatch.setenv("PARLEY_ARCHIVE_URL", "postgresql://parley@127.0.0.1:1/postgres")
    told = json.loads(call(lane, ANNA, "--json").stdout)
    assert any(each.startswith("the archive cannot be read: ") for each in told["unreadable"])
    assert len(told["records"]) == 10


def test_an_archive_that_was_seen_and_is_not_here_is_told(town):
    town.client.set(keyspace.archived_key(0), "1-0")
    assert "it is not here, though it has been seen" in call(transcript, ANNA).stderr
    town.client.delete(keyspace.archived_key(0))
    assert call(transcript, ANNA).stderr == ""
