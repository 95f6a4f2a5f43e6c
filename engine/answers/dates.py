"""Which day does a reply give? In digits or with the month's name, in English, French and Norwegian.

A date in digits is read in the order that the author says, and in the other one if only that makes a day. A day
without its year is none: nobody can tell whether it has been or will be.
"""

import re
from datetime import date, timedelta

from engine.answers.readers import DateReader, InvalidAnswer, Today
from engine.answers.vocabulary import word_set
from engine.model.events import Answer
from engine.model.text_normalization import fold_text

_LONGEST_DATE = 64
"""Characters of the longest way to write a date."""

_YEARS_AHEAD = 19
"""Years after this one up to which a year of two digits is of this century or the next; 80 are before."""

_FIRST_YEAR = 1000
_RECENT_YEARS = range(1900, 2100)

_ORDERS_BY_SHAPE = (
    (re.compile("4[12][12]|4M[12]"), "ymd"),
    (re.compile("[12]M[24]?"), "dmy"),
    (re.compile("M[12][24]?"), "mdy"),
)
_YEARLESS_SHAPE = re.compile("[12][12]|[12]M|M[12]")
"""Shapes of dates: see _shape."""

_DATE_TOKEN = re.compile(r"\d+|[^\W\d_]+")
_UNEXPECTED_CHARACTER = re.compile(r"[^\w\s/.,'()!-]|_")
_TODAY = "today"

MONTH_NUMBERS: dict[str, int] = {
    word: number
    for number, listed in enumerate(
        (
            "january, jan, janvier, janv, januar",
            "february, feb, fevrier, fevr, fev, februar, febr",
            "march, mar, mars",
            "april, apr, avril, avr",
            "may, mai",
            "june, jun, juin, juni",
            "july, jul, juillet, juil, juli",
            "august, aug, aout, aou",
            "september, sep, sept, septembre",
            "october, oct, octobre, oktober, okt",
            "november, nov, novembre",
            "december, dec, decembre, desember, des",
        ),
        1,
    )
    for word in word_set(listed)
}
"""Folded. No word of one language is another month in another."""

_IGNORED_WORDS = word_set(
    "monday, mon, tuesday, tue, tues, wednesday, wed, thursday, thu, thur, thurs, friday, fri, saturday, sat, sunday, sun",
    "lundi, lun, mardi, mercredi, mer, jeudi, jeu, vendredi, ven, samedi, sam, dimanche, dim",
    "mandag, man, tirsdag, tirs, tir, onsdag, ons, torsdag, tors, tor, fredag, fre, lordag, lor, sondag, son",
    "on, the, of, st, nd, rd, th, le, du, de, er, e, den, i, av",
)
"""Days of the week, and what stands before and after a number. What day of the week it is nobody checks."""

_RELATIVE_DAYS: dict[str, int] = {
    word: days
    for days, listed in (
        (-2, "day before yesterday, avant hier, i forgars, iforgars, i forigars"),
        (-1, "yesterday, hier, i gar, igar"),
        (0, "today, aujourd hui, aujourdhui, auj, i dag, idag, dagens dato"),
        (1, "tomorrow, tomorow, tommorow, tmrw, tmr, demain, i morgen, imorgen"),
        (2, "day after tomorrow, apres demain, i overmorgen, overmorgen"),
    )
    for word in word_set(listed)
}


def read_date(reader: DateReader, sms: str, today: Today) -> Answer | InvalidAnswer:
    day = (
        _parse_day(reader, fold_text(sms), today)
        if len(sms) <= _LONGEST_DATE
        else InvalidAnswer("not_a_date")
    )
    if isinstance(day, InvalidAnswer):
        return day
    value = day.isoformat()
    if reader.min is not None and value < _resolve_limit(reader.min, today):
        return InvalidAnswer("too_early")
    if reader.max is not None and value > _resolve_limit(reader.max, today):
        return InvalidAnswer("too_late")
    return Answer(sms, value)


def _resolve_limit(written: str, today: Today) -> str:
    return today().isoformat() if written == _TODAY else written


def _parse_day(reader: DateReader, text: str, today: Today) -> date | InvalidAnswer:
    tokens = _DATE_TOKEN.findall(text)
    named = _RELATIVE_DAYS.get(" ".join(tokens).removeprefix("the "))
    if named is not None:
        return today() + timedelta(days=named)
    if tokens[:1] == ["mar"] and any(token in MONTH_NUMBERS for token in tokens[1:]):
        del tokens[0]  # mardi
    tokens = [token for token in tokens if token not in _IGNORED_WORDS]
    shape = "".join(map(_token_shape, tokens))
    if _UNEXPECTED_CHARACTER.search(text) or "?" in shape:
        return InvalidAnswer("not_a_date")
    numbers = [MONTH_NUMBERS.get(token) or int(token) for token in tokens]
    if _YEARLESS_SHAPE.fullmatch(shape):
        known = any(_existing_date(order, [*numbers, 2000]) for order in _possible_orders(reader, shape))
        return InvalidAnswer("no_year" if known else "not_a_date")
    if shape == "8":
        return _parse_eight_digits(reader, tokens[0])
    for order in _possible_orders(reader, shape):
        if shape[order.index("y")] == "2":
            numbers[2] = _full_year(numbers[2], reader, today)
        if day := _existing_date(order, numbers):
            return day
    return InvalidAnswer("no_such_day" if _possible_orders(reader, shape) else "not_a_date")


def _token_shape(token: str) -> str:
    """M for a month's name, how many digits a number has, ? for any other word."""
    if token in MONTH_NUMBERS:
        return "M"
    return str(min(len(token), 9)) if token.isdecimal() else "?"


def _possible_orders(reader: DateReader, shape: str) -> tuple[str, ...]:
    """In which orders a date of this shape may be written, the likelier one first; none if it is no date."""
    if re.fullmatch("[12][12][24]?", shape):
        return ("dmy", "mdy") if reader.order == "dmy" else ("mdy", "dmy")
    return tuple(order for written, order in _ORDERS_BY_SHAPE if written.fullmatch(shape))


def _parse_eight_digits(reader: DateReader, digits: str) -> date | InvalidAnswer:
    """`21112026` or `20261121`. No eight digits are a day of these centuries both ways."""
    ends = [int(digits[:2]), int(digits[2:4]), int(digits[4:])]
    begins = [int(digits[:4]), int(digits[4:6]), int(digits[6:])]
    for order, numbers in [("ymd", begins), *((order, ends) for order in _possible_orders(reader, "224"))]:
        day = _existing_date(order, numbers)
        if day is not None and day.year in _RECENT_YEARS:
            return day
    return InvalidAnswer("not_a_date")


def _existing_date(order: str, numbers: list[int]) -> date | None:
    """The day of which `numbers` are day, month and year in this order; None if there is no such day."""
    told = dict(zip(order, numbers, strict=False))
    try:
        return date(told["y"], told["m"], told["d"]) if told["y"] >= _FIRST_YEAR else None
    except ValueError:
        return None


def _full_year(year: int, reader: DateReader, today: Today) -> int:
    """A year of two digits: the last such year that is not too late, and no more than _AHEAD years ahead."""
    last = today().year + _YEARS_AHEAD
    if reader.max is not None:
        last = min(last, int(_resolve_limit(reader.max, today)[:4]))
    return last - (last - year) % 100
