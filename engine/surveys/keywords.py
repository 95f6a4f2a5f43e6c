"""Which SMS are commands whatever is being asked? STOP, HELP and START, in their many spellings.

STOP are the words that 47 CFR 64.1200(a)(10) names (stop, quit, end, revoke, opt out, cancel, unsubscribe), those
that the CTIA and the providers add (Twilio's default list; ARRET, which Canada and France require), and the words
that the same subscriptions know elsewhere: STOPP in Norwegian, Swedish and German, AVMELD, ABMELDEN, and BAJA, by
which Spanish and Latin American short codes are left. Few of them are also answers; these have their exceptions.

The same rule wants every wording honoured that a reasonable person would take for a wish to hear no more. So a STOP
may be said politely ("stop please", "stop svp"), several times or with a letter too many, and plainly in a sentence:
REQUESTS. Only a whole SMS counts, never a part of one, for "don't stop" or "at the bus stop" are answers. Each of the
sentences names messages, a list or a subscription besides the verb, or else cannot be said of anything but us. What
may as well be an answer ("no more", "I want to stop", "plus de messages", "please cancel") is none of them.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, Protocol

from engine.model.text_normalization import fold_text, fold_word, trim_punctuation
from engine.surveys.program import Survey


class _SurveyLookup(Protocol):
    def current(self, name: str) -> Survey | None: ...


_INNERMOST_BRACES = re.compile(r"\{([^{}]*)\}")


def _folded_phrases(*written: str) -> frozenset[str]:
    """Folded words and phrases, written with commas between them; {a|b} is either."""
    phrases = (each for line in written for each in line.split(","))
    return frozenset(fold_word(each) for phrase in phrases for each in _expand_braces(phrase))


def _expand_braces(phrase: str) -> Iterator[str]:
    """Every way to read the braces, of which the innermost are read first."""
    choice = _INNERMOST_BRACES.search(phrase)
    if choice is None:
        yield phrase
        return
    for either in choice[1].split("|"):
        yield from _expand_braces(phrase[: choice.start()] + either + phrase[choice.end() :])


STOP_WORDS = _folded_phrases(
    "stop, stopall, stop all, unsubscribe, cancel, end, quit, revoke, optout, opt-out, opt out, remove",
    "unsub, unsuscribe, unsubcribe",
    "arret, arrete, arreter, arretez, arrett, désabonner, désabonnez, désabonnement",
    "désinscrire, désinscrivez, désinscription",
    "stopp, avmeld, abmelden, baja",
)
AMBIGUOUS_STOP_WORDS = _folded_phrases("end, cancel, quit, remove, baja")
"""Words that may also be an answer; every other STOP is a STOP, whatever is being asked."""

STOP_SENTENCES = _folded_phrases(
    "stop {it|this|messages|texts|sms|texting|messaging|{the|these|all|your} {messages|texts|sms}}",
    "stop {texting|messaging|contacting|spamming} me, {quit|cease} {texting|messaging|contacting} me",
    "stop sending {messages|texts|sms|these|me messages|me texts|me sms|me these}",
    "unsubscribe {me|from this list|from this|from all}, opt me out, {cancel|end|stop} my subscription",
    "i {want|would like|wish} to {unsubscribe|opt out|be removed}",
    "remove me, {remove me from|take me off|take me off of} {your|the|this} list, take me off",
    "{remove|delete} my number, i {revoke|withdraw} my consent, i revoke consent",
    "{do not|don't|dont} {text|message|contact} me, {do not|don't|dont} {text|message|contact} me again",
    "{do not|don't|dont} {text|message|contact} me anymore, "
    "{do not|don't|dont} {text|message|contact} me any more",
    "{no more|i want no more} {messages|texts|sms}, leave me alone",
    "{stop|arret|arrêtez} {pub|sms|les sms|les messages|vos sms|vos messages}",
    "{arrêtez|arrête|arrêter} de {m'envoyer|m'écrire|me contacter}, arrêter les {sms|messages}",
    "{arrêtez|arrête|arrêter} de m'envoyer {des|vos|ces} {sms|messages}",
    "ne plus {m'envoyer|m'écrire|me contacter|recevoir|recevoir de sms|recevoir de messages}",
    "ne plus m'envoyer {de sms|de messages|rien}, ne {m'envoyez|m'envoie|m'écrivez|me contactez} plus",
    "ne {m'envoyez|m'envoie} plus {rien|de sms|de messages}",
    "je ne {veux|souhaite} plus recevoir {de|vos|ces} {sms|messages}",
    "{me|je me|je veux me|je souhaite me} {désabonner|désabonne|désinscrire|désinscris}",
    "{désabonnez|désinscrivez|retirez|supprimez} moi, retirez moi de {la|votre} liste, supprimez mon numéro",
    "{meld meg av|avmeld meg|stopp meldingene|stopp sms|ingen flere {meldinger|sms}}",
    "ikke send {meg|flere meldinger|meg flere meldinger|meg mer|mer}",
    "keine {sms|nachrichten} mehr, keine weiteren {sms|nachrichten}, melden sie mich ab, stopp "
    "{sms|nachrichten}",
    "{darme|dar|darse|quiero darme} de baja, no más {mensajes|sms}, no me {envíe|envíen|envíes} más mensajes",
)
"""Sentences that are a STOP, as they are without courtesy and with blanks for punctuation."""

_COURTESY_WORDS = re.compile(
    r"\b(?:please|pls|plz|thanks|thank you|thx|now|ok|okay|svp|stp|"
    r"s'?il (?:vous|te) plait|merci|maintenant|bitte|"
    r"danke|takk|na|jetzt|por favor|gracias|ya)\b"
)
_REPEATED_STOP = re.compile(r"(?:s+t+o+p+ ?)+")
_WORD_PATTERN = re.compile(r"[\w']+")
_LONGEST_STOP = 80

_STOP_INDICATORS = frozenset(max(phrase.split(), key=len) for phrase in STOP_WORDS | STOP_SENTENCES)
"""The longest word of each STOP phrase: a text with none of them is no STOP, which settles nearly every answer at
once."""

HELP_WORDS = _folded_phrases("help, info, aide")
AMBIGUOUS_HELP_WORDS = _folded_phrases("info")

START_WORDS = _folded_phrases("start, unstop")
"""Words that opt a person in again, whatever a survey's own keywords are."""

