"""Which number does a reply give? Read as people write it, among a few words if need be; what numbers and scales share.

A reply gives a number if it holds one run of digits, and nothing about it that makes another number of it: a second
run, a bound, a half, a thousand, a "not". `1,250` is a thousand to one reader and one and a quarter to another. A
time, a date, a phone number and a face such as `:3` are no numbers. Among words, 2 and 4 are often "to" and "for": they
count only if each of the words is one that stands beside numbers.
"""

import re
from itertools import takewhile

import msgspec

from engine.answers.answer_type import LONGEST_REPLY, InvalidAnswer, Refusal, ReportProblem
from engine.answers.translations import Translated, TranslatedLimits
from engine.answers.vocabulary import (
    MONTH_NUMBERS,
    NUMBER_WORDS,
    UNAMBIGUOUS_NUMBER_WORDS,
    has_emoticon,
    word_set,
)
from engine.model.text_normalization import clean_text, fold_text, fold_word

_LARGEST_EXACT = 2**53
"""Whole numbers up to here are kept as int; msgpack holds no more than 64 bits."""

_LONGEST_NUMBER = 80
"""Characters in which a number is looked for."""

_MOST_WORDS = 8

_PHONE_DIGITS = 8
"""Digits from which a number that begins with + or 0 is a phone number, or a code."""

_PLAIN_NUMBER = re.compile(r"([+-]?)(?=[\d.,])(\d*)(?:([.,])(\d+))?")
DIGIT_RUN = re.compile(
    r"(?<!\d)[1-9]\d{0,2}"  # 1 250 or 1'250,50; 1,250.50 or 1,250,000; 1.250,50 or 1.250.000
    r"(?:(?:[ ']\d{3})+(?:[.,]\d+)?|(?:,\d{3})+\.\d+|(?:\.\d{3})+,\d+"
    r"|(?:,\d{3}){2,}|(?:\.\d{3}){2,})(?![.,]?\d)"
    r"|\d+(?:[.,]\d+)?"
    r"|(?<![^\s(])[.,]\d+"
)
_LETTER_RUN = re.compile(r"[^\W\d_]+|🔟")

_SPELLED_ALIKE = str.maketrans(
    dict.fromkeys("\u2212\u2013", "-")
    | dict.fromkeys("\u2018\u2019", "'")
    | dict.fromkeys("\xba\u02da", "°")  # Spanish keyboards; NFKC makes letters of them
    | dict.fromkeys("\xb2\xb3\xb9⁰⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉", "^")  # and digits of these
    | {"\u066b": ".", "\u066c": ",", "\u20e3": ""}  # Arabic points; what draws a key around a digit
)

_UNIT_WORDS = word_set(
    "c, f, kg, g, mg, t, km, m, cm, mm, lb, lbs, oz, st, ft, l, dl, cl, ml, x, pcs, stk, fois",
    "h, hr, hrs, hour, hours, min, mins, s, sec, d, days, j, jour, jours, mois, y, yr, yrs, yo",
    "an, ans, ar",
    "er, e, eme, nd, rd, th",
    "eur, euro, euros, kr, nok, usd, gbp",
)
"""What may follow a digit without a blank, folded. `2day` and `4ever` are no numbers."""

_FORBIDDEN_NEIGHBOURS = frozenset("/\\^+-*\xd7÷@_~#%&=|<>≤≥±")
_FORBIDDEN_BEFORE = _FORBIDDEN_NEIGHBOURS - frozenset("~#=*")
_FORBIDDEN_AFTER = _FORBIDDEN_NEIGHBOURS - frozenset("%")
"""No number has such a character before it, or after it."""

CLOCK_WORDS = word_set("am, pm, clock, oclock, klokka, klokken, kl, noon, midnight")

