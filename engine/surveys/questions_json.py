"""Octopush's questions.json, unchanged: an array in which position is id.

What it does is what the tutorial's PHP script does (https://octopush.com/en/blog/interactive-sms-dialogue-with-api-free-download/):
an item whose `next` is -2 is a statement that ends the session; a condition waits, without a word, for a number as
PHP's is_numeric takes one; 30 s of silence end a session; START within 30 s of a close is ignored. Its only operator
is `>=`; others of the same kind are accepted.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from engine.answers import AnythingReader, PhpNumberReader, is_numeric
from engine.surveys.compiling.text_parsing import default_text
from engine.surveys.conditions import Above, AtLeast, AtMost, Below, Condition, Not, OneOf
from engine.surveys.findings import Finding, Rejected, broken
from engine.surveys.program import END, Ask, FixedText, Keywords, Route, Say, Step, Survey, Wait
from engine.surveys.survey_file import convert
from engine.surveys.texts import LONGEST_SMS, Text

MOST_SMS = 100
"""Bounds the SMS of a session, as nothing in the file could."""

_SESSION_OVER = -2
_THRESHOLD_MS = 30_000
_LANGUAGE = "en"

Number = int | float | str
Operator = Literal[">=", ">", "<=", "<", "==", "!="]

_CONDITIONS: Mapping[Operator, Callable[[str, float], Condition]] = {
    ">=": AtLeast,
    ">": Above,
    "<=": AtMost,
    "<": Below,
    "==": lambda step, value: OneOf(step, frozenset([value])),
    "!=": lambda step, value: Not(OneOf(step, frozenset([value]))),
}


class Item(msgspec.Struct, frozen=True):
    """One element of the array. The script ignores every other key, and so do we."""

    text: str
    next: Number | None = None
    condition: Operator | None = None
    value: Number | None = None
    true_next: Number | None = None
    false_next: Number | None = None


def compile_questions(
    raw: Sequence[object], name: str, file: str, source: bytes, version: str
) -> tuple[Survey, list[Finding]]:
    """The survey in a parsed questions.json, and no warnings. Raises Rejected."""
    steps, problems = _steps(raw)
    if problems:
        raise Rejected(list(map(broken, problems)))
    survey = Survey(
        name=name,
        version=version,
        source=source,
        file=file,
        title="",
        languages=(_LANGUAGE,),
        start=Keywords({"start": _LANGUAGE}),
        idle_ms=_THRESHOLD_MS,
        expires_ms=86_400_000,
        cooldown_ms=_THRESHOLD_MS,
        again="answer",
        most_sms=MOST_SMS,
        texts=_fixed_texts(),
        steps=tuple(steps),
        lenient=True,
    )
    return survey, []


def _fixed_texts() -> dict[FixedText, Text]:
    names: tuple[FixedText, ...] = ("stopped", "help", "opted_in")
    return {name: text for name in names if (text := default_text(name, [_LANGUAGE], "START"))}


def _steps(raw: Sequence[object]) -> tuple[list[Step], list[str]]:
    if not raw:
        return [], ["questions file need to have at least 1 question"]
    steps: list[Step] = []
    problems: list[str] = []
    for place, each in enumerate(raw):
        item, found = convert(each, Item)
        if item:
            reading = _Reading(item, len(raw))
            steps.append(reading.step(str(place)))
            found += reading.problems
        problems += [f"item {place}, {problem}" for problem in found]
    return steps, problems


class _Reading:
    """One item being read, and what is wrong with it."""

    def __init__(self, item: Item, count: int) -> None:
        self.problems: list[str] = []
        self._item = item
        self._count = count

    def step(self, identity: str) -> Step:
        item = self._item
        if not item.text.strip() or len(item.text) > LONGEST_SMS:
            self.problems.append(
                f"field text: 1 to {LONGEST_SMS} characters are expected, it has {len(item.text)}"
            )
        text: Text = {_LANGUAGE: item.text}
        if item.condition is None:
            following = Route(None, self._target("next", item.next))
            if following.go == END:
                return Say(identity, text, (following,))
            return Ask(identity, text, AnythingReader(), Wait(), (following,))
        routes = self._branches(identity, item.condition)
        if item.next is not None and self._target("next", item.next) == END:
            return Say(identity, text, (Route(None, END),))
        return Ask(identity, text, PhpNumberReader(), Wait(), routes)

    def _branches(self, identity: str, operator: Operator) -> tuple[Route, ...]:
        condition = _CONDITIONS[operator](identity, self._number("value", self._item.value))
        return (
            Route(condition, self._target("true_next", self._item.true_next)),
            Route(None, self._target("false_next", self._item.false_next)),
        )

    def _target(self, field: str, written: Number | None) -> int:
        number = self._number(field, written)
        if number == _SESSION_OVER:
            return END
        if not (number.is_integer() and 0 <= number < self._count):
            if written is not None:
                self.problems.append(f"field {field}: there is no item {written}")
            return END
        return int(number)

    def _number(self, field: str, written: Number | None) -> float:
        if written is None:
            self.problems.append(f"field {field} is missing")
        elif isinstance(written, str) and not is_numeric(written):
            self.problems.append(f"field {field}: found '{written}', expected a number")
        else:
            return float(written)
        return 0.0
