"""What is said where the author of a survey wrote nothing: one table per language.

A language that has none gets English. Every sentence stays within GSM-7, so that it costs 160 characters a segment:
French without circumflexes and c cedilla. A refusal says what was wrong with the answer, then what is expected.
"""

from collections.abc import Mapping
from datetime import date
from typing import assert_never

import msgspec

from engine.answers import (
    AnythingReader,
    ChoiceReader,
    ChoicesReader,
    DateReader,
    InvalidReason,
    NumberReader,
    PhoneReader,
    PhpNumberReader,
    Reader,
    ScaleReader,
    TextReader,
    YesNoReader,
)
from engine.surveys.program import FixedText


class _LanguagePhrases(msgspec.Struct, frozen=True, kw_only=True):
    """A language's sentences, with places for names and numbers in braces.

    `expected` are by what an answer may be, see `_answer_expectation`; `limits` are what follows a number or a date: `low`
    is for a least one, `high` for a greatest one, `both` for a range. `dates` writes a day, by the order of its parts.
    """

    no: str
    yes: str
    fixed: Mapping[FixedText, str]
    wrong: Mapping[InvalidReason, str]
    expected: Mapping[str, str]
    number_limits: Mapping[str, str]
    date_limits: Mapping[str, str]
    dates: Mapping[str, str]
    today: str
    point: str


