"""Which day does a reply give? In digits or with the month's name, in English, French and Norwegian.

A date in digits is read in the order that the author says, and in the other one if only that makes a day. A day
without its year is none: nobody can tell whether it has been or will be.
"""

import re
from datetime import date, timedelta

from engine.answers.readers import DateReader, Today, Unread
from engine.answers.vocabulary import words
from engine.model.events import Answer
from engine.model.text_normalization import fold

_LONGEST = 64
"""Characters of the longest way to write a date."""

_AHEAD = 19
"""Years after this one up to which a year of two digits is of this century or the next; 80 are before."""

_FIRST_YEAR = 1000
_RECENT = range(1900, 2100)

_NAMED_ORDERS = (
    (re.compile("4[12][12]|4M[12]"), "ymd"),
    (re.compile("[12]M[24]?"), "dmy"),
    (re.compile("M[12][24]?"), "mdy"),
)
_YEARLESS = re.compile("[12][12]|[12]M|M[12]")
"""Shapes of dates: see _shape."""

_TOKEN = re.compile(r"\d+|[^\W\d_]+")
_ODD = re.compile(r"[^\w\s/.,'()!-]|_")
_TODAY = "today"

MONTHS: dict[str, int] = {
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
    for word in words(listed)
}
"""Folded. No word of one language is another month in another."""

_IGNORED = words(
    "monday, mon, tuesday, tue, tues, wednesday, wed, thursday, thu, thur, thurs, friday, fri, saturday, sat, sunday, sun",
    "lundi, lun, mardi, mercredi, mer, jeudi, jeu, vendredi, ven, samedi, sam, dimanche, dim",
    "mandag, man, tirsdag, tirs, tir, onsdag, ons, torsdag, tors, tor, fredag, fre, lordag, lor, sondag, son",
    "on, the, of, st, nd, rd, th, le, du, de, er, e, den, i, av",
)
"""Days of the week, and what stands before and after a number. What day of the week it is nobody checks."""

_NAMED: dict[str, int] = {
    word: days
    for days, listed in (
        (-2, "day before yesterday, avant hier, i forgars, iforgars, i forigars"),
        (-1, "yesterday, hier, i gar, igar"),
        (0, "today, aujourd hui, aujourdhui, auj, i dag, idag, dagens dato"),
        (1, "tomorrow, tomorow, tommorow, tmrw, tmr, demain, i morgen, imorgen"),
        (2, "day after tomorrow, apres demain, i overmorgen, overmorgen"),
    )
    for word in words(listed)
}


def read_date(reader: DateReader, sms: str, today: Today) -> Answer | Unread:
    day = _day(reader, fold(sms), today) if len(sms) <= _LONGEST else Unread("not_a_date")
    if isinstance(day, Unread):
        return day
    value = day.isoformat()
    if reader.min is not None and value < _limit(reader.min, today):
        return Unread("too_early")
    if reader.max is not None and value > _limit(reader.max, today):
        return Unread("too_late")
    return Answer(sms, value)


def _limit(written: str, today: Today) -> str:
    return today().isoformat() if written == _TODAY else written


def _day(reader: DateReader, text: str, today: Today) -> date | Unread:
    tokens = _TOKEN.findall(text)
    named = _NAMED.get(" ".join(tokens).removeprefix("the "))
    if named is not None:
        return today() + timedelta(days=named)
    if tokens[:1] == ["mar"] and any(token in MONTHS for token in tokens[1:]):
        del tokens[0]  # mardi
    tokens = [token for token in tokens if token not in _IGNORED]
    shape = "".join(map(_shape, tokens))
    if _ODD.search(text) or "?" in shape:
        return Unread("not_a_date")
    numbers = [MONTHS.get(token) or int(token) for token in tokens]
    if _YEARLESS.fullmatch(shape):
        known = any(_real(order, [*numbers, 2000]) for order in _orders(reader, shape))
        return Unread("no_year" if known else "not_a_date")
    if shape == "8":
        return _in_a_row(reader, tokens[0])
    for order in _orders(reader, shape):
        if shape[order.index("y")] == "2":
            numbers[2] = _in_full(numbers[2], reader, today)
        if day := _real(order, numbers):
            return day
    return Unread("no_such_day" if _orders(reader, shape) else "not_a_date")


def _shape(token: str) -> str:
    """M for a month's name, how many digits a number has, ? for any other word."""
    if token in MONTHS:
        return "M"
    return str(min(len(token), 9)) if token.isdecimal() else "?"


def _orders(reader: DateReader, shape: str) -> tuple[str, ...]:
    """In which orders a date of this shape may be written, the likelier one first; none if it is no date."""
    if re.fullmatch("[12][12][24]?", shape):
        return ("dmy", "mdy") if reader.order == "dmy" else ("mdy", "dmy")
    return tuple(order for written, order in _NAMED_ORDERS if written.fullmatch(shape))


def _in_a_row(reader: DateReader, digits: str) -> date | Unread:
    """`21112026` or `20261121`. No eight digits are a day of these centuries both ways."""
    ends = [int(digits[:2]), int(digits[2:4]), int(digits[4:])]
    begins = [int(digits[:4]), int(digits[4:6]), int(digits[6:])]
    for order, numbers in [("ymd", begins), *((order, ends) for order in _orders(reader, "224"))]:
        day = _real(order, numbers)
        if day is not None and day.year in _RECENT:
            return day
    return Unread("not_a_date")


def _real(order: str, numbers: list[int]) -> date | None:
    """The day of which `numbers` are day, month and year in this order; None if there is no such day."""
    told = dict(zip(order, numbers, strict=False))
    try:
        return date(told["y"], told["m"], told["d"]) if told["y"] >= _FIRST_YEAR else None
    except ValueError:
        return None


def _in_full(year: int, reader: DateReader, today: Today) -> int:
    """A year of two digits: the last such year that is not too late, and no more than _AHEAD years ahead."""
    last = today().year + _AHEAD
    if reader.max is not None:
        last = min(last, int(_limit(reader.max, today)[:4]))
    return last - (last - year) % 100
