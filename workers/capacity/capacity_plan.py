"""How many machines does a workload take? Processes of each role, servers of Redis, disk and network, from the costs of a turn.

The model is linear: CPU is what a process takes anyway and so much for each turn, memory and disk are what is kept of each
turn and conversation. What it leaves out makes it dear rather than cheap: turns that share a wake-up, a commit or a sync, as
they do where processes are busy, cost less. Nothing here asks the machine for anything.
"""

from collections.abc import Mapping
from math import ceil, inf

import msgspec

from workers.capacity.turn_costs import TurnCosts
from workers.capacity.workload import DAY_MS, Workload
from workers.sending.bulkhead import SLOTS_PER_CHANNEL

UNEVEN = 1.25
"""The busiest of several primaries has so many times the mean, as shards are dealt out by ranges of slots."""

FILE_COPIES = 3
"""An append-only file may grow to twice what it had when it was rewritten, and the next one is written beside it."""

US_PER_S = 1_000_000

CPU_BOUND = "CPU"


class RoleSize(msgspec.Struct, frozen=True):
    """`cores` are busy, of all `processes` together; one process carries `one_carries` turns a second (None: any), `bound` by
    CPU or by the requests that it has under way at once."""

    role: str
    processes: int
    cores: float
    one_carries: float | None
    bound: str


class RedisSize(msgspec.Struct, frozen=True):
    """The lanes' servers. `memory` is all, by what it holds; `memory_each` and `cores_each` are of the busiest primary. Each
    primary has `replicas` with as much memory."""

    primaries: int
    replicas: int
    memory: Mapping[str, float]
    memory_each: float
    cores_each: float
    broker_cores: float

    @property
    def memory_total(self) -> float:
        return sum(self.memory.values())


class DiskSize(msgspec.Struct, frozen=True):
    """Bytes. `append_only_most` is of all primaries, while the file is rewritten."""

    append_only_per_second: float
    append_only_per_day: float
    append_only_most: float
    archive_per_day: float
    archive_kept: float


class NetworkSize(msgspec.Struct, frozen=True):
    """Bits a second at the busiest moment, both directions together: of `one_primary` with what its replicas get."""

    world: float
    redis: float
    replication: float
    one_primary: float


class CapacityPlan(msgspec.Struct, frozen=True):
    roles: list[RoleSize]
    redis: RedisSize
    disk: DiskSize
    network: NetworkSize

    def role(self, name: str) -> RoleSize:
        """Of no process, if there is none of that name."""
        return next(
            (each for each in self.roles if each.role == name), RoleSize(name, 0, 0.0, None, CPU_BOUND)
        )


def plan_capacity(work: Workload, costs: TurnCosts) -> CapacityPlan:
    """Size a deployment for `work`. Pure."""
    redis = _size_redis(work, costs)
    return CapacityPlan(
        _size_roles(work, costs), redis, _size_disk(work, costs, redis), _size_network(work, costs, redis)
    )


def cpu_per_turn(work: Workload, costs: TurnCosts) -> Mapping[str, float]:
    """µs of CPU of a turn, by role and server, what belongs to it included: its share of STARTs, its SMS, its receipts."""
    cpu = costs.cpu_us
    starts = 1 / work.turns_per_conversation
    events = costs.events_per_turn * work.endpoints
    return {
        "web": cpu.web * work.events_per_turn,
        "ratelimit": cpu.ratelimit * starts,
        "conversation": cpu.conversation * (work.events_per_turn - starts),
        "delivery": cpu.delivery * work.sms_per_turn,
        "clock": cpu.clock * work.events_per_turn,
        "archive": cpu.archive * work.events_per_turn * work.archive,
        "hooks": events * (cpu.hooks_event + cpu.hooks_request / work.batch),
        "lanes": cpu.lanes * work.events_per_turn + events * cpu.lanes_hooks_event,
        "broker": cpu.broker * work.events_per_turn,
    }


def one_carries(work: Workload, costs: TurnCosts, name: str) -> float | None:
    """Turns a second that one process or server of this name carries, if no more than `busy` of a core is used; None: any."""
    each = cpu_per_turn(work, costs)[name]
    room = work.busy * (US_PER_S - getattr(costs.standing_us, name))
    return room / each if each else None


def one_delivery_has_slots_for(work: Workload) -> float:
    """Turns a second whose requests to the provider one `delivery` may have under way on one channel; infinite if nothing is
    sent."""
    if not work.sms_per_turn:
        return inf
    return work.busy * SLOTS_PER_CHANNEL / (work.provider_ms / 1_000) / work.sms_per_turn


