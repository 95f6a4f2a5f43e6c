"""`python -m tests.soak`: soak, print what was done and what came of it; exit status 1 if anything is wrong."""

import random
import shutil
import sys
from pathlib import Path

import click
from rich.console import Console

from tests.soak.printing import print_report
from tests.soak.soak import replicates, soak, spools

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
    "--fail-overs/--no-fail-overs",
    default=None,
    help="Redis has a replica, which takes its place when it is lost (PARLEY_REPLICAS=1). Default: in every other soak.",
)
def main(
    seconds: float, seed: int | None, every_ms: float, clock_steps: bool, fail_overs: bool | None
) -> None:
    """Run Parley's real processes while they are killed, and Redis and the providers fail; then check the ledger.

    \b
    Example:
      python -m tests.soak --seconds 60 --seed 7
    """
    console = Console()
    seed = random.randrange(1_000_000) if seed is None else seed
    fail_overs = replicates(seed) if fail_overs is None else fail_overs
    told = {"a spool": spools(seed), "a server's clock that steps": clock_steps, "failovers": fail_overs}
    console.print(
        ", ".join([f"seed {seed}", *(f"{'with' if has else 'without'} {what}" for what, has in told.items())])
    )
    with console.status("starting …") as status:
        report = soak(
            seconds, seed, every_s=every_ms / 1_000, logs=LOGS, tell=lambda what: status.update(f"{what} …"),
            clock_steps=clock_steps, fail_overs=fail_overs,
        )  # fmt: skip
    print_report(console, report, LOGS)
    sys.exit(1 if report.wrongs else 0)


if __name__ == "__main__":
    main()
