"""What was meant by a word that is none of those expected?"""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

_LONGEST_WORD = 100
_MOST_KNOWN = 1_000
"""Longer words, and further ones, are near nothing: to look costs milliseconds for each thousand."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of a sentence, such as ": did you mean fever?", for the nearest of the `known` words; empty if
    none is near."""
    if len(word) > _LONGEST_WORD:
        return ""
    spelling = {each.lower(): each for each in islice(known, _MOST_KNOWN)}
    near = get_close_matches(word.lower(), spelling, n=1, cutoff=0.7)
    return f": did you mean {spelling[near[0]]}?" if near else ""


def expected_instead(word: str, known: Iterable[str], joined_by: str = ", ") -> str:
    """Return the same, or what was expected where nothing is near: ": expected fever, cough"."""
    known = list(known)
    return did_you_mean(word, known) or (
        f": expected {joined_by.join(known)}" if known else ": there is none"
    )
