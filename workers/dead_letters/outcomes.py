"""How is an operator told what came of many dead letters? A bar while it goes on, then a table, and the exit status."""

from collections import Counter
from collections.abc import Iterable, Sequence

import click
import redis

from engine.commands.exit_status import EXIT_INTERRUPTED, EXIT_OK, EXIT_PROBLEMS
from engine.commands.json_output import print_json
from engine.commands.terminal import open_console, progress_bar, simple_table
from workers.dead_letters.letter_result import GONE_OUTCOMES, LetterResult

DRY_RUN_TITLE = "would be"
"""Over outcomes that have not come about."""

_MAX_ROWS_SHOWN = 200  # letters, one by one, on a terminal


def report_outcomes(
    done: Iterable[LetterResult], total: int, title: str, *, as_json: bool, each_one: bool = False
) -> int:
    """Print how many came to which outcome, and each letter that stays (all of them with `each_one`). Returns the exit
    status."""
    counts: Counter[str] = Counter()
    told: list[LetterResult] = []
    status = EXIT_OK
    try:
        with progress_bar(total, title) as advance:
            for each in done:
                counts[each.outcome] += 1
                if as_json:
                    print_json(each)
                elif each_one or each.outcome not in GONE_OUTCOMES or (each.outcome == "gone" and each.why):
                    told.append(each)
                advance(1)
    except redis.RedisError as e:
        click.echo(
            f"Redis failed ({type(e).__name__}): what is counted is done; run it again for the rest", err=True
        )
        status = EXIT_PROBLEMS
    except KeyboardInterrupt:
        click.echo("stopped: what is counted is done; run it again for the rest", err=True)
        status = EXIT_INTERRUPTED
    if not as_json:
        _print_summary(counts, told, title)
    return status or (EXIT_OK if all(outcome in GONE_OUTCOMES for outcome in counts) else EXIT_PROBLEMS)


def _print_summary(counts: Counter[str], told: Sequence[LetterResult], title: str) -> None:
    if not counts:
        click.echo("No dead letters like that.")
        return
    if told:
        table = simple_table()
        table.add_column("id", no_wrap=True)
        for column in (title if title == DRY_RUN_TITLE else "outcome", "why", "SMS"):
            table.add_column(column)
        for each in told[:_MAX_ROWS_SHOWN]:
            table.add_row(each.id, each.outcome, each.why, "\n".join(each.sms))
        open_console().print(table)
        if len(told) > _MAX_ROWS_SHOWN:
            click.echo(f"... and {len(told) - _MAX_ROWS_SHOWN} more; --json tells of each")
    table = simple_table(title, "letters")
    for outcome, count in counts.most_common():
        table.add_row(outcome, str(count))
    open_console().print(table)
    if title == DRY_RUN_TITLE:
        click.echo("Nothing has been changed.")
