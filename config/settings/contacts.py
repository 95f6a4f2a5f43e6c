"""Whom does a channel know? A file of numbers and names, which surveys put into what they say as {$contact}.

A CSV file, as csv_files reads them, whose first row is `number,name`. It is read when a process starts; every mistake in it is
reported by its line, and none by its number: what goes into logs names nobody.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from config.settings.csv_files import CsvFileError, CsvRow, read_csv_rows
from engine.model.errors import ParleyError
from engine.model.plurals import pluralize

CONTACTS_HEADER = ["number", "name"]

MAX_NAME_LENGTH = 100
"""Characters, as for whatever else a survey puts into a text unless it says otherwise."""

_NUMBER_PATTERN = re.compile(r"\+[1-9][0-9]{2,14}")


def read_contacts(path: Path) -> tuple[dict[str, str], list[str]]:
    """Name by number (E.164), and a sentence for everything that is wrong with the file, which begins with its path.

    The names are of use even so: those of the lines without a mistake.
    """
    try:
        source = path.read_bytes()
    except OSError as e:
        return {}, [f"{path}: it cannot be read ({e.strerror}): expected a CSV file of numbers and names"]
    contacts: dict[str, str] = {}
    lines: dict[str, int] = {}
    problems: list[str] = []
    try:
        for line, fields in _contact_rows(source):
            problem = _row_problem(fields, lines)
            if problem:
                problems.append(f"{path}: line {line}: {problem}")
                continue
            number, name = fields
            contacts[number], lines[number] = name, line
    except (CsvFileError, _ContactsFileError) as e:
        problems.append(f"{path}: {e}")
    return contacts, problems


class _ContactsFileError(ParleyError):
    """The file's header is not that of contacts. The message says why."""


def _contact_rows(source: bytes) -> Iterator[CsvRow]:
    """The rows below the header. Raises CsvFileError, and _ContactsFileError for another header."""
    rows = read_csv_rows(source)
    header = next(rows, None)
    if header is None:
        raise _ContactsFileError("it is empty: expected the header `number,name`")
    if [cell.lower() for cell in header.cells] != CONTACTS_HEADER:
        raise _ContactsFileError(f"line {header.line}: expected the header `number,name`")
    yield from rows


def _row_problem(fields: list[str], lines: dict[str, int]) -> str:
    """Say what is wrong with a row; "" if nothing is. `lines` are those of the numbers above it."""
    if len(fields) != len(CONTACTS_HEADER):
        return (
            f"found {pluralize(len(fields), 'field')}, expected a number and a name; a name with a "
            "comma stands in quotation marks"
        )
    number, name = fields
    if not _NUMBER_PATTERN.fullmatch(number):
        return "expected a number in full: +, the country code and 15 digits at most, without blanks"
    if number in lines:
        return f"this is the number of line {lines[number]} again"
    if not name:
        return "the name is missing"
    if len(name) > MAX_NAME_LENGTH:
        return f"the name has {len(name)} characters, expected {MAX_NAME_LENGTH} at most"
    if not name.isprintable():
        return "the name has a line break or another invisible character in it"
    return ""
