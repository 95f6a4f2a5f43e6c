"""The answer type `scale`: a whole number of a few, given by itself, as `8/10`, in a word, or by a label."""

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import date
from typing import ClassVar

import msgspec

from engine.answers.answer_type import (
    LONGEST_REPLY,
    AnswerReader,
    AnswerSpec,
    ComparedValue,
    InvalidAnswer,
    NamedValue,
    OptionLine,
    Refusal,
    ReportProblem,
    SlotWords,
    Today,
    ValueDescription,
    WrittenText,
)
from engine.answers.number_candidates import format_decimal, number_candidates
from engine.answers.number_parsing import (
    DIGIT_RUN,
    EXPECTED_WHOLE_NUMBER,
    NOT_A_NUMBER,
    NUMBER_LIMITS,
    TOO_HIGH,
    TOO_LOW,
    check_compared_number,
    check_number_bound,
    find_number,
    stands_alone,
)
from engine.answers.numbers import invalid_numbers
from engine.answers.options import OPTION_COMMANDS, all_translations
from engine.answers.proof_terms import AskedConditions, TextWidth
from engine.answers.range_wording import format_range
from engine.answers.vocabulary import NUMBER_WORDS
from engine.model.events import Answer
from engine.model.text_normalization import fold_text, fold_word, trim_punctuation

_WIDEST_SCALE = 1000

_OUT_OF = re.compile(r"(?<![\d.,/])(\d{1,4}) ?(?:/|out of|of|sur|av|von) ?(\d{1,4})(?![\d/]|[.,]\d)")


class ScaleAnswer(AnswerSpec, frozen=True, tag="scale"):
    """A whole number from `from` to `to`. `labels`, number -> text, follow the question, and are read too."""

    to: int
    from_: int = msgspec.field(name="from", default=1)
    labels: dict[str, WrittenText] = msgspec.field(default_factory=dict)

    field_descriptions: ClassVar[Mapping[str, str]] = {
        "type": "A whole number from a scale.",
        "from": "The lowest number of the scale (1).",
        "to": "The highest number of the scale.",
        "labels": "What numbers mean, such as {1: bad, 5: good}; they follow the question.",
    }

    def compile_reader(self, report: ReportProblem) -> "ScaleReader":
        low, high = self.from_, self.to
        if not low < high <= low + _WIDEST_SCALE:
            report(
                f"field answer: found a scale from {low} to {high}, expected 2 to {_WIDEST_SCALE} numbers, "
                "the lower one first"
            )
        labels: dict[str, int] = {}
        for number, label in self.labels.items():
            if not low <= _label_number(number) <= high or str(_label_number(number)) != number:
                report(f"field answer.labels: '{number}' is no number of the scale")
            for written in all_translations(label):
                if labels.setdefault(fold_word(written), _label_number(number)) != _label_number(number):
                    report(f"field answer.labels.{number}: '{written}' also stands for another number")
        return ScaleReader(low, high, labels)

    def describe_values(self) -> ValueDescription:
        named = [NamedValue(number, self.labels[number]) for number in sorted(self.labels, key=_label_number)]
        return ValueDescription("whole_number", self.from_, self.to, 0, named=tuple(named))

    def option_lines(self) -> list[OptionLine]:
        return [
            OptionLine(f"{number} =", f"answer.labels.{number}", self.labels[number])
            for number in sorted(self.labels, key=_label_number)
        ]

    def check_bound(self, bound: float | str, step: str, report: ReportProblem) -> None:
        del step
        check_number_bound(bound, report)

    def convert_compared(self, written: ComparedValue, step: str, report: ReportProblem) -> ComparedValue:
        check_compared_number(written, step, report)
        return written


class ScaleReader(AnswerReader, frozen=True):
    """A whole number from `low` to `high`; `labels` is what a person may write instead, folded -> number."""

    low: int
    high: int
    labels: Mapping[str, int] = {}

    takes_commands = OPTION_COMMANDS

    def read_reply(self, sms: str, today: Today) -> Answer | InvalidAnswer:
        del today
        if len(sms) < 4 and sms.isascii() and sms.isdigit():
            number: int | None = int(sms)
        else:
            number = self._find_scale_number(sms)
        if number is None:
            return InvalidAnswer(NOT_A_NUMBER.reason)
        if number < self.low:
            return InvalidAnswer(TOO_LOW.reason)
        return InvalidAnswer(TOO_HIGH.reason) if number > self.high else Answer(sms, number)

    def _find_scale_number(self, sms: str) -> int | None:
        """By its label, in words, as `8/10`, or as any whole number is written."""
        if len(sms) > LONGEST_REPLY:
            return None
        text = fold_text(sms)
        word = trim_punctuation(text)
        for named in (self.labels.get(text), self.labels.get(word), NUMBER_WORDS.get(word)):
            if named is not None:
                return named
        if (out_of := _OUT_OF.search(text)) and len(DIGIT_RUN.findall(text)) == 2:
            alone = stands_alone(text[: out_of.start()], text[out_of.end() :])
            return int(out_of[1]) if alone and int(out_of[2]) == self.high else None
        number = find_number(sms)
        if isinstance(number, InvalidAnswer) or number.value != int(number.value):
            return None
        return int(number.value)

    def list_refusals(self) -> tuple[Refusal, ...]:
        return NOT_A_NUMBER, TOO_LOW, TOO_HIGH

    def expected_answer(self, language: str) -> str:
        limits = NUMBER_LIMITS.say_limits(language, f"{self.low}", f"{self.high}")
        return EXPECTED_WHOLE_NUMBER.say(language).format(limits=limits)

    def describe_answers(self) -> str:
        return f"scale {format_range(self.low, self.high)}"

    def named_answers(self, compared: Collection[str]) -> list[str]:
        del compared
        return sorted(self.labels)

    def put_in_text(self, words: SlotWords) -> TextWidth:
        del words
        return TextWidth(max(len(str(self.low)), len(str(self.high))))

    def candidate_replies(self, asked: AskedConditions, today: date) -> Iterable[str]:
        del today
        numbers = number_candidates(asked.bounds, (self.low, self.high), 0)
        return sorted(map(format_decimal, numbers), key=len, reverse=True)

    def reaches_every_region(self, asked: AskedConditions) -> bool:
        return not asked.asks_of_spelling

    def invalid_replies(self) -> Iterable[str]:
        return invalid_numbers(self.low, self.high)


def _label_number(written: str) -> int:
    return int(written) if re.fullmatch(r"-?[0-9]{1,6}", written) else -(10**9)
