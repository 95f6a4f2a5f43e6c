"""What questions.json takes for an answer: anything, or what PHP takes for a number. It knows nothing of reactions.

A survey file of our own has no such types, so they have no spec.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import date
from typing import ClassVar

from engine.answers.answer_type import AnswerReader, InvalidAnswer, Refusal, Today
from engine.answers.number_candidates import format_decimal, number_candidates
from engine.answers.number_parsing import EXPECTED_NUMBER, NOT_A_NUMBER
from engine.answers.numbers import LONGEST_FLOAT
from engine.answers.proof_terms import DEAREST_CHARACTER, AskedConditions, TextWidth
from engine.answers.text_answers import EXPECTED_OTHERWISE
from engine.model.events import Answer
from engine.model.segments import LONGEST_SMS

_PHP_NUMBER = re.compile(r"[ \t\n\r\v\f]*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t\n\r\v\f]*")


class AnythingReader(AnswerReader, frozen=True):
    """questions.json without a condition: every SMS is an answer, taken as it came."""

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

    def put_in_text(self, labels: Sequence[str]) -> TextWidth:
        del labels
        return TextWidth(LONGEST_SMS, character=DEAREST_CHARACTER)

    def candidate_replies(self, asked: AskedConditions, today: date) -> Iterable[str]:
        del asked, today
        return ("x",)

    def reaches_every_region(self, asked: AskedConditions) -> bool:
        return asked.asks_nothing_but_presence

    def invalid_replies(self) -> Iterable[str]:
        return ()


class PhpNumberReader(AnswerReader, frozen=True):
    """questions.json with a condition: what PHP's is_numeric takes for a number."""

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

    def put_in_text(self, labels: Sequence[str]) -> TextWidth:
        del labels
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
