"""What was answered, read for a page: the report of `parley results`, and what it cost."""

import re
from functools import partial

import msgspec
from markupsafe import Markup
from sqlalchemy import Connection

from config.archive.pseudonyms import Pseudonyms, read_pseudonyms
from config.archive.result_columns import ResultColumn, find_columns
from config.archive.result_filters import InvalidFilterError, ResultFilters
from config.archive.session_results import CostTotal, SessionResult, count_costs
from config.archive.surveys_kept import read_surveys, survey_names
from config.store import redis_client
from engine.model.suggestions import expected_instead
from workers.console.console_archive import LONGEST_READING_S, ArchiveAwayError
from workers.console.kept_readings import KeptReading, KeptReadings
from workers.console.person_address import hide_all_numbers, mask_number
from workers.console.results.bar_chart import ChartBar, draw_bars
from workers.exporting.cells import NumberHider
from workers.history.readable_archive import open_readable_archive
from workers.results.archive_state import read_archive_state
from workers.results.result_report import QuestionReport, ResultReport, read_report
from workers.results.result_wording import (
    answer_text,
    bar_label,
    describe_answered,
    describe_distribution,
    format_share,
    option_counts,
    shorten_pseudonym,
)
from workers.results.written_filters import WrittenFilters, read_filters, require_known
from workers.store.deployment import Deployment

SESSIONS_SHOWN = 20
MOST_BARS = 20
QUESTIONS_A_PAGE = 8


class ResultReading(msgspec.Struct, frozen=True):
    """Results of a survey, what they cost, how people are named in them, and the languages of its texts."""

    report: ResultReport
    costs: list[CostTotal]
    pseudonyms: Pseudonyms
    languages: tuple[str, ...]


class QuestionView(msgspec.Struct, frozen=True):
    """A question with its chart. `bars` are the chart's numbers, for a table; `more` are further values that are not shown."""

    name: str
    text: str
    answered: str
    distribution: str
    chart: Markup | None
    bars: list[ChartBar]
    more: int


class ResultReadings:
    """Reads results, each of them once for all who look."""

    def __init__(self, deployment: Deployment, readings: KeptReadings) -> None:
        self._deployment = deployment
        self._readings = readings

    async def look(self, survey: str, written: WrittenFilters, language: str) -> KeptReading[ResultReading]:
        return await self._readings.look(
            ("results", survey, written, language),
            partial(read_results, self._deployment, survey, written, language),
        )

    async def list_names(self) -> KeptReading[list[str]]:
        return await self._readings.look("surveys with results", partial(read_names, self._deployment))


def read_names(deployment: Deployment) -> list[str]:
    """The surveys that the archive or a channel knows."""
    with open_readable_archive(deployment) as (archive, why):
        if archive is None:
            raise ArchiveAwayError(why)
        with archive.reading(LONGEST_READING_S) as connection:
            return sorted({*survey_names(connection), *deployment.settings.offered_surveys})


def read_results(
    deployment: Deployment, survey: str, written: WrittenFilters, language: str
) -> ResultReading:
    """Raises ArchiveAwayError, InvalidFilterError and SQLAlchemyError."""
    with open_readable_archive(deployment) as (archive, why):
        if archive is None:
            raise ArchiveAwayError(why)
        pseudonyms = read_pseudonyms(archive)
        with archive.reading(LONGEST_READING_S) as connection:
            filters = require_filters(connection, deployment, survey, written)
            versions = read_surveys(connection, survey)[::-1]
            known = versions[0].languages if versions else ()
            report = read_report(
                connection,
                filters,
                find_columns(connection, survey, versions),
                title=versions[0].title or survey if versions else survey,
                language=language if language in known else known[0] if known else "",
                archive=read_archive_state(connection, deployment, versions),
                limit=SESSIONS_SHOWN,
                summarizes=True,
            )
            return ResultReading(report, count_costs(connection, filters), pseudonyms, tuple(known))


