"""When is a route taken? A small closed set of conditions, so that things can be proved about them.

A condition on a step that has no answer does not hold. A step named "$key" is a session variable. Bounds are numbers,
or YYYY-MM-DD for a date.
"""

from collections.abc import Mapping
from typing import assert_never

import msgspec

from engine.model.events import Answer
from engine.model.patterns import Pattern
from engine.model.text_normalization import fold


class AtLeast(msgspec.Struct, frozen=True):
    step: str
    bound: float | str


class AtMost(msgspec.Struct, frozen=True):
    step: str
    bound: float | str


class Above(msgspec.Struct, frozen=True):
    step: str
    bound: float | str


class Below(msgspec.Struct, frozen=True):
    step: str
    bound: float | str


class OneOf(msgspec.Struct, frozen=True):
    """`values` as the step's reader gives them; texts folded. Of several choices: that one, alone."""

    step: str
    values: frozenset[str | int | float | bool]


class Matches(msgspec.Struct, frozen=True):
    """`pattern` matches all of the folded answer."""

    step: str
    pattern: Pattern


class Contains(msgspec.Struct, frozen=True):
    """One of `words`, folded, occurs in the folded answer."""

    step: str
    words: tuple[str, ...]


class Includes(msgspec.Struct, frozen=True):
    """One of `options` is among the several that were chosen."""

    step: str
    options: frozenset[str]


class Answered(msgspec.Struct, frozen=True):
    step: str


class All(msgspec.Struct, frozen=True):
    conditions: tuple["Condition", ...]


class Any(msgspec.Struct, frozen=True):
    conditions: tuple["Condition", ...]


class Not(msgspec.Struct, frozen=True):
    condition: "Condition"


Atom = AtLeast | AtMost | Above | Below | OneOf | Matches | Contains | Includes | Answered
Condition = Atom | All | Any | Not


def holds(condition: Condition, answers: Mapping[str, Answer]) -> bool:
    match condition:
        case AtLeast(step, bound):
            return (sign := _compare(answers, step, bound)) is not None and sign >= 0
        case AtMost(step, bound):
            return (sign := _compare(answers, step, bound)) is not None and sign <= 0
        case Above(step, bound):
            return (sign := _compare(answers, step, bound)) is not None and sign > 0
        case Below(step, bound):
            return (sign := _compare(answers, step, bound)) is not None and sign < 0
        case OneOf(step, values):
            return step in answers and _comparable(answers[step]) in values
        case Matches(step, pattern):
            return step in answers and pattern.fullmatch(_text(answers[step])) is not None
        case Contains(step, words):
            return step in answers and any(word in _text(answers[step]) for word in words)
        case Includes(step, options):
            return step in answers and not options.isdisjoint(_several(answers[step]))
        case Answered(step):
            return step in answers
        case All(conditions):
            return all(holds(each, answers) for each in conditions)
        case Any(conditions):
            return any(holds(each, answers) for each in conditions)
        case Not(condition=inner):
            return not holds(inner, answers)
        case _:
            assert_never(condition)


def _compare(answers: Mapping[str, Answer], step: str, bound: float | str) -> int | None:
    """-1, 0 or 1 as the answer is below, at or above `bound`; None if it is no such thing."""
    answer = answers.get(step)
    if answer is None:
        return None
    value = answer.value
    if isinstance(value, (int, float)) and isinstance(bound, (int, float)):
        return (value > bound) - (value < bound)
    if isinstance(value, str) and isinstance(bound, str):
        return (value > bound) - (value < bound)
    return None


def _comparable(answer: Answer) -> str | int | float | bool | None:
    match answer.value:
        case str(value) if answer.index < 0:
            return fold(value)
        case tuple(values):
            return values[0] if len(values) == 1 else None
        case value:
            return value


def _several(answer: Answer) -> tuple[str, ...]:
    return answer.value if isinstance(answer.value, tuple) else ()


def _text(answer: Answer) -> str:
    """A number as it was written, so that what one matches is what one sees."""
    return fold(answer.value if isinstance(answer.value, str) else answer.raw)