NUMBER_CHANGING_WORDS = CLOCK_WORDS | word_set(
    "half, halves, demi, demie, halv, halve, halvt, halvannen, quarter, quarters, quart, quarts, kvart",
    "hundred, hundreds, thousand, thousands, million, millions, billion, billions, dozen, dozens, k",
    "cent, cents, mille, millier, milliers, milliard, milliards, douzaine, hundre, tusen",
    "millioner, dusin, lakh, lakhs, lac, lacs, crore, crores, mil, mio, mln, bn, trillion",
    "trillions, milliarder, couple, grand",
    "not, never, none, without, except, neither, nor, pas, jamais, aucun, aucune, sans, sauf",
    "ikke, aldri, ingen, uten, cannot, cant, dont, doesnt, didnt, havent, hasnt, hadnt, isnt",
    "arent, wasnt, werent, wont, couldnt, wouldnt, shouldnt, aint, don, doesn, didn, haven, hasn",
    "hadn, isn, aren, wasn",
    "weren, couldn, wouldn, shouldn, ain",
    "over, under, above, below, more, less, fewer, least, most, plus, moins, mer, mindre, minst",
    "max, maximum, maks, maksimum, maksimalt, minimum, minimalt, up, upto, jusqu, jusque, opptil",
    "inntil, hoyst",
    "minus, negative, negatif",
    "eleven, twelve, thirteen, fourteen, fifteen, sixteen, seventeen, eighteen, nineteen",
    "twenty, thirty, forty, fifty, sixty, seventy, eighty, ninety",
    "onze, douze, treize, quatorze, quinze, seize",
    "vingt, trente, quarante, cinquante, soixante, septante, huitante, nonante",
    "elleve, tolv, tretten, fjorten, femten, seksten, sytten, atten, nitten",
    "tjue, tretti, forti, femti, seksti, sytti, atti, nitti",
).union(MONTH_NUMBERS, (word for word, number in UNAMBIGUOUS_NUMBER_WORDS.items() if number > 1))
"""Words, folded, with which a number is another one, or a part of one, a time or a date."""

_SHORT_NEGATION = re.compile(r"\w{1,6}n't\b")
_LOWER_BOUND = re.compile(r"\bmin[ .:]*$")
"""`min 5`; `5 min` are minutes."""

_NUMBERS_OF_WORDS = ("2", "4")
"""At least 99 of 387 in the NUS SMS Corpus are "to" and "for"."""

_WORDS_BESIDE_NUMBERS = (
    word_set(
        "he, she, they, age, aged, rooms, cars, guests, visits, meals, doses, drinks, beers, glasses",
        "bottles, cigarettes, units, sommes, serons, on, vous, chambres, repas, verres, bieres",
        "i, im, ive, id, m, ve, d, s, t, am, is, it, its, that, thats, there, are, we, my, was",
        "were, had, have, has, got, say, think, guess, take, took, about, around, approx",
        "approximately, only, just, exactly, maybe, perhaps, or, so, now, today, yes, ok, hi",
        "hello, the, a, of, them, option, answer, number, no, nr, n, temp, temperature, degrees",
        "degree, celsius, fahrenheit, percent, times, time, please, pls, plz, thanks, thank, you",
        "thx, sir, in, total, all, kid, kids, child, children, people, persons, person, adults",
        "girls, boys, tablet, tablets, pill, pills, cups, items, second, seconds, minute",
        "minutes, hour, hours, day, days, week, weeks, month, months, year, years, old, ago, each",
        "per, night, nights, km, miles, pounds, dollars, stars, points, pieces, pcs",
        "j, ai, je, c, ce, cest, est, il, y, a, ya, en, et, avons, nous, avais, etait, environ",
        "seulement, juste, peut, etre, oui, merci, svp, degres, fois, enfant, enfants, personnes",
        "jour, jours, semaine, semaines, mois, an, ans, heure, heures, minutes, comprimes",
        "numero, reponse, choix, le, la, les, des, de, ils, elles, sont, note, jeg, har, er, det",
        "ca, cirka, omtrent, bare, kun, kanskje, tror, vi, hadde, var, ja, takk, grader, prosent",
        "ganger, gang, barn, personer, dag, dager, uke, uker, maned, maneder, ar, time, timer",
        "minutter, tabletter, stk, svar, valg",
        "nummer, alternativ, der, noen, her, litt",
    )
    | _UNIT_WORDS
)
"""Folded: beside these, 2 and 4 are numbers."""


NOT_A_NUMBER = Refusal(
    "not_a_number",
    Translated(
        en="We found no number in that.",
        fr="Nous n'y trouvons pas de nombre.",
        no="Vi fant ikke noe tall i det.",
    ),
    "it is no number",
)
AMBIGUOUS_NUMBER = Refusal(
    "ambiguous",
    Translated(
        en="We cannot tell which number that is.",
        fr="Nous ne savons pas de quel nombre il s'agit.",
        no="Vi ser ikke hvilket tall det er.",
    ),
    "it can be read as more than one number",
)
TOO_LOW = Refusal(
    "too_low",
    Translated(en="That is too low.", fr="Ce nombre est trop petit.", no="Det er for lavt."),
    "it is too low",
)
TOO_HIGH = Refusal(
    "too_high",
    Translated(en="That is too high.", fr="Ce nombre est trop grand.", no="Det er for høyt."),
    "it is too high",
)