_ENGLISH = _LanguagePhrases(
    no="no",
    yes="yes",
    fixed={
        "unavailable": "This survey is complete, thank you. Text {keyword} to begin a new one.",
        "not_found": "No survey is open. Text {keyword} to begin.",
        "expired": "Your session has expired. Text {keyword} to begin again.",
        "stopped": "You are unsubscribed and will get no more messages. Text {keyword} to come back.",
        "help": "Text {keyword} to begin, STOP to get no more messages. Message and data rates may apply.",
        "opted_in": "You will get our messages again. Text {keyword} to begin, STOP to get no more.",
    },
    wrong={
        "too_short": "That is too short.",
        "too_long": "That is too long.",
        "pattern": "That is not written as we need it.",
        "not_a_number": "We found no number in that.",
        "ambiguous": "We cannot tell which number that is.",
        "decimals": "That has too many decimals.",
        "too_low": "That is too low.",
        "too_high": "That is too high.",
        "no_such_option": "That is not one of the options.",
        "too_few": "That is too few.",
        "too_many": "That is too many.",
        "not_yes_or_no": "That is neither yes nor no.",
        "not_a_date": "We found no date in that.",
        "no_year": "The year is missing.",
        "no_such_day": "There is no such day.",
        "too_early": "That is too early.",
        "too_late": "That is too late.",
        "not_a_phone": "We found no phone number in that.",
    },
    expected={
        "short_text": "Please answer in at most {max} characters.",
        "text": "Please answer in {min} to {max} characters.",
        "number": "Please answer with a number{limits}.",
        "whole": "Please answer with a whole number{limits}.",
        "one_decimal": "Please answer with a number{limits}, with at most one decimal.",
        "decimals": "Please answer with a number{limits}, with at most {decimals} decimals.",
        "yes_no": "Please answer yes or no.",
        "choice": "Please answer with a number from 1 to {count}.",
        "one_choice": "Please answer with one number from 1 to {count}.",
        "choices": "Please answer with {least} to {most} numbers from 1 to {count}, such as {example}.",
        "exact_choices": "Please answer with {least} numbers from 1 to {count}, such as {example}.",
        "date": "Please answer with a date such as {example}{limits}.",
        "phone": "Please answer with a phone number.",
        "world_phone": "Please answer with a phone number that begins with + and the country code.",
        "other": "Please check it and answer again.",
    },
    number_limits={
        "low": " of at least {low}",
        "high": " of at most {high}",
        "both": " from {low} to {high}",
    },
    date_limits={"low": ", {low} or later", "high": ", {high} or earlier", "both": ", from {low} to {high}"},
    dates={"dmy": "%d/%m/%Y", "mdy": "%m/%d/%Y"},
    today="today",
    point=".",
)
_FRENCH = _LanguagePhrases(
    no="non",
    yes="oui",
    fixed={
        "unavailable": "Ce questionnaire est terminé, merci. Envoyez {keyword} pour en commencer un nouveau.",
        "not_found": "Aucun questionnaire n'est ouvert. Envoyez {keyword} pour commencer.",
        "expired": "Votre session a expiré. Envoyez {keyword} pour recommencer.",
        "stopped": "Vous ne recevrez plus de messages. Envoyez {keyword} pour revenir.",
        "help": "Envoyez {keyword} pour commencer, STOP pour ne plus recevoir de messages.",
        "opted_in": "Vous recevrez de nouveau nos messages. Envoyez {keyword} pour commencer, STOP pour les refuser.",
    },
    wrong={
        "too_short": "C'est trop court.",
        "too_long": "C'est trop long.",
        "pattern": "Ce n'est pas écrit comme il le faut.",
        "not_a_number": "Nous n'y trouvons pas de nombre.",
        "ambiguous": "Nous ne savons pas de quel nombre il s'agit.",
        "decimals": "Il y a trop de décimales.",
        "too_low": "Ce nombre est trop petit.",
        "too_high": "Ce nombre est trop grand.",
        "no_such_option": "Ce n'est pas une des options.",
        "too_few": "Il en faut plus.",
        "too_many": "Il y en a trop.",
        "not_yes_or_no": "Ce n'est ni oui ni non.",
        "not_a_date": "Nous n'y trouvons pas de date.",
        "no_year": "Il manque l'année.",
        "no_such_day": "Ce jour n'existe pas.",
        "too_early": "Cette date est trop ancienne.",
        "too_late": "Cette date est trop tardive.",
        "not_a_phone": "Nous n'y trouvons pas de numéro de téléphone.",
    },
    expected={
        "short_text": "Veuillez répondre en {max} caractères au plus.",
        "text": "Veuillez répondre en {min} à {max} caractères.",
        "number": "Veuillez répondre par un nombre{limits}.",
        "whole": "Veuillez répondre par un nombre entier{limits}.",
        "one_decimal": "Veuillez répondre par un nombre{limits}, avec une décimale au plus.",
        "decimals": "Veuillez répondre par un nombre{limits}, avec {decimals} décimales au plus.",
        "yes_no": "Veuillez répondre oui ou non.",
        "choice": "Veuillez répondre par un nombre de 1 à {count}.",
        "one_choice": "Veuillez répondre par un seul nombre de 1 à {count}.",
        "choices": "Veuillez répondre par {least} à {most} nombres de 1 à {count}, comme {example}.",
        "exact_choices": "Veuillez répondre par {least} nombres de 1 à {count}, comme {example}.",
        "date": "Veuillez répondre par une date comme {example}{limits}.",
        "phone": "Veuillez répondre par un numéro de téléphone.",
        "world_phone": "Veuillez répondre par un numéro de téléphone qui commence par + et l'indicatif du pays.",
        "other": "Veuillez vérifier et répondre encore.",
    },
    number_limits={"low": " d'au moins {low}", "high": " d'au plus {high}", "both": " de {low} à {high}"},
    date_limits={
        "low": ", {low} ou plus tard",
        "high": ", {high} ou avant",
        "both": ", au minimum {low}, au maximum {high}",
    },
    dates={"dmy": "%d/%m/%Y", "mdy": "%m/%d/%Y"},
    today="aujourd'hui",
    point=",",
)
_NORWEGIAN = _LanguagePhrases(
    no="nei",
    yes="ja",
    fixed={
        "unavailable": "Undersøkelsen er fullført, takk. Send {keyword} for å begynne på en ny.",
        "not_found": "Ingen undersøkelse er åpen. Send {keyword} for å begynne.",
        "expired": "Økten din er utløpt. Send {keyword} for å begynne på nytt.",
        "stopped": "Du er avmeldt og får ikke flere meldinger. Send {keyword} for å komme tilbake.",
        "help": "Send {keyword} for å begynne, STOP for ikke å få flere meldinger.",
        "opted_in": "Du får meldinger fra oss igjen. Send {keyword} for å begynne, STOP for ikke å få flere.",
    },
    wrong={
        "too_short": "Det er for kort.",
        "too_long": "Det er for langt.",
        "pattern": "Det er ikke skrevet slik vi trenger det.",
        "not_a_number": "Vi fant ikke noe tall i det.",
        "ambiguous": "Vi ser ikke hvilket tall det er.",
        "decimals": "Det har for mange desimaler.",
        "too_low": "Det er for lavt.",
        "too_high": "Det er for høyt.",
        "no_such_option": "Det er ikke et av alternativene.",
        "too_few": "Det er for få.",
        "too_many": "Det er for mange.",
        "not_yes_or_no": "Det er verken ja eller nei.",
        "not_a_date": "Vi fant ingen dato i det.",
        "no_year": "Årstallet mangler.",
        "no_such_day": "Den dagen finnes ikke.",
        "too_early": "Det er for tidlig.",
        "too_late": "Det er for sent.",
        "not_a_phone": "Vi fant ikke noe telefonnummer i det.",
    },
    expected={
        "short_text": "Svar med høyst {max} tegn.",
        "text": "Svar med {min} til {max} tegn.",
        "number": "Svar med et tall{limits}.",
        "whole": "Svar med et helt tall{limits}.",
        "one_decimal": "Svar med et tall{limits}, med høyst en desimal.",
        "decimals": "Svar med et tall{limits}, med høyst {decimals} desimaler.",
        "yes_no": "Svar ja eller nei.",
        "choice": "Svar med et tall fra 1 til {count}.",
        "one_choice": "Svar med ett tall fra 1 til {count}.",
        "choices": "Svar med {least} til {most} tall fra 1 til {count}, for eksempel {example}.",
        "exact_choices": "Svar med {least} tall fra 1 til {count}, for eksempel {example}.",
        "date": "Svar med en dato, for eksempel {example}{limits}.",
        "phone": "Svar med et telefonnummer.",
        "world_phone": "Svar med et telefonnummer som begynner med + og landskoden.",
        "other": "Se over det og svar igjen.",
    },
    number_limits={"low": " på minst {low}", "high": " på høyst {high}", "both": " fra {low} til {high}"},
    date_limits={"low": ", tidligst {low}", "high": ", senest {high}", "both": ", fra {low} til {high}"},
    dates={"dmy": "%d.%m.%Y", "mdy": "%m.%d.%Y"},
    today="i dag",
    point=",",
)
_PHRASES = {"en": _ENGLISH, "fr": _FRENCH, "no": _NORWEGIAN, "nb": _NORWEGIAN, "nn": _NORWEGIAN}

