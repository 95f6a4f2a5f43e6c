"""Answer types: what an author allows, as the reader of it."""

import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import assert_never

from engine.answers import (
    ChoiceReader,
    ChoicesReader,
    DateReader,
    NumberReader,
    PhoneReader,
    Reader,
    ScaleReader,
    TextReader,
    YesNoReader,
)
from engine.model.patterns import BadPattern, Pattern, compile_pattern
from engine.model.text_normalization import fold, fold_word
from engine.surveys.compiling.scope import Scope
from engine.surveys.compiling.text_parsing import TextCompiler, in_all_languages, option_of
from engine.surveys.survey_file import (
    AnswerType,
    ChoiceAnswer,
    ChoicesAnswer,
    DateAnswer,
    NumberAnswer,
    Option,
    PhoneAnswer,
    ScaleAnswer,
    TextAnswer,
    YesNoAnswer,
)
from engine.surveys.texts import Text

WIDEST_SCALE = 1000
MOST_DECIMALS = 10
LARGEST = 1e15
"""Numbers up to here are exact, whole or to a few decimals."""


class AnswerCompiler:
    def __init__(self, scope: Scope, texts: TextCompiler) -> None:
        self._scope = scope
        self._texts = texts

    def reader(self, source: AnswerType) -> Reader:
        match source:
            case TextAnswer():
                return self._text(source)
            case NumberAnswer():
                return self._number(source)
            case ScaleAnswer():
                return self._scale(source)
            case YesNoAnswer():
                return yes_no_reader(source)
            case ChoiceAnswer(options=options):
                return ChoiceReader(*self._places(list(map(option_of, options))))
            case ChoicesAnswer():
                return self._choices(source)
            case DateAnswer():
                return self._date(source)
            case PhoneAnswer():
                return self._phone(source)
            case _:
                assert_never(source)

    def listed(self, source: AnswerType) -> list[Text]:
        """The lines that follow the question: `1. label` of an option, `1 = label` of a scale's number."""
        match source:
            case ChoiceAnswer(options=options) | ChoicesAnswer(options=options):
                labels = {
                    f"{n}.": (f"answer.options[{n - 1}]", option_of(each).label)
                    for n, each in enumerate(options, 1)
                }
            case ScaleAnswer(labels=written):
                labels = {
                    f"{number} =": (f"answer.labels.{number}", written[number])
                    for number in sorted(written, key=_whole)
                }
            case _:
                return []
        return [
            {language: f"{lead} {words}" for language, words in self._texts.text(*each, plain=True).items()}
            for lead, each in labels.items()
        ]

    def _problem(self, sentence: str) -> None:
        self._scope.problem(sentence)

    def _text(self, source: TextAnswer) -> TextReader:
        if source.min < 0 or source.max < max(1, source.min):
            self._problem(f"field answer: no text has from {source.min} to {source.max} characters")
        return TextReader(source.min, source.max, self._pattern(source.pattern))

    def _pattern(self, written: str | None) -> Pattern | None:
        if written is None:
            return None
        try:
            return compile_pattern(written)
        except BadPattern as e:
            self._problem(f"field answer.pattern: RE2 refuses '{written}': {e}")
            return None

    def _number(self, source: NumberAnswer) -> NumberReader:
        if source.min is not None and source.max is not None and source.min > source.max:
            self._problem(f"field answer: no number lies between {source.min:g} and {source.max:g}")
        if source.decimals is not None and not 0 <= source.decimals <= MOST_DECIMALS:
            self._problem(f"field answer.decimals: found {source.decimals}, expected 0 to {MOST_DECIMALS}")
        for name, limit in (("min", source.min), ("max", source.max)):
            if limit is not None and not abs(limit) <= LARGEST:
                self._problem(
                    f"field answer.{name}: found {limit:g}, expected at most {LARGEST:g} either way"
                )
        return NumberReader(source.min, source.max, source.decimals)

    def _scale(self, source: ScaleAnswer) -> ScaleReader:
        low, high = source.from_, source.to
        if not low < high <= low + WIDEST_SCALE:
            self._problem(
                f"field answer: found a scale from {low} to {high}, expected 2 to {WIDEST_SCALE} numbers, "
                "the lower one first"
            )
        labels: dict[str, int] = {}
        for number, label in source.labels.items():
            if not low <= _whole(number) <= high or str(_whole(number)) != number:
                self._problem(f"field answer.labels: '{number}' is no number of the scale")
            for written in in_all_languages(label):
                if labels.setdefault(fold_word(written), _whole(number)) != _whole(number):
                    self._problem(f"field answer.labels.{number}: '{written}' also stands for another number")
        return ScaleReader(low, high, labels)

    def _choices(self, source: ChoicesAnswer) -> ChoicesReader:
        ids, places = self._places(list(map(option_of, source.options)))
        most = source.max if source.max is not None else max(1, len(ids))
        if not 1 <= source.min <= most or (ids and most > len(ids)):
            self._problem(
                f"field answer: nobody can choose from {source.min} to {most} of {len(ids)} options"
            )
        return ChoicesReader(ids, places, source.min, most)

    def _places(self, options: Sequence[Option]) -> tuple[tuple[str, ...], Mapping[str, int]]:
        """The options' ids, and what a person may write, folded -> 0-based place."""
        if not options:
            self._problem("field answer.options: at least one option is expected")
        places: dict[str, int] = {str(place + 1): place for place in range(len(options))}
        for place, option in enumerate(options):
            for written in (option.id, *in_all_languages(option.label), *option.aliases):
                self._place(places, written, place)
        return tuple(option.id for option in options), places

    def _place(self, places: dict[str, int], written: str, place: int) -> None:
        for form in (fold(written), fold_word(written)):
            if form and places.setdefault(form, place) != place:
                self._problem(
                    f"field answer.options[{place}]: '{written}' also reads as option {places[form] + 1}"
                )
                return

    def _date(self, source: DateAnswer) -> DateReader:
        low, high = self._day("min", source.min), self._day("max", source.max)
        if is_date(low) and is_date(high) and str(low) > str(high):
            self._problem(f"field answer: no day lies between {low} and {high}")
        return DateReader(low, high, source.order)

    def _day(self, name: str, written: str | None) -> str | None:
        if written is None or written == "today" or is_date(written):
            return written
        self._problem(f"field answer.{name}: found '{written}', expected YYYY-MM-DD or today")
        return None

    def _phone(self, source: PhoneAnswer) -> PhoneReader:
        if source.country is not None and not re.fullmatch(r"[A-Z]{2}", source.country):
            self._problem(
                f"field answer.country: found '{source.country}', expected two capital letters such as FR"
            )
        return PhoneReader(source.country)


def yes_no_reader(source: YesNoAnswer) -> YesNoReader:
    return YesNoReader(frozenset(map(fold_word, source.yes)), frozenset(map(fold_word, source.no)))


def is_date(written: object) -> bool:
    """YYYY-MM-DD, and such a day?"""
    if not isinstance(written, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", written):
        return False
    try:
        date.fromisoformat(written)
    except ValueError:
        return False
    return True


def _whole(written: str) -> int:
    return int(written) if re.fullmatch(r"-?[0-9]{1,6}", written) else -(10**9)
