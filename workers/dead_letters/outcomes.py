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

from workers.dead_letters.replay import GONE, Done

PIPE_WIDTH = 200
ALL_DEALT_WITH, SOME_STAY = 0, 1
"""Exit statuses; 2 is misuse."""

INTERRUPTED = 130

WOULD_BE = "would be"
"""Over outcomes that have not come about."""

_MOST_TOLD = 200  # letters, one by one, on a terminal


def tell(done: Iterable[Done], total: int, title: str, *, as_json: bool, each_one: bool = False) -> int:
    """Say what came of how many, and of each that stays, or of `each_one`; answers the exit status."""
    counts: Counter[str] = Counter()
    told: list[Done] = []
    status = ALL_DEALT_WITH
    try:
        with _progress(total, title) as advance:
            for each in done:
                counts[each.outcome] += 1
                if as_json:
                    click.echo(json.dumps(msgspec.structs.asdict(each)))
                elif each_one or each.outcome not in GONE or (each.outcome == "gone" and each.why):
                    told.append(each)
                advance()
    except redis.RedisError as e:
        click.echo(
            f"Redis failed ({type(e).__name__}): what is counted is done; run it again for the rest", err=True
        )
        status = SOME_STAY
    except KeyboardInterrupt:
        click.echo("stopped: what is counted is done; run it again for the rest", err=True)
        status = INTERRUPTED
    if not as_json:
        _summary(counts, told, title)
    return status or (ALL_DEALT_WITH if all(outcome in GONE for outcome in counts) else SOME_STAY)


@contextmanager
def _progress(total: int, title: str) -> Iterator[Callable[[], None]]:
    """What to call for each; with a bar, on a terminal."""
    if not sys.stderr.isatty() or total < 2:
        yield lambda: None
        return
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield partial(bar.advance, task)


def _summary(counts: Counter[str], told: Sequence[Done], title: str) -> None:
    if not counts:
        click.echo("No dead letters like that.")
        return
    if told:
        table = Table(box=box.SIMPLE)
        table.add_column("id", no_wrap=True)
        for column in (title if title == WOULD_BE else "outcome", "why", "SMS"):
            table.add_column(column)
        for each in told[:_MOST_TOLD]:
            table.add_row(each.id, each.outcome, each.why, "\n".join(each.sms))
        console().print(table)
        if len(told) > _MOST_TOLD:
            click.echo(f"... and {len(told) - _MOST_TOLD} more; --json tells of each")
    table = Table(title, "letters", box=box.SIMPLE)
    for outcome, count in counts.most_common():
        table.add_row(outcome, str(count))
    console().print(table)
    if title == WOULD_BE:
        click.echo("Nothing has been changed.")


def console() -> Console:
    """What went wrong, and what people are told, may hold brackets, which are no markup."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, markup=False, highlight=False)
