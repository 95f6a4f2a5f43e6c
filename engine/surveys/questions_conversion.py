"""A questions.json as a YAML survey that behaves the same, so that its keyword, its 30 s and all else can be changed.

What the JSON form leaves unsaid is written out here with a word about it. That the two behave the same is not hoped for: what is
written is compiled, and compared with what the JSON form compiles to. An item's place is its id there; a step's id begins
with a letter, so that item 0 is the step `q0`.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence

import msgspec

from engine.answers.octopush_answers import AnythingAnswer, NumericAnswer, PhpNumberReader
from engine.model.errors import ParleyError
from engine.surveys.conditions import Above, AtLeast, AtMost, Below, Condition, Not, OneOf
from engine.surveys.documents import NO_LIMITS, parse_document
from engine.surveys.findings import InvalidSurveyError
from engine.surveys.program import END_INDEX, QuestionStep, Route, StatementStep, Survey, SurveyStep
from engine.surveys.survey_reader import read_survey
from engine.surveys.texts import escape_braces
from engine.surveys.variables import KEY_PATTERN


class ConversionError(ParleyError):
    """The file is no questions.json, or no YAML survey behaves as it does."""


class ConvertedSurvey(msgspec.Struct, frozen=True):
    """A YAML survey: its name, which is the file's unless that is none, and its text."""

    name: str
    source: str


def convert_questions(file: str, source: bytes) -> ConvertedSurvey:
    """Convert the questions.json called `file`. Raises ConversionError; InvalidSurveyError if it is one and has errors."""
    survey, _ = read_survey(file, source)
    if not isinstance(parse_document(file, source, NO_LIMITS), list):
        raise ConversionError(f"{file} is a survey of Parley's own language already: change it as it is")
    name = survey.name if KEY_PATTERN.fullmatch(survey.name) else _safe_name(survey.name)
    written = "\n".join(_survey_lines(msgspec.structs.replace(survey, name=name))) + "\n"
    _require_same(survey, name, written)
    return ConvertedSurvey(name, written)


def converted_form(survey: Survey, name: str) -> Survey:
    """What the survey of a questions.json is as a YAML survey called `name`, but for file, content, version and the variables that
    every YAML survey knows."""
    return msgspec.structs.replace(
        survey,
        name=name,
        file="",
        source=b"",
        version="",
        variables={},
        durations={},
        steps=tuple(map(_rename, survey.steps)),
    )


def _safe_name(name: str) -> str:
    return re.sub(r"[^\w-]+", "_", f"q_{name}")


def _require_same(survey: Survey, name: str, written: str) -> None:
    try:
        again, _ = read_survey(f"{name}.yaml", written.encode(), NO_LIMITS)
    except InvalidSurveyError as e:
        raise ConversionError(f"no YAML survey behaves as {survey.file} does: {e}") from e
    plain = msgspec.structs.replace(again, file="", source=b"", version="", variables={}, durations={})
    if plain != converted_form(survey, name):
        raise ConversionError(f"{survey.file} cannot be converted: the YAML survey would behave differently")


def _step_id(place: int) -> str:
    return f"q{place}"


def _rename(step: SurveyStep) -> SurveyStep:
    """The step with the id that it gets, in its conditions too."""
    identity = _step_id(int(step.id))
    routes = tuple(
        msgspec.structs.replace(each, when=each.when and _rename_condition(each.when, identity))
        for each in step.routes
    )
    return msgspec.structs.replace(step, id=identity, routes=routes)


def _rename_condition(condition: Condition, identity: str) -> Condition:
    """The condition of an item, which is of its own answer, as one of the step `identity`."""
    match condition:
        case AtLeast() | AtMost() | Above() | Below() | OneOf():
            return msgspec.structs.replace(condition, step=identity)
        case Not(condition=inner):
            return Not(_rename_condition(inner, identity))
        case _:
            raise AssertionError(f"no item has the condition {condition}")


# Writing


