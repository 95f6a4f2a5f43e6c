"""What happened is moved from the event streams into the archive: each entry once, in order, by any number of processes, and
nothing that was erased meanwhile; on both databases."""

import tracemalloc
from threading import Thread

import pytest
import sqlalchemy
from structlog.testing import capture_logs

from config.archive import tables
from config.archive.database import EVENTS_SOURCE, Position
from config.archive.watermark import read_watermark
from config.settings.config_errors import ConfigError
from config.store import keyspace, redis_client
from config.store.entry_id import EntryId
from engine.model.events import PersonOptedOut, decode_records, encode_event
from tests.support.archiving import (
    add_entries,
    archived_entries,
    derived_rows,
    hash_number,
    projected_at_once,
    rebuild_all,
    shard_groups,
    stream_entries,
    table_rows,
    talk,
)
from workers.archiving import stream_archiver
from workers.archiving.deployment_pairing import pair_with_redis
from workers.archiving.lost_tail import LONGEST_LOST_TAIL_MS, find_lost, rejoin_stream
from workers.archiving.stream_archiver import StreamArchiver
from workers.archiving.stream_reader import StreamState, note_archived
from workers.store import survey_versions

SHARDS = 3
AT = 1_700_000_000_000
ANNA, BORIS = "+33600000001", "+33600000002"


SURVEY = survey_versions.encode_survey_file(("clinic.yaml", b"survey: clinic"))


@pytest.fixture
def client(valkey):
    client = valkey.client()
    client.hset(keyspace.SURVEYS_KEY, "v1", SURVEY)
    return client


@pytest.fixture
def archiver(client, archive_database):
    """A factory of what moves the streams, as a process of the role has it."""

    def build(*, parts=1):
        deployment = pair_with_redis(client, archive_database, SHARDS)
        with archive_database.writing() as connection:
            archive_database.make_positions(connection, EVENTS_SOURCE, SHARDS)
        groups = keyspace.shard_groups(SHARDS, 1) if parts > 1 else shard_groups(client, SHARDS)
        return StreamArchiver(client, archive_database, groups, deployment, hash_number, parts=parts)

    return build


@pytest.fixture
def short_pages(monkeypatch):
    monkeypatch.setattr(stream_archiver, "ENTRIES_A_PAGE", 3)


@pytest.fixture
def no_intervals(monkeypatch):
    """Shards are said to be read, and held ones looked at, at every round."""
    monkeypatch.setattr(stream_archiver, "ADVANCE_INTERVAL_S", 0.0)
    monkeypatch.setattr(stream_archiver, "HELD_INTERVAL_S", 0.0)


def at_fault_point(monkeypatch, place, do):
    """Whenever the archiver gets to `place`, `do` happens."""
    monkeypatch.setattr(stream_archiver.faults, "reach", lambda reached: do() if reached == place else None)


def drain(archiver):
    while archiver.run_round():
        pass


def archived_until(client):
    return [client.get(keyspace.archived_key(k)).split()[0] for k in range(SHARDS)]


def positions(database):
    return [row[2:] for row in table_rows(database, "positions")]


# Once, and in order


def test_each_entry_is_archived_once_and_in_order(client, archiver, archive_database, short_pages, tmp_path):
    for n in range(4):
        add_entries(client, n % 2, ANNA, talk(f"s{n}", AT + n))
    drain(archiver())
    assert archived_entries(archive_database) == stream_entries(client, SHARDS)
    assert derived_rows(archive_database) == projected_at_once(
        stream_entries(client, SHARDS), f"sqlite:///{tmp_path}/once.db"
    )
    last = [client.xrevrange(keyspace.events_key(k), count=1)[0][0] for k in (0, 1)]
    assert archived_until(client) == [*last, b"0-0"]
    add_entries(client, 1, BORIS, talk("s9", AT))
    drain(archiver())
    drain(archiver())
    assert archived_entries(archive_database) == stream_entries(client, SHARDS)


