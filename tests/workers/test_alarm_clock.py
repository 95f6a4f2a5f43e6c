"""What is due rings, wherever it lies: shards share a call where one may have keys of several."""

import math

import msgspec
import pytest

from config.store import keyspace, redis_client
from tests.workers.test_clock_steps import Waker
from workers.clock import alarm_clock
from workers.clock.alarm_clock import MAX_TICK_S, AlarmClock
from workers.store.outboxes import OutboxStore

SHARDS = 8
GROUPS = [range(3), range(3, 6), range(6, 8)]
PEOPLE = [f"+336000000{number:02d}" for number in range(40)]

pytestmark = pytest.mark.one_server("a cluster's shards share no call")


@pytest.fixture
def waker():
    return Waker()


@pytest.fixture
def clock(client, waker):
    return AlarmClock(client, GROUPS, waker, OutboxStore(client, SHARDS))


def set_alarms(client, key_of, people, at_ms):
    for sender in people:
        client.zadd(key_of(keyspace.shard_of(sender, SHARDS)), {sender: at_ms})


def test_all_that_is_due_in_any_shard_is_rung_for_once(client, waker, clock):
    assert {keyspace.shard_of(sender, SHARDS) for sender in PEOPLE} == {*range(SHARDS)}
    set_alarms(client, keyspace.lane_alarms_key, PEOPLE[::2], 1)
    set_alarms(client, keyspace.outbox_alarms_key, PEOPLE[1::2], 1)
    assert clock.wake_due() == MAX_TICK_S
    rung = [("replies", sender) for sender in PEOPLE[::2]] + [("outbound", each) for each in PEOPLE[1::2]]
    assert sorted(waker.take()) == sorted(rung)
    clock.wake_due()
    assert waker.take() == []


def test_it_sleeps_until_the_soonest_of_all_shards(client, clock, monkeypatch):
    assert clock.wake_due() == MAX_TICK_S
    monkeypatch.setattr(alarm_clock, "MAX_TICK_S", math.inf)
    now = redis_client.server_time_ms(client)
    for hours, person, key_of in (
        (9, PEOPLE[0], keyspace.lane_alarms_key),
        (8, PEOPLE[1], keyspace.outbox_alarms_key),
        (7, PEOPLE[-1], keyspace.lane_alarms_key),
    ):
        set_alarms(client, key_of, [person], now + hours * 3_600_000)
        assert clock.wake_due() == pytest.approx(hours * 3_600, abs=1_800)


def test_what_is_due_beyond_one_ticks_share_is_the_next_ones_at_once(client, waker, clock, monkeypatch):
    monkeypatch.setattr(alarm_clock, "MAX_ALARMS_PER_TICK", 2)
    clock = AlarmClock(client, GROUPS, waker, OutboxStore(client, SHARDS))
    set_alarms(client, keyspace.lane_alarms_key, PEOPLE, 1)
    while clock.wake_due() == 0:
        pass
    assert sorted(waker.take()) == sorted(("replies", sender) for sender in PEOPLE)


def test_on_a_cluster_each_shard_lies_by_itself(pipeline):
    world = pipeline().world
    assert [k for group in world.shard_groups() for k in group] == [*range(world.settings.shards)]
    assert {len(group) for group in world.shard_groups()} == {keyspace.SHARDS_TOGETHER}
    settings = msgspec.structs.replace(world.settings, redis_url="redis+cluster://one,two")
    apart = msgspec.structs.replace(world, settings=settings).shard_groups()
    assert apart == [range(k, k + 1) for k in range(settings.shards)]
