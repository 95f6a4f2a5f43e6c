"""The answer type `number`: 98,6 or 98.6F, or "j'ai 39"; not 1,250 or "39 or 40". number_parsing.py reads it."""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any, ClassVar

from engine.answers.answer_type import (
    AnswerReader,
    AnswerSpec,
    ComparedValue,
    InvalidAnswer,
    Refusal,
    ReportProblem,
    SlotWords,
    Today,
    ValueDescription,
    ValueKind,
)
from engine.answers.number_candidates import format_decimal, number_candidates
from engine.answers.number_parsing import (
    AMBIGUOUS_NUMBER,
    EXPECTED_NUMBER,
    EXPECTED_WHOLE_NUMBER,
    NOT_A_NUMBER,
    NUMBER_LIMITS,
    TOO_HIGH,
    TOO_LOW,
    check_compared_number,
    check_number_bound,
    find_number,
)
from engine.answers.proof_terms import AskedConditions, TextWidth
from engine.answers.range_wording import format_range, range_phrase, show_number
from engine.answers.translations import Translated
from engine.model.events import Answer
from engine.model.local_formats import decimal_point

_MOST_DECIMALS = 10
_LARGEST_NUMBER = 1e15
"""Numbers up to here are exact, whole or to a few decimals."""

LONGEST_FLOAT = 24
"""Characters of a float, such as -2.2250738585072014e-308."""

_TOO_MANY_DECIMALS = Refusal(
    "decimals",
    Translated(
        en="That has too many decimals.",
        fr="Il y a trop de décimales.",
        no="Det har for mange desimaler.",
    ),
    "it has too many decimals",
)
_EXPECTED_ONE_DECIMAL = Translated(
    en="Please answer with a number{limits}, with at most one decimal.",
    fr="Veuillez répondre par un nombre{limits}, avec une décimale au plus.",
    no="Svar med et tall{limits}, med høyst en desimal.",
)
_EXPECTED_DECIMALS = Translated(
    en="Please answer with a number{limits}, with at most {decimals} decimals.",
    fr="Veuillez répondre par un nombre{limits}, avec {decimals} décimales au plus.",
    no="Svar med et tall{limits}, med høyst {decimals} desimaler.",
)
_EXPECTED_BY_DECIMALS = {None: EXPECTED_NUMBER, 0: EXPECTED_WHOLE_NUMBER, 1: _EXPECTED_ONE_DECIMAL}

_DECIMAL_POINT = Translated(en=".", fr=",", no=",")
"""What stands before a number's decimals in sentences of ours."""


class NumberAnswer(AnswerSpec, frozen=True, tag="number"):
    min: int | float | None = None
    max: int | float | None = None
    decimals: int | None = None

    field_descriptions: ClassVar[Mapping[str, str]] = {
        "type": "A number, in digits or in a sentence, such as 98,6 F.",
        "min": "The least number that is taken.",
        "max": "The greatest number that is taken.",
        "decimals": "How many decimals are taken at most; 0: whole numbers only.",
    }
    schema_limits: ClassVar[Mapping[str, Mapping[str, Any]]] = {"decimals": {"minimum": 0}}

    def compile_reader(self, report: ReportProblem) -> "NumberReader":
        if self.min is not None and self.max is not None and self.min > self.max:
            report(f"field answer: no number lies between {self.min:g} and {self.max:g}")
        if self.decimals is not None and not 0 <= self.decimals <= _MOST_DECIMALS:
            report(f"field answer.decimals: found {self.decimals}, expected 0 to {_MOST_DECIMALS}")
        for name, limit in (("min", self.min), ("max", self.max)):
            if limit is not None and not abs(limit) <= _LARGEST_NUMBER:
                report(
                    f"field answer.{name}: found {limit:g}, expected at most {_LARGEST_NUMBER:g} either way"
                )
        return NumberReader(self.min, self.max, self.decimals)

    def describe_values(self) -> ValueDescription:
        kind: ValueKind = "whole_number" if self.decimals == 0 else "number"
        return ValueDescription(kind, self.min, self.max, self.decimals)

    def slot_words(self, language: str) -> SlotWords:
        return SlotWords(decimal_point=decimal_point(language))

    def check_bound(self, bound: float | str, step: str, report: ReportProblem) -> None:
        del step
        check_number_bound(bound, report)

    def convert_compared(self, written: ComparedValue, step: str, report: ReportProblem) -> ComparedValue:
        check_compared_number(written, step, report)
        return written


