"""How is an operator told what came of many dead letters? A bar while it goes on, then a table, and the exit status."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import click
import msgspec
import redis
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from workers.dead_letters.replay import GONE_OUTCOMES, LetterResult

PIPED_OUTPUT_WIDTH = 200
EXIT_ALL_RESOLVED, EXIT_SOME_KEPT = 0, 1
"""Exit statuses; 2 is misuse."""

EXIT_INTERRUPTED = 130

DRY_RUN_TITLE = "would be"
"""Over outcomes that have not come about."""

_MAX_ROWS_SHOWN = 200  # letters, one by one, on a terminal


def report_outcomes(
    done: Iterable[LetterResult], total: int, title: str, *, as_json: bool, each_one: bool = False
) -> int:
    """Say what came of how many, and of each that stays, or of `each_one`; answers the exit status."""
    counts: Counter[str] = Counter()
    told: list[LetterResult] = []
    status = EXIT_ALL_RESOLVED
    try:
        with _progress_bar(total, title) as advance:
            for each in done:
                counts[each.outcome] += 1
                if as_json:
                    click.echo(json.dumps(msgspec.structs.asdict(each)))
                elif each_one or each.outcome not in GONE_OUTCOMES or (each.outcome == "gone" and each.why):
                    told.append(each)
                advance()
    except redis.RedisError as e:
        click.echo(
            f"Redis failed ({type(e).__name__}): what is counted is done; run it again for the rest", err=True
        )
        status = EXIT_SOME_KEPT
    except KeyboardInterrupt:
        click.echo("stopped: what is counted is done; run it again for the rest", err=True)
        status = EXIT_INTERRUPTED
    if not as_json:
        _print_summary(counts, told, title)
    return status or (
        EXIT_ALL_RESOLVED if all(outcome in GONE_OUTCOMES for outcome in counts) else EXIT_SOME_KEPT
    )


@contextmanager
def _progress_bar(total: int, title: str) -> Iterator[Callable[[], None]]:
    """What to call for each; with a bar, on a terminal."""
    if not sys.stderr.isatty() or total < 2:
        yield lambda: None
        return
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield partial(bar.advance, task)


def _print_summary(counts: Counter[str], told: Sequence[LetterResult], title: str) -> None:
    if not counts:
        click.echo("No dead letters like that.")
        return
    if told:
        table = Table(box=box.SIMPLE)
        table.add_column("id", no_wrap=True)
        for column in (title if title == DRY_RUN_TITLE else "outcome", "why", "SMS"):
            table.add_column(column)
        for each in told[:_MAX_ROWS_SHOWN]:
            table.add_row(each.id, each.outcome, each.why, "\n".join(each.sms))
        outcome_console().print(table)
        if len(told) > _MAX_ROWS_SHOWN:
            click.echo(f"... and {len(told) - _MAX_ROWS_SHOWN} more; --json tells of each")
    table = Table(title, "letters", box=box.SIMPLE)
    for outcome, count in counts.most_common():
        table.add_row(outcome, str(count))
    outcome_console().print(table)
    if title == DRY_RUN_TITLE:
        click.echo("Nothing has been changed.")


def outcome_console() -> Console:
    """What went wrong, and what people are told, may hold brackets, which are no markup."""
    return Console(width=None if sys.stdout.isatty() else PIPED_OUTPUT_WIDTH, markup=False, highlight=False)
