"""YAML 1.2 and JSON: bytes into plain values, and a sentence for whoever wrote bytes that are neither.

A key that stands twice in one mapping is an error in both. A date is a text, as in JSON, with quotes or without. What
YAML has beyond JSON (sets, pairs, bytes) is an error. An accent that some editors write as a character of its own is put
onto its letter: an `é` of two characters is none of GSM-7, and makes a text cost more than twice as much.

A file costs no more than its limits allow, whatever is in it: an alias counts as all that it stands for, since whoever
reads the values makes copies of it.
"""

import json
import sys
from collections import Counter
from typing import Any, NoReturn

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode
from ruamel.yaml.reader import ReaderError

from engine.model.errors import ParleyError
from engine.model.text_normalization import compose_text
from engine.surveys.yaml_mistakes import excerpt_of, explain_yaml_error, split_lines

SURVEY_SUFFIXES = (".yaml", ".yml", ".json")


class DocumentLimits(msgspec.Struct, frozen=True):
    """The most that is read of one file: its size in bytes, and the characters of its texts with each alias written out;
    the values in it, keys too, with each alias written out; and how deep they may be nested."""

    size: int = 1_048_576
    values: int = 100_000
    depth: int = 100


FILE_LIMITS = DocumentLimits()
"""Of a file that comes from outside. A survey of a thousand steps has some 20,000 values."""

NO_LIMITS = DocumentLimits(sys.maxsize, sys.maxsize, sys.maxsize)
"""Of a file that has run already."""

_LIBRARY_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    TypeError,
)
"""What ruamel.yaml raises, beside errors of its own, for YAML that makes no sense, such as `!!int ""`."""

_MOST_DIGITS = 1_000
"""Digits of a number; Python itself refuses to write one of more than 4,300."""


class DocumentSyntaxError(ParleyError, ValueError):
    """The bytes are not what the file's name promises. The message is a sentence without the file's name; `mend` says what
    to do, `line` counts from 1 (0: not known), `excerpt` is that line with a caret below it."""

    def __init__(self, message: str, mend: str = "", line: int = 0, excerpt: str = "") -> None:
        super().__init__(message)
        self.mend = mend
        self.line = line
        self.excerpt = excerpt


class UnreadableFile(msgspec.Struct, frozen=True):
    """Stands for the content of a file that cannot be read; `why` is a sentence without its name."""

    why: str


FileContent = bytes | UnreadableFile


def parse_document(file: str, source: bytes, limits: DocumentLimits = FILE_LIMITS) -> object:
    """The value in `source`, JSON or YAML by the name of its file. Raises DocumentSyntaxError."""
    if len(source) > limits.size:
        raise DocumentSyntaxError(f"it has more than {limits.size:,} bytes: split it")
    try:
        text = source.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise not_utf8_error(e) from None
    try:
        raw = _parse_json(text) if file.endswith(".json") else _parse_yaml(text, limits)
        return _PlainValues(limits).copy(raw, frozenset())
    except RecursionError:
        raise DocumentSyntaxError(_TOO_DEEP) from None


def not_utf8_error(error: UnicodeDecodeError) -> DocumentSyntaxError:
    """Say in which line which character is not UTF-8."""
    text = error.object.decode(errors="replace")
    line, column = _line_and_column(text, len(error.object[: error.start].decode()))
    why = f"character {column} is not written in UTF-8"
    return DocumentSyntaxError(why, "save the file as UTF-8", line, excerpt_of(text, line, column))


_TOO_DEEP = "it is nested too deeply"


def _too_many_values(limits: DocumentLimits) -> DocumentSyntaxError:
    return DocumentSyntaxError(
        f"it holds more than {limits.values:,} values, each alias counted as all that it stands for: split it"
    )


