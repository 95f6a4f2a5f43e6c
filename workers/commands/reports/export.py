"""`parley export`: the results of a survey as a file."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import click
import msgspec
from sqlalchemy import Connection

from config.archive.database import ArchiveDatabase
from config.archive.pseudonyms import read_pseudonyms
from config.archive.result_columns import find_columns as find_result_columns
from config.archive.result_filters import ResultFilters
from config.archive.surveys_kept import read_surveys
from config.store import redis_client
from engine.codebook.codebook import Codebook
from engine.commands.terminal import progress_bar
from engine.model.errors import ParleyError
from engine.model.plurals import pluralize
from engine.model.suggestions import expected_instead
from workers.commands.connect import connect_lanes
from workers.commands.reports.archive_reading import open_archive, record_reading, require_survey
from workers.commands.reports.filter_options import filter_options, read_filters, require_known
from workers.exporting.output_file import require_absent, whole_file, whole_folder
from workers.exporting.result_export import (
    ExportChoices,
    ExportReport,
    describe_columns,
    described_rows,
    export_files,
    export_table,
)
from workers.exporting.result_files import ENDED_PROPERLY
from workers.exporting.session_stream import count_sessions
from workers.results.result_wording import format_count
from workers.results.written_filters import audited_filters

ExportFormat = Literal["csv", "jsonl", "xlsx", "parquet", "files"]

_FORMAT_BY_SUFFIX: Mapping[str, ExportFormat] = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".xlsx": "xlsx",
    ".parquet": "parquet",
}
_STDOUT = Path("-")


@click.command()
@click.argument("survey")
@click.option(
    "--out",
    "target",
    required=True,
    type=click.Path(path_type=Path),
    help="The file to write, or - for standard output (csv and jsonl); a folder for files.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "jsonl", "xlsx", "parquet", "files"]),
    help="As FILE is called; `files`: a text for each finished session, as by Octopush's script.",
)
@click.option(
    "--wide/--long", "wide", default=True, help="One row a session, as is the default; or one an answer."
)
@click.option("--numbers", is_flag=True, help="Phone numbers, in place of pseudonyms.")
@click.option("--labels", metavar="LANGUAGE", default="", help="Options by their labels, in place of ids.")
@click.option("--raw", is_flag=True, help="Beside each answer also what the person wrote.")
@click.option("--codebook", type=click.Path(path_type=Path), help="Write what the columns mean too, as JSON.")
@click.option("--bom", "marks", is_flag=True, help="A byte order mark first, by which Excel knows UTF-8.")
@click.option("--exact", is_flag=True, help="Leave texts in a CSV that a spreadsheet would run as formulas.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@filter_options
def export(
    survey: str, target: Path, form: ExportFormat | None, wide: bool, numbers: bool, labels: str, raw: bool,
    codebook: Path | None, marks: bool, exact: bool, force: bool, **options: Any
) -> None:  # fmt: skip
    """Write the results of SURVEY to a file: every session that the filters let through, with all that it answered.

    All versions of the survey are one table, which is of one moment. People are named by pseudonyms, the same in every
    export; where a variable or an answer is nothing but their own number, the pseudonym stands there too. The file is there
    once it is whole. That somebody exported is kept in the audit.

    \b
    Examples:
      parley export clinic --out clinic.xlsx --since 30d
      parley export clinic --out clinic.csv --labels en --codebook clinic.json
      parley export clinic --out clinic.parquet --long --where "temperature >= 95"
      parley export tutorial --format files --out results/ --numbers
    """
    chosen = form or _format_of(target)
    _check_options(chosen, target, codebook, numbers=numbers, wide=wide)
    _require_absent(target, codebook, chosen, force=force)
    deployment = connect_lanes(os.environ)
    filters = read_filters(
        deployment.settings, survey, redis_client.server_time_ms(deployment.lanes), options
    )
    with open_archive(deployment.settings) as database, _explain_mistakes():
        with database.reading() as connection:
            require_survey(connection, deployment.settings, survey)
            _require_language(connection, survey, labels)
        record_reading(
            deployment,
            "export",
            survey,
            filters=audited_filters(filters),
            numbers=numbers,
            format=chosen,
        )
        if chosen == "files":
            _export_files(database, filters, target, force=force)
            return
        choices = ExportChoices(
            form=chosen,
            long=not wide,
            pseudonyms=None if numbers else read_pseudonyms(database),
            language=labels,
            raw=raw,
            guards=not exact,
            marks=marks,
        )
        _export_table(database, filters, choices, target, codebook, force=force)


def _format_of(target: Path) -> ExportFormat:
    suffix = target.suffix.lower()
    if target == _STDOUT or suffix not in _FORMAT_BY_SUFFIX:
        raise click.BadParameter(
            f"its ending says no format: use {', '.join(_FORMAT_BY_SUFFIX)}, or --format", param_hint="--out"
        )
    return _FORMAT_BY_SUFFIX[suffix]


def _check_options(
    form: ExportFormat, target: Path, codebook: Path | None, *, numbers: bool, wide: bool
) -> None:
    if target == _STDOUT and form not in ("csv", "jsonl"):
        raise click.UsageError(f"{form} wants a file: only csv and jsonl go to standard output")
    if form == "files":
        if not numbers:
            raise click.UsageError("the files are called after phone numbers: say --numbers")
        if codebook is not None or not wide:
            raise click.UsageError("of files there is no codebook, and no long form")


def _require_absent(target: Path, codebook: Path | None, form: ExportFormat, *, force: bool) -> None:
    """End the command if something would be overwritten, or has no folder, before anything is read."""
    for each in filter(None, (target, codebook)):
        if each != _STDOUT and not each.absolute().parent.is_dir():
            raise click.ClickException(f"there is no folder {each.parent}")
    with _explain_mistakes():
        if codebook is not None:
            require_absent(codebook, replace=force)
        if form != "files" and target != _STDOUT:
            require_absent(target, replace=force)


@contextmanager
def _explain_mistakes() -> Iterator[None]:
    try:
        yield
    except ParleyError as e:
        raise click.ClickException(str(e)) from e
    except OSError as e:
        raise click.ClickException(f"cannot write {e.filename or 'the export'}: {e.strerror}") from e


def _require_language(connection: Connection, survey: str, language: str) -> None:
    known = sorted({tag for each in read_surveys(connection, survey) for tag in each.languages})
    if language and language not in known:
        raise click.BadParameter(
            f"{survey} has no language {language!r}{expected_instead(language, known)}", param_hint="--labels"
        )


def _export_table(
    database: ArchiveDatabase,
    filters: ResultFilters,
    choices: ExportChoices,
    target: Path,
    codebook: Path | None,
    *,
    force: bool,
) -> None:
    with database.reading() as connection:
        _require_known(connection, filters)
        described = describe_columns(connection, filters, numbers=choices.pseudonyms is None)
        total = count_sessions(connection, filters) if sys.stderr.isatty() else 0
        with (
            _output(target, replace=force) as output,
            progress_bar(total, f"sessions of {filters.survey}") as advance,
        ):
            report = export_table(connection, filters, described, choices, output, advance)
            if codebook is not None:
                _write_codebook(codebook, described_rows(described, choices), replace=force)
    _print_report(target, report, described)


def _require_known(connection: Connection, filters: ResultFilters) -> None:
    versions = read_surveys(connection, filters.survey)[::-1]
    require_known(connection, filters, find_result_columns(connection, filters.survey, versions))


@contextmanager
def _output(target: Path, *, replace: bool) -> Iterator[Path | BinaryIO]:
    if target == _STDOUT:
        yield sys.stdout.buffer
        return
    with whole_file(target, replace=replace) as written:
        yield written


def _write_codebook(target: Path, codebook: Codebook, *, replace: bool) -> None:
    with whole_file(target, replace=replace) as written:
        written.write_bytes(msgspec.json.format(msgspec.json.encode(codebook), indent=2) + b"\n")


def _print_report(target: Path, report: ExportReport, codebook: Codebook) -> None:
    sessions = pluralize(report.sessions, "session").replace(
        str(report.sessions), format_count(report.sessions), 1
    )
    rows = "" if report.rows == report.sessions else f" in {format_count(report.rows)} rows"
    merged = pluralize(len(codebook.versions), "version")
    where = "" if target == _STDOUT else f" to {target}"
    click.echo(f"Wrote {sessions} of {codebook.survey}{rows}{where}; {merged} of it merged", err=True)
    for question in codebook.questions:
        if question.type_changed:
            types = ", ".join(dict.fromkeys(question.types.values()))
            click.echo(
                f"The type of {question.step} changed ({types}): its column holds {question.kind}", err=True
            )
        elif not question.versions:
            click.echo(
                f"{question.step} was answered, and no version of the survey that is kept asks it", err=True
            )
    for remark in report.remarks:
        click.echo(remark, err=True)


# Octopush's files


def _export_files(database: ArchiveDatabase, filters: ResultFilters, target: Path, *, force: bool) -> None:
    with database.reading() as connection:
        _require_known(connection, filters)
        everything = count_sessions(connection, filters)
        with (
            whole_folder(target, replace=force) as folder,
            progress_bar(everything, f"sessions of {filters.survey}") as advance,
        ):
            report = export_files(connection, filters, folder, advance)
    left = everything - report.sessions
    others = f"; {pluralize(left, 'other session')} not {ENDED_PROPERLY}, and without a file" if left else ""
    click.echo(f"Wrote {pluralize(report.sessions, 'file')} to {target}{others}", err=True)
