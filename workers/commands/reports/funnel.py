"""`parley funnel`: how far do people come in a survey, and where do they leave it?"""

import os
from collections.abc import Sequence
from typing import Any, Literal

import click
import msgspec
from sqlalchemy import Connection, select

from config.archive import tables
from config.archive.funnel import Funnel, read_funnel
from config.archive.result_columns import find_columns
from config.archive.result_filters import ResultFilters, session_conditions
from config.archive.surveys_kept import read_surveys
from config.store import redis_client
from engine.commands.json_output import print_json
from engine.commands.terminal import open_console
from engine.model.timestamps import format_utc_ms
from engine.surveys.program import Survey
from workers.commands.connect import connect_lanes
from workers.commands.reports.archive_reading import open_archive, record_reading, require_survey
from workers.commands.reports.filter_options import filter_options, read_filters, require_known
from workers.commands.reports.funnel_screen import render_funnel
from workers.results.archive_state import ArchiveState, describe_archive, read_archive_state
from workers.results.written_filters import audited_filters

FunnelGroups = Literal["version", "language"]


@click.command()
@click.argument("survey")
@filter_options
@click.option("--by", type=click.Choice(["version", "language"]), help="One funnel for each.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def funnel(survey: str, by: FunnelGroups | None, as_json: bool, **options: Any) -> None:
    """How far people come in SURVEY: for each step the sessions that reached it, answered it, wrote what could not be read, and
    left it; and how many took each way from one step to the next.

    A session has left a step if that was asked last and it ended otherwise than completed. How long an answer took is the
    median. Steps are in the order of the survey's newest file; those that only older versions have come last. That somebody
    looked is kept in the audit.

    \b
    Example:
      parley funnel clinic --since 30d
      parley funnel clinic --by version
      parley funnel clinic --json | jq '.steps[] | {step, reached, left}'
    """
    deployment = connect_lanes(os.environ)
    now = redis_client.server_time_ms(deployment.lanes)
    filters = read_filters(deployment.settings, survey, now, options)
    with open_archive(deployment.settings) as database, database.reading() as connection:
        require_survey(connection, deployment.settings, survey)
        versions = read_surveys(connection, survey)[::-1]
        require_known(connection, filters, find_columns(connection, survey, versions))
        record_reading(deployment, "read funnel", survey, filters=audited_filters(filters), by=by)
        archive = read_archive_state(connection, deployment, versions)
        groups = [
            (name, read_funnel(connection, each))
            for name, each in _group_filters(connection, filters, versions, by)
        ]
    if as_json:
        print_json(_funnel_document(groups, by, archive))
    else:
        _print_screen(groups, by, archive)


def _group_filters(
    connection: Connection, filters: ResultFilters, versions: Sequence[Survey], by: FunnelGroups | None
) -> list[tuple[str, ResultFilters]]:
    """What each group's sessions meet, by its name: versions newest first, languages by the alphabet."""
    if by is None:
        return [(filters.survey, filters)]
    column = tables.sessions.c[by]
    found = set(
        connection.execute(select(column).where(*session_conditions(filters)).distinct()).scalars()
    ) - {""}
    if by == "language":
        return [(name, msgspec.structs.replace(filters, languages=(name,))) for name in sorted(found)]
    known = [survey.version for survey in versions if survey.version in found]
    names = [*known, *sorted(found - set(known))]
    return [(name, msgspec.structs.replace(filters, versions=(name,))) for name in names]


def _funnel_document(
    groups: Sequence[tuple[str, Funnel]], by: FunnelGroups | None, archive: ArchiveState
) -> dict[str, Any]:
    """The funnel for programs, or one for each group in `groups`."""
    read_until = format_utc_ms(archive.read_until) if archive.read_until else None
    if by is None:
        ((_, only),) = groups
        return {"read_until": read_until, **msgspec.to_builtins(only)}
    return {
        "read_until": read_until,
        "by": by,
        "groups": [{by: name, **msgspec.to_builtins(each)} for name, each in groups],
    }


def _print_screen(
    groups: Sequence[tuple[str, Funnel]], by: FunnelGroups | None, archive: ArchiveState
) -> None:
    console = open_console()
    for line in describe_archive(archive):
        console.print(line, style="dim")
    if not groups:
        console.print("No sessions yet.")
    for name, each in groups:
        console.print(render_funnel(each, console, name if by is None else f"{each.survey}, {by} {name}"))
