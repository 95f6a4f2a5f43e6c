"""When is a route taken? A small closed set of conditions, so that things can be proved about them.

A condition on a step that has no answer does not hold. A step named "$key" is a session variable. Bounds are numbers,
or texts whose order is the alphabet's, as YYYY-MM-DD is.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import assert_never

import msgspec

from engine.model.events import Answer
from engine.model.patterns import CompiledPattern
from engine.model.text_normalization import compose_text, fold_text


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


class MatchesPattern(msgspec.Struct, frozen=True):
    """`pattern` matches all of the folded answer."""

    step: str
    pattern: CompiledPattern


class ContainsText(msgspec.Struct, frozen=True):
    """One of `words`, folded, occurs in the folded answer, be it in the middle of a word."""

    step: str
    words: tuple[str, ...]


class ContainsWord(msgspec.Struct, frozen=True):
    """One of `words`, folded, occurs in the folded answer, with no letter or digit at its ends that would go on with it."""

    step: str
    words: tuple[str, ...]


class IncludesOption(msgspec.Struct, frozen=True):
    """One of `options` is among the several that were chosen."""

    step: str
    options: frozenset[str]


class StepAnswered(msgspec.Struct, frozen=True):
    step: str


class AllOf(msgspec.Struct, frozen=True):
    conditions: tuple["Condition", ...]


class AnyOf(msgspec.Struct, frozen=True):
    conditions: tuple["Condition", ...]


class Not(msgspec.Struct, frozen=True):
    condition: "Condition"


AtomicCondition = (
    AtLeast
    | AtMost
    | Above
    | Below
    | OneOf
    | MatchesPattern
    | ContainsText
    | ContainsWord
    | IncludesOption
    | StepAnswered
)
Condition = AtomicCondition | AllOf | AnyOf | Not


def condition_holds(condition: Condition, answers: Mapping[str, Answer]) -> bool:
    match condition:
        case AtLeast(step, bound):
            return (sign := _compare_with_bound(answers, step, bound)) is not None and sign >= 0
        case AtMost(step, bound):
            return (sign := _compare_with_bound(answers, step, bound)) is not None and sign <= 0
        case Above(step, bound):
            return (sign := _compare_with_bound(answers, step, bound)) is not None and sign > 0
        case Below(step, bound):
            return (sign := _compare_with_bound(answers, step, bound)) is not None and sign < 0
        case OneOf(step, values):
            return step in answers and _comparable_value(answers[step]) in values
        case MatchesPattern(step, pattern):
            return step in answers and pattern.fullmatch(_folded_text(answers[step])) is not None
        case ContainsText(step, words):
            return step in answers and any(word in _folded_text(answers[step]) for word in words)
        case ContainsWord(step, words):
            return step in answers and any(_has_word(_folded_text(answers[step]), word) for word in words)
        case IncludesOption(step, options):
            return step in answers and not options.isdisjoint(_chosen_options(answers[step]))
        case StepAnswered(step):
            return step in answers
        case AllOf(conditions):
            return all(condition_holds(each, answers) for each in conditions)
        case AnyOf(conditions):
            return any(condition_holds(each, answers) for each in conditions)
        case Not(condition=inner):
            return not condition_holds(inner, answers)
        case _:
            assert_never(condition)


def _compare_with_bound(answers: Mapping[str, Answer], step: str, bound: float | str) -> int | None:
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


def _comparable_value(answer: Answer) -> str | int | float | bool | None:
    match answer.value:
        case str(value) if answer.index < 0:
            return fold_text(value)
        case str(value):
            return _composed_id(value)
        case tuple(values):
            return _composed_id(values[0]) if len(values) == 1 else None
        case value:
            return value


def _chosen_options(answer: Answer) -> tuple[str, ...]:
    return tuple(map(_composed_id, answer.value)) if isinstance(answer.value, tuple) else ()


def _composed_id(option: str) -> str:
    """An option's id as a survey is read; 0.1.0 stored it as it was written, its accents apart perhaps."""
    return option if option.isascii() else compose_text(option)


def _has_word(text: str, word: str) -> bool:
    at = text.find(word)
    while at >= 0:
        end = at + len(word)
        goes_back = text[max(0, at - 1) : at].isalnum() and word[:1].isalnum()
        goes_on = text[end : end + 1].isalnum() and word[-1:].isalnum()
        if not (goes_back or goes_on):
            return True
        at = text.find(word, at + 1)
    return False


def _folded_text(answer: Answer) -> str:
    """A number as it was written, so that what one matches is what one sees."""
    return _fold_answer(answer.value if isinstance(answer.value, str) else answer.raw)


@lru_cache(8)
def _fold_answer(text: str) -> str:
    """Fold an answer once for all the conditions about it."""
    return fold_text(text)
