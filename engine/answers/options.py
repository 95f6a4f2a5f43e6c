"""Which options does a reply choose? By number, label or alias, one of them or several.

What an author wrote wins over what we would make of it: a label may hold an `and`, a comma or a digit.
"""

import re
from collections.abc import Mapping

from engine.answers.readers import LONGEST_REPLY, ChoiceReader, ChoicesReader, Unread
from engine.answers.vocabulary import UNMISTAKABLE, words
from engine.model.events import Answer
from engine.model.text_normalization import fold, trim_punctuation

_NUMBERED = re.compile(
    r"(?:(?:option|choice|answer|number|no|nr|choix|reponse|numero|n|valg|svar|alternativ|nummer)\W{0,3})?"
    r"(\d{1,3})(?:\W{1,3}(.+))?"
)
"""`option 2`, `n° 2`, `2. Green`."""

_SEPARATOR = re.compile(r"[\s,;/&+.()*#\u2022-]+|(?:and|et|og|plus)(?!\w)")
_ALL = words("all, all of them, all of these, everything, tous, toutes, tout, alle, alle sammen, alt")


def read_choice(reader: ChoiceReader, sms: str) -> Answer | Unread:
    place = _place(reader.places, fold(sms)) if len(sms) <= LONGEST_REPLY else None
    return Unread("no_such_option") if place is None else Answer(sms, reader.ids[place], place)


def _place(places: Mapping[str, int], text: str) -> int | None:
    """Where in the list the option is that `text`, folded, names."""
    place = places.get(text)
    if place is not None:
        return place
    word = trim_punctuation(text)
    place = places.get(word)
    if place is not None:
        return place
    if word in UNMISTAKABLE:
        return places.get(str(UNMISTAKABLE[word]))
    numbered = _NUMBERED.fullmatch(word)
    if numbered is None:
        return None
    number, label = numbered.groups()
    place = places.get(str(int(number)))
    return place if label is None or places.get(label) == place else None


def read_choices(reader: ChoicesReader, sms: str) -> Answer | Unread:
    places = _places(reader, fold(sms)) if len(sms) <= LONGEST_REPLY else None
    if not places:
        return Unread("no_such_option")
    if len(places) < reader.least:
        return Unread("too_few")
    if len(places) > reader.most:
        return Unread("too_many")
    indexes = tuple(sorted(places))
    return Answer(sms, tuple(reader.ids[place] for place in indexes), indexes=indexes)


def _places(reader: ChoicesReader, text: str) -> set[int] | None:
    """The options that `text`, folded, names; None if there is anything else in it."""
    one = _place(reader.places, text)
    if one is not None:
        return {one}
    if trim_punctuation(text) in _ALL:
        return set(range(len(reader.ids)))
    names = _by_first_character(reader.places)
    found: set[int] = set()
    at = 0
    while at < len(text):
        name = _name_at(text, at, names.get(text[at], ()))
        if name:
            found.add(reader.places[name])
            at += len(name)
        elif (separator := _SEPARATOR.match(text, at)) and not _is_range(text, separator):
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


def _by_first_character(places: Mapping[str, int]) -> dict[str, list[str]]:
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
