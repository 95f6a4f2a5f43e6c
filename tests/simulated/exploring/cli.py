"""The command line of the simulation."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import count, islice, takewhile
from multiprocessing import get_context
from time import monotonic

import click
import msgspec
import structlog

from tests.simulated.exploring.exhaustion import explore
from tests.simulated.exploring.runs import RunResult, run_schedule, run_seed
from tests.simulated.exploring.shrinking import shrink
from tests.simulated.plays import PLAYS, SEEDS_A_RUN
from tests.simulated.plays.play import Play
from tests.simulated.world.faults import read_schedule, written_schedule

BATCH = 64
"""Runs that are handed out at once."""


@click.command()
@click.option("--plays", "wanted", default="all", help="which plays, with commas; all of them")
@click.option("--seed", type=int, help="replay this seed")
@click.option("--faults", "written", help="with these faults alone, as the last line of a failure has them")
@click.option("--from", "first", type=int, default=0, help="the first seed of a search")
@click.option("--seeds", "seed_count", type=int, default=0, help="how many to search at the most; 0: any")
@click.option("--seconds", type=float, default=60.0, help="how long to search")
@click.option("--jobs", default=1, help="in how many processes to search")
@click.option("--trace", "is_traced", is_flag=True, help="print every call of a replay")
@click.option("--until-failure", is_flag=True, help="stop at the first failing seed")
@click.option(
    "--exhaust", "depth", type=int, default=0, help="every schedule of up to so many faults, instead"
)
def command(
    wanted: str,
    seed: int | None,
    written: str | None,
    first: int,
    seed_count: int,
    seconds: float,
    until_failure: bool,
    depth: int,
    jobs: int,
    is_traced: bool,
) -> None:
    """Run plays with faults drawn from seeds, and print what they broke."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    trace = click.echo if is_traced else None
    plays = list(PLAYS.values()) if wanted == "all" else [PLAYS[name] for name in wanted.split(",")]
    if written is not None:
        schedule = read_schedule(written)
        runs = (run_schedule(play, seed or 0, schedule, trace) for play in plays)
    elif seed is not None:
        runs = (run_seed(play, seed, trace) for play in plays)
    elif depth:
        runs = (run for play in plays for run in explore(play, 0, depth, jobs))
    else:
        seeds = range(first, first + seed_count) if seed_count else count(first)
        runs = _search(plays, seeds, seconds, jobs)
    raise SystemExit(_report(runs, until_failure=until_failure))


def _search(plays: list[Play], searched: Iterable[int], seconds: float, jobs: int) -> Iterator[RunResult]:
    """Yield runs of all plays with one seed after another, made by so many processes."""
    end_s = monotonic() + seconds
    every = SEEDS_A_RUN if len(plays) > len(SEEDS_A_RUN) else {}
    seeds = ((play.name, seed) for seed in searched for play in plays if seed % every.get(play.name, 1) == 0)
    wanted = takewhile(lambda _: monotonic() < end_s, seeds)
    if jobs == 1:
        yield from (run_seed(PLAYS[name], seed) for name, seed in wanted)
        return
    with ProcessPoolExecutor(jobs, get_context("fork")) as pool:
        while batch := list(islice(wanted, BATCH)):
            yield from pool.map(_run_named, batch)


def _run_named(wanted: tuple[str, int]) -> RunResult:
    name, seed = wanted
    return run_seed(PLAYS[name], seed)


def _report(runs: Iterator[RunResult], *, until_failure: bool) -> int:
    begun_s = monotonic()
    made = 0
    kinds: Counter[str] = Counter()
    failed: RunResult | None = None
    for run in runs:
        made += 1
        kinds.update(fault.kind for fault in run.met.values())
        if run.broken:
            shortest = shrink(PLAYS[run.play], run)
            failed = failed or shortest
            click.echo(f"\n{run.play}, seed {run.seed}: {shortest.seen}")
            for line in shortest.described:
                click.echo(f"  {line}")
            if until_failure:
                break
    took_s = monotonic() - begun_s
    click.echo(f"{made} runs in {took_s:.1f} s, {made / max(took_s, 0.001):.1f} a second")
    click.echo(", ".join(f"{kind} {times}" for kind, times in kinds.most_common()))
    if failed is not None:
        verdict = {
            "play": failed.play, "seed": failed.seed, "faults": written_schedule(failed.met),
            "violation": failed.broken, "runs": made,
        }  # fmt: skip
        click.echo(msgspec.json.encode(verdict).decode())
    return 1 if failed is not None else 0


def main() -> None:
    command()
