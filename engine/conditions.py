"""When is a route taken? A small closed set of conditions, so that things can be proved about them.

A condition on a step that has no answer does not hold.
"""

from collections.abc import Mapping
from typing import assert_never

import msgspec

from engine.folding import fold
from engine.lane import Answer
from engine.patterns import Pattern


class AtLeast(msgspec.Struct, frozen=True):
    step: str
    bound: float


class AtMost(msgspec.Struct, frozen=True):
    step: str
    bound: float


class Above(msgspec.Struct, frozen=True):
    step: str
    bound: float


class Below(msgspec.Struct, frozen=True):
    step: str
    bound: float


class OneOf(msgspec.Struct, frozen=True):
    """`values` as the step's reader gives them; texts folded."""

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


class Answered(msgspec.Struct, frozen=True):
    step: str


class All(msgspec.Struct, frozen=True):
    conditions: tuple["Condition", ...]


class Any(msgspec.Struct, frozen=True):
    conditions: tuple["Condition", ...]


class Not(msgspec.Struct, frozen=True):
    condition: "Condition"


Condition = AtLeast | AtMost | Above | Below | OneOf | Matches | Contains | Answered | All | Any | Not


def holds(condition: Condition, answers: Mapping[str, Answer]) -> bool:
    match condition:
        case AtLeast(step, bound):
            return (number := _number(answers, step)) is not None and number >= bound
        case AtMost(step, bound):
            return (number := _number(answers, step)) is not None and number <= bound
        case Above(step, bound):
            return (number := _number(answers, step)) is not None and number > bound
        case Below(step, bound):
            return (number := _number(answers, step)) is not None and number < bound
        case OneOf(step, values):
            return step in answers and _comparable(answers[step]) in values
        case Matches(step, pattern):
            return step in answers and pattern.fullmatch(_text(answers[step])) is not None
        case Contains(step, words):
            return step in answers and any(word in _text(answers[step]) for word in words)
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


def _number(answers: Mapping[str, Answer], step: str) -> int | float | None:
    answer = answers.get(step)
    return answer.value if answer is not None and isinstance(answer.value, (int, float)) else None


def _comparable(answer: Answer) -> str | int | float | bool:
    value = answer.value
    return fold(value) if isinstance(value, str) and answer.index < 0 else value


def _text(answer: Answer) -> str:
    return fold(answer.value if isinstance(answer.value, str) else answer.raw)
