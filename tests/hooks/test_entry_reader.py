"""What follows a position, wherever it lies by now: in the stream, in the archive, or in a server that has lost its tail."""

from collections import Counter

import pytest

from config.archive import archive_schema
from config.store import keyspace
from config.store.entry_id import BEGINNING, EntryId
from tests.hooks.test_telling import AT, EVENTS_OF_A_TALK, SHARDS, say, sender
from tests.support.archiving import add_entries, archive_everything, talk
from tests.support.telling import hook_to, telling
from tests.support.waiting import until
from workers.hooks import endpoint_runner, event_source
from workers.hooks.archive_questions import ArchiveQuestions
from workers.hooks.entry_reader import EntryReader


@pytest.fixture
def archive(archive_database):
    archive_schema.migrate(archive_database)
    return archive_database


def trim(client, k, keep):
    client.xtrim(keyspace.events_key(k), maxlen=keep, approximate=False)


def read_all(reader, k, position, most):
    """Everything that follows, page by page."""
    found = []
    while True:
        page = reader.read(k, position, most)
        found += [entry.id for entry in page.entries]
        if page.is_all:
            return found
        position = page.entries[-1].id


def ids(client, k):
    return [EntryId.parse(entry_id) for entry_id, _ in client.xrange(keyspace.events_key(k))]


@pytest.mark.parametrize("most", [1, 3, 4, 100])
@pytest.mark.parametrize("kept", [0, 1, 2, 5, 8])
def test_nothing_is_left_out_and_nothing_comes_twice_however_much_was_trimmed(client, archive, kept, most):
    for n in range(2):
        add_entries(client, 0, sender(n), talk(f"s{n}", AT))
    everything = ids(client, 0)
    archive_everything(client, 1, archive)
    trim(client, 0, kept)
    reader = EntryReader(client, ArchiveQuestions(client, archive))
    for at, position in enumerate([BEGINNING, *everything]):
        assert read_all(reader, 0, position, most) == everything[at:]
    add_entries(client, 0, sender(3), talk("s3", AT))
    everything += ids(client, 0)[-4:]
    for at, position in enumerate([BEGINNING, *everything]):
        assert read_all(reader, 0, position, most) == everything[at:]


def test_what_is_deleted_is_not_told(client, archive):
    """As an erased person's entries are, in Redis and in the archive."""
    add_entries(client, 0, sender(1), talk("s1", AT))
    first, second, third, fourth = ids(client, 0)
    client.xdel(keyspace.events_key(0), str(second), str(third))
    reader = EntryReader(client, ArchiveQuestions(client, archive))
    for position in (first, second, third):
        assert read_all(reader, 0, position, 100) == [fourth]


def test_an_endpoint_that_was_away_for_weeks_gets_what_the_archive_has(client, archive, endpoint):
    hook = hook_to(endpoint, events=["session.opened", "answer.given", "session.ended"])
    say(client, range(8))
    with telling(client, SHARDS, [hook], archive):
        until(lambda: len(endpoint.taken) == 24, 10, "it is told")
    say(client, range(8, 16))
    archive_everything(client, SHARDS, archive)
    for k in range(SHARDS):
        trim(client, k, 0)
    say(client, range(16, 24))
    with telling(client, SHARDS, [hook], archive):
        until(lambda: len(endpoint.taken) == 72, 10, "it is told the rest")
    told = [(event["subject"], event["type"]) for event in endpoint.taken]
    assert len(set(told)) == 72
    assert {event["data"]["survey"] for event in endpoint.taken} == {"clinic"}


def test_an_event_is_known_as_the_same_whether_the_stream_or_the_archive_tells_it(client, archive, endpoint):
    say(client, range(4))
    with telling(client, SHARDS, [hook_to(endpoint, "before", "/before")], archive):
        until(lambda: len(endpoint.of("/before")) == 28, 10, "it is told")
    archive_everything(client, SHARDS, archive)
    for k in range(SHARDS):
        trim(client, k, 0)
    with telling(client, SHARDS, [hook_to(endpoint, "after", "/after")], archive):
        until(lambda: len(endpoint.of("/after")) == 28, 10, "it is told")
    by_id = {event["id"]: event for event in endpoint.of("/before")}
    assert {event["id"]: event for event in endpoint.of("/after")} == by_id
    assert len(by_id) == 4 * len(EVENTS_OF_A_TALK)


