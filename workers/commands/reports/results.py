"""`parley results`: what was answered to a survey?"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import click
from rich.live import Live
from sqlalchemy import Connection, func, select

from config.archive import tables
from config.archive.database import ArchiveDatabase
from config.archive.pseudonyms import read_pseudonyms
from config.archive.result_columns import find_columns
from config.archive.surveys_kept import read_surveys
from config.store import redis_client
from engine.commands.interrupts import until_interrupted
from engine.commands.json_output import print_json
from engine.commands.terminal import open_console
from engine.surveys.program import Survey
from workers.commands.connect import connect_lanes
from workers.commands.reports.archive_reading import open_archive, record_reading, require_survey
from workers.commands.reports.filter_options import filter_options, read_filters, require_known
from workers.commands.reports.result_screen import render_results
from workers.results.archive_state import read_archive_state
from workers.results.result_report import ResultReport, read_report, report_fields
from workers.results.result_wording import shorten_pseudonym
from workers.results.written_filters import audited_filters
from workers.store.deployment import Deployment

WATCH_INTERVAL_S = 2.0
"""How often `--watch` looks whether the archive has grown; as long again passes as it took to read it."""

WATCH_ANYHOW_S = 30.0

ShowReport = Callable[[ResultReport], None]


@click.command()
@click.argument("survey")
@filter_options
@click.option(
    "--limit", type=click.IntRange(0, 1000), default=20, show_default=True, help="Sessions that are listed."
)
@click.option(
    "--summary/--no-summary", default=True, help="Summarize each question, as is the default; or do not."
)
@click.option("--label-language", default="", help="Of questions and labels. Default: the survey's first.")
@click.option("--numbers", is_flag=True, help="Show phone numbers, in place of pseudonyms.")
@click.option("--watch", is_flag=True, help="Show it again as the archive grows, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object; with --watch one a line.")
def results(
    survey: str, limit: int, summary: bool, label_language: str, numbers: bool, watch: bool, as_json: bool,
    **options: Any,
) -> None:  # fmt: skip
    """What was answered to SURVEY: how its sessions ended, a summary of each question, and the latest sessions.

    A session counts by its last answer to each question. All versions of the survey are shown as one; a step whose answer
    type was changed is two questions. Days begin at midnight on the channel's clock. People are named by pseudonyms, of
    which a screen shows the first 8 signs. That somebody looked is kept in the audit.

    \b
    Example:
      parley results clinic --since 7d
      parley results clinic --where "temperature >= 95" --where "fever = yes" --variable agentId=7
      parley results clinic --json | jq '.questions[] | {name, answered}'
    """
    deployment = connect_lanes(os.environ)
    now = redis_client.server_time_ms(deployment.lanes)
    filters = read_filters(deployment.settings, survey, now, options)
    with open_archive(deployment.settings) as database:
        with database.reading() as connection:
            require_survey(connection, deployment.settings, survey)
            versions = read_surveys(connection, survey)[::-1]
            require_known(connection, filters, find_columns(connection, survey, versions))
        language = _label_language(versions, label_language)
        record_reading(
            deployment, "read results", survey, filters=audited_filters(filters), numbers=numbers, watch=watch
        )
        name_person = _person_namer(database, numbers=numbers, in_full=as_json)
        with _printer(deployment, name_person, watch=watch, as_json=as_json) as show:
            for connection in _each_growth(database) if watch else _as_it_is(database):
                versions = read_surveys(connection, survey)[::-1]
                report = read_report(
                    connection,
                    filters,
                    find_columns(connection, survey, versions),
                    title=versions[0].title or survey if versions else survey,
                    language=language,
                    archive=read_archive_state(connection, deployment, versions),
                    limit=limit,
                    summarizes=summary,
                )
                show(report)


def _label_language(versions: list[Survey], wanted: str) -> str:
    known = versions[0].languages if versions else ()
    if wanted and known and wanted not in known:
        raise click.BadParameter(f"the survey has {', '.join(known)}", param_hint="--label-language")
    return wanted or (known[0] if known else "")


def _person_namer(database: ArchiveDatabase, *, numbers: bool, in_full: bool) -> Callable[[str], str]:
    if numbers:
        return lambda sender: sender
    pseudonyms = read_pseudonyms(database)
    return pseudonyms.of if in_full else lambda sender: shorten_pseudonym(pseudonyms.of(sender))


def _as_it_is(database: ArchiveDatabase) -> Iterator[Connection]:
    with database.reading() as connection:
        yield connection


def _each_growth(database: ArchiveDatabase) -> Iterator[Connection]:
    """The archive as it is now, and until Ctrl-C again whenever it has grown; at times though it has not, as people are
    erased."""
    grown, read_at = None, 0.0
    with until_interrupted() as wait_to_look:
        looks = True
        while looks:
            begun = monotonic()
            with database.reading() as connection:
                if (found := _growth(connection)) != grown or begun - read_at > WATCH_ANYHOW_S:
                    grown, read_at = found, begun
                    yield connection
            looks = wait_to_look(max(WATCH_INTERVAL_S, monotonic() - begun))


def _growth(connection: Connection) -> tuple[Any, ...]:
    """What changes whenever the archive gets an entry."""
    table = tables.positions.c
    return tuple(connection.execute(select(func.sum(table.last_ms), func.sum(table.last_seq))).one())


@contextmanager
def _printer(
    deployment: Deployment, name_person: Callable[[str], str], *, watch: bool, as_json: bool
) -> Iterator[ShowReport]:
    if as_json:
        yield lambda report: print_json(report_fields(report, name_person))
        return
    console = open_console()
    zones = {name: channel.timezone for name, channel in deployment.settings.channels.items()}
    if not watch:
        yield lambda report: console.print(render_results(report, console, name_person, zones))
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as shown:
        yield lambda report: shown.update(
            render_results(report, console, name_person, zones, latest_first=True), refresh=True
        )
