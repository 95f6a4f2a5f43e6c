"""What is said where the author of a survey wrote nothing. English and French; other languages get English.

Every sentence stays within GSM-7, so that it costs 160 characters a segment: French without circumflexes or c
cedilla.
"""

from typing import assert_never

from engine.answers import (
    AnythingReader,
    ChoiceReader,
    NumberReader,
    PhpNumberReader,
    Reader,
    TextReader,
    YesNoReader,
)
from engine.program import FixedText

_ENGLISH: dict[FixedText, str] = {
    "unavailable": "This survey is complete, thank you. Text {keyword} to begin a new one.",
    "not_found": "No survey is open. Text {keyword} to begin.",
    "expired": "Your session has expired. Text {keyword} to begin again.",
    "stopped": "You are unsubscribed and will get no more messages. Text {keyword} to come back.",
    "help": "Text {keyword} to begin, STOP to get no more messages. Message and data rates may apply.",
}
_FRENCH: dict[FixedText, str] = {
    "unavailable": "Ce questionnaire est terminé, merci. Envoyez {keyword} pour en commencer un nouveau.",
    "not_found": "Aucun questionnaire n'est ouvert. Envoyez {keyword} pour commencer.",
    "expired": "Votre session a expiré. Envoyez {keyword} pour recommencer.",
    "stopped": "Vous ne recevrez plus de messages. Envoyez {keyword} pour revenir.",
    "help": "Envoyez {keyword} pour commencer, STOP pour ne plus recevoir de messages.",
}


def fixed_text(name: FixedText, language: str, keyword: str, title: str = "") -> str | None:
    """The default for a fixed text; None where the default is to say nothing.

    `stopped` and `help` open with the survey's title, since a person must be told who answers (CTIA).
    """
    sentence = (_FRENCH if language == "fr" else _ENGLISH).get(name)
    if sentence is None:
        return None
    brand = f"{title}: " if title and name in ("stopped", "help") else ""
    return brand + sentence.format(keyword=keyword)


def expectation(reader: Reader, language: str) -> str:
    """A sentence that says which answers `reader` takes."""
    french = language == "fr"
    match reader:
        case TextReader(max=longest, pattern=None):
            return (
                f"Veuillez répondre en {longest} caractères au plus."
                if french
                else f"Please answer in at most {longest} characters."
            )
        case NumberReader():
            return _number_expectation(reader, french)
        case PhpNumberReader():
            return "Veuillez répondre par un nombre." if french else "Please answer with a number."
        case YesNoReader():
            return "Veuillez répondre oui ou non." if french else "Please answer yes or no."
        case ChoiceReader(ids=ids):
            return (
                f"Veuillez répondre par un nombre de 1 à {len(ids)}."
                if french
                else f"Please answer with a number from 1 to {len(ids)}."
            )
        case TextReader() | AnythingReader():
            return "Cette réponse n'est pas valable." if french else "This is not an answer we can read."
        case _:
            assert_never(reader)


def _number_expectation(reader: NumberReader, french: bool) -> str:
    kind = "nombre" if french else "number"
    if reader.decimals == 0:
        kind = "nombre entier" if french else "whole number"
    lead = f"Veuillez répondre par un {kind}" if french else f"Please answer with a {kind}"
    match reader.min, reader.max:
        case None, None:
            bounds = ""
        case low, None:
            bounds = f" d'au moins {low:g}" if french else f" of at least {low:g}"
        case None, high:
            bounds = f" d'au plus {high:g}" if french else f" of at most {high:g}"
        case low, high:
            bounds = f" de {low:g} à {high:g}" if french else f" from {low:g} to {high:g}"
    return f"{lead}{bounds}."
