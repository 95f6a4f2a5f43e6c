"""The survey language as types, and the conversion of parsed YAML or JSON to them.

`convert_with_problems` reports every problem of a value at once: it replaces what it reports in a copy, and converts
again."""

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec

from engine.answers.answer_type import WrittenText
from engine.answers.options import Option
from engine.answers.type_registry import ANSWER_SPECS, AnyAnswerSpec
from engine.model.suggestions import did_you_mean
from engine.surveys.findings import MOST_FINDINGS


class Duration:
    """`30s`, `10m`, `2h`, `3d`; in milliseconds, and as it is `written`."""

    __slots__ = ("ms", "written")

    def __init__(self, written: str) -> None:
        found = re.fullmatch(r"([0-9]{1,6})([smhd])", written)
        if found is None:
            raise ValueError(written)
        self.written = written
        self.ms = int(found[1]) * {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}[found[2]]


class DurationOrNone:
    """A Duration, or `none`: `ms` is None then."""

    __slots__ = ("ms", "written")

    def __init__(self, written: str) -> None:
        self.written = written
        self.ms = None if written == "none" else Duration(written).ms


WrittenBound = int | float | str


class When(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that is given must hold, of the answer to the step itself, or to the one that `answer` names, or of the
    session variable `variable`. What answers are compared with is written as they are stored, a date as YYYY-MM-DD."""

    answer: str | None = None
    variable: str | None = None
    at_least: WrittenBound | None = None
    at_most: WrittenBound | None = None
    above: WrittenBound | None = None
    below: WrittenBound | None = None
    equals: str | int | float | bool | None = None
    one_of: list[str | int | float | bool] | None = None
    matches: str | None = None
    contains: str | list[str] | None = None
    contains_word: str | list[str] | None = None
    answered: bool | None = None
    all: list["When"] | None = None
    any: list["When"] | None = None
    not_: "When | None" = msgspec.field(name="not", default=None)


class Goto(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A session takes the route at most `times` times; that is what bounds a cycle."""

    go: str
    when: When | None = None
    times: int | None = None


WrittenRoutes = str | list[Goto]


class Reminder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    after: Duration
    text: WrittenText
    times: int = 1


class SayStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: str
    say: WrittenText
    next: WrittenRoutes | None = None


class AskStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`invalid` may be `none`: an answer that is none is passed over in silence, as often as it comes."""

    id: str
    ask: WrittenText
    answer: AnyAnswerSpec
    invalid: WrittenText | None = None
    attempts: int = 3
    give_up: str | None = None
    next: WrittenRoutes | None = None
    remind: Reminder | None = None


class FixedTexts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Each a text, or `none`. `completed`, `refused` and `no_media` are `none` unless written."""

    completed: WrittenText | None = None
    unavailable: WrittenText | None = None
    not_found: WrittenText | None = None
    expired: WrittenText | None = None
    refused: WrittenText | None = None
    stopped: WrittenText | None = None
    help: WrittenText | None = None
    opted_in: WrittenText | None = None
    no_media: WrittenText | None = None
    gave_up: WrittenText | None = None


WrittenKeywords = str | list[str] | dict[str, str | list[str]]
"""One, several, or either by language. ANYTHING is no word, but whatever is none of the channel's keywords."""

ANY_SMS = "*"

ComparisonOperator = Literal[">=", ">", "<=", "<", "==", "!="]
"""Of a questions.json."""

LANGUAGE_TAG = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
"""A language (BCP 47, simplified)."""

DeclaredVariables = list[str] | dict[str, int]
"""Session variables by name; a mapping says how long each value can get, in characters."""


class SurveyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole file. `steps` are converted one by one, as SayStep or AskStep. `keep` is how long what was said is kept
    once a session is over, if that is less than the deployment keeps everything. `lenient`: steps that nothing reaches,
    routes that nothing takes and cycles without a count are warnings, as in a questions.json; `most_sms` ends those."""

    survey: str
    steps: list[Any]
    title: str = ""
    start: WrittenKeywords = "START"
    languages: tuple[str, ...] = ("en",)
    idle: DurationOrNone = msgspec.field(default_factory=lambda: DurationOrNone("none"))
    expires: Duration = msgspec.field(default_factory=lambda: Duration("3d"))
    cooldown: Duration = msgspec.field(default_factory=lambda: Duration("30s"))
    again: Literal["ignore", "answer", "restart"] = "ignore"
    most_sms: int | None = None
    lenient: bool = False
    keep: Duration | None = None
    variables: DeclaredVariables = []
    texts: FixedTexts = FixedTexts()


T = TypeVar("T")
ValuePath = tuple[str | int, ...]

_STRUCTS: tuple[type[msgspec.Struct], ...] = (
    SurveyFile,
    SayStep,
    AskStep,
    Goto,
    When,
    Reminder,
    Option,
    FixedTexts,
    *ANSWER_SPECS,
)

_FIELD_NAMES = frozenset(field.encode_name for struct in _STRUCTS for field in msgspec.structs.fields(struct))
"""Every word that is a field somewhere."""

_TYPE_WORDS = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "object": "a mapping",
    "array": "a list",
    "null": "",
}


def _list_alternatives(words: Sequence[str]) -> str:
    """ "a, b or c"."""
    return f"{', '.join(words[:-1])} or {words[-1]}"


_ALLOWED_WORDS = {
    field.encode_name: _list_alternatives(get_args(field.type))
    for struct in _STRUCTS
    for field in msgspec.structs.fields(struct)
    if get_origin(field.type) is Literal
} | {
    "type": _list_alternatives([spec.type_name() for spec in ANSWER_SPECS]),
    "condition": _list_alternatives(get_args(ComparisonOperator)),
}
_JSON_TYPES: dict[type, str] = {
    str: "str", int: "int", float: "float", bool: "bool", dict: "object", list: "array", type(None): "null",
}  # fmt: skip
_DELETED = object()
_ANY_KEY = "..."
_LONGEST_SHOWN = 40
"""Characters of a value, or of a key, that a sentence repeats."""
_STAND_INS: tuple[object, ...] = ("", {}, [], {"go": "end"}, {"type": "yes_no"}, "1s", 0)
_DURATION_WORDS: dict[type, str] = {
    Duration: "a duration such as 30s, 10m, 2h or 3d",
    DurationOrNone: "a duration such as 30s, 10m, 2h or 3d, or none",
}


def convert_with_problems(raw: object, to: type[T]) -> tuple[T | None, list[str]]:
    """Convert `raw` to the type `to`, and return a sentence for each of its problems, MOST_FINDINGS and one at most.

    An optional field of the top level that is wrong, or an unknown one, is left out, and the value is returned
    without it; with any other problem the value is None."""
    problems: list[str] = []
    mended: dict[ValuePath, Iterator[object]] = {}
    faithful = True
    try:
        holder = [_plain_copy(raw)]
    except RecursionError:
        return None, ["it refers to itself"]
    while True:
        try:
            converted = msgspec.convert(holder[0], to, dec_hook=_decode_duration)
        except msgspec.ValidationError as e:
            problem = _explain_error(str(e), holder[0])
        else:
            return (converted if faithful else None), problems
        path = next((path for path in _path_prefixes(problem.path) if path in mended), problem.path)
        if path not in mended:
            problems.append(problem.sentence)
            if len(problems) > MOST_FINDINGS:
                return None, problems
            mended[path] = iter(((_DELETED,) if problem.deletable else ()) + _STAND_INS)
        stand_in = next(mended[path], None)
        if stand_in is None:
            return None, problems
        faithful = faithful and stand_in is _DELETED and len(path) == 1
        _replace_at(holder, path, stand_in)


def _path_prefixes(path: ValuePath) -> Iterator[ValuePath]:
    """The ways to whatever holds the value at `path`, and to it, outermost first."""
    return (path[:length] for length in range(len(path) + 1))


def _replace_at(holder: list[Any], path: ValuePath, stand_in: object) -> None:
    """Put `stand_in` where `path` leads from the one element of `holder`."""
    *way, last = (0, *path)
    mapping = _value_at(holder, tuple(way))
    if stand_in is _DELETED:
        mapping.pop(last, None)
    else:
        mapping[last] = copy.copy(stand_in)


def _plain_copy(raw: object) -> Any:
    """Copy `raw` without shared parts: YAML's aliases become copies. YAML's whole-number keys and dates become texts,
    as JSON has them. Raises RecursionError if it contains itself."""
    match raw:
        case dict():
            return {str(key) if type(key) is int else key: _plain_copy(value) for key, value in raw.items()}
        case list():
            return [_plain_copy(value) for value in raw]
        case date():
            return raw.isoformat()
        case _:
            return raw


def _decode_duration(wanted: type, written: object) -> object:
    expected = _DURATION_WORDS[wanted]
    if not isinstance(written, str):
        raise ValueError(expected)  # noqa: TRY004 (msgspec wants a ValueError)
    try:
        return Duration(written) if wanted is Duration else DurationOrNone(written)
    except ValueError:
        raise ValueError(expected) from None


class _ConversionProblem(msgspec.Struct, frozen=True):
    """`sentence` is about the value at `path`; if `deletable`, the rest can be looked at without it."""

    path: ValuePath
    sentence: str
    deletable: bool


def _explain_error(message: str, raw: object) -> _ConversionProblem:
    """Where msgspec's message points, and our sentence for it."""
    what, _, where = message.partition(" - at `")
    if where.startswith("key` in `"):
        path = _parse_path(where.removeprefix("key` in `").removesuffix("`"), raw, _has_odd_key)
        key = next((key for key in _value_at(raw, path) if not isinstance(key, str)), "")
        return _ConversionProblem(
            (*path, key),
            f"{_field_name(path)}: found the key {_describe_value(key)}, expected a text",
            deletable=True,
        )
    got = re.search(r"got `(\w+)`", what)
    json_type = got[1] if got else None
    path = _parse_path(
        where.removesuffix("`"), raw, lambda value: json_type in (None, _JSON_TYPES.get(type(value)))
    )
    if missing := re.search(r"missing required field `(.+)`", what):
        path = (*path, missing[1])
        return _ConversionProblem(path, f"{_field_name(path)} is missing", deletable=False)
    if unknown := re.search(r"unknown field `(.+)`", what, re.DOTALL):
        path = (*path, unknown[1])
        return _ConversionProblem(
            path, f"{_field_name(path)} is {_describe_unknown_field(unknown[1])}", deletable=True
        )
    found = _describe_value(_value_at(raw, path))
    sentence = f"{_field_name(path)}: found {found}, expected {_describe_expected(what, path)}"
    return _ConversionProblem(path, sentence, deletable=bool(path) and isinstance(path[-1], str))


def _has_odd_key(value: object) -> bool:
    return isinstance(value, dict) and not all(isinstance(key, str) for key in value)


def _describe_unknown_field(field: str) -> str:
    return "not one of those here" if field in _FIELD_NAMES else f"unknown{did_you_mean(field, _FIELD_NAMES)}"


def _describe_expected(what: str, path: ValuePath) -> str:
    if what.startswith("Invalid"):
        return _ALLOWED_WORDS.get(str(path[-1]) if path else "", "another value")
    if types := re.match(r"Expected `([^`]+)`", what):
        words = dict.fromkeys(_TYPE_WORDS.get(each, each) for each in types[1].split(" | "))
        if "a number" in words:
            words.pop("a whole number", None)
        if path[-1:] == ("answer",) and "a mapping" in words:
            return "a mapping such as {type: yes_no}"
        return " or ".join(word for word in words if word)
    return what


def _parse_path(where: str, raw: object, is_wrong: Callable[[object], bool]) -> ValuePath:
    """Parse the path at the end of msgspec's message, which writes `[...]` for any key of a mapping: such a place is
    resolved to the first key that leads to a value which `is_wrong`; without one, the path ends before it."""
    places = tuple(
        field or (_ANY_KEY if index == "..." else int(index))
        for field, index in re.findall(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]", where)
    )
    path = _find_path(raw, places, is_wrong)
    return path if path is not None else places[: places.index(_ANY_KEY)] if _ANY_KEY in places else places


def _find_path(value: Any, places: ValuePath, is_wrong: Callable[[object], bool]) -> ValuePath | None:
    """The first way through `value` along `places` to what `is_wrong`."""
    if not places:
        return () if is_wrong(value) else None
    first, *further = places
    for key in value if first == _ANY_KEY and isinstance(value, dict) else (first,):
        try:
            inside = value[key]
        except (LookupError, TypeError):
            continue
        if (path := _find_path(inside, tuple(further), is_wrong)) is not None:
            return (key, *path)
    return None


def _value_at(raw: Any, path: ValuePath) -> Any:
    for key in path:
        raw = raw[key]
    return raw


def _field_name(path: ValuePath) -> str:
    if not path:
        return "the whole of it"
    places = (f"[{key}]" if isinstance(key, int) else f".{_shorten(str(key))}" for key in path)
    return "field " + "".join(places).lstrip(".")


def _describe_value(value: object) -> str:
    match value:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case _:
            return _shorten(repr(value))


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "..."
