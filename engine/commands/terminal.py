"""What commands print for people: one kind of console, table and progress bar, on a terminal or into a pipe.

What people wrote is printed as it is: brackets are no markup, `:name:` is no emoji, and a number in it has no colour of
its own. Colours are those that a command asks for, by Text and styles.
"""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, Any, TextIO, cast

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 200
"""Columns of what no terminal shows: what `grep` finds in one line should not depend on who runs it."""

NARROW_WIDTH = 110
"""A terminal that is not as wide is shown fewer columns of a wide table; never less of what went wrong."""

PROMPT = "> "
"""Before what a person types as an SMS."""


def open_console(*, stderr: bool = False, soft_wrap: bool = False, wrap_words: bool = False) -> Console:
    """A console on standard output, or on standard error. `soft_wrap`: sentences are left for the terminal to break,
    and stay whole in a pipe; tables need a console without. `wrap_words`: the same in a pipe; on a terminal, lines are broken
    between words. What goes into a pipe has no blanks at the ends of lines, which tables are padded with."""
    stream = sys.stderr if stderr else sys.stdout
    is_terminal = stream.isatty()
    return Console(
        file=None if is_terminal else cast(IO[str], _TrimmedStream(stream)),
        stderr=stderr,
        soft_wrap=soft_wrap or (wrap_words and not is_terminal),
        width=None if is_terminal else PIPED_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
    )


class _TrimmedStream:
    """A stream to which lines are written without the blanks at their ends."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(_BLANKS_AT_END.sub("", text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_BLANKS_AT_END = re.compile(r"[ \t]+(?=\n)")


def print_wrapped(console: Console, line: Text, indent: int) -> None:
    """Print a line; where it has to be broken, what follows stands `indent` columns further right."""
    if console.soft_wrap:
        console.print(line)
        return
    for paragraph in line.split("\n", allow_blank=True):
        lines = paragraph.wrap(console, max(_NARROWEST, console.width - indent))
        for place, part in enumerate(lines):
            part.rstrip()
            console.print(Text(" " * indent * (place > 0)).append_text(part))


_NARROWEST = 20
"""Columns that a line is broken to, however narrow the terminal is."""


def require_confirmation(question: str, *, stderr: bool = False) -> None:
    """Ask on the terminal, and go on only if the answer is yes. Raises click.Abort if it is no, and click.ClickException if there is
    nobody to ask."""
    try:
        agreed = click.confirm(question, err=stderr)
    except click.Abort:
        if sys.stdin.isatty():
            raise  # Ctrl-C
        raise click.ClickException(
            "nobody answers, as there is no terminal, and nothing was done: with --yes nobody is asked"
        ) from None
    if not agreed:
        raise click.Abort


def simple_table(*columns: str) -> Table:
    """A table with a line under its header and no others; more columns may be added."""
    return Table(*columns, box=box.SIMPLE)


def fits_console(table: Table, console: Console) -> bool:
    """Has the console room for all of the table, no cell broken or cut?"""
    boundless = console.options.update(width=_BOUNDLESS_WIDTH)
    return console.measure(table, options=boundless).maximum <= console.width


_BOUNDLESS_WIDTH = 100_000


@contextmanager
def progress_bar(
    total: int, title: str, *, shown_from: int = 2, console: Console | None = None
) -> Iterator[Callable[[float], None]]:
    """Show a bar while something goes on, and yield what to call with how many more are done.

    No bar is shown for fewer than `shown_from`, nor where standard error is no terminal. What is printed meanwhile has
    to be printed on `console`, so that it comes above the bar.
    """
    if total < shown_from or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.progress import (  # noqa: PLC0415 (takes longer to import than most commands take)
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn(title, markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console or open_console(stderr=True), transient=True) as bar:
        yield partial(bar.advance, bar.add_task(title, total=total))
