"""A file of people to invite: a table with a header, one person a row.

A column `identifier` (or `number`, or `phone`) is needed. Columns named as fields of an invitation are those fields, in
any case; every other column is a session variable. A row without a reference gets one made of its own content, so the
same row is the same invitation, however often its file is read.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
import phonenumbers

from config.invitations.invitation_body import Body
from config.settings.csv_files import CsvFileError, read_csv_rows
from engine.model.errors import ParleyError
from engine.model.suggestions import did_you_mean

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


class UnknownCountryError(ParleyError):
    """No country has this code. The message says what was expected."""


class InvitationRow(NamedTuple):
    """One row: the line of the file on which it begins, and its invitation."""

    line: int
    body: dict[str, Any]


def parse_country(written: str) -> str:
    """The code of a country by its two letters, in any case; empty for none. Raises UnknownCountryError."""
    country = written.strip().upper()
    if country and country not in phonenumbers.SUPPORTED_REGIONS:
        hint = did_you_mean(country, sorted(phonenumbers.SUPPORTED_REGIONS))
        raise UnknownCountryError(f"{written}: expected a country's two letters, such as DE{hint}")
    return country


def full_number(written: str, country: str) -> str:
    """A number in full, in place of one that is written as in `country` (two letters; empty: none). What is none stays as it is:
    the API tells."""
    if not country or written.strip().startswith("+"):
        return written
    try:
        number = phonenumbers.parse(written, country)
    except phonenumbers.NumberParseException:
        return written
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def read_people(
    source: bytes, survey: str, fixed: Mapping[str, Any], reference: str, country: str = ""
) -> Iterator[InvitationRow]:
    """The invitations in a file's content. `fixed` are fields that every one has unless its row says otherwise; `reference` is put
    before the references made here; numbers that are not in full are as in `country`. Raises PeopleFileError."""
    try:
        rows = read_csv_rows(source)
        _, header = next(rows, (1, []))
        columns = _column_fields(header)
        for line, cells in rows:
            if any(cells[len(columns) :]):
                raise PeopleFileError(
                    f"line {line} has more cells than the header has columns: put a cell that holds "
                    "a comma, a "
                    "semicolon or a tab in quotation marks"
                )
            body = _invitation_body(columns, cells, fixed)
            if country and "identifier" in body:
                body["identifier"] = full_number(body["identifier"], country)
            if "clientReference" not in body:
                digest = row_digest(survey, _body_of_0_1_0(body, header, columns, cells))
                body["clientReference"] = f"{reference}{'-' if reference else ''}{digest}"
            yield InvitationRow(line, body)
    except CsvFileError as e:
        raise PeopleFileError(str(e)) from e


def _column_fields(names: list[str]) -> list[str]:
    """For each column, its field, or `$` and the name of a variable; empty for one without a name."""
    fields = [_INVITATION_FIELDS.get(name.lower(), f"${name}" if name else "") for name in names]
    if "identifier" not in fields:
        numbers = [at for at, name in enumerate(names) if name.lower() in _NUMBER_ALIASES]
        if not numbers:
            near = next(
                (hint for name in names if (hint := did_you_mean(name, ["identifier", *_NUMBER_ALIASES]))),
                "",
            )
            raise PeopleFileError(f"no column with numbers: expected one called identifier{near}")
        fields[numbers[0]] = "identifier"
    twice = next((field for field, count in Counter(fields).items() if field and count > 1), None)
    if twice:
        raise PeopleFileError(f"two columns are called {twice.removeprefix('$')}: expected one")
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
