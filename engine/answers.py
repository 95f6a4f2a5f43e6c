"""How a reply is read: one reader per answer type, and what it makes of an SMS.

A reader takes an SMS as it came and gives an Answer, whose `raw` is that SMS unchanged, or says why it cannot.
"""

import math
import re
from collections.abc import Mapping
from typing import Literal, assert_never

import msgspec

from engine.folding import clean, fold, fold_word, trim_punctuation
from engine.lane import Answer
from engine.patterns import Pattern

Why = Literal[
    "too_short", "too_long", "pattern", "not_a_number", "ambiguous", "decimals", "too_low", "too_high",
    "no_such_option", "not_yes_or_no",
]  # fmt: skip


class Unread(msgspec.Struct, frozen=True):
    """The SMS is no answer."""

    why: Why


class TextReader(msgspec.Struct, frozen=True):
    """Lengths in characters of the cleaned text; `pattern` matches all of it."""

    min: int
    max: int
    pattern: Pattern | None = None


class NumberReader(msgspec.Struct, frozen=True):
    """`decimals` is how many digits may follow the point; None: any number of them."""

    min: float | None = None
    max: float | None = None
    decimals: int | None = None


class YesNoReader(msgspec.Struct, frozen=True):
    pass


class ChoiceReader(msgspec.Struct, frozen=True):
    """`ids` by place; `places` is what a person may write, folded -> 0-based place."""

    ids: tuple[str, ...]
    places: Mapping[str, int]


class AnythingReader(msgspec.Struct, frozen=True):
    """questions.json without a condition: every SMS is an answer, taken as it came."""


class PhpNumberReader(msgspec.Struct, frozen=True):
    """questions.json with a condition: what PHP's is_numeric takes for a number."""


Reader = TextReader | NumberReader | YesNoReader | ChoiceReader | AnythingReader | PhpNumberReader

YES = frozenset({"yes", "y", "yeah", "yep", "ok", "okay", "true", "oui", "o", "ouais", "ja", "j", "jada"})
NO = frozenset({"no", "n", "nope", "nah", "false", "non", "nei", "neida", "nein"})
"""English, French, Norwegian; one table, since no word of one language means the opposite in another."""

_EXACT = 2**53
"""Whole numbers up to here are kept as int; msgpack holds no more than 64 bits."""

_NUMBER = re.compile(r"([+-]?)(\d*)(?:([.,])(\d+))?")
_PHP_NUMBER = re.compile(r"[ \t\n\r\v\f]*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t\n\r\v\f]*")


def read(reader: Reader, sms: str) -> Answer | Unread:
    match reader:
        case TextReader():
            return _read_text(reader, sms)
        case NumberReader():
            return _read_number(reader, sms)
        case YesNoReader():
            return _read_yes_no(sms)
        case ChoiceReader():
            return _read_choice(reader, sms)
        case AnythingReader():
            return Answer(sms, sms)
        case PhpNumberReader():
            return _read_php_number(sms)
        case _:
            assert_never(reader)


def _read_text(reader: TextReader, sms: str) -> Answer | Unread:
    text = clean(sms)
    if len(text) < reader.min:
        return Unread("too_short")
    if len(text) > reader.max:
        return Unread("too_long")
    if reader.pattern is not None and reader.pattern.fullmatch(text) is None:
        return Unread("pattern")
    return Answer(sms, text)


def _read_number(reader: NumberReader, sms: str) -> Answer | Unread:
    text = clean(sms).replace("\u2212", "-").rstrip(".,;:!?)").removeprefix("(")
    found = _NUMBER.fullmatch(text)
    if found is None or text in ("", "+", "-"):
        return Unread("not_a_number")
    sign, whole, separator, fraction = found.groups()
    if separator == "," and len(fraction) == 3 and whole.lstrip("0"):
        return Unread("ambiguous")  # 1,250 is a thousand to one reader and one to another
    if reader.decimals is not None and len(fraction or "") > reader.decimals:
        return Unread("decimals")
    value = _number(f"{sign}{whole or '0'}", fraction)
    if math.isinf(value):
        return Unread("not_a_number")
    if reader.min is not None and value < reader.min:
        return Unread("too_low")
    if reader.max is not None and value > reader.max:
        return Unread("too_high")
    return Answer(sms, value)


def _number(whole: str, fraction: str | None) -> int | float:
    value = float(f"{whole}.{fraction}") if fraction else float(whole)
    return int(whole) if not fraction and abs(value) < _EXACT else value


def _read_yes_no(sms: str) -> Answer | Unread:
    word = fold_word(sms)
    if word in YES:
        return Answer(sms, True)
    return Answer(sms, False) if word in NO else Unread("not_yes_or_no")


def _read_choice(reader: ChoiceReader, sms: str) -> Answer | Unread:
    text = fold(sms)
    place = reader.places.get(text)
    if place is None:
        place = reader.places.get(trim_punctuation(text))
    return Unread("no_such_option") if place is None else Answer(sms, reader.ids[place], place)


def _read_php_number(sms: str) -> Answer | Unread:
    return Unread("not_a_number") if not is_numeric(sms) else Answer(sms, float(sms))


def is_numeric(text: str) -> bool:
    """PHP 8's is_numeric for strings (https://www.php.net/is_numeric): no comma, no unit, blanks at the ends."""
    return _PHP_NUMBER.fullmatch(text) is not None
