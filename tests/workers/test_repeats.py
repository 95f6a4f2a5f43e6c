"""An event is applied once, whatever came between it and its copy, for as many days as PARLEY_REPEAT_DAYS says."""

import pytest

from config.store import keyspace
from engine.model import lane as lane_format
from engine.model.events import PersonOptedIn, PersonOptedOut, SmsReceived
from tests.support import audit
from tests.workers.dead_letters import letters_of, outcomes
from tests.workers.test_erase import eraser, traces
from workers.store.lanes import MAX_CLAIMED_MAIL
from workers.store.optouts import open_opt_out_list

ANNA = "+33600000001"
COPY = "00000000000000ff"
DAY_MS = 86_400_000


@pytest.fixture
def town(deploy):
    town = deploy()
    town.optouts = open_opt_out_list(town.client, town.world.settings.shards, "")
    return town


def shard(town):
    return keyspace.shard_of(ANNA, town.world.settings.shards)


def applied(town, event=COPY):
    """How often an SMS was applied."""
    return sum(isinstance(record, SmsReceived) and record.id == event for record in town.records(ANNA))


def remembered(town):
    """What is remembered beside the lane: hashes by time."""
    name = keyspace.applied_events_key(shard(town), town.optouts.hash_number(ANNA))
    return dict(town.client.zrange(name, 0, -1, withscores=True))


def pass_time(town, days):
    """The lane was last touched so long ago. True if it is still there."""
    name = keyspace.lane_key(shard(town), ANNA)
    fence, deadline, state = town.client.get(name).split(b" ", 2)
    lane = lane_format.decode_lane(state)
    lane.clock -= round(days * DAY_MS)
    lane.applied_events = {event: at - round(days * DAY_MS) for event, at in lane.applied_events.items()}
    left_ms = town.client.pttl(name) - round(days * DAY_MS)
    town.client.set(name, b" ".join([fence, deadline, lane_format.encode_lane(lane)]), px=max(1, left_ms))
    return left_ms > 0


@pytest.mark.parametrize("others", [129, 200])
def test_a_copy_after_many_others_changes_nothing(town, others):
    town.accept(ANNA, "hello", event_id=COPY)
    town.accept(ANNA, *["hi"] * others)
    town.drain()
    assert applied(town) == 1
    town.accept(ANNA, "hello", event_id=COPY)
    town.drain()
    assert applied(town) == 1


def test_a_copy_that_waits_with_what_takes_its_place_changes_nothing(town):
    town.accept(ANNA, "hello", event_id=COPY)
    town.accept(ANNA, *["hi"] * 127)
    town.drain()
    town.accept(ANNA, *["hi"] * (MAX_CLAIMED_MAIL - 1))
    town.accept(ANNA, "hello", event_id=COPY)
    town.drain()
    assert applied(town) == 1


def test_a_copy_is_known_where_the_engine_fails_on_its_neighbour(town, failing):
    failing.clear()
    failing.add("broken")
    town.accept(ANNA, "hello", event_id=COPY)
    town.accept(ANNA, *["hi"] * 127)
    town.drain()
    town.accept(ANNA, "broken", "hi", "hi")
    town.accept(ANNA, "hello", event_id=COPY)
    town.drain()
    assert applied(town) == 1
    assert len(letters_of(town)) == 1


@pytest.mark.parametrize("days, known", [(1, True), (6, True), (8, False)])
def test_a_copy_is_known_for_days(town, days, known):
    town.accept(ANNA, "hello", event_id=COPY)
    town.drain()
    assert pass_time(town, days) == known
    town.accept(ANNA, "hi")
    town.drain()
    town.accept(ANNA, "hello", event_id=COPY)
    town.drain()
    assert applied(town) == (1 if known else 2)


@pytest.mark.parametrize("where", ["applied", "displaced", "waiting"])
def test_a_copy_is_known_though_the_person_was_erased(town, where):
    """A captured call, say, whose signature has no time in it."""
    town.accept(ANNA, "START", event_id=COPY)
    if where != "waiting":
        town.drain()
    if where == "displaced":
        town.accept(ANNA, *["hi"] * 128)
        town.drain()
    eraser(town).erase(ANNA)
    assert traces(town, ANNA) == []
    for _ in range(2):
        town.accept(ANNA, "START", event_id=COPY)
        town.drain()
        assert town.records(ANNA) == []
        assert town.said(ANNA) == []
    name = keyspace.lane_key(shard(town), ANNA)
    assert town.client.get(name).split(b" ", 2)[2] == b""
    eraser(town).erase(ANNA)
    town.accept(ANNA, "START", event_id=COPY)
    town.drain()
    assert town.said(ANNA) == []
    town.accept(ANNA, "START")
    town.drain()
    assert town.said(ANNA) == ["What is your name?"]


def test_an_opt_in_is_not_played_again_after_the_stop_that_was_erased(town):
    town.accept(ANNA, "START", event_id=COPY)
    town.accept(ANNA, "STOP")
    town.drain()
    eraser(town).erase(ANNA)
    town.accept(ANNA, "START", event_id=COPY)
    town.drain()
    assert town.optouts.opt_outs_of(ANNA)
    assert not [each for each in town.records(ANNA) if isinstance(each, PersonOptedIn | PersonOptedOut)]


def test_what_is_remembered_beside_a_lane_are_hashes_that_go_in_time(town):
    town.accept(ANNA, *["hi"] * 140)
    town.drain()
    found = remembered(town)
    assert len(found) == 12
    assert all(len(hashed) == 8 for hashed in found)
    name = keyspace.applied_events_key(shard(town), town.optouts.hash_number(ANNA))
    assert ANNA[1:] not in name
    assert 6 * DAY_MS < town.client.pttl(name) <= 7 * DAY_MS
    oldest, at = next(iter(found.items()))
    town.client.zadd(name, {oldest: at - 7 * DAY_MS})
    town.accept(ANNA, "hi")
    town.drain()
    assert oldest not in remembered(town)
    assert len(remembered(town)) == 12
    assert audit.kind_of(name, audit.patterns()) in audit.PASSING


def test_of_most_people_nothing_is_remembered_beside_their_lane(town):
    town.accept(ANNA, "START", "Ada", "36", "START", "STOP")
    town.drain()
    assert not town.client.keys("*:applied:*")


def test_the_days_are_the_settings(deploy):
    """The lane is kept for two days all the same."""
    town = deploy()
    town.turns._lanes._repeat_ms = DAY_MS
    town.accept(ANNA, "hello", event_id=COPY)
    town.drain()
    assert 0 < town.client.pttl(keyspace.lane_key(shard(town), ANNA)) - 2 * DAY_MS + 60_000 <= 60_000
    pass_time(town, 1.5)
    town.accept(ANNA, "hello", event_id=COPY)
    town.drain()
    assert applied(town) == 2


def test_a_dead_letter_whose_event_was_applied_long_ago_changes_nothing(town, failing):
    failing.clear()
    failing.add("hello")
    town.accept(ANNA, "hello", event_id=COPY)
    town.drain()
    failing.clear()
    town.accept(ANNA, "hello", event_id=COPY)
    town.accept(ANNA, *["hi"] * 130)
    town.drain()
    assert applied(town) == 1
    assert outcomes("--all", status=0) == ["duplicate"]
    assert applied(town) == 1
