"""What stands in a cell? Values as a table holds them, whatever file it becomes."""

import math
import re
from collections.abc import Sequence
from datetime import date
from typing import Any

from sqlalchemy import Row

from engine.codebook.session_columns import ColumnKind
from engine.model.timestamps import format_utc_ms

Cell = str | int | float | bool | date | list[str] | dict[str, Any] | None
"""By the kind of its column: a moment is ms since 1970, a time HH:MM, several options a list of ids, and a dict holds several
cells. A value that does not fit its column, as one of another version may not, is a text."""

OPTION_SEPARATOR = "; "
"""Between several options in a cell that holds one text."""

_NUMBER_WRITTEN = re.compile(r"\+?[\d\s().\-/]{6,30}")
_NON_DIGITS = re.compile(r"\D")
_FEWEST_DIGITS = 6


class NumberHider:
    """Puts a person's pseudonym where their own phone number is all that a text holds, as in Puzzel's `consumerPhone`."""

    def __init__(self, sender: str, pseudonym: str) -> None:
        self._digits = _NON_DIGITS.sub("", sender)
        self._pseudonym = pseudonym

    def hide(self, cell: Cell) -> Cell:
        return self._pseudonym if isinstance(cell, str) and self._is_number(cell) else cell

    def _is_number(self, text: str) -> bool:
        """In full, with 00 or +, or as it is dialled at home: 0612345678 is +33612345678."""
        if text[-1:] != self._digits[-1:] or not _NUMBER_WRITTEN.fullmatch(text.strip()):
            return False
        digits = _NON_DIGITS.sub("", text).lstrip("0")
        return len(digits) >= min(_FEWEST_DIGITS, len(self._digits)) and self._digits.endswith(digits)


def answer_cell(kind: ColumnKind, rows: Sequence[Row[Any]]) -> Cell:
    """The value of an answer, as a column of this kind holds it."""
    row = rows[0]
    match kind:
        case "number" | "whole_number":
            return number_cell(row.value_number, row.value)
        case "yes_no" if row.value_yes is not None:
            return bool(row.value_yes)
        case "date" if row.value_date is not None:
            return date.fromisoformat(str(row.value_date))
        case "options":
            return [str(each.option or each.value) for each in rows]
        case _:
            return OPTION_SEPARATOR.join(str(each.value) for each in rows)


def native_cell(rows: Sequence[Row[Any]]) -> Cell:
    """The value of an answer as it was stored, whatever a column of other versions' answers holds."""
    row = rows[0]
    if len(rows) > 1:
        return answer_cell("options", rows)
    if row.value_yes is not None:
        return bool(row.value_yes)
    return number_cell(row.value_number, row.value)


def number_cell(number: float | None, written: str | None) -> Cell:
    """A number, without a point if it is whole; as it is written if it is none that every file can hold."""
    if number is None or not math.isfinite(number):
        return written
    return int(number) if number.is_integer() and abs(number) < 1e15 else number


def moment_text(ms: int) -> str:
    """A moment in ISO 8601, in UTC: 2026-01-31T08:00:00.000Z."""
    return format_utc_ms(ms).replace("+00:00", "Z")


def plain_text(kind: ColumnKind, cell: Cell) -> str:
    """The cell as a text, for a file that knows nothing else; empty if there is nothing."""
    match cell:
        case None:
            return ""
        case bool():
            return "yes" if cell else "no"
        case int() if kind == "moment":
            return moment_text(cell)
        case date():
            return cell.isoformat()
        case list():
            return OPTION_SEPARATOR.join(cell)
        case _:
            return str(cell)
