"""What leaves the event streams: on a real server, nothing for its age alone that an archive does not have."""

from itertools import pairwise
from threading import Thread

import msgspec
import pytest

from config.host import Host
from config.store import keyspace, redis_client
from config.store.entry_id import EntryId
from config.store.function_calls import function_call
from config.store.server_functions import NoteArchived, TrimEvents
from tests.support.proxies import Proxies
from workers.clock import stream_trimming
from workers.clock.stream_trimming import TRIM_STEP_ENTRIES, trim_until_done
from workers.roles import clock

ANNA = "+33600000001"
K = 3
SHARDS = 4
EVENTS, ARCHIVED = keyspace.events_key(K), keyspace.archived_key(K)
DAY = 86_400_000
NOW = 1_800_000_000_000
WEEK = 7 * DAY


@pytest.fixture
def client(valkey):
    """Of a server on which each entry of a stream may leave for itself: elsewhere they leave by nodes."""
    client = valkey.client()
    redis_client.load_functions(client)
    client.config_set("stream-node-max-entries", 1)
    yield client
    client.config_set("stream-node-max-entries", 100)


def add(client, *days_ago):
    """An entry of so many days before NOW."""
    for days in days_ago:
        client.xadd(EVENTS, {"to": ANNA, "e": b"x"}, id=entry(days))


def entry(days_ago):
    return f"{NOW - days_ago * DAY}-0"


def note(client, entry_id, entries=0):
    call = NoteArchived(events=EVENTS, archived=ARCHIVED, id=entry_id, entries=entries)
    return redis_client.run_command(client, function_call(call))


def trim(client, stream_ms=WEEK):
    return trim_until_done(client, SHARDS, NOW, stream_ms)


