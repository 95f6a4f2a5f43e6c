"""YAML 1.2 and JSON: bytes into plain values, and a sentence for whoever wrote bytes that are neither.

A key that stands twice in one mapping is an error in both. A date is a text, as in JSON, with quotes or without.
"""

import json
from typing import NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from engine.model.errors import ParleyError

SURVEY_SUFFIXES = (".yaml", ".yml", ".json")


class DocumentSyntaxError(ParleyError, ValueError):
    """The bytes are not what the file's name promises. The message is a sentence without the file's name."""


class _YamlConstructor(SafeConstructor):
    """YAML 1.2 has no dates: 2026-02-30 is whatever the field that it stands in says of it."""


_YamlConstructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)


def parse_document(file: str, source: bytes) -> object:
    """The value in `source`, JSON or YAML by the name of its file. Raises DocumentSyntaxError."""
    try:
        text = source.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise DocumentSyntaxError(f"byte {e.start} is not UTF-8") from None
    try:
        return _join_surrogates_within(
            _parse_json(text) if file.endswith(".json") else _parse_yaml(text), frozenset()
        )
    except RecursionError:
        raise DocumentSyntaxError("it is nested too deeply") from None


def _join_surrogates_within(value: object, within: frozenset[int]) -> object:
    """Return a copy of `value` in whose texts a surrogate pair, as two JSON escapes leave it, is one character.
    `within` are the ids of the containers around it, at which a YAML alias that refers to itself is left alone."""
    if id(value) in within:
        return value
    match value:
        case str():
            return _join_surrogates(value)
        case dict():
            inside = within | {id(value)}
            return {
                _join_surrogates_within(key, inside): _join_surrogates_within(each, inside)
                for key, each in value.items()
            }
        case list():
            inside = within | {id(value)}
            return [_join_surrogates_within(each, inside) for each in value]
        case _:
            return value


def _join_surrogates(text: str) -> str:
    if text.isascii():
        return text
    try:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise DocumentSyntaxError(
            f"{text[:20]!r} holds half a character: \\ud800 to \\udfff stand in pairs"
        ) from None


def _parse_json(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_reject_duplicate_keys, parse_constant=_reject_constant)
    except json.JSONDecodeError as e:
        raise DocumentSyntaxError(f"line {e.lineno}, column {e.colno}: {e.msg}") from None


def _reject_duplicate_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DocumentSyntaxError(f"the key '{twice}' stands twice in one object")
    return mapping


def _reject_constant(name: str) -> NoReturn:
    raise DocumentSyntaxError(f"{name} is not JSON")


def _parse_yaml(text: str) -> object:
    try:
        yaml = YAML(typ="safe", pure=True)
        yaml.Constructor = _YamlConstructor
        return yaml.load(text)
    except MarkedYAMLError as e:
        where = (
            f"line {e.problem_mark.line + 1}, column {e.problem_mark.column + 1}: " if e.problem_mark else ""
        )
        raise DocumentSyntaxError(where + (e.problem or "this is not YAML").splitlines()[0]) from None
    except (YAMLError, ValueError) as e:
        raise DocumentSyntaxError(
            f"this is not YAML: {str(e).splitlines()[0] if str(e) else type(e).__name__}"
        ) from None
