"""Results on a terminal of any width: states, a summary of each question, the latest sessions. Nothing needs colour."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from zoneinfo import ZoneInfo

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from config.archive.question_summaries import (
    QuestionSummary,
    ValueDistribution,
)
from config.archive.result_columns import ResultColumn
from config.archive.session_results import SessionResult, StateCount
from engine.commands.terminal import fits_console, simple_table
from engine.model.timestamps import format_clock_time
from workers.commands.reports.bars import horizontal_bar
from workers.results.archive_state import describe_archive
from workers.results.result_report import QuestionReport, ResultReport
from workers.results.result_wording import (
    answer_text,
    bar_label,
    describe_answered,
    describe_distribution,
    format_count,
    format_sessions,
    format_share,
    option_counts,
    readable_word,
)

TWO_COLUMNS_WIDTH = 116
"""A terminal that is as wide has two summaries beside each other."""

_BAR_WIDTH = 24
_LABEL_WIDTH = 26
_CELL_WIDTH = 28
_MOST_OPTIONS = 25

NamePerson = Callable[[str], str]
"""What stands for a person's number."""


def render_results(
    report: ResultReport,
    console: Console,
    name_person: NamePerson,
    zones: Mapping[str, ZoneInfo],
    *,
    latest_first: bool = False,
) -> RenderableType:
    """The whole screen, as wide as the console. `latest_first`: sessions come before questions, as what does not fit is cut."""
    parts: list[RenderableType] = [Text(_headline(report), style="bold")]
    parts += [Text(line, style="dim") for line in describe_archive(report.archive)]
    if report.states:
        parts.append(Padding(_state_table(report.states, report.sessions), (1, 0, 0, 2)))
    questions = list(_question_blocks(report, console))
    latest: list[RenderableType] = []
    if report.latest:
        latest += [Text(""), Text(_latest_heading(report), style="bold")]
        latest.append(_session_table(report, console, name_person, zones))
    parts += [*latest, *questions] if latest_first else [*questions, *latest]
    return Group(*parts)


def _headline(report: ResultReport) -> str:
    named = f"{report.title} ({report.survey})" if report.title != report.survey else report.survey
    return f"{named}: {format_sessions(report.sessions) if report.sessions else 'no sessions yet'}"


def _latest_heading(report: ResultReport) -> str:
    shown = len(report.latest)
    return "The session" if shown == 1 else f"The latest {format_sessions(shown)}"


def _state_table(states: Sequence[StateCount], sessions: int) -> Table:
    table = _bar_table()
    for each in states:
        table.add_row(
            readable_word(each.state),
            format_count(each.sessions),
            format_share(each.sessions, sessions),
            horizontal_bar(each.sessions, sessions, _BAR_WIDTH),
        )
    return table


def _bar_table() -> Table:
    """Labels, numbers, shares and bars, without lines."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(max_width=_LABEL_WIDTH, overflow="ellipsis", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    return table


# -- questions


def _question_blocks(report: ResultReport, console: Console) -> Iterator[RenderableType]:
    blocks = [_question_block(each, report) for each in report.questions]
    if not blocks:
        return
    if console.width < TWO_COLUMNS_WIDTH or not console.is_terminal:
        for block in blocks:
            yield Text("")
            yield block
        return
    yield Text("")
    yield Columns(
        (Padding(block, (0, 0, 1, 0)) for block in blocks),
        width=console.width // 2 - 2,
        padding=(0, 2),
        column_first=False,
    )


def _question_block(question: QuestionReport, report: ResultReport) -> RenderableType:
    column, summary = question.column, question.summary
    heading = Text(column.heading, style="bold", overflow="ellipsis", no_wrap=True)
    if text := " ".join(column.question_text(report.language).split()):
        heading.append(f"  {text}", style="not bold dim")
    parts: list[RenderableType] = [Text(describe_answered(summary, report.opened))]
    if summary.distribution is not None:
        parts.append(Text(describe_distribution(summary.distribution)))
        parts.append(_histogram(summary.distribution))
    elif summary.counts:
        shown = list(option_counts(column, summary, report.language))
        parts.append(_count_table(shown, summary))
        if summary.kind == "texts" and summary.distinct > len(summary.counts):
            parts.append(Text(f"… {format_count(summary.distinct)} different texts", style="dim"))
    return Group(heading, Padding(Group(*parts), (0, 0, 0, 2)))


def _histogram(found: ValueDistribution) -> Table:
    table = _bar_table()
    most = max((each.count for each in found.bars), default=0)
    for each in found.bars:
        table.add_row(
            bar_label(each, is_whole=found.is_whole),
            format_count(each.count),
            format_share(each.count, found.count),
            horizontal_bar(each.count, most, _BAR_WIDTH),
        )
    return table


def _count_table(rows: Sequence[tuple[str, int]], summary: QuestionSummary) -> Table:
    table = _bar_table()
    most = max((number for _, number in rows), default=0)
    for label, number in rows[:_MOST_OPTIONS]:
        table.add_row(
            " ".join(label.split()),
            format_count(number),
            format_share(number, summary.answered),
            horizontal_bar(number, most, _BAR_WIDTH),
        )
    return table


# -- sessions


def _session_table(
    report: ResultReport, console: Console, name_person: NamePerson, zones: Mapping[str, ZoneInfo]
) -> Table:
    """A column for each question, if they have room; else the answers of a session one after the other."""
    table = _begin_table(*(column.heading for column in report.columns))
    for each in report.latest:
        table.add_row(*_session_cells(each, report, name_person, zones), *_answer_cells(each, report.columns))
    if fits_console(table, console):
        return table
    table = _begin_table()
    table.add_column("answers", overflow="fold")
    for each in report.latest:
        table.add_row(
            *_session_cells(each, report, name_person, zones), _answers_in_a_row(each, report.columns)
        )
    return table


def _begin_table(*headings: str) -> Table:
    table = simple_table()
    for column in ("opened", "person", "state"):
        table.add_column(column, no_wrap=True)
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    return table


def _session_cells(
    found: SessionResult, report: ResultReport, name_person: NamePerson, zones: Mapping[str, ZoneInfo]
) -> Iterable[str]:
    zone = zones.get(found.channel, ZoneInfo("UTC"))
    yield format_clock_time(found.at, report.archive.now, zone) if found.at else "-"
    yield name_person(found.sender)
    yield readable_word(found.state)


def _answer_cells(found: SessionResult, columns: Sequence[ResultColumn]) -> Iterable[str]:
    for column in columns:
        text = answer_text(found, column)
        yield text if len(text) <= _CELL_WIDTH else f"{text[: _CELL_WIDTH - 1]}…"


def _answers_in_a_row(found: SessionResult, columns: Sequence[ResultColumn]) -> Text:
    row = Text()
    for column in columns:
        if text := answer_text(found, column):
            row.append(" · " if row else "")
            row.append(f"{column.heading} ", style="dim")
            row.append(text)
    return row