class _PlainValues:
    """Copies the values of one document, counts them, and joins the parts of characters in their texts."""

    def __init__(self, limits: DocumentLimits) -> None:
        self._limits = limits
        self._count = 0
        self._characters = 0

    def copy(self, value: object, within: frozenset[int]) -> object:
        """Return a copy of `value` in whose texts a surrogate pair, as two JSON escapes leave it, is one character,
        and so is a letter with its accent.
        `within` are the ids of the containers around it. Raises DocumentSyntaxError beyond the limits, or if it
        contains itself."""
        self._count += 1
        if self._count > self._limits.values:
            raise _too_many_values(self._limits)
        if id(value) in within:
            raise DocumentSyntaxError("it refers to itself")
        match value:
            case str():
                self._characters += len(value)
                if self._characters > self._limits.size:
                    most = f"{self._limits.size:,} characters"
                    raise DocumentSyntaxError(
                        f"with each alias written out, it has more than {most}: split it"
                    )
                return _join_characters(value)
            case dict():
                inside = self._within(value, within)
                return {self.copy(key, inside): self.copy(each, inside) for key, each in value.items()}
            case list():
                inside = self._within(value, within)
                return [self.copy(each, inside) for each in value]
            case _:
                return value

    def _within(self, container: object, within: frozenset[int]) -> frozenset[int]:
        if len(within) >= self._limits.depth:
            raise DocumentSyntaxError(_TOO_DEEP)
        return within | {id(container)}


def _join_characters(text: str) -> str:
    if text.isascii():
        return text
    try:
        return compose_text(text.encode("utf-16-le", "surrogatepass").decode("utf-16-le"))
    except UnicodeDecodeError:
        raise DocumentSyntaxError(
            f"{text[:20]!r} holds half a character: \\ud800 to \\udfff stand in pairs"
        ) from None


def _parse_json(text: str) -> object:
    try:
        return json.loads(
            text,
            object_pairs_hook=_reject_duplicate_keys,
            parse_constant=_reject_constant,
            parse_int=_parse_whole_number,
        )
    except json.JSONDecodeError as e:
        excerpt = excerpt_of(text, e.lineno, e.colno)
        told = (each for begin, each in _JSON_MISTAKES.items() if e.msg.startswith(begin))
        reason, mend = next(told, (f"this is not JSON ({e.msg})", ""))
        raise DocumentSyntaxError(reason, mend, e.lineno, excerpt) from None


_JSON_MISTAKES = {
    "Expecting value": ("a value is missing here", "write a text in quotation marks, a number, true, [ or {"),
    "Expecting property name": (
        "a field's name is missing here",
        "write it in quotation marks, after no comma too many",
    ),
    "Illegal trailing comma": ("nothing follows this comma", "take it out"),
    "Expecting ',' delimiter": ("a comma is missing before this", "put one between two values"),
    "Expecting ':' delimiter": (
        "a colon is missing before this",
        "put one between a field's name and its value",
    ),
    "Unterminated string": ("the text that begins here does not end", "close it with a quotation mark"),
    "Invalid control character": (
        "a text has a line break or a tab in it",
        "write \\n or \\t, or close the text before",
    ),
    "Invalid \\": ("a backslash stands before a character that needs none", "write \\\\ for a backslash"),
    "Extra data": ("something follows where all is closed", "take it out, or a bracket that closes too soon"),
}
"""What Python says of JSON, by its beginning: what that means to an author, and what mends it."""


def _reject_duplicate_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise DocumentSyntaxError(f"the key '{twice}' stands twice in one object")
    return mapping


def _reject_constant(name: str) -> NoReturn:
    raise DocumentSyntaxError(f"{name} is not JSON")


def _parse_whole_number(digits: str) -> int:
    _check_digits(digits)
    return int(digits)


def _check_digits(digits: str) -> None:
    if len(digits) > _MOST_DIGITS:
        raise DocumentSyntaxError(f"it holds a number of {len(digits):,} digits")


class _LimitedYaml(YAML):
    """Reads YAML 1.2, and of that what has a meaning in JSON."""

    def __init__(self, limits: DocumentLimits) -> None:
        super().__init__(typ="safe", pure=True)
        self.limits = limits
        self.Composer = _YamlComposer
        self.Constructor = _YamlConstructor


