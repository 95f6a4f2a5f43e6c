"""What was answered to a survey, read from the archive: what a screen and a program are shown alike."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection

from config.archive.question_summaries import QuestionSummary, ValueDistribution, summarize_question
from config.archive.result_columns import ResultColumn
from config.archive.result_filters import ResultFilters
from config.archive.session_results import SessionResult, StateCount, count_states, read_latest_results
from engine.model.timestamps import format_utc_ms
from workers.results.archive_state import ArchiveState


class QuestionReport(msgspec.Struct, frozen=True):
    """A question, and what was answered to it."""

    column: ResultColumn
    summary: QuestionSummary


class ResultReport(msgspec.Struct, frozen=True, kw_only=True):
    """`opened` of the sessions did open; `language` is that of questions and labels; `latest` are the newest sessions."""

    survey: str
    title: str
    language: str
    archive: ArchiveState
    states: list[StateCount]
    columns: list[ResultColumn]
    questions: list[QuestionReport]
    latest: list[SessionResult]

    @property
    def sessions(self) -> int:
        return sum(each.sessions for each in self.states)

    @property
    def opened(self) -> int:
        return sum(each.opened for each in self.states)


def read_report(
    connection: Connection,
    filters: ResultFilters,
    columns: Sequence[ResultColumn],
    *,
    title: str,
    language: str,
    archive: ArchiveState,
    limit: int,
    summarizes: bool,
) -> ResultReport:
    """Read what the filters let through: the `limit` newest sessions, and the questions' summaries if they are wanted."""
    summarized = columns if summarizes else ()
    return ResultReport(
        survey=filters.survey,
        title=title,
        language=language,
        archive=archive,
        states=count_states(connection, filters),
        columns=list(columns),
        questions=[
            QuestionReport(each, summarize_question(connection, filters, each)) for each in summarized
        ],
        latest=read_latest_results(connection, filters, columns, limit) if limit else [],
    )


def report_fields(report: ResultReport, name_person: Callable[[str], str]) -> dict[str, Any]:
    """The report for programs. Moments are in UTC, lengths of time in seconds; shares of questions are of `opened`."""
    return {
        "survey": report.survey,
        "title": report.title,
        "language": report.language,
        "read_until": format_utc_ms(report.archive.read_until) if report.archive.read_until else None,
        "is_complete": report.archive.is_complete,
        "behind_s": report.archive.behind_ms / 1000,
        "kept_days": report.archive.kept_days,
        "sessions": report.sessions,
        "opened": report.opened,
        "states": {each.state: each.sessions for each in report.states},
        "questions": [_question_fields(each, report.language) for each in report.questions],
        "latest": [_session_fields(each, name_person) for each in report.latest],
    }


def _question_fields(question: QuestionReport, language: str) -> dict[str, Any]:
    column, summary = question.column, question.summary
    labels = column.wording.labels.get(language, {})
    return {
        "name": column.heading,
        "step": column.step,
        "type": column.type,
        "text": column.question_text(language),
        "answered": summary.answered,
        "misread_first": summary.misread_first,
        "misreads": summary.misreads,
        "median_s": summary.median_s,
        "distribution": _distribution_fields(summary.distribution),
        "counts": [
            {"value": each.value, "label": labels.get(each.value, each.value), "count": each.count}
            for each in summary.counts
        ],
        "distinct": summary.distinct,
    }


def _distribution_fields(found: ValueDistribution | None) -> dict[str, Any] | None:
    return None if found is None else msgspec.to_builtins(found)


def _session_fields(found: SessionResult, name_person: Callable[[str], str]) -> dict[str, Any]:
    return {
        "session": found.session,
        "person": name_person(found.sender),
        "channel": found.channel,
        "version": found.version,
        "language": found.language,
        "state": found.state,
        "at": format_utc_ms(found.at) if found.at else None,
        "ended_at": format_utc_ms(found.ended_at) if found.ended_at else None,
        "answers": found.answers,
    }
