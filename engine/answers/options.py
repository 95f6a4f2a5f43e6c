"""Which options does a reply choose? By number, label or alias, one of them or several.

What an author wrote wins over what we would make of it: a label may hold an `and`, a comma or a digit.
"""

import re
from collections.abc import Mapping

from engine.answers.readers import LONGEST_REPLY, ChoiceReader, ChoicesReader, InvalidAnswer
from engine.answers.vocabulary import UNAMBIGUOUS_NUMBER_WORDS, word_set
from engine.model.events import Answer
from engine.model.text_normalization import fold_text, trim_punctuation

_NUMBERED_OPTION = re.compile(
    r"(?:(?:option|choice|answer|number|no|nr|choix|reponse|numero|n|valg|svar|alternativ|nummer)\W{0,3})?"
    r"(\d{1,3})(?:\W{1,3}(.+))?"
)
"""`option 2`, `n° 2`, `2. Green`."""

_OPTION_SEPARATOR = re.compile(r"[\s,;/&+.()*#\u2022-]+|(?:and|et|og|plus)(?!\w)")
_ALL_WORDS = word_set(
    "all, all of them, all of these, everything, tous, toutes, tout, alle, alle sammen, alt"
)


def read_choice(reader: ChoiceReader, sms: str) -> Answer | InvalidAnswer:
    place = _find_option(reader.places, fold_text(sms)) if len(sms) <= LONGEST_REPLY else None
    return InvalidAnswer("no_such_option") if place is None else Answer(sms, reader.ids[place], place)


def _find_option(places: Mapping[str, int], text: str) -> int | None:
    """Where in the list the option is that `text`, folded, names."""
    place = places.get(text)
    if place is not None:
        return place
    word = trim_punctuation(text)
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


def read_choices(reader: ChoicesReader, sms: str) -> Answer | InvalidAnswer:
    places = _find_options(reader, fold_text(sms)) if len(sms) <= LONGEST_REPLY else None
    if not places:
        return InvalidAnswer("no_such_option")
    if len(places) < reader.least:
        return InvalidAnswer("too_few")
    if len(places) > reader.most:
        return InvalidAnswer("too_many")
    indexes = tuple(sorted(places))
    return Answer(sms, tuple(reader.ids[place] for place in indexes), indexes=indexes)


def _find_options(reader: ChoicesReader, text: str) -> set[int] | None:
    """The options that `text`, folded, names; None if there is anything else in it."""
    one = _find_option(reader.places, text)
    if one is not None:
        return {one}
    if trim_punctuation(text) in _ALL_WORDS:
        return set(range(len(reader.ids)))
    names = _names_by_first_character(reader.places)
    found: set[int] = set()
    at = 0
    while at < len(text):
        name = _name_at(text, at, names.get(text[at], ()))
        if name:
            found.add(reader.places[name])
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
