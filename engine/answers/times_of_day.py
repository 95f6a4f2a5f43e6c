"""The answer type `time`: at what time of day? `14:30`, `2 pm`, `14h30`, among a few words, in English, French, Norwegian.

A time is read where there is no doubt which half of the day it is in: there is am or pm, or `in the morning`; it is
written as a clock of 24 hours does, with two digits and minutes, or from 13 on, or with a French h. `8:30` and `at 8`
may be of the morning or the evening, and are asked again, whatever the limits are: who wants to come at 8 does not know
them. A day begins at 00:00, and no range goes beyond its end.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, time
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
from engine.answers.number_parsing import CLOCK_WORDS, NUMBER_CHANGING_WORDS
from engine.answers.proof_terms import AskedConditions, TextWidth
from engine.answers.range_wording import range_phrase
from engine.answers.translations import Translated, TranslatedLimits
from engine.answers.vocabulary import word_set
from engine.model.events import Answer
from engine.model.text_normalization import fold_text

_LONGEST_TIME = 80
"""Characters in which a time is looked for."""

_MOST_WORDS = 8

_CLOCK_TIME = re.compile(
    r"(?<![\w+*#/$€£-])(?<!\d[.,:])"
    r"(?P<hour>\d{1,2})"
    r"(?: ?(?:(?P<colon>:)|\.) ?(?P<minute>\d\d)"
    r"| ?(?P<french>h|heures?)(?: ?(?P<after_h>\d\d))?|(?P<joined>\d\d))?"
    r"(?: ?(?:h|hrs|hours|uhr|o'? ?clock))?"
    r"(?: ?(?P<half>[ap])\.? ?m\b\.?)?"
    r"(?![\w:/%°$€£+*#-])"
)
"""In folded text: `14:30`, `14.30`, `14h30`, `14h`, `1430`, `2:30 p.m.`, `2pm`, `14`."""

_LETTER_RUN = re.compile(r"[^\W\d_]+")
_WRITTEN_TIME = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")

_HALF_WORDS: dict[str, str] = dict.fromkeys(
    word_set("morning, matin, matinee, morgenen, formiddag, formiddagen"), "a"
) | dict.fromkeys(
    word_set("afternoon, evening, tonight, soir, soiree, ettermiddag, ettermiddagen, kveld, kvelden"), "p"
)
"""Which half of the day they tell, folded. `i morgen` is tomorrow."""

_AFTERNOON = re.compile(r"\bapres[ -]midi\b")

_NAMED_TIMES: dict[str, str] = dict.fromkeys(word_set("noon, midday, midi"), "12:00") | dict.fromkeys(
    word_set("midnight, minuit, midnatt"), "00:00"
)

_INTRODUCTIONS = word_set(
    "at, about, around, approximately, o, clock, oclock, sharp, the",
    "it, s, is, please, pls, thanks, ok, okay, yes",
    "today, tomorrow",
    "a, vers, environ, c, est, s, il, vous, plait, svp, merci, le, oui, aujourd, hui, demain",
    "kl, klokka, klokken, ca, cirka, circa, rundt, omkring, takk, det, er, den, ja, i, dag, morgen",
)
"""Words beside a number, folded, that leave it a time where nothing else says that it is one."""

_TIME_CHANGING_WORDS = NUMBER_CHANGING_WORDS - CLOCK_WORDS - {"up", "des"} | word_set(
    "before, after, until, till, by, since, from, between",
    "past, or, within, ago, later, earlier, than, night",
    "minute, minutes, min, mins",
    "avant, apres, jusqu, jusque, depuis, entre, ou, dans, et, plus, tard, tot, nuit",
    "for, etter, innen, siden, mellom, fra, eller, senest, tidligst, over, pa, natt, natten, timer, minutter",
)
"""Words, folded, with which a time is another one, a range or a duration."""

_DURATION = re.compile(r"\b(?:in|om|i) $")
"""Before a number: `in 2 h`, `om 2`. It is a while from now."""

_NOT_A_TIME = Refusal(
    "not_a_time",
    Translated(
        en="We found no time in that.",
        fr="Nous n'y trouvons pas d'heure.",
        no="Vi fant ikke noe klokkeslett i det.",
    ),
    "it is no time of day",
)
_AMBIGUOUS_TIME = Refusal(
    "ambiguous",
    Translated(
        en="We cannot tell which time that is.",
        fr="Nous ne savons pas de quelle heure il s'agit.",
        no="Vi ser ikke hvilket klokkeslett det er.",
    ),
    "it can be read as more than one time, or as a range of times",
)
_AM_OR_PM = Refusal(
    "am_or_pm",
    Translated(
        en="We cannot tell whether that is am or pm.",
        fr="Nous ne savons pas si c'est le matin ou le soir.",
        no="Vi ser ikke om det er om morgenen eller om kvelden.",
    ),
    "it may be of the morning or of the evening",
)
_NO_SUCH_TIME = Refusal(
    "no_such_time",
    Translated(
        en="There is no such time.",
        fr="Cette heure n'existe pas.",
        no="Det klokkeslettet finnes ikke.",
    ),
    "there is no such time",
)
_TOO_EARLY = Refusal(
    "too_early",
    Translated(en="That is too early.", fr="Cette heure est trop matinale.", no="Det er for tidlig."),
    "it is too early",
)
_TOO_LATE = Refusal(
    "too_late",
    Translated(en="That is too late.", fr="Cette heure est trop tardive.", no="Det er for sent."),
    "it is too late",
)

_EXPECTED_TIME = Translated(
    en="Please answer with a time such as {example}{limits}.",
    fr="Veuillez répondre par une heure comme {example}{limits}.",
    no="Svar med et klokkeslett, for eksempel {example}{limits}.",
)
_TIME_LIMITS = TranslatedLimits(
    low=Translated(en=", {low} or later", fr=", {low} ou plus tard", no=", tidligst {low}"),
    high=Translated(en=", {high} or earlier", fr=", {high} ou avant", no=", senest {high}"),
    both=Translated(en=", from {low} to {high}", fr=", de {low} à {high}", no=", fra {low} til {high}"),
)
_TIME_FORMAT = Translated(en="%H:%M", fr="%Hh%M", no="%H.%M")
_EXAMPLE_TIME = "14:30"
"""A time that no clock of 12 hours has."""


class TimeAnswer(AnswerSpec, frozen=True, tag="time"):
    """A time of day; `min` and `max` are HH:MM, of 24 hours."""

    min: str | None = None
    max: str | None = None

    field_descriptions: ClassVar[Mapping[str, str]] = {
        "type": "A time of day, such as 14:30 or 2 pm; stored as HH:MM, of 24 hours.",
        "min": "The first time that is taken: HH:MM, of 24 hours.",
        "max": "The last time that is taken: HH:MM, of 24 hours.",
    }
    schema_limits: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        name: {"pattern": f"^({_WRITTEN_TIME.pattern})$"} for name in ("min", "max")
    }

    def compile_reader(self, report: ReportProblem) -> "TimeReader":
        low, high = _check_limit("min", self.min, report), _check_limit("max", self.max, report)
        if low is not None and high is not None and low > high:
            report(f"field answer: no time of a day, which begins at 00:00, lies between {low} and {high}")
        return TimeReader(low, high)

    def describe_values(self) -> ValueDescription:
        return ValueDescription("time", self.min, self.max)

    def check_bound(self, bound: float | str, step: str, report: ReportProblem) -> None:
        del step
        _check_compared_time(bound, report)

    def convert_compared(self, written: ComparedValue, step: str, report: ReportProblem) -> ComparedValue:
        del step
        _check_compared_time(written, report)
        return written

    @staticmethod
    def bound_preposition(bound: str) -> str:
        return "at" if _is_written_time(bound) else ""


def _check_limit(name: str, written: str | None, report: ReportProblem) -> str | None:
    if written is None or _is_written_time(written):
        return written
    report(f"field answer.{name}: found '{written}', expected HH:MM, such as 08:30 or 14:00")
    return None


def _check_compared_time(written: object, report: ReportProblem) -> None:
    if not _is_written_time(written):
        report(f"found '{written}', expected a time as HH:MM, such as 08:30 or 14:00")


def _is_written_time(written: object) -> bool:
    """HH:MM, and such a time?"""
    return isinstance(written, str) and _WRITTEN_TIME.fullmatch(written) is not None


class TimeReader(AnswerReader, frozen=True):
    """`min` and `max` are HH:MM."""

    min: str | None = None
    max: str | None = None

    region_values = "alike"

    def read_reply(self, sms: str, today: Today) -> Answer | InvalidAnswer:
        del today
        value = _find_time(fold_text(sms)) if len(sms) <= _LONGEST_TIME else _NOT_A_TIME
        if isinstance(value, Refusal):
            return InvalidAnswer(value.reason)
        if self.min is not None and value < self.min:
            return InvalidAnswer(_TOO_EARLY.reason)
        if self.max is not None and value > self.max:
            return InvalidAnswer(_TOO_LATE.reason)
        return Answer(sms, value)

    def list_refusals(self) -> tuple[Refusal, ...]:
        return (
            _NOT_A_TIME,
            _AMBIGUOUS_TIME,
            _AM_OR_PM,
            _NO_SUCH_TIME,
            *((_TOO_EARLY,) if self.min is not None else ()),
            *((_TOO_LATE,) if self.max is not None else ()),
        )

    def expected_answer(self, language: str) -> str:
        form = _TIME_FORMAT.say(language)
        low, high = (
            None if limit is None else time.fromisoformat(limit).strftime(form)
            for limit in (self.min, self.max)
        )
        example = time.fromisoformat(self.max or self.min or _EXAMPLE_TIME).strftime(form)
        limits = _TIME_LIMITS.say_limits(language, low, high)
        return _EXPECTED_TIME.say(language).format(example=example, limits=limits)

    def describe_answers(self) -> str:
        return range_phrase("time", self.min, self.max, f"from {self.min} to {self.max}")

    def put_in_text(self, words: SlotWords) -> TextWidth:
        del words
        return TextWidth(len("HH:MM"))

    def candidate_replies(self, asked: AskedConditions, today: date) -> Iterator[str]:
        """The minutes at and beside the points where something changes."""
        del today
        points = (self.min, self.max, *asked.bounds, _EXAMPLE_TIME)
        for point in dict.fromkeys(point for point in points if _is_written_time(point)):
            hour, minute = map(int, str(point).split(":"))
            for minutes in range(hour * 60 + minute - 1, hour * 60 + minute + 2):
                if 0 <= minutes < 24 * 60:
                    yield _format_time(*divmod(minutes, 60))

    def reaches_every_region(self, asked: AskedConditions) -> bool:
        return not asked.asks_of_spelling

    def invalid_replies(self) -> Iterable[str]:
        return ("?", "14:30 or 15:00", "8:30", "25:00", "00:00", "23:59")


def _find_time(text: str) -> str | Refusal:
    """The one time of day in folded text, as HH:MM."""
    text = _AFTERNOON.sub("afternoon", text)
    found = list(_CLOCK_TIME.finditer(text))
    if len(found) > 1:
        return _AMBIGUOUS_TIME
    if not found:
        return _find_named_time(text)
    (written,) = found
    before, after = text[: written.start()], text[written.end() :]
    words = _LETTER_RUN.findall(f"{before} {after}")
    halves = {_HALF_WORDS[word] for word in words if word in _HALF_WORDS}
    around = [word for word in words if word not in _HALF_WORDS]
    says_time = bool(halves) or any(written.group("colon", "french", "half"))
    if (
        any(map(str.isdecimal, before + after))
        or len(words) > _MOST_WORDS
        or not (says_time or _INTRODUCTIONS.issuperset(around))
    ):
        return _NOT_A_TIME
    if _DURATION.search(before) or not _TIME_CHANGING_WORDS.isdisjoint(around):
        return _AMBIGUOUS_TIME
    return _resolve_clock_time(written, halves, says_time=says_time)


def _find_named_time(text: str) -> str | Refusal:
    words = _LETTER_RUN.findall(text)
    named = {_NAMED_TIMES[word] for word in words if word in _NAMED_TIMES}
    alone = _INTRODUCTIONS.issuperset(word for word in words if word not in _NAMED_TIMES)
    return named.pop() if len(named) == 1 and alone else _NOT_A_TIME


def _resolve_clock_time(written: re.Match[str], halves: set[str], *, says_time: bool) -> str | Refusal:
    """HH:MM of a time as it is written, where the words beside it tell these halves of the day."""
    minutes = written["minute"] or written["after_h"] or written["joined"]
    hour, minute = int(written["hour"]), int(minutes or 0)
    if hour > 23 or minute > 59:
        return _NO_SUCH_TIME if says_time or minutes else _NOT_A_TIME
    if halves or written["half"]:
        return _resolve_half(hour, minute, halves, written["half"])
    if not says_time and not minutes and not hour:
        return _NOT_A_TIME  # a mere 0 is none at all
    two_digits = len(written["hour"]) == 2 and minutes
    if written["french"] or written["hour"].startswith("0") or hour > 12 or two_digits:
        return _format_time(hour, minute)
    return _AM_OR_PM


def _resolve_half(hour: int, minute: int, halves: set[str], written: str | None) -> str | Refusal:
    """`halves` are those that words tell, `written` is that of am or pm."""
    every = halves | ({written} if written else set())
    if len(every) > 1:
        return _AMBIGUOUS_TIME
    if hour == 12 and not written:
        return _AM_OR_PM  # nobody knows what 12 in the morning is
    if every == {"a"}:
        return _format_time(hour % 12, minute) if hour <= 12 else _NO_SUCH_TIME
    return _format_time(hour % 12 + 12, minute) if hour else _NO_SUCH_TIME


def _format_time(hour: int, minute: int) -> str:
    return f"{hour:02}:{minute:02}"