def test_two_copies_at_once_do_it_once(client, archiver, archive_database, short_pages):
    for n in range(30):
        add_entries(client, n % SHARDS, ANNA, talk(f"s{n}", AT + n))
    failures = []

    def run(copy):
        try:
            for _ in range(60):
                copy.run_round()
        except Exception as e:  # noqa: BLE001 (the test tells)
            failures.append(e)

    threads = [Thread(target=run, args=(archiver(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    drain(archiver())
    assert archived_entries(archive_database) == stream_entries(client, SHARDS)
    assert len(table_rows(archive_database, "answers")) == 30


def test_what_is_erased_before_the_shard_is_locked_is_not_read(
    client, archiver, archive_database, monkeypatch
):
    """Were a page read before, it would bring the person back."""
    copy = archiver()
    drain(copy)
    add_entries(client, 0, ANNA, talk("s", AT))
    at_fault_point(
        monkeypatch,
        "after_lock_position",
        lambda: client.xtrim(keyspace.events_key(0), maxlen=0, approximate=False),
    )
    drain(copy)
    assert archived_entries(archive_database) == []


def test_redis_is_told_only_of_what_is_committed_and_never_less(
    client, archiver, archive_database, monkeypatch
):
    add_entries(client, 0, ANNA, talk("s", AT), ids=["5-1", "5-2", "6-0", "7-0"])

    def fail():
        raise OSError("out of order")

    copy = archiver()
    at_fault_point(monkeypatch, "before_commit_page", fail)
    with pytest.raises(OSError, match="out of order"):
        copy.run_round()
    assert (archived_until(client)[0], archived_entries(archive_database)) == (b"0-0", [])
    monkeypatch.undo()
    drain(copy)
    for late in ("5-1", "6-9", "7-0"):
        note_archived(client, {0: (EntryId.parse(late.encode()), 0)})
        assert archived_until(client)[0] == b"7-0", "a late writer takes nothing back"


def test_what_redis_was_not_told_by_one_that_died_the_next_tells(client, archiver, monkeypatch):
    add_entries(client, 0, ANNA, talk("s", AT), ids=["5-1", "5-2", "6-0", "7-0"])

    def die():
        raise KeyboardInterrupt

    at_fault_point(monkeypatch, "after_commit_page", die)
    with pytest.raises(KeyboardInterrupt):
        archiver().run_round()
    monkeypatch.undo()
    assert archived_until(client)[0] == b"0-0"
    drain(archiver())
    assert archived_until(client)[0] == b"7-0"


def test_a_shard_that_another_process_has_does_not_hold_up_the_others(client, archiver, archive_database):
    if archive_database.is_sqlite:
        pytest.skip("a file has one writer")
    for k in range(SHARDS):
        add_entries(client, k, ANNA, talk(f"s{k}", AT))
    copy = archiver()
    with archive_database.writing() as connection:
        archive_database.lock_position(connection, EVENTS_SOURCE, 1)
        drain(copy)
        assert {row[0] for row in archived_entries(archive_database)} == {0, 2}
    drain(copy)
    assert archived_entries(archive_database) == stream_entries(client, SHARDS)


def test_memory_does_not_grow_with_the_stream(client, archiver, archive_database, monkeypatch):
    monkeypatch.setattr(stream_archiver, "ENTRIES_A_PAGE", 200)
    peaks = []
    for many in (400, 4_000):
        pipeline = client.pipeline(transaction=False)
        for n in range(many):
            pipeline.xadd(
                keyspace.events_key(0),
                {"to": ANNA, "e": encode_event([PersonOptedOut(AT, "clinic", f"{n}", "STOP" * 50)])},
            )
        pipeline.execute()
        copy = archiver()
        tracemalloc.start()
        drain(copy)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert len(archived_entries(archive_database)) == 4_400
    assert peaks[1] < peaks[0] * 1.5


# In parts


@pytest.mark.parametrize("parts", [2, SHARDS, SHARDS + 1])
def test_each_part_has_its_turn_and_one_that_is_behind_keeps_no_other(
    client, archiver, archive_database, short_pages, parts
):
    """Nor does it wait: as long as any has more, there is no pause."""
    copy = archiver(parts=parts)
    for n in range(8):
        add_entries(client, 0, ANNA, talk(f"s{n}", AT + n))
    for k in range(1, SHARDS):
        add_entries(client, k, BORIS, talk(f"t{k}", AT)[:2])
    assert [copy.run_round() for _ in range(SHARDS)] == SHARDS * [True]
    theirs = [each for each in stream_entries(client, SHARDS) if each[0] > 0]
    assert [each for each in archived_entries(archive_database) if each[0] > 0] == theirs
    drain(copy)
    assert archived_entries(archive_database) == stream_entries(client, SHARDS)


def test_what_moves_in_one_part_lets_the_watermark_of_all_move(
    client, archiver, archive_database, no_intervals
):
    """Once each part has had its turn; and while nothing moves, nothing is written."""
    copy = archiver(parts=SHARDS)
    for _ in range(SHARDS):
        copy.run_round()
    for _ in range(2):
        (entry_id,) = add_entries(client, 0, ANNA, talk("s", AT)[:1])
        for _ in range(2 * SHARDS):
            copy.run_round()
        with archive_database.reading() as connection:
            watermark = read_watermark(connection)
        assert watermark >= EntryId.parse(entry_id).ms
    before = positions(archive_database)
    for _ in range(2 * SHARDS):
        copy.run_round()
    assert positions(archive_database) == before


# The watermark


def test_the_watermark_moves_with_whatever_happens_and_idle_shards_do_not_hold_it_back(
    client, archiver, archive_database, no_intervals
):
    copy = archiver()
    drain(copy)
    for k in (0, 1):
        before = redis_client.server_time_ms(client)
        add_entries(client, k, ANNA, talk(f"s{k}", AT))
        drain(copy)
        copy.run_round()
        with archive_database.reading() as connection:
            watermark = read_watermark(connection)
        assert before <= watermark <= redis_client.server_time_ms(client)
        newest = max(ms for _, ms, *_ in archived_entries(archive_database))
        assert newest <= watermark, "what is below it is all that there is"


def test_nothing_is_added_below_the_watermark(client, archiver, archive_database, monkeypatch, no_intervals):
    """What is written right after a page was read is not below what the page says until when all is there."""
    copy = archiver()
    drain(copy)
    wrote = []
    at_fault_point(
        monkeypatch,
        "after_read_stream",
        lambda: wrote.extend(add_entries(client, 0, ANNA, talk("t", AT)[:1])),
    )
    add_entries(client, 0, ANNA, talk("s", AT))
    copy.run_round()
    _, _, read_until_ms = positions(archive_database)[0]
    assert wrote
    assert all(EntryId.parse(each).ms >= read_until_ms for each in wrote)


def test_an_idle_deployment_writes_nothing(client, archiver, archive_database, no_intervals):
    add_entries(client, 0, ANNA, talk("s", AT))
    copy = archiver()
    drain(copy)
    copy.run_round()
    statements = []
    sqlalchemy.event.listen(
        archive_database.engine,
        "before_cursor_execute",
        lambda c, cursor, statement, *rest: statements.append(statement),
    )
    for _ in range(3):
        copy.run_round()
    assert statements == []


# Pairing


def test_an_archive_of_another_deployment_is_refused(client, archiver, archive_database):
    add_entries(client, 0, ANNA, talk("s", AT))
    drain(archiver())
    before = archived_entries(archive_database)
    client.set(keyspace.DEPLOYMENT_KEY, "another")
    with pytest.raises(ConfigError, match="set PARLEY_ARCHIVE_URL to another archive"):
        archiver()
    assert archived_entries(archive_database) == before


@pytest.mark.parametrize("place", ["", "after_lock_position"])
def test_a_redis_that_is_emptied_under_a_process_is_another_deployment(
    client, archiver, archive_database, monkeypatch, place
):
    copy = archiver()
    drain(copy)

    def empty():
        client.flushall()
        add_entries(client, 0, BORIS, talk("other", AT))

    if place:
        add_entries(client, 0, ANNA, talk("s", AT))
        at_fault_point(monkeypatch, place, empty)
    else:
        empty()
    with pytest.raises(ConfigError, match="of another deployment"):
        copy.run_round()
    assert archived_entries(archive_database) == []


def test_a_new_archive_of_an_old_deployment_is_said_to_have_nothing_yet(client, archiver):
    """Else Redis would forget what only the old one has."""
    client.set(keyspace.archived_key(0), "99999-0 7")
    archiver()
    assert archived_until(client)[0] == b"0-0"


# Surveys


def test_a_version_is_there_with_the_first_session_that_was_opened_with_it(
    client, archiver, archive_database
):
    client.hset(keyspace.SURVEYS_KEY, "v2", SURVEY)
    add_entries(client, 0, ANNA, talk("s", AT))
    copy = archiver()
    drain(copy)
    assert table_rows(archive_database, "surveys") == [("v1", "clinic", "clinic.yaml", b"survey: clinic", AT)]
    client.delete(keyspace.SURVEYS_KEY)
    add_entries(client, 1, ANNA, talk("t", AT))
    drain(copy)
    with capture_logs() as logs:
        drain(archiver())
    assert logs == [], "it is in the archive, and not asked for again"


# What cannot be read


@pytest.mark.parametrize(
    "fields",
    [
        {"to": ANNA, "e": b"\x91\x91\xa6future"},
        {"to": ANNA, "e": b"garbage"},
        {"e": b""},
        {"to": b"\xff", "e": b"\x90", "more": "1"},
    ],
)
def test_an_entry_that_cannot_be_read_is_kept_and_stops_nobody(client, archiver, archive_database, fields):
    add_entries(client, 0, ANNA, talk("s", AT)[:2])
    client.xadd(keyspace.events_key(0), fields)
    add_entries(client, 0, ANNA, talk("s", AT)[2:])
    with capture_logs() as logs:
        drain(archiver())
    assert [each["event"] for each in logs] == ["entries cannot be read, and are kept as they are"]
    assert len(archived_entries(archive_database)) == 5
    assert len(table_rows(archive_database, "answers")) == 1


def test_what_could_not_be_read_is_in_the_tables_once_it_can_be_and_the_archive_is_rebuilt(
    client, archiver, archive_database, monkeypatch, tmp_path
):
    add_entries(client, 0, ANNA, [*talk("s", AT), [PersonOptedOut(AT, "clinic", "e", "STOP")]])
    with monkeypatch.context() as patched:
        patched.setattr("workers.archiving.stream_reader.parse_records", lambda stored: None)
        drain(archiver())
    assert all(rows == [] for rows in derived_rows(archive_database).values())
    assert rebuild_all(archive_database, SHARDS) == 0
    at_once = projected_at_once(stream_entries(client, SHARDS), f"sqlite:///{tmp_path}/once.db")
    assert derived_rows(archive_database) == at_once
    assert {row[4] for row in table_rows(archive_database, "entries")} == {"s", ""}
    rebuild_all(archive_database, SHARDS)
    assert derived_rows(archive_database) == at_once


# A Redis that is older than the archive


def lose(client, k, saved):
    """Put a shard's stream back to what it was."""
    client.restore(keyspace.events_key(k), 0, saved, replace=True)


def test_what_a_failover_lost_stays_in_the_archive_and_what_follows_is_archived(
    client, archiver, archive_database, tmp_path
):
    copy = archiver()
    now = redis_client.server_time_ms(client)
    add_entries(client, 0, ANNA, talk("s", AT)[:2], ids=[f"{now}-0", f"{now}-1"])
    saved = client.dump(keyspace.events_key(0))
    add_entries(client, 0, ANNA, talk("s", AT)[2:], ids=[f"{now + 3}-0", f"{now + 4}-0"])
    drain(copy)
    had = archived_entries(archive_database)
    lose(client, 0, saved)
    with capture_logs() as logs:
        copy.run_round()
    assert [(each["event"], each["lost"]) for each in logs] == [
        ("Redis has lost what the archive has; what happens now follows it", 2)
    ]
    add_entries(client, 0, BORIS, talk("t", AT))
    drain(copy)
    with capture_logs() as logs:
        drain(archiver())
    assert logs == [], "it is not found lacking again"
    assert archived_entries(archive_database) == [*had, *stream_entries(client, 1)[2:]]
    assert [each[1:3] for each in stream_entries(client, 1)[2:]] > [(now + 4, 0)]


def test_what_a_server_whose_clock_is_behind_wrote_at_ids_that_are_passed_is_not_skipped(
    client, archiver, archive_database
):
    copy = archiver()
    now = redis_client.server_time_ms(client)
    add_entries(client, 0, ANNA, talk("s", AT)[:1], ids=[f"{now}-0"])
    saved = client.dump(keyspace.events_key(0))
    add_entries(client, 0, ANNA, talk("s", AT)[1:2], ids=[f"{now + 9_000}-0"])
    drain(copy)
    lose(client, 0, saved)
    news = talk("t", AT)
    add_entries(
        client,
        0,
        BORIS,
        news,
        ids=[f"{now + 10}-0", f"{now + 8_999}-7", f"{now + 9_000}-1", f"{now + 9_001}-0"],
    )
    drain(copy)
    entries = archived_entries(archive_database)
    assert [(row[3], row[4]) for row in entries[2:]] == [
        (BORIS, encode_event(list(records))) for records in news
    ]
    assert [row[1:3] for row in entries] == sorted(row[1:3] for row in entries)
    assert [row for row in stream_entries(client, 1) if row[3] == BORIS] == entries[2:]


@pytest.mark.parametrize("beside", [(), (-1,), (1,), (-1, 1, 2)], ids=["alone", "before", "behind", "amid"])
@pytest.mark.parametrize("common", [0, 1], ids=["from the beginning", "later"])
@pytest.mark.parametrize("is_new", [False, True], ids=["same process", "another"])
def test_what_a_server_whose_clock_is_behind_wrote_at_the_very_id_of_the_position_is_not_skipped(
    client, archiver, archive_database, no_intervals, beside, common, is_new
):
    copy = archiver()
    now = redis_client.server_time_ms(client) - 60_000
    key = keyspace.events_key(0)
    lost = talk("s", AT)
    add_entries(client, 0, ANNA, lost[:common], ids=[f"{now}-0"][:common])
    saved = client.dump(key)
    add_entries(client, 0, ANNA, lost[common : common + 1], ids=[f"{now + 9_000}-0"])
    drain(copy)
    client.delete(key)
    if common:
        lose(client, 0, saved)
    news = talk("t", AT)
    ids = [f"{now + 9_000 + each}-0" for each in sorted((0, *beside))]
    add_entries(client, 0, BORIS, news[: len(ids)], ids=ids)
    with capture_logs() as logs:
        drain(archiver() if is_new else copy)
    assert [each["lost"] for each in logs if "lost" in each] == [1]
    entries = archived_entries(archive_database)
    assert [decode_records(row[4]) for row in entries if row[3] == BORIS] == news[: len(ids)]
    assert len(entries) == common + 1 + len(ids)
    add_entries(client, 0, BORIS, news[:1])
    with capture_logs() as logs:
        drain(archiver())
    assert logs == [], "it is not found lacking again"
    there = [row for row in stream_entries(client, 1) if row[3] == BORIS]
    assert there == [row for row in archived_entries(archive_database) if row[3] == BORIS]


def test_that_something_newer_was_erased_does_not_hide_what_has_the_id_of_the_position(
    client, archiver, archive_database
):
    key, at = keyspace.events_key(0), f"{redis_client.server_time_ms(client)}-0"
    add_entries(client, 0, ANNA, talk("s", AT)[:1], ids=[at])
    copy = archiver()
    drain(copy)
    client.delete(key)
    add_entries(client, 0, BORIS, talk("t", AT)[:1], ids=[at])
    client.xdel(key, client.xadd(key, {"to": ANNA, "e": ""}))
    drain(copy)
    assert [row[3] for row in archived_entries(archive_database)] == [ANNA, BORIS]


def test_what_stands_at_a_position_that_the_archive_has_let_go_of_stays_where_it_is(
    client, archiver, archive_database
):
    """It may have been erased, and come back with a failover."""
    add_entries(client, 0, ANNA, talk("s", AT))
    drain(archiver())
    there = stream_entries(client, 1)
    with archive_database.writing() as connection:
        connection.execute(tables.entries.delete().where(tables.entries.c.sender == ANNA))
    drain(archiver())
    assert (stream_entries(client, 1), archived_entries(archive_database)) == (there, [])


def test_a_redis_from_yesterday_is_held_and_said_until_a_person_decides(
    client, archiver, archive_database, no_intervals
):
    copy = archiver()
    now = redis_client.server_time_ms(client)
    since = now - LONGEST_LOST_TAIL_MS - 60_000
    add_entries(client, 0, ANNA, talk("s", AT)[:1], ids=[f"{since - 5}-0"])
    saved = client.dump(keyspace.events_key(0))
    add_entries(client, 0, ANNA, talk("s", AT)[1:3], ids=[f"{since}-0", f"{now}-0"])
    drain(copy)
    had = archived_entries(archive_database)
    lose(client, 0, saved)
    add_entries(client, 1, BORIS, talk("t", AT))
    with capture_logs() as logs:
        copy.run_round()
        copy.run_round()
    (error,) = [each for each in logs if each["log_level"] == "error"]
    assert "has 2 entries more: if it is to go on so, parley archive resume --shard 0" in error["why"]
    assert archived_entries(archive_database)[:3] == had
    assert len(archived_entries(archive_database)) == 7, "the other shards go on"
    add_entries(client, 0, BORIS, talk("u", AT))
    copy.run_round()
    assert len(archived_entries(archive_database)) == 7, "it is held though there are later ids by now"
    with archive_database.writing() as connection:
        position = archive_database.lock_position(connection, EVENTS_SOURCE, 0)
        assert rejoin_stream(connection, client, 0, position.entry_id, by_operator=True) == 2
    with capture_logs() as logs:
        drain(copy)
        copy.run_round()
    assert [each["event"] for each in logs] == ["a shard is archived again"]
    assert len(archived_entries(archive_database)) == 11


def test_a_held_redis_that_gets_back_what_it_had_goes_on_by_itself(
    client, archiver, archive_database, no_intervals
):
    copy = archiver()
    now = redis_client.server_time_ms(client)
    add_entries(client, 0, ANNA, talk("s", AT)[:2], ids=[f"{now - LONGEST_LOST_TAIL_MS - 9}-0", f"{now}-0"])
    drain(copy)
    saved = client.dump(keyspace.events_key(0))
    client.delete(keyspace.events_key(0))
    copy.run_round()
    lose(client, 0, saved)
    add_entries(client, 0, ANNA, talk("s", AT)[2:])
    drain(copy)
    assert archived_entries(archive_database) == stream_entries(client, SHARDS)


@pytest.mark.parametrize("how", ["erased", "trimmed", "emptied", "before"])
def test_what_was_deleted_on_purpose_is_not_lost(client, archiver, archive_database, how):
    """Neither an erasure, nor a survey's `keep`, nor the end of what Redis keeps."""
    copy = archiver()
    key = keyspace.events_key(0)
    ids = add_entries(client, 0, ANNA, talk("s", AT))
    drain(copy)
    match how:
        case "erased":
            client.xdel(key, *ids[2:])
        case "trimmed":
            client.xtrim(key, maxlen=0, approximate=False)
        case "emptied":
            client.xdel(key, *ids)
        case "before":
            client.xdel(key, *ids[:3])
    add_entries(client, 0, BORIS, talk("t", AT))
    with capture_logs() as logs:
        drain(copy)
    assert logs == []
    assert len(archived_entries(archive_database)) == 8


def test_lost_is_what_left_no_trace():
    archived = [EntryId(9, 0), EntryId(5, 0), EntryId(3, 0)]

    def lost(first, last, max_deleted=(0, 0)):
        state = StreamState(first and EntryId(*first), EntryId(*last), EntryId(*max_deleted), 1)
        return [entry.ms for entry in find_lost(archived, state)]

    assert lost((1, 0), (2, 0)) == [9, 5, 3]
    assert lost((1, 0), (20, 0)) == [9, 5, 3]
    assert lost((1, 0), (20, 0), (5, 0)) == [9]
    assert lost((4, 0), (20, 0)) == [9, 5], "what is before the first may be trimmed"
    assert lost((20, 0), (20, 0)) == []
    assert lost(None, (9, 0)) == []
    assert lost(None, (5, 0)) == [9]
    assert lost(None, (0, 0)) == [9, 5, 3]


def test_a_position_moves_with_what_was_written(client, archiver, archive_database):
    add_entries(client, 2, ANNA, talk("s", AT), ids=["1-0", "1-1", "2-0", "7-5"])
    drain(archiver())
    with archive_database.writing() as connection:
        found = archive_database.lock_position(connection, EVENTS_SOURCE, 2)
        assert (found.entry_id, isinstance(found, Position)) == (EntryId(7, 5), True)
        assert (
            connection.execute(
                sqlalchemy.select(sqlalchemy.func.count()).select_from(tables.positions)
            ).scalar()
            == SHARDS
        )
