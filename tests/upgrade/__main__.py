"""`python -m tests.upgrade`: soak the last release and this one together; exit status 1 if anything is wrong."""

import random
import signal
import sys
from pathlib import Path

import click
from rich.console import Console

from tests.soak.printing import print_report
from tests.soak.soak import soak, spools
from tests.support.processes import THIS
from tests.upgrade.checkout import UnknownReleaseError, checked_out, last_release
from tests.upgrade.rollout import StagedRollout

LOGS = Path("var") / "upgrade-logs"
COPIES = {"web": 2, "ratelimit": 2, "conversation": 2, "delivery": 2, "clock": 2}

DEADLINE_S = 1_200
"""How long it may take beyond the time for which mischief is done, whatever hangs."""


@click.command()
@click.option("--seconds", default=60.0, show_default=True, help="How long mischief is done.")
@click.option("--seed", type=int, help="Do what the run with this seed did, in the same order.")
@click.option(
    "--every-ms", default=200.0, show_default=True, help="How often somebody comes to each channel."
)
@click.option("--release", "commit", default=last_release, help="Another release's commit or tag.")
def main(seconds: float, seed: int | None, every_ms: float, commit: str) -> None:
    """Go from the last release to this one and back, process by process, while everything is killed and fails; then check
    the ledger, and let each release replay the other's dead letters.

    \b
    Example:
      python -m tests.upgrade --seconds 60 --seed 7
    """
    console = Console()
    seed = random.randrange(1_000_000) if seed is None else seed
    console.print(f"from {commit} and back, seed {seed}, {'with' if spools(seed) else 'without'} a spool")
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(int(seconds) + DEADLINE_S)
    try:
        with console.status("checking out …") as status, checked_out(commit) as last:
            rollout = StagedRollout(last, THIS)
            report = soak(
                seconds, seed, copies=COPIES, every_s=every_ms / 1_000, logs=LOGS, rollout=rollout,
                tell=lambda what: status.update(f"{what} …"),
            )  # fmt: skip
    except UnknownReleaseError as e:
        raise click.ClickException(str(e)) from e
    print_report(console, report, LOGS)
    console.print(f"{rollout.replaced} processes were replaced by another release's.")
    if not report.wrongs:
        console.print("Each release has replayed what the other gave up.")
    sys.exit(1 if report.wrongs else 0)


def _give_up(_signal: int, _frame: object) -> None:
    raise TimeoutError("something hangs")


if __name__ == "__main__":
    main()
