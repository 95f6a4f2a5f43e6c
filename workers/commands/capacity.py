"""`parley capacity`: how many machines will it take, and what is in the way first? From costs that were measured; nothing that
runs is asked."""

from math import isnan
from pathlib import Path
from typing import Any

import click
import msgspec

from config.settings.config_errors import exit_on_config_error
from config.settings.hooks import MAX_BATCH
from config.store.keyspace import UNARCHIVED_STREAM_MS
from engine.commands.json_output import print_json
from engine.commands.terminal import open_console
from engine.model.durations import compact_duration
from workers.capacity.capacity_plan import plan_capacity
from workers.capacity.capacity_screen import render_capacity
from workers.capacity.turn_costs import SHIPPED_COSTS, read_costs
from workers.capacity.walls import find_first_wall, find_walls
from workers.capacity.workload import DAY_MS, Workload
from workers.commands.cli_options import DurationParam

_COUNT = click.IntRange(0, 10**12)


class DaysParam(DurationParam):
    """`7d`, as ms: settings have whole days."""

    name = "days"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        ms = super().convert(value, param, ctx)
        if ms % DAY_MS or ms > 3_650 * DAY_MS:
            self.fail(f"{value!r}: expected whole days, from 1d to 3650d", param, ctx)
        return ms


class FiniteRange(click.FloatRange):
    """A number in a range, which `nan` is in none of."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if isnan(number):
            self.fail(f"{value!r} is no number", param, ctx)
        return number


@click.command()
@click.option(
    "--turns-per-second", required=True, type=FiniteRange(min=0, min_open=True, max=1e9),
    help="SMS that come in, at the busiest moment.",
)  # fmt: skip
@click.option(
    "--open", "open_conversations", required=True, type=_COUNT, help="Conversations that are open at once."
)
@click.option(
    "--keep", "keep_ms", type=DaysParam(), help="PARLEY_STREAM_DAYS. Default: 7d; without an archive, 30d."
)
@click.option(
    "--peak", default=1.0, show_default=True, type=FiniteRange(min=1, max=1_000),
    help="So many times the average of a day is the busiest moment: what is kept goes by the average.",
)  # fmt: skip
@click.option(
    "--turns-per-conversation", default=4.0, show_default=True, type=FiniteRange(min=1, max=10_000),
    help="SMS that come in in one conversation, the START among them.",
)  # fmt: skip
@click.option(
    "--sms-per-turn", default=1.0, show_default=True, type=FiniteRange(min=0, max=100),
    help="SMS that go out for one that comes in.",
)  # fmt: skip
@click.option("--receipts", is_flag=True, help="The provider posts a receipt for each SMS.")
@click.option(
    "--chars", default=60, show_default=True, type=click.IntRange(1, 1_600), help="Of an SMS, on average."
)
@click.option(
    "--people", type=_COUNT, help="How many they are at the most. Default: each conversation is another's."
)
@click.option(
    "--repeats", "repeat_ms", default="7d", show_default=True, type=DaysParam(), help="PARLEY_REPEAT_DAYS."
)
@click.option("--archive/--no-archive", default=True, help="With an archive, as is the default; or without.")
@click.option(
    "--archive-days", default=365, show_default=True, type=click.IntRange(1, 3_650), help="PARLEY_KEEP_DAYS."
)
@click.option(
    "--hooks",
    "endpoints",
    default=0,
    type=click.IntRange(0, 1_000),
    help="Endpoints that are told all that happens.",
)
@click.option(
    "--hook-batch",
    "batch",
    default=1,
    show_default=True,
    type=click.IntRange(1, MAX_BATCH),
    help="`batch` of the endpoints.",
)
@click.option(
    "--replicas",
    default=0,
    show_default=True,
    type=click.IntRange(0, 5),
    help="Replicas of each Redis of the lanes.",
)
@click.option(
    "--provider-ms",
    default=200,
    show_default=True,
    type=click.IntRange(1, 60_000),
    help="How long the provider takes over a request.",
)
@click.option(
    "--server-gb",
    default=64.0,
    show_default=True,
    type=FiniteRange(min=0.1, max=100_000),
    help="Memory of one server of Redis, in GB.",
)
@click.option(
    "--fsync-us",
    type=FiniteRange(min=0, max=1_000_000),
    help="How long a server's disk takes to sync. Default: as the disk that was measured.",
)
@click.option(
    "--busy", "busy_percent", default=70, show_default=True, type=click.IntRange(1, 100),
    help="Percent of a core or of memory that is used at the most.",
)  # fmt: skip
@click.option(
    "--costs", "costs_file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What a turn costs, as `make bench` measured it on your machine. Default: as it shipped.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def capacity(
    keep_ms: int | None, archive: bool, server_gb: float, busy_percent: int, people: int | None,
    open_conversations: int, costs_file: Path | None, as_json: bool, **options: object,
) -> None:  # fmt: skip
    """How many machines will it take, and what is in the way first?

    The first line is the first wall: what is used up before anything else, as all of it grows. Then processes of each role,
    servers of Redis and their memory, disk, network, and all walls in the order in which they are met. Nothing that runs is
    asked: the costs of a turn were measured, and the rest is multiplied.

    \b
    Example:
      parley capacity --turns-per-second 2000 --open 1000000 --keep 7d
      parley capacity --turns-per-second 50 --open 20000 --peak 4 --people 500000 --receipts
      parley capacity --turns-per-second 50 --open 20000 --json | jq .walls[0]
    """
    if people is not None and people < open_conversations:
        raise click.BadParameter(
            f"{people} people cannot have {open_conversations} conversations open", param_hint="--people"
        )
    unarchived = compact_duration(UNARCHIVED_STREAM_MS)
    if not archive and keep_ms not in {None, UNARCHIVED_STREAM_MS}:
        raise click.BadParameter(
            f"without an archive Redis keeps what happened for {unarchived}: leave --keep out",
            param_hint="--keep",
        )
    with exit_on_config_error():
        costs = read_costs(costs_file or SHIPPED_COSTS)
    work = msgspec.convert(
        options
        | {
            "open_conversations": open_conversations,
            "people": people,
            "archive": archive,
            "keep_ms": keep_ms or (7 * DAY_MS if archive else UNARCHIVED_STREAM_MS),
            "server_bytes": round(server_gb * 10**9),
            "busy": busy_percent / 100,
        },
        Workload,
    )
    plan, walls = plan_capacity(work, costs), find_walls(work, costs)
    if as_json:
        print_json(
            {
                "first_wall": find_first_wall(walls),
                "walls": walls,
                "plan": plan,
                "workload": work,
                "costs": costs,
            }
        )
    else:
        open_console(soft_wrap=True).print(render_capacity(work, costs, plan, walls))
