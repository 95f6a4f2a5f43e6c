"""What was done and what came of it, for whoever started a soak."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.soak.soak import Report

SHOWN = 40


def print_report(console: Console, report: Report, logs: Path) -> None:
    """The counts, and what is wrong, or that nothing is."""
    console.print(_table(report))
    if not report.wrongs:
        console.print(
            "Every webhook that was acknowledged was applied once and in order, every SMS that was decided was sent once and "
            "in order; nothing is pending and nothing has leaked."
        )
        if report.told:
            console.print("Every event was told, and each person's in order.")
    for wrong in report.wrongs[:SHOWN]:
        console.print(wrong, style="red", markup=False, highlight=False, soft_wrap=True)
    if report.wrongs:
        console.print(
            f"{len(report.wrongs)} wrongs. What was done, and what the processes wrote, is in {logs}."
        )


def _table(report: Report) -> Table:
    table = Table("what", "count", "a second")
    for what, count in (
        ("people", report.people), ("webhooks posted", report.webhooks), ("  not acknowledged", report.unacknowledged),
        ("SMS sent", report.sms), ("events told", report.told), ("  again", report.told_again),
    ):  # fmt: skip
        table.add_row(what, f"{count:,}", f"{count / report.seconds:,.1f}")
    for percent in (50, 99):
        table.add_row(f"answered within, {percent} %", f"{report.lag_s(percent):.2f} s", "")
    for had, count in sorted(report.looked_up.items()):
        table.add_row(
            f"looked up by an operator, the provider {'had' if had else 'had not'} it", f"{count:,}", ""
        )
    table.add_section()
    for deed, count in report.deeds.items():
        table.add_row(deed, f"{count:,}", f"{count / report.seconds:,.2f}")
    return table
