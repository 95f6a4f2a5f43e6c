"""Which wall is met first, as all of a workload grows in proportion? What one server, process, endpoint or channel cannot exceed,
by the turns a second at which it is reached."""

from collections.abc import Iterator, Sequence

import msgspec

from workers.capacity.capacity_plan import (
    CPU_BOUND,
    UNEVEN,
    US_PER_S,
    CapacityPlan,
    RedisSize,
    RoleSize,
    cpu_per_turn,
    one_carries,
    plan_capacity,
)
from workers.capacity.turn_costs import TurnCosts
from workers.capacity.workload import Workload


class CapacityWall(msgspec.Struct, frozen=True):
    """One server, process, endpoint or channel carries no more than `at` turns a second, by `what` it has of something; `remedy`
    is what to do about it. The plan has `count` of them, and is told so as `unit`; together they carry `carried`. That one process
    is full is no wall of a deployment, but listed: more of them is all it takes (`is_processes`)."""

    what: str
    at: float
    remedy: str
    unit: str = ""
    count: int = 1
    carried: float = 0.0
    is_processes: bool = False

    def is_beyond(self, turns_per_second: float) -> bool:
        """Is it met by so many turns, however many the plan has?"""
        return max(self.at, self.carried) < turns_per_second * (1 - _ROUNDING)


_ROUNDING = 1e-9

_MEMORY_REMEDIES = {
    "event_streams": "a shorter --keep (PARLEY_STREAM_DAYS), or PARLEY_COMPACT_RECORDS",
    "closed_lanes": "a shorter PARLEY_REPEAT_DAYS",
    "session_indexes": "more memory, as the indexes of sessions stay for a month",
    "open_lanes": "more memory",
}


def find_walls(work: Workload, costs: TurnCosts) -> list[CapacityWall]:
    """The walls, first met first. Pure."""
    plan = plan_capacity(work, costs)
    return sorted(_walls(work, costs, plan), key=lambda wall: wall.at)


def find_first_wall(walls: Sequence[CapacityWall]) -> CapacityWall:
    """The first that more processes do not move."""
    return next((wall for wall in walls if not wall.is_processes), walls[0])


def _walls(work: Workload, costs: TurnCosts, plan: CapacityPlan) -> Iterator[CapacityWall]:
    each_us, redis = cpu_per_turn(work, costs), plan.redis
    if total := redis.memory_total:
        most = max(redis.memory, key=lambda part: redis.memory[part])
        yield _of_primaries(
            redis,
            f"memory of one Redis, {work.server_bytes / 10**9:g} GB",
            work.turns_per_second * work.server_bytes * work.busy / total,
            f"more primaries, or {_MEMORY_REMEDIES[most]}",
        )
    fsync_us = costs.fsync_us if work.fsync_us is None else work.fsync_us
    if synced_us := each_us["lanes"] + costs.syncs_per_turn * work.events_per_turn * fsync_us:
        yield _of_primaries(
            redis,
            f"syncs of one Redis, at {fsync_us / 1_000:.2g} ms",
            work.busy * US_PER_S / synced_us,
            "a disk with power-loss protection; else turns wait for shared syncs",
        )
    if carried := one_carries(work, costs, "lanes"):
        yield _of_primaries(redis, "core of one Redis", carried, "more primaries")
    if full_us := costs.cpu_us.broker_full * work.events_per_turn:
        yield CapacityWall(
            "core of the wake-ups' Redis", work.busy * US_PER_S / full_us, "a cluster for the wake-ups"
        )
    if each := costs.cpu_us.channel * work.sms_per_turn:
        yield CapacityWall(
            "keys of one channel, on one Redis", work.busy * US_PER_S / each, "several channels"
        )
    delivery = plan.role("delivery")
    if delivery.one_carries:
        bound = "core" if delivery.bound == CPU_BOUND else "requests at once"
        yield _of_processes(
            f"one `delivery`, its {bound}", delivery, delivery.one_carries, "more `delivery` processes"
        )
    archive = plan.role("archive")
    if archive.one_carries:
        wall = _of_processes(
            "one `archive` that writes to SQLite",
            archive,
            archive.one_carries,
            "PostgreSQL, and more `archive` processes",
        )
        yield msgspec.structs.replace(wall, unit="processes, on PostgreSQL", is_processes=False)
    alone = msgspec.structs.replace(work, endpoints=1)
    if work.endpoints and (carried := one_carries(alone, costs, "hooks")):
        yield CapacityWall(
            "one endpoint, which one `hooks` tells",
            carried,
            "a larger `batch`, or endpoints that share out surveys",
        )


def _of_primaries(redis: RedisSize, what: str, at: float, remedy: str) -> CapacityWall:
    carried = at * redis.primaries / (UNEVEN if redis.primaries > 1 else 1)
    return CapacityWall(what, at, remedy, "primaries", redis.primaries, carried)


def _of_processes(what: str, role: RoleSize, at: float, remedy: str) -> CapacityWall:
    return CapacityWall(what, at, remedy, "processes", role.processes, at * role.processes, is_processes=True)
