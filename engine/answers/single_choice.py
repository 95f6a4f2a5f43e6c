"""The answer type `choice`: one of several options, by its number, label or alias."""

from collections.abc import Collection, Iterable, Mapping
from datetime import date
from typing import Any, ClassVar

from engine.answers.answer_type import (
    LONGEST_REPLY,
    AnswerReader,
    AnswerSpec,
    ComparedValue,
    InvalidAnswer,
    OptionLine,
    Refusal,
    ReportProblem,
    SlotWords,
    Today,
    ValueDescription,
)
from engine.answers.options import (
    NO_SUCH_OPTION,
    OPTION_COMMANDS,
    Option,
    check_option,
    exclusive_places,
    find_option,
    index_options,
    label_options,
    name_options,
    named_options,
    number_options,
)
from engine.answers.proof_terms import AskedConditions
from engine.answers.translations import Translated
from engine.model.events import Answer
from engine.model.text_normalization import fold_text

_EXPECTED_OPTION = Translated(
    en="Please answer with a number from 1 to {count}.",
    fr="Veuillez répondre par un nombre de 1 à {count}.",
    no="Svar med et tall fra 1 til {count}.",
)


class ChoiceAnswer(AnswerSpec, frozen=True, tag="choice"):
    options: list[str | Option]

    field_descriptions: ClassVar[Mapping[str, str]] = {
        "type": "One of the options, which follow the question with their numbers.",
        "options": "The options: labels, or {id: g, label: Green, aliases: [verde]}.",
    }
    schema_limits: ClassVar[Mapping[str, Mapping[str, Any]]] = {"options": {"minItems": 1}}

    def compile_reader(self, report: ReportProblem) -> "ChoiceReader":
        for place in exclusive_places(self.options):
            report(
                f"field answer.options[{place}].exclusive: it is for `choices`; of a `choice` one is chosen"
            )
        return ChoiceReader(*index_options(self.options, report))

    def describe_values(self) -> ValueDescription:
        return ValueDescription("option", named=name_options(self.options))

    def option_lines(self) -> list[OptionLine]:
        return number_options(self.options)

    def slot_words(self, language: str) -> SlotWords:
        return SlotWords(label_options(self.options, language))

    def convert_compared(self, written: ComparedValue, step: str, report: ReportProblem) -> ComparedValue:
        check_option(written, self.options, step, report)
        return written


class ChoiceReader(AnswerReader, frozen=True):
    """`ids` by place; `places` is what a person may write, folded -> 0-based place."""

    ids: tuple[str, ...]
    places: Mapping[str, int]

    takes_commands = OPTION_COMMANDS
    region_values = "single"

    def read_reply(self, sms: str, today: Today) -> Answer | InvalidAnswer:
        del today
        place = find_option(self.places, fold_text(sms)) if len(sms) <= LONGEST_REPLY else None
        if place is None:
            return InvalidAnswer(NO_SUCH_OPTION.reason)
        return Answer(sms, self.ids[place], place)

    def list_refusals(self) -> tuple[Refusal, ...]:
        return (NO_SUCH_OPTION,)

    def expected_answer(self, language: str) -> str:
        return _EXPECTED_OPTION.say(language).format(count=len(self.ids))

    def describe_answers(self) -> str:
        return f"1 of {len(self.ids)}"

    def named_answers(self, compared: Collection[str]) -> list[str]:
        del compared
        return named_options(self.places)

    def put_in_text(self, words: SlotWords) -> tuple[str, ...]:
        return tuple(words.labels or self.ids)

    def candidate_replies(self, asked: AskedConditions, today: date) -> Iterable[str]:
        del asked, today
        return map(str, range(1, len(self.ids) + 1))

    def reaches_every_region(self, asked: AskedConditions) -> bool:
        del asked
        return True

    def invalid_replies(self) -> Iterable[str]:
        return ("?", "0")
