"""Which SMS are commands whatever is being asked? STOP, HELP and START, in their many spellings.

The words and their exceptions follow 47 CFR 64.1200(a)(10), the CTIA's principles, and what providers require
(ARRET in Canada and France).
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from engine.folding import fold, fold_word, trim_punctuation
from engine.program import Survey


class _Current(Protocol):
    def current(self, name: str) -> Survey | None: ...


def _words(written: str) -> frozenset[str]:
    return frozenset(fold_word(each) for each in written.split(","))


STOP = _words(
    "stop, stopall, stop all, unsubscribe, cancel, end, quit, revoke, optout, opt-out, opt out, remove, arret,"
    "arrete, arreter, arretez, arrett, desabonner, desabonnez, desinscrire, desinscription"
)
AMBIGUOUS_STOP = _words("end, cancel, quit, remove")
"""Words that may also be an answer; every other STOP is a STOP, whatever is being asked."""

HELP = _words("help, info, aide")
AMBIGUOUS_HELP = _words("info")

START = _words("start, unstop")
"""Words that opt a person in again, whatever a survey's own keywords are."""


def is_start(text: str, channel_surveys: Sequence[str], surveys: _Current) -> bool:
    """Is `text` a START on a channel that offers `channel_surveys`? A STOP or HELP never is."""
    folded = fold(text)
    word = trim_punctuation(folded)
    if word in STOP or word in HELP:
        return False
    return word in START or _first_match(folded, word, channel_surveys, surveys) is not None


def survey_started(text: str, channel_surveys: Sequence[str], surveys: _Current) -> tuple[Survey, str] | None:
    """The first of `channel_surveys` that has a keyword like `text`, and the language that the keyword is in."""
    folded = fold(text)
    return _first_match(folded, trim_punctuation(folded), channel_surveys, surveys)


def _first_match(
    folded: str, word: str, names: Iterable[str], surveys: _Current
) -> tuple[Survey, str] | None:
    for name in names:
        survey = surveys.current(name)
        if survey is not None and (language := survey.start.match(folded, word)):
            return survey, language
    return None