_PAST_EXAMPLE = date(1999, 12, 31)
_FUTURE_EXAMPLE = date(2030, 12, 31)
"""Days to show how a date is written. Their 31 tells the day from the month."""


def has_phrases(language: str) -> bool:
    """Is there a table for it?"""
    return language.lower().partition("-")[0] in _PHRASES


def decimal_point(language: str) -> str:
    """What stands before a number's decimals."""
    return _phrases_for(language).point


def fixed_text(name: FixedText, language: str, keyword: str, title: str = "") -> str | None:
    """The default for a fixed text; None where the default is to say nothing.

    `stopped`, `help` and `opted_in` open with the survey's title, since a person must be told who answers (CTIA).
    """
    sentence = _phrases_for(language).fixed.get(name)
    if sentence is None:
        return None
    brand = f"{title}: " if title and name in ("stopped", "help", "opted_in") else ""
    return brand + sentence.format(keyword=keyword)


def yes_no_words(language: str) -> tuple[str, str]:
    """The words for no and yes, in this order."""
    phrases = _phrases_for(language)
    return phrases.no, phrases.yes


def invalid_reasons(reader: Reader) -> tuple[InvalidReason, ...]:
    """Every reason for which `reader` may refuse an SMS, but for a reaction, of which nobody is told."""
    match reader:
        case TextReader(min=shortest, pattern=pattern):
            return (
                *_reason_if(shortest > 0, "too_short"),
                "too_long",
                *_reason_if(pattern is not None, "pattern"),
            )
        case NumberReader(min=low, max=high, decimals=decimals):
            return (
                "not_a_number",
                "ambiguous",
                *_reason_if(decimals is not None, "decimals"),
                *_reason_if(low is not None, "too_low"),
                *_reason_if(high is not None, "too_high"),
            )
        case ScaleReader():
            return "not_a_number", "too_low", "too_high"
        case YesNoReader():
            return ("not_yes_or_no",)
        case ChoiceReader():
            return ("no_such_option",)
        case ChoicesReader(ids=ids, least=least, most=most):
            return (
                "no_such_option",
                *_reason_if(least > 1, "too_few"),
                *_reason_if(most < len(ids), "too_many"),
            )
        case DateReader(min=first, max=last):
            return (
                "not_a_date",
                "no_year",
                "no_such_day",
                *_reason_if(first is not None, "too_early"),
                *_reason_if(last is not None, "too_late"),
            )
        case PhoneReader():
            return ("not_a_phone",)
        case PhpNumberReader():
            return ("not_a_number",)
        case AnythingReader():
            return ()
        case _:
            assert_never(reader)


