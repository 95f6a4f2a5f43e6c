"""Results on a terminal of any width: states, a summary of each question, the latest sessions. Nothing needs colour."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from zoneinfo import ZoneInfo

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from config.archive.question_summaries import (
    HistogramBar,
    QuestionSummary,
    Value,
    ValueDistribution,
)
from config.archive.result_columns import ResultColumn
from config.archive.session_results import SessionResult, StateCount
from engine.commands.terminal import fits_console, simple_table
from engine.model.durations import format_duration
from engine.model.timestamps import format_clock_time
from workers.commands.reports.archive_reading import (
    describe_archive,
    format_count,
    format_sessions,
    readable_word,
)
from workers.commands.reports.bars import format_share, horizontal_bar
from workers.commands.reports.result_report import QuestionReport, ResultReport

TWO_COLUMNS_WIDTH = 116
"""A terminal that is as wide has two summaries beside each other."""

_BAR_WIDTH = 24
_LABEL_WIDTH = 26
_CELL_WIDTH = 28
_SHORT_PSEUDONYM = 8
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
    parts: list[RenderableType] = [Text(_answered_line(summary, report.opened))]
    if summary.distribution is not None:
        parts.append(Text(_distribution_line(summary.distribution)))
        parts.append(_histogram(summary.distribution))
    elif summary.counts:
        shown = list(_option_rows(column, summary, report.language))
        parts.append(_count_table(shown, summary))
        if summary.kind == "texts" and summary.distinct > len(summary.counts):
            parts.append(Text(f"… {format_count(summary.distinct)} different texts", style="dim"))
    return Group(heading, Padding(Group(*parts), (0, 0, 0, 2)))


def _answered_line(summary: QuestionSummary, opened: int) -> str:
    """`980 answered (81 % of sessions), in 22 s · 80 misread first (8 %)`."""
    line = f"{format_count(summary.answered)} answered ({format_share(summary.answered, opened)} of sessions)"
    if summary.median_s is not None:
        line += f", in {format_duration(summary.median_s * 1000)}"
    if summary.misread_first:
        share = format_share(summary.misread_first, summary.answered)
        line += f" · {format_count(summary.misread_first)} misread first ({share})"
    return line


def _distribution_line(found: ValueDistribution) -> str:
    """`mean 98.66 · median 98.6 · half 97 to 100.3 · all 91.5 to 107.7`."""
    parts = [f"mean {format_value(found.mean, 2)}"] if found.mean is not None else []
    parts.append(f"median {format_value(found.median)}")
    parts.append(f"half {format_value(found.quarter)} to {format_value(found.three_quarters)}")
    parts.append(f"all {format_value(found.least)} to {format_value(found.greatest)}")
    return " · ".join(parts)


def format_value(value: Value, decimals: int = 4) -> str:
    """A number without needless decimals; a day or a time as it is."""
    if isinstance(value, str):
        return value
    return f"{round(value, decimals):g}" if abs(value) < 100_000 else f"{value:,.0f}"


def _histogram(found: ValueDistribution) -> Table:
    table = _bar_table()
    most = max((each.count for each in found.bars), default=0)
    for each in found.bars:
        table.add_row(
            _bar_label(each, is_whole=found.is_whole),
            format_count(each.count),
            format_share(each.count, found.count),
            horizontal_bar(each.count, most, _BAR_WIDTH),
        )
    return table


def _bar_label(bar: HistogramBar, *, is_whole: bool) -> str:
    """`7`; `10 to 19` of whole numbers; `97 to <98` of others; days and hours as they begin."""
    if bar.low == bar.high:
        return format_value(bar.low)
    if isinstance(bar.low, str) or isinstance(bar.high, str):
        return f"from {bar.low}"
    if is_whole:
        last = bar.high - 1
        return (
            format_value(bar.low) if last <= bar.low else f"{format_value(bar.low)} to {format_value(last)}"
        )
    return f"{format_value(bar.low)} to <{format_value(bar.high)}"


def _option_rows(column: ResultColumn, summary: QuestionSummary, language: str) -> Iterator[tuple[str, int]]:
    """Options in the order of the survey's file, those too that nobody chose; texts and others by how often they came."""
    counts = {each.value: each.count for each in summary.counts}
    if summary.kind == "options":
        for option in column.wording.labels.get(language, {}):
            yield column.option_label(option, language), counts.pop(option, 0)
        for word in ("yes", "no") if column.type == "yes_no" else ():
            yield word, counts.pop(word, 0)
    yield from counts.items()


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


def shorten_pseudonym(pseudonym: str) -> str:
    """As much of it as tells people apart on a screen."""
    return pseudonym[:_SHORT_PSEUDONYM]


def _answer_cells(found: SessionResult, columns: Sequence[ResultColumn]) -> Iterable[str]:
    for column in columns:
        text = _answer_text(found, column)
        yield text if len(text) <= _CELL_WIDTH else f"{text[: _CELL_WIDTH - 1]}…"


def _answers_in_a_row(found: SessionResult, columns: Sequence[ResultColumn]) -> Text:
    row = Text()
    for column in columns:
        if text := _answer_text(found, column):
            row.append(" · " if row else "")
            row.append(f"{column.heading} ", style="dim")
            row.append(text)
    return row


def _answer_text(found: SessionResult, column: ResultColumn) -> str:
    answer = found.answers.get(column.heading, "")
    return ", ".join(answer) if isinstance(answer, list) else " ".join(answer.split())
