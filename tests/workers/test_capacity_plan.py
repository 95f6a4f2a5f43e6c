"""How many machines? The plan carries what is asked with no more than it may use, and names what is in its way."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.capacity.capacity_plan import (
    UNEVEN,
    cpu_per_turn,
    memory_by_content,
    one_carries,
    plan_capacity,
)
from workers.capacity.turn_costs import read_costs
from workers.capacity.walls import find_first_wall, find_walls
from workers.capacity.workload import DAY_MS, Workload

COSTS = read_costs()
GB = 10**9

WORKLOADS = st.builds(
    Workload,
    turns_per_second=st.floats(0.01, 100_000),
    open_conversations=st.integers(0, 10**8),
    keep_ms=st.integers(1, 60).map(lambda days: days * DAY_MS),
    peak=st.floats(1, 50),
    turns_per_conversation=st.floats(1, 50),
    sms_per_turn=st.just(0.0) | st.floats(0.01, 5),
    receipts=st.booleans(),
    chars=st.integers(1, 1_600),
    people=st.none() | st.integers(10**8, 10**9),
    archive=st.booleans(),
    endpoints=st.integers(0, 20),
    batch=st.integers(1, 500),
    replicas=st.integers(0, 3),
    provider_ms=st.integers(1, 20_000),
    server_bytes=st.integers(GB, 1_000 * GB),
    busy=st.floats(0.1, 1),
)


def work(**changes):
    return Workload(**{"turns_per_second": 100.0, "open_conversations": 10_000, **changes})


@given(WORKLOADS)
def test_nothing_is_used_more_than_it_may_be(asked):
    plan = plan_capacity(asked, COSTS)
    roof = asked.busy * (1 + 1e-9)
    for role in plan.roles:
        standing = role.processes * getattr(COSTS.standing_us, role.role) / 1e6
        assert role.cores - standing <= role.processes * roof
        if role.one_carries:
            assert role.processes * role.one_carries >= asked.turns_per_second * (1 - 1e-9)
            assert role.processes == 1 or (role.processes - 1) * role.one_carries < asked.turns_per_second
    assert plan.redis.memory_each <= asked.server_bytes * roof + COSTS.bytes.empty_server


@given(WORKLOADS, st.floats(1, 20))
def test_more_turns_never_take_fewer_machines(asked, times):
    more = msgspec.structs.replace(asked, turns_per_second=asked.turns_per_second * times)
    few, many = plan_capacity(asked, COSTS), plan_capacity(more, COSTS)
    assert [role.processes for role in few.roles] <= [role.processes for role in many.roles]
    assert few.redis.primaries <= many.redis.primaries
    assert few.redis.memory_total <= many.redis.memory_total
    assert few.disk.archive_per_day <= many.disk.archive_per_day
    assert few.network.one_primary > 0


@given(WORKLOADS)
def test_walls_come_in_the_order_in_which_they_are_met(asked):
    walls = find_walls(asked, COSTS)
    assert [wall.at for wall in walls] == sorted(wall.at for wall in walls)
    assert all(0 < wall.at < math.inf for wall in walls)
    first = find_first_wall(walls)
    assert not first.is_processes
    assert all(wall.is_processes for wall in walls[: walls.index(first)])


@given(WORKLOADS)
def test_more_primaries_and_processes_carry_what_only_they_are_needed_for(asked):
    for wall in find_walls(asked, COSTS):
        if wall.what.startswith(("memory of", "core of one Redis")) or wall.is_processes:
            assert not wall.is_beyond(asked.turns_per_second), wall


@pytest.mark.parametrize(
    "changes",
    [{}, {"keep_ms": 30 * DAY_MS}, {"endpoints": 2, "batch": 100}, {"receipts": True, "sms_per_turn": 2.0}],
    ids=str,
)
def test_one_server_is_enough_up_to_its_wall_and_not_beyond(changes):
    """Of memory: all that a workload has grows with it, its open conversations too."""
    asked = work(**changes)
    (wall,) = (each for each in find_walls(asked, COSTS) if each.what.startswith("memory"))

    def primaries(times):
        times *= wall.at / asked.turns_per_second
        grown = msgspec.structs.replace(
            asked, turns_per_second=asked.turns_per_second * times, open_conversations=round(asked.open_conversations * times)
        )  # fmt: skip
        return plan_capacity(grown, COSTS).redis.primaries

    assert primaries(0.99) == 1
    assert primaries(1.01) > 1


def test_memory_is_what_is_kept_for_as_long_as_it_is_kept():
    asked = work(turns_per_second=8.0, peak=2.0, turns_per_conversation=4.0, keep_ms=3 * DAY_MS, chars=50)
    cost, turns_a_day = COSTS.bytes, 4 * 86_400
    assert memory_by_content(asked, COSTS) == pytest.approx(
        {
            "event_streams": 3 * turns_a_day * (cost.stream_turn + 100 * cost.stream_text),
            "closed_lanes": 7 * turns_a_day / 4 * cost.closed_lane,
            "session_indexes": (32 * turns_a_day / 4 + 10_000) * cost.session_index,
            "open_lanes": 10_000 * cost.open_lane,
        }
    )


def test_a_person_has_one_lane_however_often_they_come_back():
    few = memory_by_content(work(people=15_000), COSTS)
    assert few["closed_lanes"] == 5_000 * COSTS.bytes.closed_lane
    assert few["session_indexes"] == memory_by_content(work(), COSTS)["session_indexes"]


def test_without_an_archive_nothing_is_archived():
    plan = plan_capacity(work(archive=False), COSTS)
    assert plan.role("archive").processes == 0
    assert plan.disk.archive_kept == 0
    assert not [wall for wall in find_walls(work(archive=False), COSTS) if "archive" in wall.what]


def test_a_day_is_archived_by_its_average_and_servers_are_sized_by_its_peak():
    calm, busy = work(), work(peak=4.0)
    assert (
        plan_capacity(busy, COSTS).disk.archive_per_day == plan_capacity(calm, COSTS).disk.archive_per_day / 4
    )
    assert plan_capacity(busy, COSTS).roles == plan_capacity(calm, COSTS).roles


def test_a_slow_provider_takes_more_deliveries_though_no_more_cpu():
    slow = plan_capacity(work(turns_per_second=1_000.0, provider_ms=2_000), COSTS).role("delivery")
    assert slow.processes == math.ceil(1_000 * 2 / (32 * 0.7))
    assert slow.bound == "32 requests at once"
    assert plan_capacity(work(turns_per_second=1_000.0, provider_ms=1), COSTS).role("delivery").bound == "CPU"


def test_replicas_get_what_is_appended():
    two, none = (plan_capacity(work(replicas=count), COSTS) for count in (2, 0))
    assert two.network.replication == 2 * 8 * two.disk.append_only_per_second
    assert none.network.replication == 0


def test_receipts_are_heard_like_sms_and_nothing_is_sent_for_them():
    plain, told = cpu_per_turn(work(), COSTS), cpu_per_turn(work(receipts=True), COSTS)
    assert told["web"] == 2 * plain["web"]
    assert told["lanes"] == 2 * plain["lanes"]
    assert told["conversation"] == pytest.approx(plain["conversation"] + COSTS.cpu_us.conversation)
    assert told["delivery"] == plain["delivery"]
    assert told["ratelimit"] == plain["ratelimit"]


def test_one_endpoint_is_one_process_however_many_there_are():
    (wall,) = (each for each in find_walls(work(endpoints=5), COSTS) if "endpoint" in each.what)
    assert wall.at == one_carries(work(endpoints=1), COSTS, "hooks")
    assert wall.is_beyond(wall.at * 1.01)


def test_a_batch_is_one_request():
    alone, batched = (cpu_per_turn(work(endpoints=2, batch=size), COSTS)["hooks"] for size in (1, 100))
    events, cpu = 2 * COSTS.events_per_turn, COSTS.cpu_us
    assert alone == pytest.approx(events * (cpu.hooks_event + cpu.hooks_request))
    assert batched == pytest.approx(events * (cpu.hooks_event + cpu.hooks_request / 100))


def test_the_busiest_of_several_primaries_has_more_than_its_share():
    plan = plan_capacity(work(turns_per_second=3_000.0), COSTS)
    share = plan.redis.memory_total / plan.redis.primaries
    assert plan.redis.primaries > 1
    assert plan.redis.memory_each == pytest.approx(UNEVEN * share + COSTS.bytes.empty_server)


def test_a_faster_disk_moves_the_wall_of_syncs():
    at = {}
    for fsync_us in (0.0, 100.0, 10_000.0):
        (wall,) = (each for each in find_walls(work(fsync_us=fsync_us), COSTS) if "syncs" in each.what)
        at[fsync_us] = wall.at
    assert at[0.0] > at[100.0] > at[10_000.0]
    assert at[0.0] == pytest.approx(0.7e6 / COSTS.cpu_us.lanes)
