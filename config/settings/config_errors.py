"""A mistake in the settings is told in one line: where, what was found, what was expected, and never a secret."""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from engine.model.errors import ParleyError
from engine.model.field_reader import FieldProblem, read_fields
from engine.model.suggestions import expected_instead

FieldsStruct = TypeVar("FieldsStruct", bound=msgspec.Struct)


class ConfigError(ParleyError):
    """The settings cannot be used. `problems` are lines for the operator."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


class Secret(str):
    """A string that keeps itself out of logs and tracebacks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


def unwritable_problem(path: Path, error: OSError, setting: str) -> str:
    """Write the line for a folder or file that `setting` leads to, and that cannot be made or written."""
    found = f"{path} cannot be made or written ({error.strerror})"
    return f"{found}: expected a folder in which this user may write, or {setting} with another"


@contextmanager
def exit_on_config_error() -> Iterator[None]:
    """For entry points: mistakes go to stderr, one a line, and the process ends with status 2."""
    try:
        yield
    except ConfigError as mistakes:
        for problem in mistakes.problems:
            sys.stderr.write(problem + "\n")
        sys.exit(2)


def read_table(place: str, fallback: FieldsStruct, raw: object, problems: list[str]) -> FieldsStruct:
    """Read the table `raw` field by field, and report each wrong one; those stay as in `fallback`."""
    if not isinstance(raw, dict):
        problems.append(f"{place} is {raw!r}: expected a table")
        return fallback
    fields = {field.name: field for field in msgspec.structs.fields(fallback)}
    problems += [unknown_name_problem(f"{place}.{name}", name, fields) for name in raw if name not in fields]
    values, wrong = read_fields(fields.values(), raw)
    problems += [f"{place}.{_field_problem(each, raw)}" for each in wrong]
    return msgspec.structs.replace(fallback, **values)


def _field_problem(wrong: FieldProblem, raw: Mapping[str, object]) -> str:
    name = wrong.field.name
    if not wrong.sentence:
        return f"{name} is missing"
    found = "" if name in _FIELDS_BESIDE_SECRETS else f" is {raw[name]!r}"
    return f"{name}{found}: {_expected_sentence(wrong)}"


_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


class SecretProblems(NamedTuple):
    """Where what is wrong with secrets is reported. That one is not set is a problem like others, unless they are `unset`: for who
    can do without it, and says what was not checked."""

    problems: list[str]
    unset: list[str]


def find_secret(
    place: str,
    variable: object,
    environ: Mapping[str, str],
    found: SecretProblems,
    *,
    what: str,
    expected: str,
) -> Secret | None:
    """Find the secret in the environment variable that the field at `place` names; None if there is none, which is reported.
    The field may hold the secret itself by mistake, so what it holds is shown only if it looks like a name."""
    if not isinstance(variable, str) or not _VARIABLE.fullmatch(variable):
        found.problems.append(f"{place}: expected the name of a variable, in capitals, not the {what}")
    elif not environ.get(variable):
        found.unset.append(f"{place}: the variable {variable} is not set: expected {expected}")
    else:
        return Secret(environ[variable])
    return None


_PATTERN_SENTENCES = {
    "number": "expected a number in full, + and 3 to 15 digits, such as +33700000001",
    "originators": "expected numbers of 3 to 15 digits, with or without a +",
    "quiet_hours": "expected two times of the day, such as 21:00-08:00",
    "sha256": "expected 64 hex digits; `parley key` makes a key and prints them",
    "client_id": "expected what the provider calls this console, of printable ASCII",
}
"""Where a pattern says less."""

_FIELDS_BESIDE_SECRETS = ("token_env", "client_secret_env", "sha256")
"""Fields that stand beside a secret, which may have been written there instead."""


def _expected_sentence(wrong: FieldProblem) -> str:
    if wrong.field.name in _PATTERN_SENTENCES and "regex" in wrong.sentence:
        return _PATTERN_SENTENCES[wrong.field.name]
    return wrong.sentence + (f" - at ${wrong.path}" if wrong.path else "")


def unknown_name_problem(place: str, name: str, known: Iterable[str]) -> str:
    """Write the line for a field that nobody reads. Its value stays unsaid: it may be a secret in the wrong place."""
    return f"{place} is unknown{expected_instead(name, known)}"


def unset_clause(unset: Sequence[str]) -> str:
    """Say which secret is not set here, and how many more are not."""
    first, *others = unset
    more = f" (and {len(others)} more)" if others else ""
    return first.partition(": expected")[0] + more
