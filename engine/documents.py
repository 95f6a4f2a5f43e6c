"""YAML 1.2 and JSON: bytes into plain values, and a sentence for whoever wrote bytes that are neither.

A key that stands twice in one mapping is an error in both.
"""

import json
from typing import NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

SUFFIXES = (".yaml", ".yml", ".json")


class Unparsable(ValueError):
    """The bytes are not what the file's name promises. The message is a sentence without the file's name."""


def parse(file: str, source: bytes) -> object:
    """The value in `source`, JSON or YAML by the name of its file. Raises Unparsable."""
    try:
        text = source.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise Unparsable(f"byte {e.start} is not UTF-8") from None
    try:
        return _json(text) if file.endswith(".json") else _yaml(text)
    except RecursionError:
        raise Unparsable("it is nested too deeply") from None


def _json(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except json.JSONDecodeError as e:
        raise Unparsable(f"line {e.lineno}, column {e.colno}: {e.msg}") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise Unparsable(f"the key '{twice}' stands twice in one object")
    return mapping


def _refuse_constant(name: str) -> NoReturn:
    raise Unparsable(f"{name} is not JSON")


def _yaml(text: str) -> object:
    try:
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as e:
        where = (
            f"line {e.problem_mark.line + 1}, column {e.problem_mark.column + 1}: " if e.problem_mark else ""
        )
        raise Unparsable(where + (e.problem or "this is not YAML").splitlines()[0]) from None
    except (YAMLError, ValueError) as e:
        raise Unparsable(
            f"this is not YAML: {str(e).splitlines()[0] if str(e) else type(e).__name__}"
        ) from None
