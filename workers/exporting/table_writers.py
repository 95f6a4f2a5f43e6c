"""Tables as files of text: CSV and JSON lines. Excel's and Parquet's have files of their own.

A CSV is RFC 4180 in UTF-8. What people wrote may begin with `=`, `+`, `-` or `@`, which a spreadsheet runs as a formula
(OWASP, "CSV injection"): such a text gets an apostrophe before it, unless all of it is a number. Cells that hold numbers
are as they are. The other formats have no such cells, and texts in them are untouched.
"""

import csv
import io
import re
from collections.abc import Sequence
from typing import BinaryIO, Protocol

import msgspec

from engine.codebook.session_columns import ColumnKind
from workers.exporting.cells import Cell, moment_text, plain_text
from workers.exporting.result_rows import TableColumn

_FORMULA_STARTS = frozenset("=+-@\t\r＝＋－＠")  # noqa: RUF001 - as spreadsheets read them
_HARMLESS = re.compile(r"[+-]?[0-9][0-9 .,]*")
_NUMBER_KINDS: frozenset[ColumnKind] = frozenset(("number", "whole_number"))
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class TableWriter(Protocol):
    """Writes rows, whose cells are those of the columns that it was made with."""

    def write_row(self, cells: Sequence[Cell]) -> None: ...

    def close(self) -> Sequence[str]:
        """Finish the file, and return sentences about what could not be written as it is."""
        ...


class CsvWriter:
    """`guards`: texts that a spreadsheet would run are made harmless. `marks`: the file begins with a byte order mark, by which
    Excel knows UTF-8."""

    def __init__(
        self, output: BinaryIO, columns: Sequence[TableColumn], *, guards: bool = True, marks: bool = False
    ) -> None:
        output.write(_BYTE_ORDER_MARK if marks else b"")
        self._text = io.TextIOWrapper(output, encoding="utf-8", newline="", write_through=False)
        self._writer = csv.writer(self._text)
        self._kinds = [column.kind for column in columns]
        self._guards = guards
        self._writer.writerow([self._guard(column.name) for column in columns])

    def write_row(self, cells: Sequence[Cell]) -> None:
        self._writer.writerow(map(self._field, self._kinds, cells))

    def close(self) -> Sequence[str]:
        self._text.flush()
        self._text.detach()
        return ()

    def _field(self, kind: ColumnKind, cell: Cell) -> object:
        """The cell as the csv module writes it right: it knows numbers, and nothing."""
        if isinstance(cell, str):
            return self._guard(cell)
        if cell is None or kind in _NUMBER_KINDS:
            return cell
        text = plain_text(kind, cell)
        return self._guard(text) if isinstance(cell, list) else text

    def _guard(self, text: str) -> str:
        if text[:1] in _FORMULA_STARTS and self._guards and not _HARMLESS.fullmatch(text):
            return f"'{text}"
        return text


class JsonLinesWriter:
    """One object a line, without the names of cells that hold nothing."""

    def __init__(self, output: BinaryIO, columns: Sequence[TableColumn]) -> None:
        self._output = output
        self._columns = columns

    def write_row(self, cells: Sequence[Cell]) -> None:
        fields = {
            column.name: moment_text(cell) if column.kind == "moment" and isinstance(cell, int) else cell
            for column, cell in zip(self._columns, cells, strict=True)
            if cell is not None
        }
        self._output.write(msgspec.json.encode(fields) + b"\n")

    def close(self) -> Sequence[str]:
        self._output.flush()
        return ()
