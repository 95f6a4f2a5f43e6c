"""Reads a survey's funnel for whoever draws it on the survey's graph."""

from collections.abc import Mapping
from typing import Any

from config.archive.funnel import read_funnel
from config.archive.surveys_kept import read_surveys
from config.store import redis_client
from engine.drawing.annotations import DrawingNumbers
from workers.commands.connect import connect_lanes
from workers.commands.reports.archive_reading import open_archive, record_reading, require_survey
from workers.commands.reports.filter_options import read_filters
from workers.results.archive_state import read_archive_state
from workers.results.survey_funnel import describe_counted, funnel_numbers
from workers.results.written_filters import audited_filters


def read_live_numbers(environ: Mapping[str, str], survey: str, chosen: dict[str, Any]) -> DrawingNumbers:
    """The numbers of the sessions chosen by `since`, `until` and `channels`, as they are typed. Ends the command with a sentence if
    they cannot be read."""
    deployment = connect_lanes(environ)
    now = redis_client.server_time_ms(deployment.lanes)
    filters = read_filters(deployment.settings, survey, now, chosen)
    with open_archive(deployment.settings) as database, database.reading() as connection:
        require_survey(connection, deployment.settings, survey)
        record_reading(deployment, "read funnel", survey, filters=audited_filters(filters))
        versions = read_surveys(connection, survey)[::-1]
        archive = read_archive_state(connection, deployment, versions)
        found = read_funnel(connection, filters)
    return funnel_numbers(found, describe_counted(found, archive))