class NumberReader(AnswerReader, frozen=True):
    """`decimals` is how many digits may follow the point; None: any number of them."""

    min: float | None = None
    max: float | None = None
    decimals: int | None = None

    def read_reply(self, sms: str, today: Today) -> Answer | InvalidAnswer:
        del today
        number = find_number(sms)
        if isinstance(number, InvalidAnswer):
            return number
        if self.decimals is not None and number.decimals > self.decimals:
            return InvalidAnswer(_TOO_MANY_DECIMALS.reason)
        if self.min is not None and number.value < self.min:
            return InvalidAnswer(TOO_LOW.reason)
        if self.max is not None and number.value > self.max:
            return InvalidAnswer(TOO_HIGH.reason)
        return Answer(sms, number.value)

    def list_refusals(self) -> tuple[Refusal, ...]:
        return (
            NOT_A_NUMBER,
            AMBIGUOUS_NUMBER,
            *((_TOO_MANY_DECIMALS,) if self.decimals is not None else ()),
            *((TOO_LOW,) if self.min is not None else ()),
            *((TOO_HIGH,) if self.max is not None else ()),
        )

    def expected_answer(self, language: str) -> str:
        point = _DECIMAL_POINT.say(language)
        low, high = (
            None if bound is None else _format_number(bound, point) for bound in (self.min, self.max)
        )
        expected = _EXPECTED_BY_DECIMALS.get(self.decimals, _EXPECTED_DECIMALS)
        limits = NUMBER_LIMITS.say_limits(language, low, high)
        return expected.say(language).format(limits=limits, decimals=self.decimals)

    def describe_answers(self) -> str:
        kind = "whole number" if self.decimals == 0 else "number"
        low, high = self.min, self.max
        both = "" if low is None or high is None else format_range(low, high)
        lead = range_phrase(
            kind, None if low is None else show_number(low), None if high is None else show_number(high), both
        )
        if not self.decimals:
            return lead
        return f"{lead}, up to {self.decimals} decimal{'' if self.decimals == 1 else 's'}"

    def put_in_text(self, words: SlotWords) -> TextWidth:
        del words
        low, high, decimals = self.min, self.max, self.decimals
        if low is None or high is None or decimals is None:
            return TextWidth(LONGEST_FLOAT)
        fraction = decimals + 1 if decimals else 0
        return TextWidth(min(LONGEST_FLOAT, max(len(str(int(low))), len(str(int(high)))) + 1 + fraction))

    def candidate_replies(self, asked: AskedConditions, today: date) -> Iterable[str]:
        del today
        return map(format_decimal, number_candidates(asked.bounds, (self.min, self.max), self.decimals))

    def reaches_every_region(self, asked: AskedConditions) -> bool:
        return not asked.asks_of_spelling

    def invalid_replies(self) -> Iterable[str]:
        return invalid_numbers(self.min, self.max)


def invalid_numbers(low: float | None, high: float | None) -> Iterable[str]:
    """SMS that are no number, more than one, have decimals, or lie beyond the limits."""
    beyond = (None if low is None else low - 1, None if high is None else high + 1)
    yield from ("?", "1,250", "0.1234567890123")
    yield from ("" if each is None else f"{each:f}" for each in beyond)
    yield from ("" if each is None else f"{each:.0f}" for each in beyond)


def _format_number(number: float, point: str) -> str:
    """Without an exponent, nor a point that nothing follows."""
    written = f"{number:.9f}".rstrip("0").rstrip(".")
    return written.replace(".", point)
