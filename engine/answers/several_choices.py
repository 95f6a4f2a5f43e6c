"""The answer type `choices`: several of several options, as `1 3` or `red and green`."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date
from itertools import combinations
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
from engine.answers.proof_terms import AskedConditions, dominating_text
from engine.answers.translations import Translated
from engine.answers.vocabulary import has_emoticon, without_courtesy, word_set
from engine.model.events import Answer
from engine.model.text_normalization import fold_text, trim_punctuation

_MAX_VARIED_OPTIONS = 10
"""Of so many options that conditions name, every combination is looked at."""

_OPTION_SEPARATOR = re.compile(r"[\s,;/&+.()*#\u2022-]+|(?:and|et|og|plus)(?!\w)")
_LISTED = re.compile(r"(?!8\))\d+\)")
"""How `1) 8)` begins, which is a list and no face."""

_ALL_WORDS = word_set(
    "all, all of them, all of these, everything, tous, toutes, tout, alle, alle sammen, alt"
)

_TOO_FEW = Refusal(
    "too_few",
    Translated(en="That is too few.", fr="Il en faut plus.", no="Det er for få."),
    "it names too few of the options",
)
_TOO_MANY = Refusal(
    "too_many",
    Translated(en="That is too many.", fr="Il y en a trop.", no="Det er for mange."),
    "it names too many of the options",
)

_COMBINED = Refusal(
    "combined",
    Translated(
        en="That option goes with no other.",
        fr="Cette option exclut les autres.",
        no="Det alternativet kan ikke velges med andre.",
    ),
    "it names an option that excludes the others, and another one",
)

_EXPECTED_ONE = Translated(
    en="Please answer with one number from 1 to {count}.",
    fr="Veuillez répondre par un seul nombre de 1 à {count}.",
    no="Svar med ett tall fra 1 til {count}.",
)
_EXPECTED_SOME = Translated(
    en="Please answer with {least} to {most} numbers from 1 to {count}, such as {example}{alone}.",
    fr="Veuillez répondre par {least} à {most} nombres de 1 à {count}, comme {example}{alone}.",
    no="Svar med {least} til {most} tall fra 1 til {count}, for eksempel {example}{alone}.",
)
_EXPECTED_EXACTLY = Translated(
    en="Please answer with {least} numbers from 1 to {count}, such as {example}{alone}.",
    fr="Veuillez répondre par {least} nombres de 1 à {count}, comme {example}{alone}.",
    no="Svar med {least} tall fra 1 til {count}, for eksempel {example}{alone}.",
)
_OR_ALONE = Translated(en=", or {numbers} alone", fr=", ou {numbers} seul", no=", eller {numbers} alene")
_OR = Translated(en=" or ", fr=" ou ", no=" eller ")


class ChoicesAnswer(AnswerSpec, frozen=True, tag="choices"):
    """Several of `options`: `min` to `max` of them, by default 1 to all; or one that is exclusive."""

    options: list[str | Option]
    min: int = 1
    max: int | None = None

    field_descriptions: ClassVar[Mapping[str, str]] = {
        "type": "Several of the options, which follow the question with their numbers.",
        "options": (
            "The options: labels, or {id: g, label: Green, aliases: [verde]}. One that is `exclusive: true` "
            "is chosen alone."
        ),
        "min": "How many are chosen at least (1).",
        "max": "How many are chosen at most; without it all may be.",
    }
    schema_limits: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "options": {"minItems": 1}, "min": {"minimum": 1}, "max": {"minimum": 1},
    }  # fmt: skip
    has_several_values: ClassVar[bool] = True

    def compile_reader(self, report: ReportProblem) -> "ChoicesReader":
        ids, places = index_options(self.options, report)
        exclusive = exclusive_places(self.options)
        count = len(ids) - len(exclusive)
        most = self.max if self.max is not None else max(1, count)
        if exclusive and not count:
            report("field answer.options: at least one that is not exclusive is expected")
        elif not 1 <= self.min <= most or (ids and most > count):
            among = "options that are not exclusive" if exclusive else "options"
            report(f"field answer: nobody can choose from {self.min} to {most} of {count} {among}")
        return ChoicesReader(ids, places, self.min, most, tuple(exclusive))

    def describe_values(self) -> ValueDescription:
        return ValueDescription("options", self.min, self.max, named=name_options(self.options))

    def option_lines(self) -> list[OptionLine]:
        return number_options(self.options)

    def slot_words(self, language: str) -> SlotWords:
        return SlotWords(label_options(self.options, language))

    def convert_compared(self, written: ComparedValue, step: str, report: ReportProblem) -> ComparedValue:
        check_option(written, self.options, step, report)
        return written


class ChoicesReader(AnswerReader, frozen=True):
    """`least` to `most` of several options, or one of the `exclusive` places; `ids` by place; `places` is what a person may
    write, folded -> place."""

    ids: tuple[str, ...]
    places: Mapping[str, int]
    least: int
    most: int
    exclusive: tuple[int, ...] = ()

    takes_commands = OPTION_COMMANDS

    def read_reply(self, sms: str, today: Today) -> Answer | InvalidAnswer:
        del today
        text = fold_text(sms) if len(sms) <= LONGEST_REPLY else ""
        chosen = _find_options(self.places, text, self._combinable_places())
        if not chosen:
            return InvalidAnswer(NO_SUCH_OPTION.reason)
        if not chosen.isdisjoint(self.exclusive):
            if len(chosen) > 1:
                return InvalidAnswer(_COMBINED.reason)
        elif len(chosen) < self.least:
            return InvalidAnswer(_TOO_FEW.reason)
        elif len(chosen) > self.most:
            return InvalidAnswer(_TOO_MANY.reason)
        indexes = tuple(sorted(chosen))
        return Answer(sms, tuple(self.ids[place] for place in indexes), indexes=indexes)

    def _combinable_places(self) -> list[int]:
        return [place for place in range(len(self.ids)) if place not in self.exclusive]

    def list_refusals(self) -> tuple[Refusal, ...]:
        return (
            NO_SUCH_OPTION,
            *((_TOO_FEW,) if self.least > 1 else ()),
            *((_TOO_MANY,) if self.most < len(self._combinable_places()) else ()),
            *((_COMBINED,) if self.exclusive else ()),
        )

    def expected_answer(self, language: str) -> str:
        expected = (
            _EXPECTED_SOME
            if self.least < self.most
            else _EXPECTED_ONE
            if self.most == 1
            else _EXPECTED_EXACTLY
        )
        shown = self._combinable_places()[: max(self.least, min(self.most, 2))]
        alone = _OR.say(language).join(map(_option_number, self.exclusive))
        return expected.say(language).format(
            least=self.least,
            most=self.most,
            count=len(self.ids),
            example=" ".join(map(_option_number, shown)),
            alone=_OR_ALONE.say(language).format(numbers=alone) if alone else "",
        )

    def describe_answers(self) -> str:
        count = f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"
        alone = " or ".join(map(_option_number, self.exclusive))
        return f"{count} of {len(self.ids)}" + (f", or {alone} alone" if alone else "")

    def named_answers(self, compared: Collection[str]) -> list[str]:
        del compared
        return named_options(self.places)

    def put_in_text(self, words: SlotWords) -> tuple[str, ...]:
        names = words.labels or self.ids
        longest = sorted((names[place] for place in self._combinable_places()), key=len)[-self.most :]
        return (dominating_text([", ".join(longest), *names]),)

    def candidate_replies(self, asked: AskedConditions, today: date) -> Iterator[str]:
        """The numbers of the options chosen, the most first; what conditions name is there or not, in every combination. Then
        each that is chosen alone."""
        del today
        named = _options_asked(asked)
        places = self._combinable_places()
        varied = [place for place in places if self.ids[place] in named][:_MAX_VARIED_OPTIONS]
        by_length = sorted(self.places.items(), key=lambda item: len(item[0]))
        length = {place: len(name) for name, place in by_length}
        others = [place for place in places if place not in varied]
        others.sort(key=lambda place: length[place], reverse=True)
        for size in range(len(varied), -1, -1):
            for chosen in combinations(varied, size):
                for more in {
                    min(len(others), max(0, self.most - size)),
                    min(len(others), max(0, self.least - size)),
                }:
                    yield " ".join(map(_option_number, sorted((*chosen, *others[:more]))))
        yield from map(_option_number, self.exclusive)

    def reaches_every_region(self, asked: AskedConditions) -> bool:
        return len(_options_asked(asked)) <= _MAX_VARIED_OPTIONS and not asked.patterns

    def invalid_replies(self) -> Iterable[str]:
        together = [*map(_option_number, self._combinable_places())]
        combined = (f"{_option_number(place)} {together[0]}" for place in self.exclusive if together)
        return ("?", " ".join(together), *together[:1], "0", *combined)


def _option_number(place: int) -> str:
    """What people see before the option."""
    return str(place + 1)


def _options_asked(asked: AskedConditions) -> set[str]:
    """The options that conditions name."""
    return {*asked.options, *map(str, asked.equals)}


def _find_options(places: Mapping[str, int], text: str, together: Sequence[int]) -> set[int] | None:
    """The options that `text`, folded, names; None if there is anything else in it. All of them are those that go
    `together`."""
    one = find_option(places, text)
    if one is not None:
        return {one}
    text = without_courtesy(text)
    if trim_punctuation(text) in _ALL_WORDS:
        return set(together)
    if has_emoticon(text) and not (_LISTED.match(text) or any(map(has_emoticon, places))):
        return None
    names = _names_by_first_character(places)
    found: set[int] = set()
    at = 0
    while at < len(text):
        name = _name_at(text, at, names.get(text[at], ()))
        if name:
            found.add(places[name])
            at += len(name)
        elif (separator := _OPTION_SEPARATOR.match(text, at)) and not _is_range(text, separator):
            at = separator.end()
        else:
            return None
    return found


def _is_range(text: str, separator: re.Match[str]) -> bool:
    """`1-3` may mean the two or the three of them, `1.3` anything."""
    return (
        separator.group().strip(" ") in ("-", ".")
        and text[: separator.start()][-1:].isdigit()
        and text[separator.end() :][:1].isdigit()
    )


def _names_by_first_character(places: Mapping[str, int]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for name in sorted(places, key=len, reverse=True):
        names.setdefault(name[0], []).append(name)
    return names


def _name_at(text: str, at: int, names: list[str] | tuple[str, ...]) -> str:
    """The longest of `names`, given longest first, that stands at `at` in `text`; empty if none does."""
    for name in names:
        if text.startswith(name, at) and not (name[-1:].isalnum() and text[at + len(name) :][:1].isalnum()):
            return name
    return ""