EXPECTED_NUMBER = Translated(
    en="Please answer with a number{limits}.",
    fr="Veuillez répondre par un nombre{limits}.",
    no="Svar med et tall{limits}.",
)
EXPECTED_WHOLE_NUMBER = Translated(
    en="Please answer with a whole number{limits}.",
    fr="Veuillez répondre par un nombre entier{limits}.",
    no="Svar med et helt tall{limits}.",
)
NUMBER_LIMITS = TranslatedLimits(
    low=Translated(en=" of at least {low}", fr=" d'au moins {low}", no=" på minst {low}"),
    high=Translated(en=" of at most {high}", fr=" d'au plus {high}", no=" på høyst {high}"),
    both=Translated(en=" from {low} to {high}", fr=" de {low} à {high}", no=" fra {low} til {high}"),
)


def check_number_bound(bound: object, report: ReportProblem) -> None:
    """Numbers are compared with numbers."""
    if isinstance(bound, str):
        report(f"found '{bound}', expected a number")


def check_compared_number(written: object, step: str, report: ReportProblem) -> None:
    """Numbers equal numbers only."""
    if isinstance(written, bool) or not isinstance(written, (int, float)):
        report(f"found '{written}', but the answer to '{step}' is a number")


class ParsedNumber(msgspec.Struct, frozen=True):
    """A number, and how many digits were after its point."""

    value: int | float
    decimals: int


def find_number(sms: str) -> ParsedNumber | InvalidAnswer:
    found = _PLAIN_NUMBER.fullmatch(sms) if len(sms) <= _LONGEST_NUMBER else None
    if found is None:
        text = clean_text(sms.translate(_SPELLED_ALIKE)) if len(sms) <= LONGEST_REPLY else sms
        if len(text) > _LONGEST_NUMBER:
            return InvalidAnswer(NOT_A_NUMBER.reason)
        found = _PLAIN_NUMBER.fullmatch(text)
        if found is None:
            return _number_among(text)
    sign, whole, separator, fraction = found.groups()
    return _number_from_parts(sign, whole, separator, fraction)


def _number_from_parts(
    sign: str, whole: str, separator: str | None, fraction: str | None
) -> ParsedNumber | InvalidAnswer:
    if separator == "," and fraction and len(fraction) == 3 and whole.lstrip("0"):
        return InvalidAnswer(AMBIGUOUS_NUMBER.reason)
    if len(whole) >= _PHONE_DIGITS and (sign == "+" or whole[0] == "0"):
        return InvalidAnswer(NOT_A_NUMBER.reason)
    if fraction:
        return ParsedNumber(float(f"{sign}{whole}.{fraction}") + 0.0, len(fraction))  # -0.0 becomes 0.0
    number = int(sign + whole)
    return ParsedNumber(number if abs(number) < _LARGEST_EXACT else float(number), 0)


def _number_among(text: str) -> ParsedNumber | InvalidAnswer:
    """The one number among a few words, or the word that is a number."""
    runs = list(DIGIT_RUN.finditer(text))
    if not runs:
        number = NUMBER_WORDS.get(fold_word(text))
        return InvalidAnswer(NOT_A_NUMBER.reason) if number is None else ParsedNumber(number, 0)
    before, after = text[: runs[0].start()], text[runs[-1].end() :]
    sign = ""
    if before[-1:] in ("+", "-"):
        before, sign = before[:-1], before[-1]
    if has_emoticon(text.lower()):
        return InvalidAnswer(NOT_A_NUMBER.reason)
    if len(runs) > 1 or not stands_alone(before, after):
        return InvalidAnswer(AMBIGUOUS_NUMBER.reason)
    if runs[0].group() in _NUMBERS_OF_WORDS and not sign and _may_be_word(before, after):
        return InvalidAnswer(AMBIGUOUS_NUMBER.reason)
    return _number_from_parts(sign, *_split_digit_run(runs[0].group()))


def stands_alone(before: str, after: str) -> bool:
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
    words = fold_text(f"{before} {after}")
    around = _LETTER_RUN.findall(words)
    return (
        len(around) <= _MOST_WORDS
        and NUMBER_CHANGING_WORDS.isdisjoint(around)
        and not _SHORT_NEGATION.search(words)
        and not _LOWER_BOUND.search(fold_text(before))
    )


def _may_be_word(before: str, after: str) -> bool:
    """May a 2 or a 4 between these be "to" or "for"? Not with a unit at it, such as `2kg`."""
    return not after[:1].isalpha() and not _WORDS_BESIDE_NUMBERS.issuperset(
        _LETTER_RUN.findall(fold_text(f"{before} {after}"))
    )


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
