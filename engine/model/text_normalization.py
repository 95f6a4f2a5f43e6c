"""How two spellings of one word are told to be the same.

Phones write full-width digits, accents, curly quotes, zero-width characters and capitals where nobody asked for
them. Whatever compares an SMS with something that an author wrote compares folded forms. What a person wrote is
never stored folded.

No text costs much more than its length: what NFKC would write out at length stays as it is, and heaps of combining
marks, which normalisation sorts in quadratic time, are cut (UAX #15, Stream-Safe Text).
"""

import re
import string
from unicodedata import category, combining, normalize

_INVISIBLE_CHARACTERS = re.compile(
    "["
    "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"  # Cc but white space
    "\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064"  # Cf
    "\u2066-\u206f\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f"
    "\ud800-\udfff"  # Cs
    "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"  # fillers
    "\ufe00-\ufe0f\U000e0100-\U000e01ef"  # variation selectors
    "]+"
)
_LONG_EXPANSIONS = re.compile(
    "([\u2057\u222d\u2230\u2a0c\u3300-\u3357\u337f\u33ae\u33af\ufdf0-\ufdfc"
    "\U0001d15e-\U0001d164\U0001d1bb-\U0001d1c0]+)"
)
"""Arabic and Japanese words in one character, notes, integrals: NFKC writes them out in up to 18 characters."""

_EDGE_CHARACTERS = string.punctuation + " "

_MOST_COMBINING_MARKS = 30
"""Combining marks on one character."""

_HIDDEN_MARKS = frozenset("\u0f73\u0f75\u0f81\uff9e\uff9f")
"""Tibetan vowels and Japanese voice marks that only NFKC makes combining marks of."""

_LOOKALIKES = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201b\u02bc\xb4", "'")  # quotes, and an accent that stands alone
    | dict.fromkeys("\u201c\u201d\u201e\xab\xbb", '"')
    | dict.fromkeys("\u2010\u2012\u2013\u2014\u2212", "-")  # hyphen, dashes, minus
    | {"ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "\u0131": "i"}  # the last is a dotless i
    | {chr(tone): "" for tone in range(0x1F3FB, 0x1F400)}  # of an emoji's skin
)
"""What phones put for a character of the keyboard, and letters that Unicode does not call accented."""


def clean_text(text: str) -> str:
    """`text` in NFKC, without invisible characters, its runs of white space single spaces, trimmed."""
    if text.isascii() and text.isprintable():
        return text.strip() if "  " not in text else " ".join(text.split())
    return " ".join(_normalize_nfkc(_INVISIBLE_CHARACTERS.sub("", text)).split())


def compose_text(text: str) -> str:
    """`text` in NFC: letters and their accents as one character where there is one. A heap of marks stays as it is."""
    return normalize("NFC", text) if _cap_combining_marks(text) == text else text


def fold_text(text: str) -> str:
    """`text` cleaned, its case, accents, quotes and dashes folded: "  ＡＲＲÊＴ " is "arret"."""
    text = clean_text(text)
    if text.isascii():
        return text.lower()
    bare = "".join([c for c in normalize("NFD", text.casefold()) if c < "\u0300" or category(c)[0] != "M"])
    return clean_text(bare.casefold().translate(_LOOKALIKES))


def fold_word(text: str) -> str:
    """`text` folded, and what is no letter or digit at its ends removed: "«Stop»! 😡" is "stop"."""
    return trim_punctuation(fold_text(text))


def trim_punctuation(text: str) -> str:
    """`text` without punctuation, symbols, emoji and white space at its ends; nothing but emoji stays."""
    text = text.strip(_EDGE_CHARACTERS)
    if text.isascii():
        return text
    text = _trim_categories(text, "P")
    return _trim_categories(text, "PS") or text


def _trim_categories(text: str, categories: str) -> str:
    """`text` without white space, and characters of these categories of Unicode, at its ends."""
    start, end = 0, len(text)
    while start < end and _is_edge(text[start], categories):
        start += 1
    while end > start and _is_edge(text[end - 1], categories):
        end -= 1
    return text[start:end]


def _is_edge(c: str, categories: str) -> bool:
    return c in _EDGE_CHARACTERS or category(c)[0] in categories


def _normalize_nfkc(text: str) -> str:
    if text.isascii():
        return text
    parts = _LONG_EXPANSIONS.split(_cap_combining_marks(text))
    parts[::2] = [normalize("NFKC", part) for part in parts[::2]]
    return "".join(parts)


def _cap_combining_marks(text: str) -> str:
    """Cut runs of combining marks to _HEAP, counted as NFKC will write them (one mark may become two)."""
    if len(text) <= _MOST_COMBINING_MARKS // 2:
        return text
    kinds = set(text)
    if not any(map(combining, kinds)) and kinds.isdisjoint(_HIDDEN_MARKS):
        return text
    marks = {c: sum(map(bool, map(combining, normalize("NFKC", c)))) for c in kinds}
    kept: list[str] = []
    height = 0
    for c in text:
        height = marks[c] + (height if combining(c) or c in _HIDDEN_MARKS else 0)
        if height <= _MOST_COMBINING_MARKS:
            kept.append(c)
    return "".join(kept)
