"""Octopush's questions.json, unchanged: an array in which position is id.

What it does is what the tutorial's PHP script does (https://octopush.com/en/blog/interactive-sms-dialogue-with-api-free-download/):
an item whose `next` is -2 is a statement that ends the session; a condition waits, without a word, for a number as
PHP's is_numeric takes one; 30 s of silence end a session; START within 30 s of a close is ignored. Its only operator
is `>=`; others of the same kind are accepted. Its answers are of the types `anything` and `numeric`, which `parley convert` writes.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from engine.answers.octopush_answers import (
    AnythingAnswer,
    AnythingReader,
    NumericAnswer,
    PhpNumberReader,
    is_numeric,
)
from engine.model.segments import LONGEST_SMS
from engine.surveys.compiling.text_parsing import fixed_text_by_language
from engine.surveys.conditions import Above, AtLeast, AtMost, Below, Condition, Not, OneOf
from engine.surveys.findings import MOST_FINDINGS, InvalidSurveyError, SurveyFinding, invalid_file_finding
from engine.surveys.program import (
    END_INDEX,
    FixedText,
    IgnoreInvalid,
    QuestionStep,
    Route,
    StartKeywords,
    StatementStep,
    Survey,
    SurveyStep,
)
from engine.surveys.survey_file import ComparisonOperator, convert_with_problems
from engine.surveys.texts import LocalizedText

MOST_SESSION_SMS = 100
"""Bounds the SMS of a session, as nothing in the file could."""

_SESSION_OVER = -2
_THRESHOLD_MS = 30_000
_LANGUAGE = "en"

JsonNumber = int | float | str

_CONDITION_BY_OPERATOR: Mapping[ComparisonOperator, Callable[[str, float], Condition]] = {
    ">=": AtLeast,
    ">": Above,
    "<=": AtMost,
    "<": Below,
    "==": lambda step, value: OneOf(step, frozenset([value])),
    "!=": lambda step, value: Not(OneOf(step, frozenset([value]))),
}


class QuestionItem(msgspec.Struct, frozen=True):
    """One element of the array. The script ignores every other key, and so do we."""

    text: str
    next: JsonNumber | None = None
    condition: ComparisonOperator | None = None
    value: JsonNumber | None = None
    true_next: JsonNumber | None = None
    false_next: JsonNumber | None = None


def compile_questions(
    raw: Sequence[object], name: str, file: str, source: bytes, version: str
) -> tuple[Survey, list[SurveyFinding]]:
    """The survey in a parsed questions.json, and no warnings. Raises Rejected."""
    steps, problems = _compile_items(raw)
    if problems:
        raise InvalidSurveyError(list(map(invalid_file_finding, problems)))
    survey = Survey(
        name=name,
        version=version,
        source=source,
        file=file,
        title="",
        languages=(_LANGUAGE,),
        start=StartKeywords({"start": _LANGUAGE}),
        idle_ms=_THRESHOLD_MS,
        expires_ms=86_400_000,
        cooldown_ms=_THRESHOLD_MS,
        again="answer",
        most_sms=MOST_SESSION_SMS,
        texts=_fixed_texts(),
        steps=tuple(steps),
        lenient=True,
    )
    return survey, []


def _fixed_texts() -> dict[FixedText, LocalizedText]:
    names: tuple[FixedText, ...] = ("stopped", "help", "opted_in")
    return {name: text for name in names if (text := fixed_text_by_language(name, [_LANGUAGE], "START"))}


def _compile_items(raw: Sequence[object]) -> tuple[list[SurveyStep], list[str]]:
    if not raw:
        return [], ["questions file need to have at least 1 question"]
    steps: list[SurveyStep] = []
    problems: list[str] = []
    for place, each in enumerate(raw):
        if len(problems) > MOST_FINDINGS:
            break
        item, found = convert_with_problems(each, QuestionItem)
        if item:
            reading = _ItemCompiler(item, len(raw))
            steps.append(reading.compile_step(str(place)))
            found += reading.problems
        problems += [f"item {place}, {problem}" for problem in found]
    return steps, problems


class _ItemCompiler:
    """Compiles one item of the array, and collects its problems."""

    def __init__(self, item: QuestionItem, count: int) -> None:
        self.problems: list[str] = []
        self._item = item
        self._count = count

    def compile_step(self, identity: str) -> SurveyStep:
        item = self._item
        if not item.text.strip() or len(item.text) > LONGEST_SMS:
            self.problems.append(
                f"field text: 1 to {LONGEST_SMS} characters are expected, it has {len(item.text)}"
            )
        text: LocalizedText = {_LANGUAGE: item.text}
        if item.condition is None:
            following = Route(None, self._target_index("next", item.next))
            if following.go == END_INDEX:
                return StatementStep(identity, text, (following,))
            return QuestionStep(
                identity,
                text,
                AnythingReader(),
                IgnoreInvalid(),
                (following,),
                answer_type=AnythingAnswer.type_name(),
            )
        routes = self._compile_branches(identity, item.condition)
        if item.next is not None and self._target_index("next", item.next) == END_INDEX:
            return StatementStep(identity, text, (Route(None, END_INDEX),))
        return QuestionStep(
            identity, text, PhpNumberReader(), IgnoreInvalid(), routes, answer_type=NumericAnswer.type_name()
        )

    def _compile_branches(self, identity: str, operator: ComparisonOperator) -> tuple[Route, ...]:
        condition = _CONDITION_BY_OPERATOR[operator](
            identity, self._required_number("value", self._item.value)
        )
        return (
            Route(condition, self._target_index("true_next", self._item.true_next)),
            Route(None, self._target_index("false_next", self._item.false_next)),
        )

    def _target_index(self, field: str, written: JsonNumber | None) -> int:
        number = self._required_number(field, written)
        if number == _SESSION_OVER:
            return END_INDEX
        if not (number.is_integer() and 0 <= number < self._count):
            if written is not None:
                self.problems.append(f"field {field}: there is no item {written}")
            return END_INDEX
        return int(number)

    def _required_number(self, field: str, written: JsonNumber | None) -> float:
        if written is None:
            self.problems.append(f"field {field} is missing")
        elif isinstance(written, str) and not is_numeric(written):
            self.problems.append(f"field {field}: found '{written}', expected a number")
        else:
            return float(written)
        return 0.0