def _survey_lines(survey: Survey) -> Iterator[str]:
    yield f"# {survey.file} as a survey of Parley's own language. It behaves as that file does, whose items"
    yield "# 0, 1, 2 … are the steps q0, q1, q2 … here. Everything below may be changed; `parley lint` says"
    yield "# what is wrong with it, and `parley chat` plays it. Take the JSON file out of the folder of"
    yield "# surveys: two of one name are an error."
    yield ""
    yield f"survey: {survey.name}"
    yield ""
    yield "# The SMS that begins it, in capitals or not. There may be several: [START, BEGIN]"
    yield "start: START"
    yield ""
    yield "# After a silence of so long a session is over; `none` if no silence ends it."
    yield f"idle: {_duration(survey.idle_ms)}"
    yield "# A START so soon after a completed session is ignored."
    yield f"cooldown: {_duration(survey.cooldown_ms)}"
    yield "# A session ends after so long at the latest."
    yield f"expires: {_duration(survey.expires_ms)}"
    yield "# A START in mid-session answers what was asked; it could be one to `ignore`, or to `restart` by."
    yield f"again: {survey.again}"
    yield "# A session sends so many SMS at most. That ends those that would go round for ever."
    yield f"most_sms: {survey.most_sms}"
    yield "# Steps that nothing leads to, and endless cycles, are warnings. Without this line and the one"
    yield "# above, `parley lint` proves that every session ends by its own steps."
    yield "lenient: true"
    yield ""
    yield "# What the script does not say: to an SMS that belongs to no session, and to answers that are none"
    yield "# too often. Without a line, Parley has words of its own."
    yield "texts:"
    yield from (f"  {name}: none" for name in ("unavailable", "not_found", "expired", "gave_up"))
    yield ""
    yield "# `ask` waits for an answer, `say` goes on. `anything` takes every SMS for an answer, `numeric`"
    yield "# what PHP takes for a number; of other types, as text, number, choice, yes_no and date, Parley"
    yield "# says what is wrong. `invalid: none`: an answer that is none is passed over in silence."
    yield "steps:"
    for place, step in enumerate(survey.steps):
        yield from _step_lines(place, step)


def _step_lines(place: int, step: SurveyStep) -> Iterator[str]:
    yield f"  - id: {_step_id(place)}"
    text = _quote(escape_braces(str(step.text["en"])))
    match step:
        case StatementStep():
            yield f"    say: {text}"
        case QuestionStep():
            answer = NumericAnswer if isinstance(step.reader, PhpNumberReader) else AnythingAnswer
            yield f"    ask: {text}"
            yield f"    answer: {{type: {answer.type_name()}}}"
            yield "    invalid: none"
    yield from _route_lines(step.routes)


def _route_lines(routes: Sequence[Route]) -> Iterator[str]:
    if len(routes) == 1:
        yield f"    next: {_target(routes[0])}"
        return
    yield "    next:"
    for route in routes:
        when = f"when: {_condition_words(route.when)}, " if route.when is not None else ""
        yield f"      - {{{when}go: {_target(route)}}}"


def _target(route: Route) -> str:
    return "end" if route.go == END_INDEX else _step_id(route.go)


def _condition_words(condition: Condition) -> str:
    match condition:
        case AtLeast(bound=bound):
            return f"{{at_least: {_number(bound)}}}"
        case AtMost(bound=bound):
            return f"{{at_most: {_number(bound)}}}"
        case Above(bound=bound):
            return f"{{above: {_number(bound)}}}"
        case Below(bound=bound):
            return f"{{below: {_number(bound)}}}"
        case OneOf(values=values):
            (value,) = values
            return f"{{equals: {_number(value)}}}"
        case Not(condition=inner):
            return f"{{not: {_condition_words(inner)}}}"
        case _:
            raise AssertionError(f"no item has the condition {condition}")


def _number(value: float | str) -> str:
    """As YAML writes it: 95, 95.5, .inf."""
    number = float(value)
    if math.isinf(number):
        return ".inf" if number > 0 else "-.inf"
    return str(int(number)) if number.is_integer() and abs(number) < _LARGEST_WHOLE else repr(number)


_LARGEST_WHOLE = 1e15

_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000}


def _duration(ms: int | None) -> str:
    """`30s`, of the largest unit that it is a multiple of."""
    if ms is None:
        return "none"
    unit, length = next((unit, length) for unit, length in _UNITS.items() if ms % length == 0)
    return f"{ms // length}{unit}"


def _quote(text: str) -> str:
    """The text in quotation marks, as JSON and YAML both have it; what does not show is written as an escape."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(each if each.isprintable() else _escape(each) for each in quoted)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= _LAST_SHORT else f"\\U{code:08x}"


_LAST_SHORT = 0xFFFF
"""The last character that four hex digits write."""
