"""Is an SMS a reaction to one of ours? Then a phone wrote it, and its owner only tapped on a symbol.

A phone without iMessage or RCS between it and us sends a sentence that quotes our SMS: `Liked “What is…”`. Apple's
English sentences are those of its six tapbacks, `Reacted 👍 to “…”` is iOS 18's, `👍 to “…”` Google's. The French and
Norwegian ones are translations that no phone was asked about: a wording that is missing is taken for an answer.
"""

import re

from engine.answers.vocabulary import word_set
from engine.model.text_normalization import fold_text

_REACTION_LEADS = word_set(
    "liked, loved, disliked, laughed at, emphasized, emphasised, questioned, reacted * to, * to",
    "reacted with a sticker to, removed a like from",
    "removed a heart from, removed a dislike from, removed a laugh from",
    "removed an exclamation from, removed an exclamation mark from",
    "removed a question mark from, removed * from",
    "removed a * from, removed a reaction from, removed a sticker from",
    "a aime, a adore, n'a pas aime, a ri a, a ri de",
    "a rigole a, a souligne, a insiste sur, a mis en evidence, a accentue",
    "a mis l'accent sur, a mis en doute, a remis en question",
    "s'interroge sur, s'est interroge sur, a questionne",
    "a reagi * a, a reagi avec * a, a reagi par * a, a reagi a, * a, a supprime * de, a retire * de",
    "a supprime un j'aime de, a retire un j'aime de, a supprime un coeur de, a retire un coeur de",
    "likte, elsket, likte ikke, mislikte, lo av, fremhevet, understreket, betonte",
    "stilte sporsmal ved, stilte sporsmal om, stilte sporsmalstegn ved",
    "reagerte med * pa, reagerte * pa, * pa, * til",
    "fjernet * fra, fjernet en liker fra, fjernet et hjerte fra",
)
"""What comes before the quotation, folded; * stands for emoji."""

_OPENING_QUOTE = re.compile('["“„«]')
_CLOSING_QUOTES = ('"', "”", "“", "»", "…", "...")
"""The quotation of a long SMS may be cut."""

_EMOJI = re.compile(r"[^\w\s'*]+")
_LONGEST_LEAD = 48
_HAIR_SPACE = "\u200a"


def is_reaction(sms: str) -> bool:
    if _is_google_reaction(sms):
        return True
    opening = _OPENING_QUOTE.search(sms, 0, _LONGEST_LEAD)
    if opening is None or not sms.rstrip().endswith(_CLOSING_QUOTES):
        return False
    lead = _EMOJI.sub(" * ", fold_text(sms[: opening.start()]))
    return " ".join(lead.split()) in _REACTION_LEADS


def _is_google_reaction(sms: str) -> bool:
    """Google Messages marks what it writes, in every language: hair spaces around the quotation and at the end."""
    return sms.startswith(_HAIR_SPACE) and sms.endswith(_HAIR_SPACE) and sms.count(_HAIR_SPACE) >= 4
