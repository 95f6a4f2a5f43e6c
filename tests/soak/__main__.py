"""`python -m tests.soak`: soak, print what was done and what came of it; exit status 1 if anything is wrong."""

import random
import shutil
import sys
from pathlib import Path

import click
from rich.console import Console

from tests.soak.printing import print_report
from tests.soak.redis_kinds import REDIS_KINDS, RedisKind, redis_of
from tests.soak.soak import soak, spools

LOGS = Path("var") / "soak"


@click.command()
@click.option("--seconds", default=600.0, show_default=True, help="How long mischief is done.")
@click.option("--seed", type=int, help="Do what the run with this seed did, in the same order.")
@click.option(
    "--every-ms", default=200.0, show_default=True, help="How often somebody comes to each channel."
)
@click.option(
    "--clock-steps/--no-clock-steps",
    default=shutil.which("cc") is not None,
    help="The clock of Redis' server steps too. Default: where there is a C compiler, which it takes.",
)
@click.option(
    "--redis",
    type=click.Choice(REDIS_KINDS),
    help="One server; one with a replica, which takes its place when it is lost; or a cluster of three with a replica each, whose "
    "nodes are lost and whose slots move. With replicas PARLEY_REPLICAS is 1. Default: each in every third soak.",
)
def main(
    seconds: float, seed: int | None, every_ms: float, clock_steps: bool, redis: RedisKind | None
) -> None:
    """Run Parley's real processes while they are killed, and Redis and the providers fail; then check the ledger.

    \b
    Example:
      python -m tests.soak --seconds 60 --seed 7
    """
    console = Console()
    seed = random.randrange(1_000_000) if seed is None else seed
    redis = redis or redis_of(seed)
    told = {"a spool": spools(seed), "a server's clock that steps": clock_steps and redis != "cluster"}
    has = [f"{'with' if has else 'without'} {what}" for what, has in told.items()]
    console.print(", ".join([f"seed {seed}", f"Redis is a {redis}", *has]))
    with console.status("starting …") as status:
        report = soak(
            seconds, seed, every_s=every_ms / 1_000, logs=LOGS, tell=lambda what: status.update(f"{what} …"),
            clock_steps=clock_steps, redis=redis,
        )  # fmt: skip
    print_report(console, report, LOGS)
    sys.exit(1 if report.wrongs else 0)


if __name__ == "__main__":
    main()
