"""How two spellings of one word are told to be the same.

Phones write full-width digits, accents, curly quotes, zero-width characters and capitals where nobody asked for
them. Whatever compares an SMS with something that an author wrote compares folded forms. What a person wrote is
never stored folded.
"""

import string
import unicodedata

_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")


def clean(text: str) -> str:
    """`text` in NFKC, without invisible characters, its runs of white space single spaces, trimmed."""
    if text.isascii() and text.isprintable():
        return text.strip() if "  " not in text else " ".join(text.split())
    visible = "".join(c for c in unicodedata.normalize("NFKC", text) if c.isspace() or not _is_invisible(c))
    return " ".join(unicodedata.normalize("NFKC", visible).split())


def fold(text: str) -> str:
    """`text` cleaned, its case and accents folded: "  ＡＲＲÊＴ " is "arret"."""
    text = clean(text)
    if text.isascii():
        return text.lower()
    bare = "".join(
        c
        for c in unicodedata.normalize("NFKD", text.casefold())
        if not unicodedata.category(c).startswith("M")
    )
    return clean(bare.casefold())


def fold_word(text: str) -> str:
    """`text` folded, and punctuation at its ends removed: "«Stop»!" is "stop"."""
    return trim_punctuation(fold(text))


def trim_punctuation(text: str) -> str:
    """`text` without punctuation and white space at its ends."""
    text = text.strip(string.punctuation + " ")
    if text.isascii():
        return text
    start, end = 0, len(text)
    while start < end and _is_edge(text[start]):
        start += 1
    while end > start and _is_edge(text[end - 1]):
        end -= 1
    return text[start:end]


def _is_edge(c: str) -> bool:
    return c.isspace() or unicodedata.category(c)[0] == "P" or c in string.punctuation


def _is_invisible(c: str) -> bool:
    return (
        unicodedata.category(c) in ("Cc", "Cf", "Cs")
        or c in _FILLERS
        or "\ufe00" <= c <= "\ufe0f"
        or "\U000e0100" <= c <= "\U000e01ef"
    )