OPT_IN_YES_WORDS = _folded_phrases("yes, oui, ja, sí")
"""Words that opt a person in again, and mean nothing of the kind to anybody who is not opted out."""


def is_stop(word: str) -> bool:
    """Is a folded SMS without the punctuation at its ends a STOP? See AMBIGUOUS_STOP_WORDS, too."""
    if word in STOP_WORDS:
        return True
    if not word[:1].isalpha() or len(word) > _LONGEST_STOP:
        return False
    words = _WORD_PATTERN.findall(word)
    may_ask = not _STOP_INDICATORS.isdisjoint(words) or ("st" in word and "op" in word)
    return may_ask and _asks_to_stop(" ".join(words))


def _asks_to_stop(words: str) -> bool:
    plain = " ".join(_COURTESY_WORDS.sub(" ", words).split())
    return (
        (plain in STOP_WORDS and plain not in AMBIGUOUS_STOP_WORDS)
        or plain in STOP_SENTENCES
        or bool(_REPEATED_STOP.fullmatch(plain))
    )


SmsCommand = Literal["", "start", "stop"]
"""What an SMS may be to whoever does not know what is being asked. A "stop" may still be an answer."""


def read_command(text: str, channel_surveys: Sequence[str], surveys: _SurveyLookup) -> SmsCommand:
    """Return whether `text` may be a STOP, or is a START on a channel that offers `channel_surveys`. No STOP or HELP is
    a START."""
    folded = fold_text(text)
    word = trim_punctuation(folded)
    if is_stop(word):
        return "stop"
    if word in HELP_WORDS:
        return ""
    starts = word in START_WORDS or _first_survey_match(folded, word, channel_surveys, surveys) is not None
    return "start" if starts else ""


def is_start(text: str, channel_surveys: Sequence[str], surveys: _SurveyLookup) -> bool:
    """Is `text` a START on a channel that offers `channel_surveys`? A STOP or HELP never is."""
    return read_command(text, channel_surveys, surveys) == "start"


class StartMatch(NamedTuple):
    """The survey that an SMS starts, and in which language. `named`: the SMS matches one of its keywords, rather than
    any SMS starting it."""

    survey: Survey
    language: str
    names_survey: bool


def match_start(text: str, channel_surveys: Sequence[str], surveys: _SurveyLookup) -> StartMatch | None:
    """The first of `channel_surveys` that has a keyword like `text`, else the first that anything starts."""
    folded = fold_text(text)
    return _first_survey_match(folded, trim_punctuation(folded), channel_surveys, surveys)


def is_opt_in(text: str, started: StartMatch | None) -> bool:
    """Return whether an SMS opts a person in again: START, YES or a survey's own keyword, but not a survey that any
    SMS starts."""
    word = fold_word(text)
    return word in START_WORDS or word in OPT_IN_YES_WORDS or (started is not None and started.names_survey)


def _first_survey_match(
    folded: str, word: str, names: Iterable[str], surveys: _SurveyLookup
) -> StartMatch | None:
    by_anything: StartMatch | None = None
    for name in names:
        survey = surveys.current(name)
        if survey is None:
            continue
        if language := survey.start.match_language(folded, word):
            return StartMatch(survey, language, survey.start.names_survey(folded, word))
        if by_anything is None and survey.start.any_sms_language:
            by_anything = StartMatch(survey, survey.start.any_sms_language, names_survey=False)
    return by_anything
