"""Results as Parquet: typed columns in row groups, the codebook in the file's metadata under `parley.codebook`.

Moments are timestamps in UTC, dates and times of day their own types, several options a list of texts. What is neither the
type of its column nor nothing, as an answer to an earlier version of the question may be, is left out and counted.
"""

from collections.abc import Callable, Sequence
from datetime import date, time
from pathlib import Path
from typing import Any

import msgspec

from engine.codebook.codebook import Codebook
from engine.codebook.session_columns import ColumnKind
from engine.model.extras import import_extra
from workers.exporting.cells import Cell, plain_text
from workers.exporting.result_rows import TableColumn

_CELLS_A_GROUP = 200_000
"""A row group is in memory until it is written: fewer rows of more columns."""


class ParquetWriter:
    """Writes to `path`. Raises MissingExtraError."""

    def __init__(self, path: Path, columns: Sequence[TableColumn], codebook: Codebook) -> None:
        arrow = import_extra("pyarrow", "parquet", "Parquet")
        parquet = import_extra("pyarrow.parquet", "parquet", "Parquet")
        self._arrow = arrow
        fields = [(column.name, _arrow_type(arrow, column.kind)) for column in columns]
        metadata = {"parley.codebook": msgspec.json.encode(codebook)}
        self._schema = arrow.schema(fields, metadata=metadata)
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._columns = columns
        self._rows_a_group = max(1, _CELLS_A_GROUP // len(columns))
        self._rows: list[Sequence[Cell]] = []
        self._misfits: dict[str, int] = {}

    def write_row(self, cells: Sequence[Cell]) -> None:
        self._rows.append(cells)
        if len(self._rows) == self._rows_a_group:
            self._write_group()

    def close(self) -> Sequence[str]:
        if self._rows:
            self._write_group()
        self._writer.close()
        return [
            f"{count:,} values of {name} are left out: they are not of the type that the column has"
            for name, count in self._misfits.items()
        ]

    def _write_group(self) -> None:
        arrays = [
            self._arrow.array([self._value(column, cell) for cell in cells], field.type)
            for column, cells, field in zip(
                self._columns, zip(*self._rows, strict=True), self._schema, strict=True
            )
        ]
        self._writer.write_batch(self._arrow.record_batch(arrays, schema=self._schema))
        self._rows = []

    def _value(self, column: TableColumn, cell: Cell) -> object:
        if cell is None:
            return None
        fit = _FITS.get(column.kind, _fit_text)(cell)
        if fit is None:
            self._misfits[column.name] = self._misfits.get(column.name, 0) + 1
        return fit


def _arrow_type(arrow: Any, kind: ColumnKind) -> Any:
    match kind:
        case "number":
            return arrow.float64()
        case "whole_number":
            return arrow.int64()
        case "yes_no":
            return arrow.bool_()
        case "date":
            return arrow.date32()
        case "time":
            return arrow.time32("s")
        case "moment":
            return arrow.timestamp("ms", tz="UTC")
        case "options":
            return arrow.list_(arrow.string())
        case _:
            return arrow.string()


def _fit_number(cell: Cell) -> float | None:
    return float(cell) if isinstance(cell, int | float) and not isinstance(cell, bool) else None


def _fit_whole_number(cell: Cell) -> int | None:
    return cell if isinstance(cell, int) and not isinstance(cell, bool) else None


def _fit_yes_no(cell: Cell) -> bool | None:
    return cell if isinstance(cell, bool) else None


def _fit_date(cell: Cell) -> date | None:
    return cell if isinstance(cell, date) else None


def _fit_time(cell: Cell) -> time | None:
    try:
        return time.fromisoformat(cell) if isinstance(cell, str) else None
    except ValueError:
        return None


def _fit_options(cell: Cell) -> list[str] | None:
    return cell if isinstance(cell, list) else None


def _fit_text(cell: Cell) -> str | None:
    return plain_text("text", cell)


_FITS: dict[ColumnKind, Callable[[Cell], object]] = {
    "number": _fit_number,
    "whole_number": _fit_whole_number,
    "moment": _fit_whole_number,
    "yes_no": _fit_yes_no,
    "date": _fit_date,
    "time": _fit_time,
    "options": _fit_options,
}
"""By the kind of a column, the value that Parquet takes for a cell; None if it is of another type."""
