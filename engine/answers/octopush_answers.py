"""What questions.json takes for an answer: `anything`, or `numeric`, what PHP takes for a number. It knows nothing of
reactions. Authors may ask for the same, as `parley convert` does.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import date
from typing import ClassVar

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
)
from engine.answers.number_candidates import format_decimal, number_candidates
from engine.answers.number_parsing import (
    EXPECTED_NUMBER,
    NOT_A_NUMBER,
    check_compared_number,
    check_number_bound,
)
from engine.answers.numbers import LONGEST_FLOAT
from engine.answers.proof_terms import DEAREST_CHARACTER, AskedConditions, TextWidth
from engine.answers.text_answers import EXPECTED_OTHERWISE
from engine.model.events import Answer
from engine.model.local_formats import decimal_point
from engine.model.segments import LONGEST_SMS
from engine.model.text_normalization import fold_text

_PHP_NUMBER = re.compile(r"[ \t\n\r\v\f]*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t\n\r\v\f]*")


class AnythingAnswer(AnswerSpec, frozen=True, tag="anything"):
    field_descriptions: ClassVar[Mapping[str, str]] = {
        "type": "Every SMS, reactions and pictures too, as it came.",
    }

    def compile_reader(self, report: ReportProblem) -> "AnythingReader":
        del report
        return AnythingReader()

    def describe_values(self) -> ValueDescription:
        return ValueDescription("text")

    def convert_compared(self, written: ComparedValue, step: str, report: ReportProblem) -> ComparedValue:
        del step, report
        return fold_text(str(written))


class AnythingReader(AnswerReader, frozen=True):
    """Every SMS is an answer, taken as it came."""

    takes_reactions: ClassVar[bool] = True

    def read_reply(self, sms: str, today: Today) -> Answer | InvalidAnswer:
        del today
        return Answer(sms, sms)

    def list_refusals(self) -> tuple[Refusal, ...]:
        return ()

    def expected_answer(self, language: str) -> str:
        return EXPECTED_OTHERWISE.say(language)

    def describe_answers(self) -> str:
        return "anything"

    def put_in_text(self, words: SlotWords) -> TextWidth:
        del words
        return TextWidth(LONGEST_SMS, character=DEAREST_CHARACTER)

    def candidate_replies(self, asked: AskedConditions, today: date) -> Iterable[str]:
        del asked, today
        return ("x",)

    def reaches_every_region(self, asked: AskedConditions) -> bool:
        return asked.asks_nothing_but_presence

    def invalid_replies(self) -> Iterable[str]:
        return ()


class NumericAnswer(AnswerSpec, frozen=True, tag="numeric"):
    field_descriptions: ClassVar[Mapping[str, str]] = {
        "type": "What PHP takes for a number, as in a questions.json: 98.6 or 1e2.",
    }

    def compile_reader(self, report: ReportProblem) -> "PhpNumberReader":
        del report
        return PhpNumberReader()

    def describe_values(self) -> ValueDescription:
        return ValueDescription("number")

    def slot_words(self, language: str) -> SlotWords:
        return SlotWords(decimal_point=decimal_point(language))

    def check_bound(self, bound: float | str, step: str, report: ReportProblem) -> None:
        del step
        check_number_bound(bound, report)

    def convert_compared(self, written: ComparedValue, step: str, report: ReportProblem) -> ComparedValue:
        check_compared_number(written, step, report)
        return written


class PhpNumberReader(AnswerReader, frozen=True):
    """What PHP's is_numeric takes for a number."""

    takes_reactions: ClassVar[bool] = True

    def read_reply(self, sms: str, today: Today) -> Answer | InvalidAnswer:
        del today
        return Answer(sms, float(sms)) if is_numeric(sms) else InvalidAnswer(NOT_A_NUMBER.reason)

    def list_refusals(self) -> tuple[Refusal, ...]:
        return (NOT_A_NUMBER,)

    def expected_answer(self, language: str) -> str:
        return EXPECTED_NUMBER.say(language).format(limits="")

    def describe_answers(self) -> str:
        return "number"

    def put_in_text(self, words: SlotWords) -> TextWidth:
        del words
        return TextWidth(LONGEST_FLOAT)

    def candidate_replies(self, asked: AskedConditions, today: date) -> Iterable[str]:
        del today
        return map(format_decimal, number_candidates(asked.bounds, (), None))

    def reaches_every_region(self, asked: AskedConditions) -> bool:
        return not asked.asks_of_spelling

    def invalid_replies(self) -> Iterable[str]:
        return ("?", "0")


def is_numeric(text: str) -> bool:
    """PHP 8's is_numeric for strings (https://www.php.net/is_numeric): no comma, no unit, blanks at the ends."""
    return _PHP_NUMBER.fullmatch(text) is not None
