"""`python -m tests.soak`: soak, print what was done and what came of it; exit status 1 if anything is wrong."""

import random
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from tests.soak.soak import Report, soak, spools

LOGS = Path("var") / "soak"
SHOWN = 40


@click.command()
@click.option("--seconds", default=600.0, show_default=True, help="How long mischief is done.")
@click.option("--seed", type=int, help="Do what the run with this seed did, in the same order.")
@click.option(
    "--every-ms", default=100.0, show_default=True, help="How often somebody comes to each channel."
)
def main(seconds: float, seed: int | None, every_ms: float) -> None:
    """Run Parley's real processes while they are killed, and Redis and the provider fail; then check the ledger.

    \b
    Example:
      python -m tests.soak --seconds 60 --seed 7
    """
    console = Console()
    seed = random.randrange(1_000_000) if seed is None else seed
    console.print(f"seed {seed}, {'with' if spools(seed) else 'without'} a spool")
    with console.status("starting …") as status:
        report = soak(
            seconds, seed, every_s=every_ms / 1_000, logs=LOGS, tell=lambda what: status.update(f"{what} …")
        )
    console.print(_table(report))
    if not report.wrongs:
        console.print(
            "Every webhook that was acknowledged was applied once and in order, every SMS that was decided was sent once and "
            "in order; nothing is pending and nothing has leaked."
        )
        return
    for wrong in report.wrongs[:SHOWN]:
        console.print(wrong, style="red", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{len(report.wrongs)} wrongs. What was done, and what the processes wrote, is in {LOGS}.")
    sys.exit(1)


def _table(report: Report) -> Table:
    table = Table("what", "count", "a second")
    for what, count in (
        ("people", report.people), ("webhooks posted", report.webhooks), ("  not acknowledged", report.unacknowledged),
        ("SMS sent", report.sms),
    ):  # fmt: skip
        table.add_row(what, f"{count:,}", f"{count / report.seconds:,.1f}")
    for percent in (50, 99):
        table.add_row(f"answered within, {percent} %", f"{report.lag_s(percent):.2f} s", "")
    table.add_section()
    for deed, count in report.deeds.items():
        table.add_row(deed, f"{count:,}", f"{count / report.seconds:,.2f}")
    return table


if __name__ == "__main__":
    main()