def invalid_answer_text(reader: Reader, why: InvalidReason, language: str) -> str:
    """What to tell a person whose answer `reader` refused: why, of its `invalid_reasons`, and what it takes instead."""
    phrases = _phrases_for(language)
    expected = phrases.expected["other"] if why == "pattern" else _answer_expectation(reader, phrases)
    return f"{phrases.wrong[why]} {expected}"


def _phrases_for(language: str) -> _LanguagePhrases:
    """The table for a language such as `no`, `nb-NO` or `fr-CA`."""
    return _PHRASES.get(language.lower().partition("-")[0], _ENGLISH)


def _reason_if(given: bool, why: InvalidReason) -> tuple[InvalidReason, ...]:
    return (why,) if given else ()


def _answer_expectation(reader: Reader, phrases: _LanguagePhrases) -> str:
    """A sentence that says which answers `reader` takes."""
    match reader:
        case TextReader(min=shortest, max=longest):
            name = "short_text" if shortest <= 1 else "text"
            return phrases.expected[name].format(min=shortest, max=longest)
        case NumberReader():
            return _number_expectation(reader, phrases)
        case ScaleReader(low=low, high=high):
            return phrases.expected["whole"].format(
                limits=_limits_phrase(phrases.number_limits, f"{low}", f"{high}")
            )
        case YesNoReader():
            return phrases.expected["yes_no"]
        case ChoiceReader(ids=ids):
            return phrases.expected["choice"].format(count=len(ids))
        case ChoicesReader():
            return _choices_expectation(reader, phrases)
        case DateReader():
            return _date_expectation(reader, phrases)
        case PhoneReader(country=country):
            return phrases.expected["world_phone" if country is None else "phone"]
        case PhpNumberReader():
            return phrases.expected["number"].format(limits="")
        case AnythingReader():
            return phrases.expected["other"]
        case _:
            assert_never(reader)


def _number_expectation(reader: NumberReader, phrases: _LanguagePhrases) -> str:
    name = {None: "number", 0: "whole", 1: "one_decimal"}.get(reader.decimals, "decimals")
    low, high = (
        None if bound is None else _format_number(bound, phrases.point) for bound in (reader.min, reader.max)
    )
    limits = _limits_phrase(phrases.number_limits, low, high)
    return phrases.expected[name].format(limits=limits, decimals=reader.decimals)


def _choices_expectation(reader: ChoicesReader, phrases: _LanguagePhrases) -> str:
    name = "choices" if reader.least < reader.most else "one_choice" if reader.most == 1 else "exact_choices"
    return phrases.expected[name].format(
        least=reader.least,
        most=reader.most,
        count=len(reader.ids),
        example=" ".join(str(n) for n in range(1, max(reader.least, min(reader.most, 2)) + 1)),
    )


def _date_expectation(reader: DateReader, phrases: _LanguagePhrases) -> str:
    form = phrases.dates[reader.order]
    days = [
        phrases.today if limit == "today" else limit and _format_day(date.fromisoformat(limit), form)
        for limit in (reader.min, reader.max)
    ]
    return phrases.expected["date"].format(
        example=_format_day(_example_day(reader), form), limits=_limits_phrase(phrases.date_limits, *days)
    )


def _example_day(reader: DateReader) -> date:
    """A day that `reader` takes, if that can be known when its survey is read."""
    for limit in (reader.max, reader.min):
        if limit is not None and limit != "today":
            return date.fromisoformat(limit)
    return _PAST_EXAMPLE if reader.max else _FUTURE_EXAMPLE


def _limits_phrase(limits: Mapping[str, str], low: str | None, high: str | None) -> str:
    if low is None and high is None:
        return ""
    name = "low" if high is None else "high" if low is None else "both"
    return limits[name].format(low=low, high=high)


def _format_number(number: float, point: str) -> str:
    """Without an exponent, nor a point that nothing follows."""
    written = f"{number:.9f}".rstrip("0").rstrip(".")
    return written.replace(".", point)


def _format_day(day: date, form: str) -> str:
    return day.strftime(form)