def require_filters(
    connection: Connection, deployment: Deployment, survey: str, written: WrittenFilters
) -> ResultFilters:
    """The filters, of which all is known. Raises InvalidFilterError, also if nobody knows the survey."""
    known = sorted({*survey_names(connection), *deployment.settings.offered_surveys})
    if survey not in known:
        raise InvalidFilterError(f"no survey is called {survey!r}{expected_instead(survey, known)}")
    now = redis_client.server_time_ms(deployment.lanes)
    filters = read_filters(deployment.settings, survey, now, written)
    versions = read_surveys(connection, survey)[::-1]
    require_known(connection, filters, find_columns(connection, survey, versions))
    return filters


# What a page shows


def question_views(reading: ResultReading, page: int, *, sees_numbers: bool) -> list[QuestionView]:
    """The questions of a page, from 0 on."""
    shown = reading.report.questions[_slice(page)]
    return [
        _question_view(each, reading.report, place, sees_numbers=sees_numbers)
        for place, each in enumerate(shown)
    ]


def _slice(page: int) -> slice:
    return slice(page * QUESTIONS_A_PAGE, (page + 1) * QUESTIONS_A_PAGE)


def _question_view(
    question: QuestionReport, report: ResultReport, place: int, *, sees_numbers: bool
) -> QuestionView:
    column, summary = question.column, question.summary
    text = " ".join(column.question_text(report.language).split())
    found = summary.distribution
    if found is not None:
        bars = [
            ChartBar(
                bar_label(each, is_whole=found.is_whole), each.count, format_share(each.count, found.count)
            )
            for each in found.bars
        ]
    else:
        counts = list(option_counts(column, summary, report.language))
        shown = [(label if sees_numbers else hide_numbers(label), count) for label, count in counts]
        bars = [ChartBar(label, count, format_share(count, summary.answered)) for label, count in shown]
    more = max(0, (summary.distinct if summary.kind == "texts" else len(bars)) - min(len(bars), MOST_BARS))
    bars = bars[:MOST_BARS]
    answered = describe_answered(summary, report.opened)
    about = "; ".join(f"{bar.label}: {bar.count:,}" for bar in bars)
    return QuestionView(
        name=column.heading,
        text=text,
        answered=answered,
        distribution=describe_distribution(found) if found is not None else "",
        chart=draw_bars(bars, f"Answers to {column.heading}", about, f"chart-{place}") if bars else None,
        bars=bars,
        more=more,
    )


class LatestRow(msgspec.Struct, frozen=True):
    """One of the latest sessions, its person's name in results, and its answers, a column each."""

    session: SessionResult
    person: str
    answers: list[str]


def latest_rows(reading: ResultReading, page: int, *, sees_numbers: bool) -> list[LatestRow]:
    """With answers to the questions of that page."""
    report, columns = reading.report, reading.report.columns[_slice(page)]
    return [
        LatestRow(
            each,
            shorten_pseudonym(reading.pseudonyms.of(each.sender)),
            _session_answers(each, columns, sees_numbers=sees_numbers),
        )
        for each in report.latest
    ]


def _session_answers(found: SessionResult, columns: list[ResultColumn], *, sees_numbers: bool) -> list[str]:
    """Short enough for a table."""
    texts = [answer_text(found, column) for column in columns]
    if not sees_numbers:
        own = NumberHider(found.sender, mask_number(found.sender))
        texts = [hide_numbers(str(own.hide(text))) for text in texts]
    return [text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 1]}…" for text in texts]


def hide_numbers(text: str) -> str:
    """The text with what may be a phone number masked, also one in groups of digits; days and prices stay."""
    return hide_all_numbers(_GROUPED_DIGITS.sub(_mask_if_long, text))


def _mask_if_long(found: "re.Match[str]") -> str:
    digits = sum(each.isdigit() for each in found[0])
    return mask_number(found[0]) if digits >= _NUMBER_DIGITS else found[0]


_GROUPED_DIGITS = re.compile(r"\+?[0-9][0-9 ().\-/]{7,24}[0-9]")
_NUMBER_DIGITS = 9
"""A day has eight."""

_LONGEST_CELL = 60
