"""Which number does a reply give? Read as people write it, among a few words if need be.

A reply gives a number if it holds one run of digits, and nothing about it that makes another number of it: a second
run, a bound, a half, a thousand, a "not". `1,250` is a thousand to one reader and one and a quarter to another. A
time, a date and a phone number are no numbers.
"""

import re
from itertools import takewhile

import msgspec

from engine.answers.readers import LONGEST_REPLY, InvalidAnswer, NumberReader, ScaleReader
from engine.answers.vocabulary import NUMBER_WORDS, UNAMBIGUOUS_NUMBER_WORDS, word_set
from engine.model.events import Answer
from engine.model.text_normalization import clean_text, fold_text, fold_word, trim_punctuation

_LARGEST_EXACT = 2**53
"""Whole numbers up to here are kept as int; msgpack holds no more than 64 bits."""

_LONGEST_NUMBER = 80
"""Characters in which a number is looked for."""

_MOST_WORDS = 8

_PHONE_DIGITS = 8
"""Digits from which a number that begins with + or 0 is a phone number, or a code."""

_PLAIN_NUMBER = re.compile(r"([+-]?)(?=[\d.,])(\d*)(?:([.,])(\d+))?")
_DIGIT_RUN = re.compile(
    r"(?<!\d)[1-9]\d{0,2}"  # 1 250 or 1'250,50; 1,250.50 or 1,250,000; 1.250,50 or 1.250.000
    r"(?:(?:[ ']\d{3})+(?:[.,]\d+)?|(?:,\d{3})+\.\d+|(?:\.\d{3})+,\d+|(?:,\d{3}){2,}|(?:\.\d{3}){2,})(?![.,]?\d)"
    r"|\d+(?:[.,]\d+)?"
    r"|(?<![^\s(])[.,]\d+"
)
_OUT_OF = re.compile(r"(?<![\d.,/])(\d{1,4}) ?(?:/|out of|of|sur|av|von) ?(\d{1,4})(?![\d/]|[.,]\d)")
_LETTER_RUN = re.compile(r"[^\W\d_]+|🔟")
_PHP_NUMBER = re.compile(r"[ \t\n\r\v\f]*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t\n\r\v\f]*")

_SPELLED_ALIKE = str.maketrans(
    dict.fromkeys("\u2212\u2013", "-")
    | dict.fromkeys("\u2018\u2019", "'")
    | dict.fromkeys("\xba\u02da", "°")  # Spanish keyboards; NFKC makes letters of them
    | dict.fromkeys("\xb2\xb3\xb9⁰⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉", "^")  # and digits of these
    | {"\u066b": ".", "\u066c": ",", "\u20e3": ""}  # Arabic points; what draws a key around a digit
)

_UNIT_WORDS = word_set(
    "c, f, kg, g, mg, t, km, m, cm, mm, lb, lbs, oz, st, ft, l, dl, cl, ml, x, pcs, stk, fois",
    "h, hr, hrs, hour, hours, min, mins, s, sec, d, days, j, jour, jours, mois, y, yr, yrs, yo, an, ans, ar",
    "er, e, eme, nd, rd, th",
    "eur, euro, euros, kr, nok, usd, gbp",
)
"""What may follow a digit without a blank, folded. `2day` and `4ever` are no numbers."""

_FORBIDDEN_NEIGHBOURS = frozenset("/\\^+-*\xd7÷@_~#%&=|<>≤≥±")
_FORBIDDEN_BEFORE = _FORBIDDEN_NEIGHBOURS - frozenset("~#=*")
_FORBIDDEN_AFTER = _FORBIDDEN_NEIGHBOURS - frozenset("%")
"""No number has such a character before it, or after it."""

_NUMBER_CHANGING_WORDS = word_set(
    "half, halves, demi, demie, halv, halve, halvt, halvannen, quarter, quarters, quart, quarts, kvart",
    "hundred, hundreds, thousand, thousands, million, millions, billion, billions, dozen, dozens, k",
    "cent, cents, mille, millier, milliers, milliard, milliards, douzaine, hundre, tusen, millioner, dusin",
    "not, isn, never, pas, jamais, ikke, aldri",
    "over, under, above, below, more, less, fewer, least, most, plus, moins, mer, mindre, minst",
    "minus, negative, negatif",
    "am, pm",
    "january, february, march, april, may, june, july, august, september, october, november, december",
    "janvier, fevrier, mars, avril, mai, juin, juillet, aout, septembre, octobre, novembre, decembre",
    "januar, februar, juni, juli, oktober, desember",
    "eleven, twelve, thirteen, fourteen, fifteen, sixteen, seventeen, eighteen, nineteen",
    "twenty, thirty, forty, fifty, sixty, seventy, eighty, ninety",
    "onze, douze, treize, quatorze, quinze, seize",
    "vingt, trente, quarante, cinquante, soixante, septante, huitante, nonante",
    "elleve, tolv, tretten, fjorten, femten, seksten, sytten, atten, nitten",
    "tjue, tretti, forti, femti, seksti, sytti, atti, nitti",
) | frozenset(word for word, number in UNAMBIGUOUS_NUMBER_WORDS.items() if number > 1)
"""Words, folded, with which a number is another one, or a part of one, a time or a date."""


class _ParsedNumber(msgspec.Struct, frozen=True):
    """A number, and how many digits were after its point."""

    value: int | float
    decimals: int


