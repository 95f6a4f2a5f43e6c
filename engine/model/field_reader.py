"""Reads a mapping into the fields of a Struct one by one, so that every wrong field is found: msgspec stops at the first.

What is said of a wrong field, and whether its value may be shown, is for whoever reads to decide: settings and accounts
stand beside secrets, and an API points into a body. A survey file is not read so: there whole trees are wrong, and
engine/surveys/survey_file.py explains them in its own words.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec.structs import FieldInfo


class FieldProblem(msgspec.Struct, frozen=True):
    """`field` is wrong: msgspec's `sentence` of it, which begins in lower case, is about the value at `path` within it, such
    as `[0].key`. An empty `sentence` says that the field is missing."""

    field: FieldInfo
    sentence: str = ""
    path: str = ""


def read_fields(
    fields: Iterable[FieldInfo], values: Mapping[str, Any], texts: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], list[FieldProblem]]:
    """Convert what there is of `fields`; return it by the fields' names, and what is wrong, in the order of the fields.

    `values` are by the names under which fields are written. `texts` go before them: they come from where there is
    nothing but text, so that "3" is a number there.
    """
    read: dict[str, Any] = {}
    problems: list[FieldProblem] = []
    for field in fields:
        name = field.encode_name
        try:
            if texts is not None and name in texts:
                read[field.name] = msgspec.convert(texts[name], field.type, strict=False)
            elif name in values:
                read[field.name] = msgspec.convert(values[name], field.type)
            elif field.required:
                problems.append(FieldProblem(field))
        except msgspec.ValidationError as e:
            problems.append(FieldProblem(field, *_split_message(str(e))))
    return read, problems


def _split_message(message: str) -> tuple[str, str]:
    """Split "Expected `int`, got `str` - at `$[0]`" into "expected int, got str" and "[0]"."""
    sentence, _, place = message.partition(" - at ")
    return sentence[:1].lower() + sentence[1:].replace("`", ""), place.strip("`").removeprefix("$")
