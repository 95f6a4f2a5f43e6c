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
from typing import NamedTuple, Protocol

from engine.model.text_normalization import fold, fold_word, trim_punctuation
from engine.surveys.program import Survey


class _Current(Protocol):
    def current(self, name: str) -> Survey | None: ...


_CHOICE = re.compile(r"\{([^{}]*)\}")


def _words(*written: str) -> frozenset[str]:
    """Folded words and phrases, written with commas between them; {a|b} is either."""
    phrases = (each for line in written for each in line.split(","))
    return frozenset(fold_word(each) for phrase in phrases for each in _spelled_out(phrase))


def _spelled_out(phrase: str) -> Iterator[str]:
    """Every way to read the braces, of which the innermost are read first."""
    choice = _CHOICE.search(phrase)
    if choice is None:
        yield phrase
        return
    for either in choice[1].split("|"):
        yield from _spelled_out(phrase[: choice.start()] + either + phrase[choice.end() :])


STOP = _words(
    "stop, stopall, stop all, unsubscribe, cancel, end, quit, revoke, optout, opt-out, opt out, remove",
    "unsub, unsuscribe, unsubcribe",
    "arret, arrete, arreter, arretez, arrett, désabonner, désabonnez, désabonnement",
    "désinscrire, désinscrivez, désinscription",
    "stopp, avmeld, abmelden, baja",
)
AMBIGUOUS_STOP = _words("end, cancel, quit, remove, baja")
"""Words that may also be an answer; every other STOP is a STOP, whatever is being asked."""

REQUESTS = _words(
    "stop {it|this|messages|texts|sms|texting|messaging|{the|these|all|your} {messages|texts|sms}}",
    "stop {texting|messaging|contacting|spamming} me, {quit|cease} {texting|messaging|contacting} me",
    "stop sending {messages|texts|sms|these|me messages|me texts|me sms|me these}",
    "unsubscribe {me|from this list|from this|from all}, opt me out, {cancel|end|stop} my subscription",
    "i {want|would like|wish} to {unsubscribe|opt out|be removed}",
    "remove me, {remove me from|take me off|take me off of} {your|the|this} list, take me off",
    "{remove|delete} my number, i {revoke|withdraw} my consent, i revoke consent",
    "{do not|don't|dont} {text|message|contact} me, {do not|don't|dont} {text|message|contact} me again",
    "{do not|don't|dont} {text|message|contact} me anymore, {do not|don't|dont} {text|message|contact} me any more",
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
    "keine {sms|nachrichten} mehr, keine weiteren {sms|nachrichten}, melden sie mich ab, stopp {sms|nachrichten}",
    "{darme|dar|darse|quiero darme} de baja, no más {mensajes|sms}, no me {envíe|envíen|envíes} más mensajes",
)
"""Sentences that are a STOP, as they are without courtesy and with blanks for punctuation."""

_COURTESY = re.compile(
    r"\b(?:please|pls|plz|thanks|thank you|thx|now|ok|okay|svp|stp|s'?il (?:vous|te) plait|merci|maintenant|bitte|"
    r"danke|takk|na|jetzt|por favor|gracias|ya)\b"
)
_STUTTER = re.compile(r"(?:s+t+o+p+ ?)+")
_WORD = re.compile(r"[\w']+")
_LONGEST = 80

_TELLING = frozenset(max(phrase.split(), key=len) for phrase in STOP | REQUESTS)
"""A word of each, by which nearly every answer is told apart at once."""

HELP = _words("help, info, aide")
AMBIGUOUS_HELP = _words("info")

START = _words("start, unstop")
"""Words that opt a person in again, whatever a survey's own keywords are."""

AGAIN = _words("yes, oui, ja, sí")
"""Words that opt a person in again, and mean nothing of the kind to anybody who is not opted out."""


def is_stop(word: str) -> bool:
    """Is a folded SMS without the punctuation at its ends a STOP? See AMBIGUOUS_STOP, too."""
    if word in STOP:
        return True
    if not word[:1].isalpha() or len(word) > _LONGEST:
        return False
    words = _WORD.findall(word)
    may_ask = not _TELLING.isdisjoint(words) or ("st" in word and "op" in word)
    return may_ask and _asks_to_stop(" ".join(words))


def _asks_to_stop(words: str) -> bool:
    plain = " ".join(_COURTESY.sub(" ", words).split())
    return (
        (plain in STOP and plain not in AMBIGUOUS_STOP)
        or plain in REQUESTS
        or bool(_STUTTER.fullmatch(plain))
    )


def is_start(text: str, channel_surveys: Sequence[str], surveys: _Current) -> bool:
    """Is `text` a START on a channel that offers `channel_surveys`? A STOP or HELP never is."""
    folded = fold(text)
    word = trim_punctuation(folded)
    if word in HELP or is_stop(word):
        return False
    return word in START or _first_match(folded, word, channel_surveys, surveys) is not None


class Started(NamedTuple):
    """The survey that an SMS starts, in which language, and whether the SMS names it: any SMS starts some."""

    survey: Survey
    language: str
    named: bool


def survey_started(text: str, channel_surveys: Sequence[str], surveys: _Current) -> Started | None:
    """The first of `channel_surveys` that has a keyword like `text`, else the first that anything starts."""
    folded = fold(text)
    return _first_match(folded, trim_punctuation(folded), channel_surveys, surveys)


def opts_in(text: str, started: Started | None) -> bool:
    """Does an SMS of a person who is opted out opt them in again? Not if it could be anything."""
    word = fold_word(text)
    return word in START or word in AGAIN or (started is not None and started.named)


def _first_match(folded: str, word: str, names: Iterable[str], surveys: _Current) -> Started | None:
    by_anything: Started | None = None
    for name in names:
        survey = surveys.current(name)
        if survey is None:
            continue
        if language := survey.start.match(folded, word):
            return Started(survey, language, survey.start.names(folded, word))
        if by_anything is None and survey.start.anything:
            by_anything = Started(survey, survey.start.anything, named=False)
    return by_anything