def read_number(reader: NumberReader, sms: str) -> Answer | InvalidAnswer:
    number = _number_in(sms)
    if isinstance(number, InvalidAnswer):
        return number
    if reader.decimals is not None and number.decimals > reader.decimals:
        return InvalidAnswer("decimals")
    if reader.min is not None and number.value < reader.min:
        return InvalidAnswer("too_low")
    if reader.max is not None and number.value > reader.max:
        return InvalidAnswer("too_high")
    return Answer(sms, number.value)


def read_scale(reader: ScaleReader, sms: str) -> Answer | InvalidAnswer:
    if len(sms) < 4 and sms.isascii() and sms.isdigit():
        number: int | None = int(sms)
    else:
        number = _scale_number(reader, sms)
    if number is None:
        return InvalidAnswer("not_a_number")
    if number < reader.low:
        return InvalidAnswer("too_low")
    return InvalidAnswer("too_high") if number > reader.high else Answer(sms, number)


def _scale_number(reader: ScaleReader, sms: str) -> int | None:
    """By its label, in words, as `8/10`, or as any whole number is written."""
    if len(sms) > LONGEST_REPLY:
        return None
    text = fold_text(sms)
    word = trim_punctuation(text)
    for named in (reader.labels.get(text), reader.labels.get(word), NUMBER_WORDS.get(word)):
        if named is not None:
            return named
    if (out_of := _OUT_OF.search(text)) and len(_DIGIT_RUN.findall(text)) == 2:
        alone = _stands_alone(text[: out_of.start()], text[out_of.end() :])
        return int(out_of[1]) if alone and int(out_of[2]) == reader.high else None
    number = _number_in(sms)
    if isinstance(number, InvalidAnswer) or number.value != int(number.value):
        return None
    return int(number.value)


def _number_in(sms: str) -> _ParsedNumber | InvalidAnswer:
    found = _PLAIN_NUMBER.fullmatch(sms) if len(sms) <= _LONGEST_NUMBER else None
    if found is None:
        text = clean_text(sms.translate(_SPELLED_ALIKE)) if len(sms) <= LONGEST_REPLY else sms
        if len(text) > _LONGEST_NUMBER:
            return InvalidAnswer("not_a_number")
        found = _PLAIN_NUMBER.fullmatch(text)
        if found is None:
            return _number_among(text)
    sign, whole, separator, fraction = found.groups()
    return _number_from_parts(sign, whole, separator, fraction)


def _number_from_parts(
    sign: str, whole: str, separator: str | None, fraction: str | None
) -> _ParsedNumber | InvalidAnswer:
    if separator == "," and fraction and len(fraction) == 3 and whole.lstrip("0"):
        return InvalidAnswer("ambiguous")
    if len(whole) >= _PHONE_DIGITS and (sign == "+" or whole[0] == "0"):
        return InvalidAnswer("not_a_number")
    if fraction:
        return _ParsedNumber(float(f"{sign}{whole}.{fraction}") + 0.0, len(fraction))  # -0.0 becomes 0.0
    number = int(sign + whole)
    return _ParsedNumber(number if abs(number) < _LARGEST_EXACT else float(number), 0)


def _number_among(text: str) -> _ParsedNumber | InvalidAnswer:
    """The one number among a few words, or the word that is a number."""
    runs = list(_DIGIT_RUN.finditer(text))
    if not runs:
        number = NUMBER_WORDS.get(fold_word(text))
        return InvalidAnswer("not_a_number") if number is None else _ParsedNumber(number, 0)
    before, after = text[: runs[0].start()], text[runs[-1].end() :]
    sign = ""
    if before[-1:] in ("+", "-"):
        before, sign = before[:-1], before[-1]
    if len(runs) > 1 or not _stands_alone(before, after):
        return InvalidAnswer("ambiguous")
    return _number_from_parts(sign, *_split_digit_run(runs[0].group()))


def _stands_alone(before: str, after: str) -> bool:
    """Does what comes before and after a number leave it what it is?"""
    unit = "".join(takewhile(str.isalpha, after.removeprefix("°")))
    if unit and fold_text(unit) not in _UNIT_WORDS:
        return False
    if (
        before[-1:].isalpha()
        or before.rstrip()[-1:] in _FORBIDDEN_BEFORE
        or after.lstrip()[:1] in _FORBIDDEN_AFTER
    ):
        return False
    around = _LETTER_RUN.findall(fold_text(f"{before} {after}"))
    return len(around) <= _MOST_WORDS and _NUMBER_CHANGING_WORDS.isdisjoint(around)


def _split_digit_run(run: str) -> tuple[str, str | None, str | None]:
    """Whole part, point and fraction of a run that _RUN found."""
    digits = run.replace(" ", "").replace("'", "")
    points = [c for c in digits if c in ".,"]
    if not points:
        return digits, None, None
    if len(points) > 1 and points[0] == points[-1]:  # all of them separate thousands
        return digits.replace(points[0], ""), None, None
    whole, _, fraction = digits.rpartition(points[-1])
    if len(points) == 1:
        return whole, (points[0] if digits == run else "."), fraction
    return whole.replace(points[0], ""), ".", fraction


def read_php_number(sms: str) -> Answer | InvalidAnswer:
    return Answer(sms, float(sms)) if is_numeric(sms) else InvalidAnswer("not_a_number")


def is_numeric(text: str) -> bool:
    """PHP 8's is_numeric for strings (https://www.php.net/is_numeric): no comma, no unit, blanks at the ends."""
    return _PHP_NUMBER.fullmatch(text) is not None
