"""What `parley capacity` shows: the first wall in the first line, then the sizes, then all walls."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from engine.commands.terminal import simple_table
from engine.model.durations import survey_duration
from engine.model.plurals import pluralize
from workers.capacity.capacity_plan import UNEVEN, CapacityPlan, RoleSize
from workers.capacity.turn_costs import TurnCosts
from workers.capacity.walls import CapacityWall, find_first_wall
from workers.capacity.workload import Workload

_CONTENT = {
    "event_streams": "event streams, {keep}",
    "closed_lanes": "lanes of people who are done, {repeats}",
    "session_indexes": "indexes of sessions, {sessions}",
    "open_lanes": "lanes of open conversations",
}

MANY_PRIMARIES = 4
"""With more of them, the 16 shards of the default cannot be dealt out evenly."""


def render_capacity(
    work: Workload, costs: TurnCosts, plan: CapacityPlan, walls: Sequence[CapacityWall]
) -> RenderableType:
    first = find_first_wall(walls)
    reached = first.at < work.turns_per_second
    return Group(
        Text(f"FIRST WALL: {_first_wall(work, first)}", style="bold red" if reached else "bold"),
        *(
            Text(f"{sentence[:1].upper()}{sentence[1:]}.")
            for sentence in _sentences(work, plan, walls, first)
        ),
        _roles_table(plan),
        _redis_table(work, plan),
        _rest_table(work, plan),
        _walls_table(work, walls),
        Text(
            f"No core and no memory is used by more than {work.busy:.0%}. "
            f"What a turn costs was measured {costs.measured} on {costs.machine}, "
            f"up to {costs.turns_per_second:g} turns/s; `--costs` takes your own."
        ),
    )


def _first_wall(work: Workload, wall: CapacityWall) -> str:
    asked = work.turns_per_second
    if wall.at >= asked:
        return f"{wall.what}, at {_rate(wall.at)}: {_times(wall.at / asked)} what is asked."
    if wall.is_beyond(asked):
        return f"{wall.what}, at {_rate(wall.at)}, and {_rate(asked)} are asked: {wall.remedy}."
    return f"{wall.what}, at {_rate(wall.at)}; {_rate(asked)} take {wall.count} {wall.unit}."


def _sentences(
    work: Workload, plan: CapacityPlan, walls: Sequence[CapacityWall], first: CapacityWall
) -> Iterator[str]:
    redis, cores = plan.redis, sum(role.cores for role in plan.roles)
    processes = pluralize(sum(role.processes for role in plan.roles), "process", "processes")
    servers = pluralize(redis.primaries * (1 + redis.replicas), "Redis", "Redis")
    yield (
        f"in all {processes} that keep {_digits(cores)} cores busy, {servers} of the lanes with "
        f"{_bytes(redis.memory_each)} in use at the most, and one of the wake-ups"
    )
    for wall in walls:
        if wall is not first and wall.is_beyond(work.turns_per_second):
            yield f"met too: {wall.what}, at {_rate(wall.at)}: {wall.remedy}"
    if redis.primaries > 1:
        yield f"{redis.primaries} primaries are a Redis Cluster; its busiest has {UNEVEN} times the mean"
    if redis.primaries > MANY_PRIMARIES:
        yield "lanes in 16 shards lie unevenly on so many: `parley reshard --to 256` first, if they do"


def _roles_table(plan: CapacityPlan) -> Table:
    table = simple_table("process")
    for column in ("how many", "busy cores", "one carries"):
        table.add_column(column, justify="right")
    table.add_column("bound by")
    for each in plan.roles:
        table.add_row(each.role, str(each.processes), f"{each.cores:.2f}", _carries(each), each.bound)
    return table


def _carries(role: RoleSize) -> str:
    return "any" if role.one_carries is None else _rate(role.one_carries)


def _redis_table(work: Workload, plan: CapacityPlan) -> Table:
    redis, table = plan.redis, _figures_table("Redis")
    table.add_row("primaries of the lanes", str(redis.primaries))
    table.add_row(
        "replicas of each", str(redis.replicas) if redis.replicas else "none: a lost machine is lost data"
    )
    table.add_row("servers of the wake-ups", "1")
    table.add_row("memory of the busiest primary", _bytes(redis.memory_each))
    table.add_row("busy cores of the busiest primary", f"{redis.cores_each:.2f}")
    table.add_row("busy cores of the wake-ups' server", f"{redis.broker_cores:.2f}")
    table.add_row("memory in all, without replicas", _bytes(redis.memory_total))
    times = {
        "keep": survey_duration(work.keep_ms),
        "repeats": survey_duration(work.repeat_ms),
        "sessions": survey_duration(work.session_index_ms),
    }
    for part, held in redis.memory.items():
        table.add_row("  " + _CONTENT[part].format(**times), _bytes(held))
    return table


def _rest_table(work: Workload, plan: CapacityPlan) -> Table:
    disk, network, table = plan.disk, plan.network, _figures_table("disk and network")
    table.add_row("append-only files, written at the busiest", f"{_bytes(disk.append_only_per_second)}/s")
    table.add_row("append-only files, while they are rewritten", _bytes(disk.append_only_most))
    if work.archive:
        table.add_row("archive, a day", _bytes(disk.archive_per_day))
        table.add_row(f"archive, after {work.archive_days} days", _bytes(disk.archive_kept))
    table.add_row("network to the world (assumed)", _bits(network.world))
    table.add_row("network to Redis", _bits(network.redis))
    table.add_row("network to replicas", _bits(network.replication))
    table.add_row("network of the busiest primary", _bits(network.one_primary))
    return table


def _figures_table(title: str) -> Table:
    table = simple_table(title)
    table.add_column("", justify="right")
    return table


def _walls_table(work: Workload, walls: Sequence[CapacityWall]) -> Table:
    table = simple_table("walls")
    table.add_column("one carries", justify="right")
    table.add_column("here")
    table.add_column("what to do")
    first = find_first_wall(walls)
    for wall in walls:
        beyond = wall.is_beyond(work.turns_per_second)
        here = _standing(work, wall) + (" <- first wall" if wall is first else "")
        table.add_row(wall.what, _rate(wall.at), here, wall.remedy, style="red" if beyond else None)
    return table


def _standing(work: Workload, wall: CapacityWall) -> str:
    asked = work.turns_per_second
    if wall.is_beyond(asked):
        return f"TOO LITTLE: {asked / max(wall.at, wall.carried):.1f} times"
    if wall.at < asked:
        return f"{wall.count} {wall.unit}"
    return f"{asked / wall.at:.0%} used"


def _times(ratio: float) -> str:
    return f"{_digits(ratio)} times"


def _rate(turns: float) -> str:
    return f"{_digits(turns)} turns/s"


def _digits(value: float) -> str:
    """Three digits, as no figure here is better."""
    if value >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


def _bytes(count: float) -> str:
    for unit, size in (("PB", 10**15), ("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            return f"{_digits(count / size)} {unit}"
    return f"{_digits(count / 1_000)} kB"


def _bits(per_second: float) -> str:
    for unit, size in (("Gb/s", 10**9), ("Mb/s", 10**6)):
        if per_second >= size:
            return f"{_digits(per_second / size)} {unit}"
    return f"{_digits(per_second / 1_000)} kb/s"
