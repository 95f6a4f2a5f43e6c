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
from engine.model.patterns import BadPatternError, CompiledPattern, compile_pattern
from engine.model.text_normalization import fold_text, fold_word
from engine.surveys.compiling.scope import CompilerScope
from engine.surveys.compiling.text_parsing import TextCompiler, all_translations, normalize_option
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
from engine.surveys.texts import LocalizedText

WIDEST_SCALE = 1000
MOST_DECIMALS = 10
LARGEST_NUMBER = 1e15
"""Numbers up to here are exact, whole or to a few decimals."""


class AnswerCompiler:
    def __init__(self, scope: CompilerScope, texts: TextCompiler) -> None:
        self._scope = scope
        self._texts = texts

    def compile_reader(self, source: AnswerType) -> Reader:
        match source:
            case TextAnswer():
                return self._text_reader(source)
            case NumberAnswer():
                return self._number_reader(source)
            case ScaleAnswer():
                return self._scale_reader(source)
            case YesNoAnswer():
                return yes_no_reader(source)
            case ChoiceAnswer(options=options):
                return ChoiceReader(*self._index_options(list(map(normalize_option, options))))
            case ChoicesAnswer():
                return self._choices_reader(source)
            case DateAnswer():
                return self._date_reader(source)
            case PhoneAnswer():
                return self._phone_reader(source)
            case _:
                assert_never(source)

    def option_lines(self, source: AnswerType) -> list[LocalizedText]:
        """The lines that follow the question: `1. label` of an option, `1 = label` of a scale's number."""
        match source:
            case ChoiceAnswer(options=options) | ChoicesAnswer(options=options):
                labels = {
                    f"{n}.": (f"answer.options[{n - 1}]", normalize_option(each).label)
                    for n, each in enumerate(options, 1)
                }
            case ScaleAnswer(labels=written):
                labels = {
                    f"{number} =": (f"answer.labels.{number}", written[number])
                    for number in sorted(written, key=_label_number)
                }
            case _:
                return []
        return [
            {
                language: f"{lead} {words}"
                for language, words in self._texts.compile_text(*each, plain=True).items()
            }
            for lead, each in labels.items()
        ]

    def _add_error(self, sentence: str) -> None:
        self._scope.add_error(sentence)

    def _text_reader(self, source: TextAnswer) -> TextReader:
        if source.min < 0 or source.max < max(1, source.min):
            self._add_error(f"field answer: no text has from {source.min} to {source.max} characters")
        return TextReader(source.min, source.max, self._compile_pattern(source.pattern))

    def _compile_pattern(self, written: str | None) -> CompiledPattern | None:
        if written is None:
            return None
        try:
            return compile_pattern(written)
        except BadPatternError as e:
            self._add_error(f"field answer.pattern: RE2 refuses '{written}': {e}")
            return None

    def _number_reader(self, source: NumberAnswer) -> NumberReader:
        if source.min is not None and source.max is not None and source.min > source.max:
            self._add_error(f"field answer: no number lies between {source.min:g} and {source.max:g}")
        if source.decimals is not None and not 0 <= source.decimals <= MOST_DECIMALS:
            self._add_error(f"field answer.decimals: found {source.decimals}, expected 0 to {MOST_DECIMALS}")
        for name, limit in (("min", source.min), ("max", source.max)):
            if limit is not None and not abs(limit) <= LARGEST_NUMBER:
                self._add_error(
                    f"field answer.{name}: found {limit:g}, expected at most {LARGEST_NUMBER:g} either way"
                )
        return NumberReader(source.min, source.max, source.decimals)

    def _scale_reader(self, source: ScaleAnswer) -> ScaleReader:
        low, high = source.from_, source.to
        if not low < high <= low + WIDEST_SCALE:
            self._add_error(
                f"field answer: found a scale from {low} to {high}, expected 2 to {WIDEST_SCALE} numbers, "
                "the lower one first"
            )
        labels: dict[str, int] = {}
        for number, label in source.labels.items():
            if not low <= _label_number(number) <= high or str(_label_number(number)) != number:
                self._add_error(f"field answer.labels: '{number}' is no number of the scale")
            for written in all_translations(label):
                if labels.setdefault(fold_word(written), _label_number(number)) != _label_number(number):
                    self._add_error(
                        f"field answer.labels.{number}: '{written}' also stands for another number"
                    )
        return ScaleReader(low, high, labels)

    def _choices_reader(self, source: ChoicesAnswer) -> ChoicesReader:
        ids, places = self._index_options(list(map(normalize_option, source.options)))
        most = source.max if source.max is not None else max(1, len(ids))
        if not 1 <= source.min <= most or (ids and most > len(ids)):
            self._add_error(
                f"field answer: nobody can choose from {source.min} to {most} of {len(ids)} options"
            )
        return ChoicesReader(ids, places, source.min, most)

    def _index_options(self, options: Sequence[Option]) -> tuple[tuple[str, ...], Mapping[str, int]]:
        """The options' ids, and what a person may write, folded -> 0-based place."""
        if not options:
            self._add_error("field answer.options: at least one option is expected")
        places: dict[str, int] = {str(place + 1): place for place in range(len(options))}
        for place, option in enumerate(options):
            for written in (option.id, *all_translations(option.label), *option.aliases):
                self._add_spelling(places, written, place)
        return tuple(option.id for option in options), places

    def _add_spelling(self, places: dict[str, int], written: str, place: int) -> None:
        for form in (fold_text(written), fold_word(written)):
            if form and places.setdefault(form, place) != place:
                self._add_error(
                    f"field answer.options[{place}]: '{written}' also reads as option {places[form] + 1}"
                )
                return

    def _date_reader(self, source: DateAnswer) -> DateReader:
        low, high = self._check_date_limit("min", source.min), self._check_date_limit("max", source.max)
        if is_date(low) and is_date(high) and str(low) > str(high):
            self._add_error(f"field answer: no day lies between {low} and {high}")
        return DateReader(low, high, source.order)

    def _check_date_limit(self, name: str, written: str | None) -> str | None:
        if written is None or written == "today" or is_date(written):
            return written
        self._add_error(f"field answer.{name}: found '{written}', expected YYYY-MM-DD or today")
        return None

    def _phone_reader(self, source: PhoneAnswer) -> PhoneReader:
        if source.country is not None and not re.fullmatch(r"[A-Z]{2}", source.country):
            self._add_error(
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


def _label_number(written: str) -> int:
    return int(written) if re.fullmatch(r"-?[0-9]{1,6}", written) else -(10**9)
