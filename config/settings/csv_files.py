"""How is a CSV file read and written? As spreadsheets do it, whatever is in the file.

UTF-8, with or without a byte-order mark; a comma, a semicolon or a tab between cells, whichever the first line has most
of; quotation marks as RFC 4180 has them, so a quoted cell may have line breaks. Rows without anything in them are passed
over. A file that is not so is refused from that line on, and never guessed at.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from typing import NamedTuple, TextIO

from engine.model.errors import ParleyError

CELL_DELIMITERS = ",;\t"


class CsvFileError(ParleyError):
    """From a line on this is no CSV in UTF-8. The message says on which line, why, and what mends it."""


class CsvRow(NamedTuple):
    """`line` is the one on which it begins, from 1; its cells have no blanks at their ends."""

    line: int
    cells: list[str]


def read_csv_rows(source: bytes) -> Iterator[CsvRow]:
    """Yield the rows of a file's content, header included. Raises CsvFileError; rows before that stand."""
    text = _decode_utf8(source)
    head = next(filter(str.strip, StringIO(text, newline="")), "")
    reader = csv.reader(
        StringIO(text, newline=""), delimiter=max(CELL_DELIMITERS, key=head.count), strict=True
    )
    while True:
        line = reader.line_num + 1
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as e:
            raise CsvFileError(f"line {line}: this is not CSV ({e}): is a quotation mark missing?") from None
        if any(cells):
            yield CsvRow(line, cells)


def write_csv_rows(file: TextIO, rows: Iterable[Sequence[object]]) -> None:
    """Write the rows with commas, each ended by a line feed. Cells may have no carriage returns."""
    csv.writer(file, lineterminator="\n").writerows(rows)


def _decode_utf8(source: bytes) -> str:
    if source.startswith(_WORKBOOK):
        raise CsvFileError("line 1: it is a workbook of a spreadsheet: save the file as CSV in UTF-8")
    if b"\0" in source[:_LOOKED_AT]:
        raise CsvFileError("line 1: it is not UTF-8 but UTF-16, or no text: save the file as CSV in UTF-8")
    try:
        return source.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = source.count(b"\n", 0, e.start) + 1
        raise CsvFileError(f"line {line}: it is not UTF-8: save the file as CSV in UTF-8") from None


_WORKBOOK = b"PK\x03\x04"
"""What an .xlsx or .ods file begins with."""

_LOOKED_AT = 1_000
"""Bytes of a file in which NUL is looked for."""
