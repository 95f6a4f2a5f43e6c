"""Whom does a channel know? A file of numbers and names, which surveys put into what they say as {$contact}.

A CSV file in UTF-8 whose first line is `number,name`. It is read when a process starts; every mistake in it is
reported by its line, and none by its number: what goes into logs names nobody.
"""

import csv
import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

from engine.model.errors import ParleyError

CONTACTS_HEADER = ["number", "name"]

MAX_NAME_LENGTH = 100
"""Characters, as for whatever else a survey puts into a text unless it says otherwise."""

_NUMBER_PATTERN = re.compile(r"\+[1-9][0-9]{2,14}")

ContactRow = tuple[int, list[str]]
"""Where it begins, counted in lines from 1; and its fields, without blanks at their ends."""


def read_contacts(path: Path) -> tuple[dict[str, str], list[str]]:
    """Name by number (E.164), and a sentence for everything that is wrong with the file, which begins with its path.

    The names are of use even so: those of the lines without a mistake.
    """
    try:
        text = _read_text(path)
    except _ContactsFileError as e:
        return {}, [f"{path}: {e}"]
    contacts: dict[str, str] = {}
    lines: dict[str, int] = {}
    problems: list[str] = []
    try:
        for line, fields in _contact_rows(text):
            problem = _row_problem(fields, lines)
            if problem:
                problems.append(f"{path}: line {line}: {problem}")
                continue
            number, name = fields
            contacts[number], lines[number] = name, line
    except _ContactsFileError as e:
        problems.append(f"{path}: {e}")
    return contacts, problems


class _ContactsFileError(ParleyError):
    """From here on the file cannot be read as contacts. The message says why."""


def _read_text(path: Path) -> str:
    try:
        source = path.read_bytes()
    except OSError as e:
        raise _ContactsFileError(
            f"it cannot be read ({e.strerror}): expected a CSV file of numbers and names"
        ) from None
    try:
        return source.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = source.count(b"\n", 0, e.start) + 1
        raise _ContactsFileError(f"line {line}: it is not UTF-8: save the file as CSV in UTF-8") from None


def _contact_rows(text: str) -> Iterator[ContactRow]:
    """The rows below the header that hold anything. Raises _NoContacts."""
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    headed = False
    while True:
        line = reader.line_num + 1
        try:
            fields = [field.strip() for field in next(reader)]
        except StopIteration:
            break
        except csv.Error as e:
            raise _ContactsFileError(
                f"line {line}: this is not CSV ({e}): is a quotation mark missing?"
            ) from None
        if not any(fields):
            continue
        if headed:
            yield line, fields
        elif [field.lower() for field in fields] == CONTACTS_HEADER:
            headed = True
        else:
            raise _ContactsFileError(
                f"line {line}: expected the header `number,name`, with a comma between them"
            )
    if not headed:
        raise _ContactsFileError("it is empty: expected the header `number,name`")


def _row_problem(fields: list[str], lines: dict[str, int]) -> str:
    """What is wrong with a row; `lines` are those of the numbers above it. Empty: nothing."""
    if len(fields) != len(CONTACTS_HEADER):
        return (
            f"found {len(fields)} field{'' if len(fields) == 1 else 's'}, expected a number and a name; a name with a "
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
