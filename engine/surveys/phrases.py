"""What is said where the author of a survey wrote nothing: one table per language.

What an answer type says of an answer is in its own file. engine/answers/translations.py says what holds of both.
"""

from collections.abc import Mapping

from engine.answers.translations import OurLanguage, our_language
from engine.surveys.program import FixedText

_FIXED_TEXTS: Mapping[OurLanguage, Mapping[FixedText, str]] = {
    "en": {
        "unavailable": "This survey is complete, thank you. Text {keyword} to begin a new one.",
        "not_found": "No survey is open. Text {keyword} to begin.",
        "expired": "Your session has expired. Text {keyword} to begin again.",
        "gave_up": "We could not read your answers, so we end here. Text {keyword} to begin again.",
        "stopped": "You are unsubscribed and will get no more messages. Text {keyword} to come back.",
        "help": "Text {keyword} to begin, STOP to get no more messages. Message and data rates may apply.",
        "opted_in": "You will get our messages again. Text {keyword} to begin, STOP to get no more.",
    },
    "fr": {
        "unavailable": "Ce questionnaire est terminé, merci. Envoyez {keyword} pour en commencer un nouveau.",
        "not_found": "Aucun questionnaire n'est ouvert. Envoyez {keyword} pour commencer.",
        "expired": "Votre session a expiré. Envoyez {keyword} pour recommencer.",
        "gave_up": "Nous n'avons pas pu lire vos réponses et en restons là. "
        "Envoyez {keyword} pour recommencer.",
        "stopped": "Vous ne recevrez plus de messages. Envoyez {keyword} pour revenir.",
        "help": "Envoyez {keyword} pour commencer, STOP pour ne plus recevoir de messages.",
        "opted_in": "Vous recevrez de nouveau nos messages. "
        "Envoyez {keyword} pour commencer, STOP pour les refuser.",
    },
    "no": {
        "unavailable": "Undersøkelsen er fullført, takk. Send {keyword} for å begynne på en ny.",
        "not_found": "Ingen undersøkelse er åpen. Send {keyword} for å begynne.",
        "expired": "Økten din er utløpt. Send {keyword} for å begynne på nytt.",
        "gave_up": "Vi kunne ikke lese svarene dine, så vi slutter her. "
        "Send {keyword} for å begynne på nytt.",
        "stopped": "Du er avmeldt og får ikke flere meldinger. Send {keyword} for å komme tilbake.",
        "help": "Send {keyword} for å begynne, STOP for ikke å få flere meldinger.",
        "opted_in": "Du får meldinger fra oss igjen. Send {keyword} for å begynne, STOP for ikke å få flere.",
    },
}
"""With places for names in braces."""


def fixed_text(name: FixedText, language: str, keyword: str, title: str = "") -> str | None:
    """The default for a fixed text; None where the default is to say nothing.

    `stopped`, `help` and `opted_in` open with the survey's title, since a person must be told who answers (CTIA).
    """
    sentence = _FIXED_TEXTS[our_language(language)].get(name)
    if sentence is None:
        return None
    brand = f"{title}: " if title and name in ("stopped", "help", "opted_in") else ""
    return brand + sentence.format(keyword=keyword)