def memory_by_content(work: Workload, costs: TurnCosts) -> Mapping[str, float]:
    """Bytes of Redis' memory of all primaries, by what they hold. A lane that is closed is kept for PARLEY_REPEAT_DAYS, two
    days at least."""
    cost = costs.bytes
    turns_per_ms = work.turns_per_second / work.peak / 1_000
    conversations_per_ms = turns_per_ms / work.turns_per_conversation
    lanes = conversations_per_ms * max(work.repeat_ms, 2 * DAY_MS)
    closed = lanes if work.people is None else max(0.0, min(lanes, work.people - work.open_conversations))
    stream_turn = work.events_per_turn * cost.stream_turn + work.text_per_turn * cost.stream_text
    sessions = conversations_per_ms * work.session_index_ms + work.open_conversations
    return {
        "event_streams": turns_per_ms * work.keep_ms * stream_turn,
        "closed_lanes": closed * cost.closed_lane,
        "session_indexes": sessions * cost.session_index,
        "open_lanes": work.open_conversations * cost.open_lane,
    }


def _size_roles(work: Workload, costs: TurnCosts) -> list[RoleSize]:
    roles = ["web", "ratelimit", "conversation", "delivery", "clock"]
    roles += ["archive"] * work.archive + ["hooks"] * (work.endpoints > 0)
    return [_size_role(work, costs, role) for role in roles]


def _size_role(work: Workload, costs: TurnCosts, role: str) -> RoleSize:
    carried, bound = one_carries(work, costs, role), CPU_BOUND
    if role == "delivery" and (slots := one_delivery_has_slots_for(work)) < (carried or inf):
        carried, bound = slots, f"{SLOTS_PER_CHANNEL} requests at once"
    processes = max(1, ceil(work.turns_per_second / carried)) if carried else 1
    busy_us = work.turns_per_second * cpu_per_turn(work, costs)[role]
    standing_us = processes * getattr(costs.standing_us, role)
    return RoleSize(role, processes, (busy_us + standing_us) / US_PER_S, carried, bound)


def _size_redis(work: Workload, costs: TurnCosts) -> RedisSize:
    memory = memory_by_content(work, costs)
    each_us = cpu_per_turn(work, costs)
    by_memory = sum(memory.values()) / (work.server_bytes * work.busy)
    carried = one_carries(work, costs, "lanes")
    needed = max(by_memory, work.turns_per_second / carried if carried else 0)
    primaries = 1 if needed <= 1 else ceil(needed * UNEVEN)
    share = 1 if primaries == 1 else UNEVEN / primaries
    return RedisSize(
        primaries,
        work.replicas,
        memory,
        sum(memory.values()) * share + costs.bytes.empty_server,
        (work.turns_per_second * each_us["lanes"] * share + costs.standing_us.lanes) / US_PER_S,
        (work.turns_per_second * each_us["broker"] + costs.standing_us.broker) / US_PER_S,
    )


def _size_disk(work: Workload, costs: TurnCosts, redis: RedisSize) -> DiskSize:
    cost, kept_days = costs.bytes, work.archive_days
    archive = work.events_per_turn * cost.archive_turn + work.text_per_turn * cost.archive_text
    archive_per_day = work.daily_turns * archive * work.archive
    return DiskSize(
        work.turns_per_second * append_only_per_turn(work, costs),
        work.daily_turns * append_only_per_turn(work, costs),
        redis.memory_total * FILE_COPIES,
        archive_per_day,
        archive_per_day * kept_days,
    )


def append_only_per_turn(work: Workload, costs: TurnCosts) -> float:
    """Bytes that are appended for a turn, and go to each replica."""
    cost = costs.bytes
    return work.events_per_turn * cost.append_only_turn + work.text_per_turn * cost.append_only_text


def _size_network(work: Workload, costs: TurnCosts, redis: RedisSize) -> NetworkSize:
    cost, rate = costs.bytes, work.turns_per_second
    world = rate * (work.events_per_turn * cost.http_webhook + work.sms_per_turn * cost.http_send)
    lanes = rate * work.events_per_turn * cost.lanes_network_turn
    broker = rate * work.events_per_turn * cost.broker_network_turn
    replication = rate * append_only_per_turn(work, costs) * work.replicas
    share = 1 if redis.primaries == 1 else UNEVEN / redis.primaries
    return NetworkSize(
        *(8 * each for each in (world, lanes + broker, replication, (lanes + replication) * share))
    )
