"""Which options does a reply name? By number, label or alias. What one choice and several choices share.

What an author wrote wins over what we would make of it: a label may hold an `and`, a comma or a digit.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from engine.answers.answer_type import NamedValue, OptionLine, Refusal, ReportProblem, WrittenText
from engine.answers.translations import Translated
from engine.answers.vocabulary import UNAMBIGUOUS_NUMBER_WORDS, has_emoticon, without_courtesy
from engine.model.text_normalization import fold_text, fold_word, trim_punctuation

_NUMBERED_OPTION = re.compile(
    r"(?:(?:the|le|la|den|det) )?"
    r"(?:(?:option|choice|answer|number|no|nr|choix|reponse|numero|n|valg|svar|alternativ|nummer)\W{0,3})?"
    r"(\d{1,3})(?:(?:st|nd|rd|th|er|re|e|eme|ere)(?: one)?|\W{1,3}(.+))?"
)
"""`option 2`, `n° 2`, `the 2nd`, `2. Green`."""

OPTION_COMMANDS: frozenset[Literal["stop", "help"]] = frozenset(("stop", "help"))
"""An author who names an option `end` or `info` wants it to be chosen by that word."""

NO_SUCH_OPTION = Refusal(
    "no_such_option",
    Translated(
        en="That is not one of the options.",
        fr="Ce n'est pas une des options.",
        no="Det er ikke et av alternativene.",
    ),
    "it is none of the options",
)


class Option(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`exclusive`: of several choices it is chosen alone, as "none of these" is."""

    id: str
    label: WrittenText
    aliases: list[str] = []
    exclusive: bool = False


def index_options(
    written: Sequence[str | Option], report: ReportProblem
) -> tuple[tuple[str, ...], Mapping[str, int]]:
    """The options' ids, and what a person may write, folded -> 0-based place."""
    options = list(map(normalize_option, written))
    if not options:
        report("field answer.options: at least one option is expected")
    places: dict[str, int] = {str(place + 1): place for place in range(len(options))}
    for place, option in enumerate(options):
        for spelling in (option.id, *all_translations(option.label), *option.aliases):
            _add_spelling(places, spelling, place, report)
    return tuple(option.id for option in options), places


def _add_spelling(places: dict[str, int], written: str, place: int, report: ReportProblem) -> None:
    for form in (fold_text(written), fold_word(written)):
        if form and places.setdefault(form, place) != place:
            report(f"field answer.options[{place}]: '{written}' also reads as option {places[form] + 1}")
            return


def number_options(written: Sequence[str | Option]) -> list[OptionLine]:
    """The lines that follow the question: `1. label`."""
    return [
        OptionLine(f"{n}.", f"answer.options[{n - 1}]", normalize_option(each).label)
        for n, each in enumerate(written, 1)
    ]


def name_options(written: Sequence[str | Option]) -> tuple[NamedValue, ...]:
    """The options as values that have a name."""
    return tuple(NamedValue(each.id, each.label, each.exclusive) for each in map(normalize_option, written))


def exclusive_places(written: Sequence[str | Option]) -> list[int]:
    """Where in the list the options are that exclude all others."""
    return [place for place, each in enumerate(written) if normalize_option(each).exclusive]


def label_options(written: Sequence[str | Option], language: str) -> tuple[str, ...]:
    """The options' labels in `language`, or else in any."""
    return tuple(_option_label(normalize_option(each), language) for each in written)


def check_option(written: object, options: Sequence[str | Option], step: str, report: ReportProblem) -> None:
    """An answer equals options only, by their ids."""
    if not any(written == (each if isinstance(each, str) else each.id) for each in options):
        report(f"'{step}' has no option '{written}'")


def named_options(places: Mapping[str, int]) -> list[str]:
    """What a person may write, but for numbers."""
    return sorted({fold_word(word) for word in places if not word.isdigit()})


def normalize_option(written: str | Option) -> Option:
    return Option(written, written) if isinstance(written, str) else written


def all_translations(text: WrittenText) -> list[str]:
    return [text] if isinstance(text, str) else list(text.values())


def _option_label(option: Option, language: str) -> str:
    if isinstance(option.label, str):
        return option.label
    return option.label.get(language) or next(iter(option.label.values()), "")


def find_option(places: Mapping[str, int], text: str) -> int | None:
    """Where in the list the option is that `text`, folded, names, politely or not."""
    place = places.get(text)
    if place is not None:
        return place
    if has_emoticon(text):
        return None
    word = trim_punctuation(text)
    place = _find_word(places, word)
    bare = without_courtesy(word) if place is None else word
    return place if bare == word else _find_word(places, trim_punctuation(bare))


def _find_word(places: Mapping[str, int], word: str) -> int | None:
    place = places.get(word)
    if place is not None:
        return place
    if word in UNAMBIGUOUS_NUMBER_WORDS:
        return places.get(str(UNAMBIGUOUS_NUMBER_WORDS[word]))
    numbered = _NUMBERED_OPTION.fullmatch(word)
    if numbered is None:
        return None
    number, label = numbered.groups()
    place = places.get(str(int(number)))
    return place if label is None or places.get(label) == place else None