def days_kept(client):
    return [(NOW - EntryId.parse(entry_id).ms) // DAY for entry_id, _ in client.xrange(EVENTS)]


def unarchived(client):
    """How many entries wait, as the metrics say it: see config/telemetry/redis_stats.py."""
    return client.xinfo_stream(EVENTS)["entries-added"] - int(client.get(ARCHIVED).split()[1])


# What leaves


def test_what_an_archive_has_leaves_after_the_streams_days(client):
    add(client, 40, 20, 8, 6, 1)
    assert note(client, entry(1)) == 1
    assert trim(client) == 3
    assert days_kept(client) == [6, 1]


def test_what_an_archive_does_not_have_stays_however_old(client):
    add(client, 400, 300, 200, 20, 8, 1)
    note(client, entry(300))
    trim(client)
    assert days_kept(client) == [300, 200, 20, 8, 1], (
        "the last one that it has is of no use, and harms nobody"
    )
    note(client, entry(8))
    trim(client)
    assert days_kept(client) == [8, 1]


def test_an_archive_that_watches_from_the_beginning_holds_everything(client):
    """Of a shard of which it has nothing yet."""
    assert note(client, "0-0") == 1
    add(client, 400, 1)
    assert trim(client) == 0


def test_where_no_archive_was_ever_seen_what_happened_leaves_after_thirty_days(client):
    add(client, 400, 31, 29, 8)
    assert trim(client) == 2
    assert days_kept(client) == [29, 8]


@pytest.mark.parametrize("days", [1, 7, 60])
def test_with_an_archive_the_setting_says_for_how_long(client, days):
    add(client, 61, 59, 31, 29, 8, 6, 2, 0)
    note(client, entry(0))
    trim(client, days * DAY)
    assert days_kept(client) == [each for each in (61, 59, 31, 29, 8, 6, 2, 0) if each <= days]


def test_an_archive_that_is_forgotten_was_never_seen(client):
    add(client, 40, 20)
    note(client, entry(40))
    client.delete(ARCHIVED)
    trim(client)
    assert days_kept(client) == [20]


def test_a_stream_that_is_not_there_is_left_alone(client):
    assert trim(client) == 0
    assert client.keys() == []


def test_what_adds_to_a_stream_takes_nothing_out_of_it(pipeline):
    """However old the rest is: a commit adds, and no more."""
    town = pipeline()
    events = keyspace.events_key(keyspace.shard_of(ANNA, town.world.settings.shards))
    town.client.config_set("stream-node-max-entries", 1)
    try:
        town.client.xadd(events, {"to": ANNA, "e": b"\x90"}, id="1-0")
        town.accept(ANNA, "START", "Ada", "STOP")
        town.drain()
    finally:
        town.client.config_set("stream-node-max-entries", 100)
    assert town.client.xrange(events, count=1)[0][0] == b"1-0"
    assert town.client.xlen(events) > 2


# How far an archive is


def test_the_position_only_moves_forwards(client):
    add(client, 5, 4, 3)
    assert note(client, entry(4), 2) == 1
    before = client.get(ARCHIVED)
    assert note(client, entry(5), 1) == 1, "its writer was late, and the archive has it"
    assert note(client, entry(4), 2) == 1, "its reply was lost"
    assert note(client, "0-0") == 1
    assert client.get(ARCHIVED) == before
    assert before == f"{entry(4)} 2".encode()


def test_ids_are_compared_as_numbers(client):
    client.xadd(EVENTS, {"to": ANNA, "e": b"x"}, id="9-9")
    client.xadd(EVENTS, {"to": ANNA, "e": b"x"}, id="10-1")
    client.xadd(EVENTS, {"to": ANNA, "e": b"x"}, id="10-12")
    ids = ["9-9", "10-1", "10-12"]
    assert [note(client, each) for each in ids] == [1, 1, 1]
    assert client.get(ARCHIVED).split()[0] == b"10-12"
    assert all(note(client, earlier) for earlier, _ in pairwise(ids))
    assert client.get(ARCHIVED).split()[0] == b"10-12"


def test_an_archive_that_is_ahead_of_the_stream_is_refused(client):
    """It is of a server that has lost its tail since, or of another."""
    add(client, 5, 4)
    note(client, entry(5))
    assert note(client, entry(3)) == 0
    assert client.get(ARCHIVED).split()[0] == entry(5).encode()
    client.delete(EVENTS, ARCHIVED)
    assert note(client, entry(5)) == 0
    assert not client.exists(ARCHIVED)


def test_a_position_that_is_ahead_of_the_stream_lets_nothing_leave(client):
    """A stream that is another than the one of which it was said: nobody knows what an archive has of this one."""
    add(client, 1)
    note(client, entry(1))
    client.delete(EVENTS)
    add(client, 40, 20)
    assert trim(client) == 0
    assert days_kept(client) == [40, 20]


def test_a_stream_from_which_all_has_left_is_known_to_be_archived(client):
    add(client, 40)
    note(client, entry(40))
    add(client, 20)
    note(client, entry(20))
    trim(client)
    client.xtrim(EVENTS, maxlen=0, approximate=False)
    assert note(client, entry(20)) == 1
    assert unarchived(client) == 0


def test_entries_that_wait_are_counted_by_what_is_said(client):
    add(client, 9, 8, 7, 6, 5)
    client.xtrim(EVENTS, maxlen=4, approximate=False)
    note(client, entry(8), 1)
    assert unarchived(client) == 3
    note(client, entry(6), 2)
    assert unarchived(client) == 1
    note(client, entry(5), 1)
    assert unarchived(client) == 0
    add(client, 4, 3)
    assert unarchived(client) == 2
    client.xdel(EVENTS, entry(4))
    assert unarchived(client) == 2, "at the most"
    note(client, entry(3), 1)
    assert unarchived(client) == 0


def test_a_count_that_was_not_said_is_made_up_for_once_all_is_archived(client):
    add(client, 9, 8, 7)
    note(client, entry(8))
    assert unarchived(client) == 3
    note(client, entry(7))
    assert unarchived(client) == 0


def test_an_archive_that_begins_anew_is_not_told_of_what_had_left_before(client):
    add(client, 9, 8, 7, 6)
    client.xtrim(EVENTS, maxlen=2, approximate=False)
    client.set(ARCHIVED, "0-0 0")
    note(client, entry(7), 1)
    assert unarchived(client) == 1


def test_the_position_stays_for_good(client):
    add(client, 1)
    note(client, entry(1))
    assert client.pttl(ARCHIVED) == -1


# While others wait


def test_a_long_stream_leaves_in_short_steps(valkey, monkeypatch):
    """As it is by default, in nodes."""
    monkeypatch.setattr(stream_trimming, "TRIM_REST_S", 0)
    client = valkey.client()
    redis_client.load_functions(client)
    most = 250_000
    fill = (
        "for i = ARGV[1], ARGV[1] + ARGV[2] - 1 do "
        "redis.call('XADD', KEYS[1], ARGV[3] .. '-' .. i, 'to', '+33600000001', 'e', 'said') end"
    )
    for first in range(1, most, 10_000):
        client.eval(fill, 1, EVENTS, first, 10_000, NOW - 40 * DAY)
    add(client, 1)
    note(client, entry(1))
    call = TrimEvents(
        events=EVENTS, archived=ARCHIVED, archived_before_ms=NOW - WEEK, unarchived_before_ms=0,
        max_entries=TRIM_STEP_ENTRIES,
    )  # fmt: skip
    step = redis_client.run_command(client, function_call(call))
    assert 0 < step <= TRIM_STEP_ENTRIES
    assert trim(client) == most - step - client.xlen(EVENTS) + 1
    assert client.xlen(EVENTS) <= 100, "what shares a node with what stays"


def test_clocks_that_trim_at_once_trim_alike(valkey, client):
    for days in range(400, 0, -1):
        add(client, days)
    note(client, entry(1))
    clients = [valkey.client() for _ in range(4)]
    threads = [Thread(target=trim, args=[each]) for each in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert days_kept(client) == [7, 6, 5, 4, 3, 2, 1]


def test_a_call_whose_reply_was_lost_is_made_again(valkey, client):
    add(client, 40, 20, 1)
    note(client, entry(1))
    with Proxies(valkey, broker=False) as between:
        between.lose_replies(b"trim_events")
        trim(redis_client.connect(between.url))
    assert days_kept(client) == [1]


# Whose clock


def test_nothing_leaves_while_the_clocks_differ(pipeline):
    town = pipeline()
    settings = town.world.settings
    now = redis_client.server_time_ms(town.client)
    k = settings.shards - 1
    for age in range(101):
        town.client.xadd(keyspace.events_key(k), {"to": ANNA, "e": b"x"}, id=f"{now - 40 * DAY}-{age + 1}")
    behind = Host(wall_s=lambda: (now - 40 * DAY) / 1_000)
    clock.trim_streams(msgspec.structs.replace(town.world, host=behind))
    assert town.client.xlen(keyspace.events_key(k)) == 101
    clock.trim_streams(town.world)
    assert town.client.xlen(keyspace.events_key(k)) == 0


def test_the_clock_goes_by_the_settings(pipeline):
    town = pipeline()
    world = msgspec.structs.replace(
        town.world, settings=msgspec.structs.replace(town.world.settings, stream_ms=2 * DAY)
    )
    now = redis_client.server_time_ms(town.client)
    events = keyspace.events_key(0)
    for days in (9, 3, 1):
        for number in range(100):
            town.client.xadd(events, {"to": ANNA, "e": b"x"}, id=f"{now - days * DAY}-{number + 1}")
    last = town.client.xinfo_stream(events)["last-generated-id"].decode()
    call = NoteArchived(events=events, archived=keyspace.archived_key(0), id=last)
    redis_client.run_command(town.client, function_call(call))
    clock.trim_streams(world)
    assert town.client.xlen(events) == 100