class _YamlComposer(Composer):
    """Stops at the first value too many, before there is a tree of them. `depth` and `warn_double_anchors` are ruamel.yaml's own, and
    of 0.19: pyproject.toml bounds it."""

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader)
        self.warn_double_anchors = False
        self._composed = 0

    def compose_node(self, parent: Node | None, index: object) -> Node | None:
        self._composed += 1
        if self._composed > self.loader.limits.values:
            raise _too_many_values(self.loader.limits)
        if self.depth >= self.loader.limits.depth:
            raise DocumentSyntaxError(_TOO_DEEP)
        node: Node | None = super().compose_node(parent, index)
        return node


class _YamlConstructor(SafeConstructor):
    """YAML 1.2 has no dates: 2026-02-30 is whatever the field that it stands in says of it."""

    def construct_document(self, node: Node) -> object:
        """Construct the values, unless merge keys would write aliases out beyond the limits first."""
        _check_expanded_size(node, self.loader.limits)
        return super().construct_document(node)

    def construct_yaml_int(self, node: Node) -> int:
        _check_digits(str(node.value))
        number: int = super().construct_yaml_int(node)
        return number


_YamlConstructor.yaml_constructors = {
    tag: construct
    for tag, construct in SafeConstructor.yaml_constructors.items()
    if tag not in {f"tag:yaml.org,2002:{name}" for name in ("set", "pairs", "binary")}
}
_YamlConstructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)
_YamlConstructor.add_constructor("tag:yaml.org,2002:int", _YamlConstructor.construct_yaml_int)


def _check_expanded_size(root: Node, limits: DocumentLimits) -> None:
    """Raise DocumentSyntaxError if `root` with its aliases written out has too many values, or contains itself. Each
    node is looked at once, however often aliases name it."""
    sizes: dict[int, int] = {}

    def size_of(node: Node) -> int:
        if id(node) in sizes:
            if not sizes[id(node)]:
                raise DocumentSyntaxError("it refers to itself")
            return sizes[id(node)]
        sizes[id(node)] = 0
        size = 1 + sum(map(size_of, _child_nodes(node)))
        if size > limits.values:
            raise _too_many_values(limits)
        sizes[id(node)] = size
        return size

    size_of(root)


def _child_nodes(node: Node) -> list[Node]:
    match node:
        case MappingNode():
            return [each for pair in node.value for each in pair]
        case SequenceNode():
            return list(node.value)
        case _:
            return []


def _parse_yaml(text: str, limits: DocumentLimits) -> object:
    try:
        return _LimitedYaml(limits).load(text)
    except DocumentSyntaxError:
        raise
    except MarkedYAMLError as e:
        found = explain_yaml_error(e, text)
        excerpt = excerpt_of(text, found.line, found.column)
        raise DocumentSyntaxError(found.reason, found.mend, found.line, excerpt) from None
    except ReaderError as e:
        line, column = _line_and_column(text, e.position)
        excerpt = excerpt_of(text, line, column)
        why = f"it holds the character U+{e.character:04X}, which YAML has not"
        raise DocumentSyntaxError(why, "take it out", line, excerpt) from None
    except (YAMLError, ValueError, *_LIBRARY_ERRORS) as e:
        raise DocumentSyntaxError(
            f"this is not YAML: {str(e).splitlines()[0] if str(e) else type(e).__name__}"
        ) from None


def _line_and_column(text: str, position: int) -> tuple[int, int]:
    before = split_lines(text[:position])
    return len(before), len(before[-1]) + 1


def compose_document(source: bytes, limits: DocumentLimits = FILE_LIMITS) -> Node | None:
    """The tree of values of a file that parse_document has read, each with its line; None for JSON that is no YAML."""
    try:
        root: Node | None = _LimitedYaml(limits).compose(source.decode("utf-8-sig"))
    except (YAMLError, ValueError, RecursionError, *_LIBRARY_ERRORS):
        return None
    return root
