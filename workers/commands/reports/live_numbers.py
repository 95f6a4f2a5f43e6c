"""Reads a survey's funnel for whoever draws it on the survey's graph."""

from collections.abc import Iterator, Mapping
from typing import Any

from config.archive.funnel import FUNNEL_END, FUNNEL_START, Funnel, FunnelStep, read_funnel
from config.archive.surveys_kept import read_surveys
from config.store import redis_client
from engine.drawing import END_ID, ENTRY_ID
from engine.drawing.annotations import DrawingNumbers
from engine.model.durations import format_duration
from engine.model.timestamps import format_utc
from workers.commands.connect import connect_lanes
from workers.commands.reports.archive_reading import (
    format_count,
    format_sessions,
    open_archive,
    read_archive_state,
    readable_word,
    record_reading,
    require_survey,
)
from workers.commands.reports.bars import format_share
from workers.commands.reports.filter_options import audited_filters, read_filters

_UNUSED_OPTIONS = ("states", "languages", "versions", "campaigns", "variables", "conditions")


def read_live_numbers(environ: Mapping[str, str], survey: str, chosen: dict[str, Any]) -> DrawingNumbers:
    """The numbers of the sessions chosen by `since`, `until` and `channels`, as they are typed. Ends the command with a sentence if
    they cannot be read."""
    deployment = connect_lanes(environ)
    now = redis_client.server_time_ms(deployment.lanes)
    options = dict.fromkeys(_UNUSED_OPTIONS, ()) | chosen
    filters = read_filters(deployment.settings, survey, now, options)
    with open_archive(deployment.settings) as database, database.reading() as connection:
        require_survey(connection, deployment.settings, survey)
        record_reading(deployment, "read funnel", survey, filters=audited_filters(filters))
        versions = read_surveys(connection, survey)[::-1]
        archive = read_archive_state(connection, deployment, versions)
        found = read_funnel(connection, filters)
    until = (
        f"until {format_utc(archive.read_until)} UTC" if archive.read_until else "the archive has nothing yet"
    )
    return funnel_numbers(found, f"{format_sessions(found.sessions)} {until}")


def funnel_numbers(funnel: Funnel, subtitle: str) -> DrawingNumbers:
    """A funnel as numbers of a drawing."""
    names = {FUNNEL_START: ENTRY_ID, FUNNEL_END: END_ID}
    return DrawingNumbers(
        steps={step.step: list(_step_lines(step, funnel.sessions)) for step in funnel.steps},
        ways={
            (names.get(edge.tail, edge.tail), names.get(edge.head, edge.head)): edge.passages
            for edge in funnel.edges
        },
        gave_up={step.step: step.left["gave_up"] for step in funnel.steps if "gave_up" in step.left},
        subtitle=subtitle,
    )


def _step_lines(step: FunnelStep, sessions: int) -> Iterator[str]:
    yield f"{format_count(step.reached)} reached it ({format_share(step.reached, sessions)})"
    if step.asks:
        within = f", in {format_duration(step.median_s * 1000)}" if step.median_s is not None else ""
        yield f"{format_count(step.answered)} answered ({format_share(step.answered, step.reached)}){within}"
    if step.misread_sessions:
        share = format_share(step.misread_sessions, step.reached)
        yield f"{format_count(step.misread_sessions)} misread ({share})"
    if step.left_sessions:
        endings = ", ".join(readable_word(ending) for ending in step.left)
        yield f"{format_count(step.left_sessions)} left here ({endings})"
    if step.waiting:
        yield f"{format_count(step.waiting)} open here"
