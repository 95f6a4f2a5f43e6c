"""A file of people to invite: a table with a header, one person a row.

A column `identifier` (or `number`, or `phone`) is needed. Columns named as fields of an invitation are those fields, in
any case; every other column is a session variable. A row without a reference gets one made of its own content, so the
same row is the same invitation, however often its file is read.
"""

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from config.settings.csv_files import CsvFileError, read_csv_rows
from engine.model.errors import ParleyError
from engine.model.suggestions import did_you_mean
from ingest.api.invitation_parser import Body
from ingest.api.problems import FieldError

_INVITATION_FIELDS = {
    field.encode_name.lower(): field.encode_name
    for field in msgspec.structs.fields(Body)
    if field.encode_name != "userSessionVariables"
}
_NUMBER_ALIASES = ("number", "phone")
_VARIABLES_IN_0_1_0 = ("campaign", "sendAt")
"""Columns that were session variables to 0.1.0, and are fields now."""


class PeopleFileError(ParleyError):
    """The file is not a table of people. The message says why."""


class InvitationRow(NamedTuple):
    """One row: the line of the file on which it begins, and its invitation."""

    line: int
    body: dict[str, Any]


def read_people(path: Path, survey: str, fixed: Mapping[str, Any], reference: str) -> Iterator[InvitationRow]:
    """The invitations in a file. `fixed` are fields that every one has unless its row says otherwise; `reference` is put
    before the references made here. Raises PeopleFileError and OSError."""
    try:
        rows = read_csv_rows(path.read_bytes())
        _, header = next(rows, (1, []))
        columns = _column_fields(header, path)
        for line, cells in rows:
            if any(cells[len(columns) :]):
                raise PeopleFileError(
                    f"{path}: line {line} has more cells than the header has columns: put a cell that holds "
                    "a comma, a "
                    "semicolon or a tab in quotation marks"
                )
            body = _invitation_body(columns, cells, fixed)
            if "clientReference" not in body:
                digest = row_digest(survey, _body_of_0_1_0(body, header, columns, cells))
                body["clientReference"] = f"{reference}{'-' if reference else ''}{digest}"
            yield InvitationRow(line, body)
    except CsvFileError as e:
        raise PeopleFileError(f"{path}: {e}") from e


def _column_fields(names: list[str], path: Path) -> list[str]:
    """For each column, its field, or `$` and the name of a variable; empty for one without a name."""
    fields = [_INVITATION_FIELDS.get(name.lower(), f"${name}" if name else "") for name in names]
    if "identifier" not in fields:
        numbers = [at for at, name in enumerate(names) if name.lower() in _NUMBER_ALIASES]
        if not numbers:
            near = next(
                (hint for name in names if (hint := did_you_mean(name, ["identifier", *_NUMBER_ALIASES]))),
                "",
            )
            raise PeopleFileError(f"{path}: no column with numbers: expected one called identifier{near}")
        fields[numbers[0]] = "identifier"
    twice = next((field for field in fields if field and fields.count(field) > 1), None)
    if twice:
        raise PeopleFileError(f"{path}: two columns are called {twice.removeprefix('$')}: expected one")
    return fields


def _invitation_body(columns: list[str], cells: list[str], fixed: Mapping[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = dict(fixed)
    variables = dict(fixed.get("userSessionVariables", {}))
    for column, value in zip(columns, cells, strict=False):
        if not value or not column:
            continue
        if column.startswith("$"):
            variables[column[1:]] = value
        else:
            body[column] = value
    if variables:
        body["userSessionVariables"] = variables
    return body


def _body_of_0_1_0(
    body: Mapping[str, Any], header: list[str], columns: list[str], cells: list[str]
) -> Mapping[str, Any]:
    """Return the body that 0.1.0 made of the row: what it made a reference of, so that a table which it has read invites
    nobody twice."""
    cells_by_field = {
        field: (name, value)
        for name, field, value in zip(header, columns, cells, strict=False)
        if field in _VARIABLES_IN_0_1_0 and value
    }
    if not cells_by_field:
        return body
    content = {field: value for field, value in body.items() if field not in cells_by_field}
    variables = body.get("userSessionVariables", {})
    return content | {"userSessionVariables": {**variables, **dict(cells_by_field.values())}}


def row_digest(survey: str, body: Mapping[str, Any]) -> str:
    """24 hex digits, the same for the same invitation to the same survey."""
    content = msgspec.json.encode([survey, body], order="sorted")
    return blake2b(content, digest_size=12, person=b"invitation row").hexdigest()


def error_sentence(error: FieldError) -> str:
    """`/identifier` and why, as one line."""
    return f"{error.pointer.removeprefix('/')}: {error.detail}" if error.pointer else error.detail
