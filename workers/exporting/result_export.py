"""Exports: what is read from the archive, and how it becomes a file. All of one export is read in one transaction, so that it
is of one moment, however long it takes and whatever a campaign adds meanwhile.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, assert_never

import msgspec
from sqlalchemy import Connection

from config.archive.pseudonyms import Pseudonyms
from config.archive.result_filters import ResultFilters
from config.archive.surveys_kept import read_surveys
from engine.codebook.codebook import Codebook, CodebookColumn, build_codebook
from workers.exporting.parquet_writer import ParquetWriter
from workers.exporting.result_files import write_result_files
from workers.exporting.result_rows import (
    LONG_COLUMNS,
    LongTable,
    NestedTable,
    ResultTable,
    RowChoices,
    TableColumn,
    WideTable,
)
from workers.exporting.session_stream import answered_steps, stream_sessions, variable_spellings
from workers.exporting.table_writers import CsvWriter, JsonLinesWriter, TableWriter
from workers.exporting.xlsx_writer import XlsxWriter

TableFormat = Literal["csv", "jsonl", "xlsx", "parquet"]

Advance = Callable[[int], None]
"""Called with how many more sessions are done."""


class ExportChoices(msgspec.Struct, frozen=True, kw_only=True):
    """How sessions are written. `pseudonyms` are None if numbers stand in the results; `language`, if options are to be told by
    their labels; `guards` and `marks` are of a CSV (CsvWriter)."""

    form: TableFormat
    long: bool = False
    pseudonyms: Pseudonyms | None = None
    language: str = ""
    raw: bool = False
    guards: bool = True
    marks: bool = False


class ExportReport(msgspec.Struct):
    """What came of it: counts, and sentences about what could not be written as it is."""

    sessions: int = 0
    rows: int = 0
    remarks: list[str] = []


def describe_columns(connection: Connection, filters: ResultFilters, *, numbers: bool) -> Codebook:
    """The codebook of what is exported: of all versions of the survey that the archive has, and of what was answered beside. A
    variable has a column if a version's file declares it, or one of the sessions has it. People have their numbers or, if
    `numbers` is false, their pseudonyms."""
    surveys = read_surveys(connection, filters.survey)
    spelled = variable_spellings(connection, filters)
    steps = answered_steps(connection, filters.survey)
    codebook = build_codebook(surveys, spelled.values(), steps, filters.survey)
    unused = "pseudonym" if numbers else "number"
    return msgspec.structs.replace(
        codebook,
        columns=[each for each in codebook.columns if each.name != unused],
        variables=[each for each in codebook.variables if each.source == "survey" or each.key in spelled],
    )


def export_table(
    connection: Connection,
    filters: ResultFilters,
    codebook: Codebook,
    choices: ExportChoices,
    output: Path | BinaryIO,
    advance: Advance,
) -> ExportReport:
    """Write the sessions that meet the filters to `output`, a path unless it is a CSV or JSON lines."""
    table = _make_table(codebook, choices)
    report = ExportReport(remarks=[])
    with _open_writer(output, table.columns, described_rows(codebook, choices), choices) as writer:
        for session in stream_sessions(connection, filters):
            for row in table.rows_of(session):
                writer.write_row(row)
                report.rows += 1
            report.sessions += 1
            advance(1)
        report.remarks += writer.close()
    return report


def export_files(
    connection: Connection, filters: ResultFilters, folder: Path, advance: Advance
) -> ExportReport:
    """Write a file for each session that came to its end into `folder`, as Octopush's script does."""
    report = ExportReport(remarks=[])
    for _ in write_result_files(connection, filters, folder):
        report.sessions += 1
        report.rows += 1
        advance(1)
    return report


def described_rows(codebook: Codebook, choices: ExportChoices) -> Codebook:
    """The codebook with what the long form has of each answer, if that is chosen."""
    if not choices.long:
        return codebook
    further = [CodebookColumn(name, name, kind, meaning) for name, kind, meaning in LONG_COLUMNS]
    return msgspec.structs.replace(codebook, columns=[*codebook.columns, *further])


def _make_table(codebook: Codebook, choices: ExportChoices) -> ResultTable:
    rows = RowChoices(pseudonyms=choices.pseudonyms, language=choices.language, raw=choices.raw)
    if choices.long:
        return LongTable(codebook, rows)
    return (NestedTable if choices.form == "jsonl" else WideTable)(codebook, rows)


@contextmanager
def _open_writer(
    output: Path | BinaryIO, columns: Sequence[TableColumn], codebook: Codebook, choices: ExportChoices
) -> Iterator[TableWriter]:
    """A writer of the chosen format, which its user closes."""
    match choices.form:
        case "xlsx":
            yield XlsxWriter(_require_path(output), columns, codebook)
        case "parquet":
            yield ParquetWriter(_require_path(output), columns, codebook)
        case "csv" | "jsonl":
            with _open_binary(output) as stream:
                if choices.form == "jsonl":
                    yield JsonLinesWriter(stream, columns)
                else:
                    yield CsvWriter(stream, columns, guards=choices.guards, marks=choices.marks)
        case _:
            assert_never(choices.form)


@contextmanager
def _open_binary(output: Path | BinaryIO) -> Iterator[BinaryIO]:
    if not isinstance(output, Path):
        yield output
        return
    with output.open("wb") as stream:
        yield stream


def _require_path(output: Path | BinaryIO) -> Path:
    if isinstance(output, Path):
        return output
    raise TypeError("only CSV and JSON lines are written to a stream")
