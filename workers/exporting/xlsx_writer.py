"""Results as an Excel workbook: sheets `results`, with real numbers, dates and moments (in UTC), and a sheet `codebook`.

A row is on the disk once the next one comes, so that the memory is the same for any number of them. A sheet holds 1,048,576
rows: further ones go to `results 2`, `results 3`. Texts stay texts: none becomes a formula, a link or a number.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from engine.codebook.codebook import Codebook
from engine.codebook.session_columns import ColumnKind
from engine.model.errors import ParleyError
from engine.model.extras import import_extra
from workers.exporting.cells import Cell, plain_text
from workers.exporting.codebook_table import codebook_rows
from workers.exporting.result_rows import TableColumn

if TYPE_CHECKING:
    from xlsxwriter.worksheet import Worksheet

MOST_ROWS = 1_048_576
_MOST_COLUMNS = 16_384
_LONGEST_TEXT = 32_767
_COLUMN_WIDTH = 20


class TooManyColumnsError(ParleyError):
    """A sheet has no room for as many columns."""


class XlsxWriter:
    """Writes to `path`, and what it needs meanwhile into the same folder. Raises TooManyColumnsError or MissingExtraError."""

    def __init__(self, path: Path, columns: Sequence[TableColumn], codebook: Codebook) -> None:
        if len(columns) > _MOST_COLUMNS:
            raise TooManyColumnsError(
                f"the results have {len(columns):,} columns, and Excel's sheets {_MOST_COLUMNS:,}: "
                "write them --long, or as another format"
            )
        xlsxwriter = import_extra("xlsxwriter", "xlsx", "a workbook")
        self._book = xlsxwriter.Workbook(
            str(path),
            {
                "constant_memory": True,
                "tmpdir": str(path.parent),
                "strings_to_formulas": False,
                "strings_to_urls": False,
                "strings_to_numbers": False,
            },
        )
        self._book.use_zip64()
        self._bold = self._book.add_format({"bold": True})
        self._moment = self._book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
        self._day = self._book.add_format({"num_format": "yyyy-mm-dd"})
        self._columns = columns
        self._codebook = codebook
        self._sheets = 0
        self._cut = 0
        self._sheet = self._begin_sheet()

    def write_row(self, cells: Sequence[Cell]) -> None:
        if self._row == MOST_ROWS:
            self._sheet = self._begin_sheet()
        for place, (column, cell) in enumerate(zip(self._columns, cells, strict=True)):
            self._write_cell(place, column.kind, cell)
        self._row += 1

    def close(self) -> Sequence[str]:
        sheet = self._book.add_worksheet("codebook")
        for number, row in enumerate(codebook_rows(self._codebook)):
            for place, cell in enumerate(row):
                if isinstance(cell, str) and cell:
                    sheet.write_string(
                        number, place, self._cut_text(cell), self._bold if number == 0 else None
                    )
                elif isinstance(cell, int | float):
                    sheet.write_number(number, place, cell)
        self._book.close()
        if not self._cut:
            return ()
        return [f"{self._cut:,} texts are cut: a cell of Excel's holds {_LONGEST_TEXT:,} characters"]

    def _begin_sheet(self) -> "Worksheet":
        self._sheets += 1
        sheet = self._book.add_worksheet("results" if self._sheets == 1 else f"results {self._sheets}")
        sheet.freeze_panes(1, 0)
        sheet.set_column(0, len(self._columns) - 1, _COLUMN_WIDTH)
        for place, column in enumerate(self._columns):
            sheet.write_string(0, place, column.name, self._bold)
        self._row = 1
        return sheet

    def _write_cell(self, place: int, kind: ColumnKind, cell: Cell) -> None:
        sheet, row = self._sheet, self._row
        match cell:
            case None | "":
                pass
            case bool():
                sheet.write_boolean(row, place, cell)
            case int() if kind == "moment":
                moment = datetime.fromtimestamp(cell / 1000, UTC).replace(tzinfo=None)
                sheet.write_datetime(row, place, moment, self._moment)
            case int() | float():
                sheet.write_number(row, place, cell)
            case date():
                day = datetime(cell.year, cell.month, cell.day)  # noqa: DTZ001 (Excel knows no zone)
                sheet.write_datetime(row, place, day, self._day)
            case _:
                sheet.write_string(row, place, self._cut_text(plain_text(kind, cell)))

    def _cut_text(self, text: str) -> str:
        self._cut += len(text) > _LONGEST_TEXT
        return text[:_LONGEST_TEXT]
