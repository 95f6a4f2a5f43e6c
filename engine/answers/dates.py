"""The answer type `date`: which day does a reply give? In digits or with the month's name, in English, French and Norwegian.

A date in digits is read in the order that the author says, and in the other one if only that makes a day. A day
without its year is none: nobody can tell whether it has been or will be. Among a few words, one whole date is read, if
none of the words makes another day of it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, timedelta
from typing import Any, ClassVar

from engine.answers.answer_type import (
    AnswerReader,
    AnswerSpec,
    ComparedValue,
    InvalidAnswer,
    Refusal,
    ReportProblem,
    SlotWords,
    Today,
    ValueDescription,
)
from engine.answers.proof_terms import AskedConditions, TextWidth
from engine.answers.range_wording import range_phrase
from engine.answers.translations import Translated, TranslatedLimits
from engine.answers.vocabulary import MONTH_NUMBERS, word_set
from engine.model.events import Answer
from engine.model.local_formats import WIDEST_DAY_FORM, DayOrder, day_form, format_day
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
"""The shapes (see _token_shape) of dates without a year."""

_DATE_TOKEN = re.compile(r"\d+|[^\W\d_]+")
_UNEXPECTED_CHARACTER = re.compile(r"[^\w\s/.,'()!?:-]|_|(?<=\d):(?=\d)")
_JOINED_DIGITS = re.compile(r"\d{1,4}([/.-])\d{1,2}\1\d{1,4}")
_MOST_WORDS = 8
_TODAY = "today"

_IGNORED_WORDS = word_set(
    "monday, mon, tuesday, tue, tues, wednesday, wed, thursday",
    "thu, thur, thurs, friday, fri, saturday, sat, sunday, sun",
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

_DATE_CHANGING_WORDS = (
    word_set(
        "not, never, no, none, or, and, to, between, before, after, until, till, by, since, from, around",
        "about, circa, ca, approx, approximately, ago, later, earlier, week, weeks, day, days, month",
        "months, except, without, than, both, either, next, t, dont, didnt, doesnt, isnt, wasnt, wont",
        "pas, jamais, non, ou, et, entre, avant, apres, depuis, jusqu, jusque, environ, vers, semaine",
        "semaines, jour, jours, mois, au, a, sauf, sans, plus, tot, tard, prochain, prochaine",
        "ikke, aldri, nei, eller, og, til, mellom, for, etter, innen, siden, fra, rundt, omtrent, cirka",
        "uke, uker, dag, dager, maned, maneder, neste, uten, enn, senere, tidligere",
    ).union(*(phrase.split() for phrase in _RELATIVE_DAYS))
    - _IGNORED_WORDS
)
"""Folded: beside such a word a date is another day, several of them, or none."""


_NOT_A_DATE = Refusal(
    "not_a_date",
    Translated(
        en="We found no date in that.",
        fr="Nous n'y trouvons pas de date.",
        no="Vi fant ingen dato i det.",
    ),
    "it is no date",
)
_NO_YEAR = Refusal(
    "no_year",
    Translated(en="The year is missing.", fr="Il manque l'année.", no="Årstallet mangler."),
    "it is a date without a year",
)
_NO_SUCH_DAY = Refusal(
    "no_such_day",
    Translated(en="There is no such day.", fr="Ce jour n'existe pas.", no="Den dagen finnes ikke."),
    "there is no such day",
)
_TOO_EARLY = Refusal(
    "too_early",
    Translated(en="That is too early.", fr="Cette date est trop ancienne.", no="Det er for tidlig."),
    "it is too early",
)
_TOO_LATE = Refusal(
    "too_late",
    Translated(en="That is too late.", fr="Cette date est trop tardive.", no="Det er for sent."),
    "it is too late",
)

_EXPECTED_DATE = Translated(
    en="Please answer with a date such as {example}{limits}.",
    fr="Veuillez répondre par une date comme {example}{limits}.",
    no="Svar med en dato, for eksempel {example}{limits}.",
)
_DATE_LIMITS = TranslatedLimits(
    low=Translated(en=", {low} or later", fr=", {low} ou plus tard", no=", tidligst {low}"),
    high=Translated(en=", {high} or earlier", fr=", {high} ou avant", no=", senest {high}"),
    both=Translated(
        en=", from {low} to {high}",
        fr=", au minimum {low}, au maximum {high}",
        no=", fra {low} til {high}",
    ),
)
_DATE_FORMATS = {
    "dmy": Translated(en="%d/%m/%Y", fr="%d/%m/%Y", no="%d.%m.%Y"),
    "mdy": Translated(en="%m/%d/%Y", fr="%m/%d/%Y", no="%m.%d.%Y"),
}
_TODAY_IN_TEXTS = Translated(en="today", fr="aujourd'hui", no="i dag")

_PAST_EXAMPLE = date(1999, 12, 31)
_FUTURE_EXAMPLE = date(2030, 12, 31)
"""Days to show how a date is written. Their 31 tells the day from the month."""


class DateAnswer(AnswerSpec, frozen=True, tag="date"):
    """`min` and `max` are YYYY-MM-DD or `today`; `order` says what 03/04/2026 is."""

    min: str | None = None
    max: str | None = None
    order: DayOrder = "dmy"

    field_descriptions: ClassVar[Mapping[str, str]] = {
        "type": "A day, in figures or words, such as 31/12/2026 or tomorrow; stored as YYYY-MM-DD.",
        "min": "The first day that is taken: YYYY-MM-DD or today.",
        "max": "The last day that is taken: YYYY-MM-DD or today.",
        "order": "How 03/04/2026 is read, and a day is said: dmy (the default) is 3 April, mdy is March 4.",
    }
    schema_limits: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        name: {"pattern": r"^([0-9]{4}-[0-9]{2}-[0-9]{2}|today)$"} for name in ("min", "max")
    }

    def compile_reader(self, report: ReportProblem) -> "DateReader":
        low = _check_limit("min", self.min, report)
        high = _check_limit("max", self.max, report)
        if _is_date(low) and _is_date(high) and str(low) > str(high):
            report(f"field answer: no day lies between {low} and {high}")
        return DateReader(low, high, self.order)

    def describe_values(self) -> ValueDescription:
        return ValueDescription("date", self.min, self.max)

    def slot_words(self, language: str) -> SlotWords:
        return SlotWords(day_form=day_form(language, self.order))

    def check_bound(self, bound: float | str, step: str, report: ReportProblem) -> None:
        del step
        _check_compared_date(bound, report)

    def convert_compared(self, written: ComparedValue, step: str, report: ReportProblem) -> ComparedValue:
        del step
        _check_compared_date(written, report)
        return written

    @staticmethod
    def bound_preposition(bound: str) -> str:
        return "on" if _is_date(bound) else ""


def _check_limit(name: str, written: str | None, report: ReportProblem) -> str | None:
    if written is None or written == _TODAY or _is_date(written):
        return written
    report(f"field answer.{name}: found '{written}', expected YYYY-MM-DD or today")
    return None


def _check_compared_date(written: object, report: ReportProblem) -> None:
    if not _is_date(written):
        report(f"found '{written}', expected a date as YYYY-MM-DD")


def _is_date(written: object) -> bool:
    """YYYY-MM-DD, and such a day?"""
    if not isinstance(written, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", written):
        return False
    try:
        date.fromisoformat(written)
    except ValueError:
        return False
    return True


class DateReader(AnswerReader, frozen=True):
    """`min` and `max` are YYYY-MM-DD, or "today"; `order` says what 03/04/2026 is."""

    min: str | None = None
    max: str | None = None
    order: DayOrder = "dmy"

    region_values = "alike"

    def read_reply(self, sms: str, today: Today) -> Answer | InvalidAnswer:
        day = (
            _parse_day(self, fold_text(sms), today)
            if len(sms) <= _LONGEST_DATE
            else InvalidAnswer(_NOT_A_DATE.reason)
        )
        if isinstance(day, InvalidAnswer):
            return day
        value = day.isoformat()
        if self.min is not None and value < _resolve_limit(self.min, today):
            return InvalidAnswer(_TOO_EARLY.reason)
        if self.max is not None and value > _resolve_limit(self.max, today):
            return InvalidAnswer(_TOO_LATE.reason)
        return Answer(sms, value)

    def list_refusals(self) -> tuple[Refusal, ...]:
        return (
            _NOT_A_DATE,
            _NO_YEAR,
            _NO_SUCH_DAY,
            *((_TOO_EARLY,) if self.min is not None else ()),
            *((_TOO_LATE,) if self.max is not None else ()),
        )

    def expected_answer(self, language: str) -> str:
        form = _DATE_FORMATS[self.order].say(language)
        low, high = (
            _TODAY_IN_TEXTS.say(language)
            if limit == _TODAY
            else limit and date.fromisoformat(limit).strftime(form)
            for limit in (self.min, self.max)
        )
        return _EXPECTED_DATE.say(language).format(
            example=self._example_day().strftime(form), limits=_DATE_LIMITS.say_limits(language, low, high)
        )

    def _example_day(self) -> date:
        """A day that is taken, if that can be known when the survey is read."""
        for limit in (self.max, self.min):
            if limit is not None and limit != _TODAY:
                return date.fromisoformat(limit)
        return _PAST_EXAMPLE if self.max else _FUTURE_EXAMPLE

    def describe_answers(self) -> str:
        return range_phrase("date", self.min, self.max, f"from {self.min} to {self.max}")

    def put_in_text(self, words: SlotWords) -> TextWidth:
        return TextWidth(len(format_day(_PAST_EXAMPLE.isoformat(), words.day_form or WIDEST_DAY_FORM)))

    def candidate_replies(self, asked: AskedConditions, today: date) -> Iterator[str]:
        limits = [day for each in (self.min, self.max) if each for day in _limit_days(each, today)]
        points = dict.fromkeys((*limits, *map(str, asked.bounds), today.isoformat()))
        for point in points:
            try:
                day = date.fromisoformat(point)
            except ValueError:
                continue
            for offset in (-1, 0, 1):
                if date.min.toordinal() <= day.toordinal() + offset <= date.max.toordinal():
                    yield (day + timedelta(days=offset)).isoformat()

    def reaches_every_region(self, asked: AskedConditions) -> bool:
        return _TODAY not in (self.min, self.max) and not asked.asks_of_spelling

    def invalid_replies(self) -> Iterable[str]:
        return ("?", "1/1", "31/02/2030", "31/2", "0001-01-01", "9999-12-31")


def _limit_days(limit: str, today: date) -> list[str]:
    """A limit as days; of today, days well away from it too, as a conversation can last beyond midnight."""
    if limit != _TODAY:
        return [limit]
    return [(today + timedelta(days=days)).isoformat() for days in (400, -400, 0)]


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
    if _UNEXPECTED_CHARACTER.search(text):
        return InvalidAnswer(_NOT_A_DATE.reason)
    if "?" in shape:
        return _parse_among_words(reader, text, tokens, shape, today)
    return _parse_tokens(reader, tokens, shape, today)


def _parse_among_words(
    reader: DateReader, text: str, tokens: list[str], shape: str, today: Today
) -> date | InvalidAnswer:
    """The one whole date in a short sentence: all of it in one piece, and with its year."""
    core = shape.strip("?")
    start = len(shape) - len(shape.lstrip("?"))
    words = tokens[:start] + tokens[start + len(core) :]
    if len(words) > _MOST_WORDS or not _DATE_CHANGING_WORDS.isdisjoint(words) or "n't" in text:
        return InvalidAnswer(_NOT_A_DATE.reason)
    whole = _possible_orders(reader, core) and not _YEARLESS_SHAPE.fullmatch(core)
    if not whole or ("M" not in core and not _JOINED_DIGITS.search(text)):
        return InvalidAnswer(_NOT_A_DATE.reason)
    return _parse_tokens(reader, tokens[start : start + len(core)], core, today)


def _parse_tokens(reader: DateReader, tokens: list[str], shape: str, today: Today) -> date | InvalidAnswer:
    """The day that numbers and months' names of this shape give."""
    numbers = [MONTH_NUMBERS.get(token) or int(token) for token in tokens]
    if _YEARLESS_SHAPE.fullmatch(shape):
        known = any(_existing_date(order, [*numbers, 2000]) for order in _possible_orders(reader, shape))
        return InvalidAnswer((_NO_YEAR if known else _NOT_A_DATE).reason)
    if shape == "8":
        return _parse_eight_digits(reader, tokens[0])
    for order in _possible_orders(reader, shape):
        if shape[order.index("y")] == "2":
            numbers[2] = _full_year(numbers[2], reader, today)
        if day := _existing_date(order, numbers):
            return day
    return InvalidAnswer((_NO_SUCH_DAY if _possible_orders(reader, shape) else _NOT_A_DATE).reason)


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
    """Read eight digits as DDMMYYYY (or MMDDYYYY) or YYYYMMDD. No eight digits are a day between 1900 and 2099 both
    ways."""
    ends = [int(digits[:2]), int(digits[2:4]), int(digits[4:])]
    begins = [int(digits[:4]), int(digits[4:6]), int(digits[6:])]
    for order, numbers in [("ymd", begins), *((order, ends) for order in _possible_orders(reader, "224"))]:
        day = _existing_date(order, numbers)
        if day is not None and day.year in _RECENT_YEARS:
            return day
    return InvalidAnswer(_NOT_A_DATE.reason)


def _existing_date(order: str, numbers: list[int]) -> date | None:
    """The day of which `numbers` are day, month and year in this order; None if there is no such day."""
    told = dict(zip(order, numbers, strict=False))
    try:
        return date(told["y"], told["m"], told["d"]) if told["y"] >= _FIRST_YEAR else None
    except ValueError:
        return None


def _full_year(year: int, reader: DateReader, today: Today) -> int:
    """Complete a year of two digits: the last such year that is not after `reader.max`, and at most _YEARS_AHEAD
    years from now."""
    last = today().year + _YEARS_AHEAD
    if reader.max is not None:
        last = min(last, int(_resolve_limit(reader.max, today)[:4]))
    return last - (last - year) % 100
