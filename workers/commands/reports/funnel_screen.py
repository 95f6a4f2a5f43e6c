"""A funnel on a terminal of any width: its steps in the order of the survey's file, and the ways between them."""

from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from config.archive.funnel import Funnel, FunnelEdge, FunnelStep
from engine.commands.terminal import fits_console, simple_table
from engine.model.durations import format_duration
from workers.commands.reports.bars import horizontal_bar
from workers.results.result_wording import (
    describe_states,
    format_count,
    format_sessions,
    format_share,
    readable_word,
)

_BAR_WIDTH = 16
_SHORT_BAR_WIDTH = 5
_STEP_WIDTH = 20
_REASONS_WIDTH = 26
_UNKNOWN_KINDS = (
    "Of {} SMS Parley 0.1.0 did not record what they were for: a step whose text came twice in a row counts "
    "once, and reminders are not told."
)


def render_funnel(funnel: Funnel, console: Console, heading: str) -> RenderableType:
    """The steps, and the ways between them."""
    parts: list[RenderableType] = [
        Text(f"{heading}: {format_sessions(funnel.sessions)} opened", style="bold")
    ]
    if funnel.states:
        parts.append(Text(describe_states(funnel.states), style="dim"))
    if funnel.sessions:
        parts += [_step_table(funnel, console), _edge_table(funnel)]
    if funnel.unknown_kinds:
        parts.append(Text(_UNKNOWN_KINDS.format(format_count(funnel.unknown_kinds)), style="dim"))
    return Group(*parts)


def _step_table(funnel: Funnel, console: Console) -> Table:
    """With as much of each step as the console has room for."""
    tables = (
        _detailed_table(funnel),
        _short_table(funnel, with_bars=True),
        _short_table(funnel, with_bars=False),
    )
    return next((each for each in tables if fits_console(each, console)), tables[-1])


def _begin_table(*numbers: str) -> Table:
    table = simple_table()
    table.add_column("step", max_width=_STEP_WIDTH, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    return table


def _detailed_table(funnel: Funnel) -> Table:
    table = _begin_table("reached", "", "answered", "misread", "left", "open", "reminded", "in")
    table.add_column("why left, or misread", max_width=_REASONS_WIDTH, overflow="fold")
    for step in funnel.steps:
        table.add_row(
            step.step,
            format_count(step.reached),
            _reached_bar(step, funnel.sessions, _BAR_WIDTH),
            _counted(step.answered, step.reached, says_none=step.asks),
            _counted(step.misread_sessions, step.reached),
            _counted(step.left_sessions, step.reached),
            format_count(step.waiting) if step.waiting else "",
            format_count(step.reminded) if step.reminded else "",
            _median(step),
            ", ".join(_reasons(step)),
        )
    return table


def _short_table(funnel: Funnel, *, with_bars: bool) -> Table:
    table = _begin_table("reached", *([""] if with_bars else []), "answered", "misread", "left", "in")
    for step in funnel.steps:
        table.add_row(
            step.step,
            format_count(step.reached),
            *([_reached_bar(step, funnel.sessions, _SHORT_BAR_WIDTH)] if with_bars else []),
            _counted(step.answered, step.reached, says_none=step.asks),
            format_count(step.misread_sessions) if step.misread_sessions else "",
            _counted(step.left_sessions, 0),
            _median(step),
        )
    return table


def _reached_bar(step: FunnelStep, sessions: int, width: int) -> str:
    return (
        f"{horizontal_bar(step.reached, sessions, width):<{width}} {format_share(step.reached, sessions):>5}"
    )


def _median(step: FunnelStep) -> str:
    return "" if step.median_s is None else format_duration(step.median_s * 1000)


def _counted(number: int, whole: int, *, says_none: bool = False) -> str:
    """A number, and which share of the sessions that reached the step it is; nothing for none."""
    if not number and not says_none:
        return ""
    return f"{format_count(number)} {format_share(number, whole):>5}" if whole else format_count(number)


def _reasons(step: FunnelStep) -> Iterator[str]:
    for ending, number in sorted(step.left.items(), key=lambda each: (-each[1], each[0])):
        yield f"{format_count(number)} {readable_word(ending)}"
    for reason, number in sorted(step.misreads.items(), key=lambda each: (-each[1], each[0])):
        yield f"{format_count(number)} {readable_word(reason)}"


def _edge_table(funnel: Funnel) -> Table:
    table = simple_table()
    table.add_column("from", max_width=_STEP_WIDTH, overflow="fold")
    table.add_column("to", max_width=_STEP_WIDTH, overflow="fold")
    for name in ("sessions", "passages"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    most = max((edge.passages for edge in funnel.edges), default=0)
    for edge in funnel.edges:
        table.add_row(*_edge_cells(edge, most))
    return table


def _edge_cells(edge: FunnelEdge, most: int) -> Iterator[str]:
    yield edge.tail
    yield edge.head
    yield format_count(edge.sessions)
    yield format_count(edge.passages)
    yield horizontal_bar(edge.passages, most, _BAR_WIDTH)