def test_a_server_that_has_lost_what_an_endpoint_was_told_tells_what_follows(client):
    reader = EntryReader(client, None)
    key = keyspace.events_key(0)
    add_entries(client, 0, sender(1), talk("s1", AT), ids=[f"{AT + n}-0" for n in range(4)])
    position = EntryId(AT + 900_000, 0)  # told by the server that is gone
    new = [f"{AT + 800_000}-0", f"{AT + 800_001}-0"]  # the new one's clock is behind
    add_entries(client, 0, sender(2), talk("s2", AT)[:2], ids=new)
    page = reader.read(0, position)
    assert [str(entry.id) for entry in page.entries] == new
    assert page.position == EntryId(AT + 3, 0)
    assert reader.read(0, EntryId.parse(new[-1].encode())).entries == []
    client.delete(key)
    add_entries(client, 0, sender(2), talk("s2", AT)[:1], ids=new[:1])
    assert [str(entry.id) for entry in reader.read(0, position).entries] == new[:1]


def test_where_a_moment_begins(client, archive):
    add_entries(client, 0, sender(1), talk("s1", AT), ids=[f"{AT + n * 1000}-0" for n in range(4)])
    archive_everything(client, 1, archive)
    for kept in (4, 2, 0):
        trim(client, 0, kept)
        reader = EntryReader(client, ArchiveQuestions(client, archive))
        for before_ms, found in [
            (0, BEGINNING),
            (AT, BEGINNING),
            (AT + 1, EntryId(AT, 0)),
            (AT + 1000, EntryId(AT, 0)),
            (AT + 2500, EntryId(AT + 2000, 0)),
            (AT + 10**9, EntryId(AT + 3000, 0)),
        ]:
            assert reader.find_last_before(0, before_ms) == found


def test_a_survey_is_known_though_the_archive_is_behind_and_another_process_told_the_opening(
    client, archive, endpoint
):
    opening, *rest = talk("s1", AT)
    k = keyspace.shard_of(sender(1), SHARDS)
    add_entries(client, k, sender(1), [opening])
    hook = hook_to(endpoint, surveys=["clinic"])
    with telling(client, SHARDS, [hook], archive):
        until(lambda: len(endpoint.taken) == 2, 10, "the opening is told")
    add_entries(client, k, sender(1), rest)
    with telling(client, SHARDS, [hook], archive):
        until(lambda: len(endpoint.taken) == 7, 10, "what follows is told")
    assert {event["data"]["survey"] for event in endpoint.taken} == {"clinic"}


def test_what_only_an_archive_that_is_behind_will_know_is_waited_for(client, archive, endpoint, monkeypatch):
    monkeypatch.setattr(event_source, "ENTRIES_LOOKED_BACK", 1)
    monkeypatch.setattr(endpoint_runner, "LONGEST_RETRY_S", 0.05)
    opening, sent, *rest = talk("s1", AT)
    add_entries(client, 0, sender(1), [opening, sent])
    hook = hook_to(endpoint, surveys=["clinic"])
    with telling(client, 1, [hook], archive):
        until(lambda: len(endpoint.taken) == 3, 10, "the beginning is told")
    add_entries(client, 0, sender(1), rest)
    with telling(client, 1, [hook], archive) as process:
        until(lambda: "ArchiveBehindError" in process._logged_s, 10, "the archive is waited for")
        assert len(endpoint.taken) == 3
        archive_everything(client, 1, archive)
        until(lambda: len(endpoint.taken) == 7, 10, "the rest is told")


def test_a_server_that_is_older_than_the_archive_has_nobody_told_the_same_again_and_again(
    client, archive, endpoint
):
    add_entries(client, 0, sender(1), talk("s1", AT), ids=[f"{AT + n}-0" for n in range(4)])
    archive_everything(client, 2, archive)
    client.delete(keyspace.events_key(0), keyspace.archived_key(0))
    older = f"{AT + 1}-0"  # the last that it has, and that was trimmed
    add_entries(client, 0, sender(1), talk("s1", AT)[:1], ids=[older])
    client.xdel(keyspace.events_key(0), older)
    with telling(client, 2, [hook_to(endpoint)], archive):
        until(lambda: len(endpoint.taken) == 7, 10, "what the archive has is told")
        for n in range(3):  # time goes on
            add_entries(client, 1, sender(2), talk(f"t{n}", AT))
            until(
                lambda n=n: len({event["id"] for event in endpoint.taken}) == 14 + 7 * n,
                10,
                "others are told",
            )
    assert max(Counter(event["id"] for event in endpoint.taken).values()) == 1
