"""`python -m tests.bench`: measure, print a table, and write it to var/bench.json."""

import json
from pathlib import Path
from time import monotonic

import click
from rich.console import Console
from rich.table import Table

from tests.bench.measures import MEASURES, QUICK, Bench, Measure, Scale
from tests.support.octopush import FakeOctopush
from tests.support.valkey import Valkey
from workers.capacity.turn_costs import render_costs

REPORT = Path("var") / "bench.json"


@click.command()
@click.option("--only", type=click.Choice(list(MEASURES)), multiple=True, help="Measure only this.")
@click.option("--quick", is_flag=True, help="Less of everything, once: does it run?")
@click.option(
    "--costs", type=click.Path(dir_okay=False, path_type=Path), help="Write there what a turn costs, for `parley capacity --costs`."
)  # fmt: skip
def main(only: tuple[str, ...], quick: bool, costs: Path | None) -> None:
    """Measure Parley beside the pipeline that people write by hand, on this machine.

    \b
    Example:
      python -m tests.bench --only turns --only pipeline
      python -m tests.bench --only capacity_cores --costs costs.toml
    """
    if costs and only and not set(only) & {"capacity_cores", "capacity_memory"}:
        raise click.UsageError("--costs are measured by capacity_cores: add --only capacity_cores")
    console = Console()
    begun_s = monotonic()
    found: dict[str, Measure] = {}
    with Valkey() as valkey, FakeOctopush() as octopush:
        bench = Bench(valkey, octopush, QUICK if quick else Scale())
        for name in only or MEASURES:
            if name not in found:
                with console.status(f"measuring {name} …"):
                    found |= {measure.measure: measure for measure in MEASURES[name](bench)}
    if costs and bench.costs:
        costs.write_text(render_costs(bench.costs))
    rows = [found[name].row() for name in MEASURES if name in found]
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(rows, indent=1) + "\n")
    console.print(_table([found[name] for name in MEASURES if name in found]))
    console.print(
        f"Checked: {bench.conversations:,} conversations went word for word as they must, {bench.webhooks:,} webhooks "
        f"acknowledged are in mailboxes. Took {monotonic() - begun_s:.0f} s. Written to {REPORT}."
    )


def _table(measures: list[Measure]) -> Table:
    table = Table("measure", "Parley", "other", "ratio", "unit", "other is")
    for measure in measures:
        pair = (measure.parley, measure.other)
        table.add_row(measure.measure, *_numbers(pair), measure.unit, measure.versus)
        for name, more in measure.extra.items():
            if more != pair:
                table.add_row(f"  {name}", *_numbers(more), measure.unit, "")
    return table


def _numbers(pair: tuple[float, float]) -> list[str]:
    ours, theirs = pair
    return [
        f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" for value in (ours, theirs, ours / theirs)
    ]


if __name__ == "__main__":
    main()
