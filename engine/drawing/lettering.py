"""How wide is a text, and where does a line break? Answered without fonts, so that a drawing comes out the same on
every machine, one without any font included.

Widths are those of DejaVu Sans, the widest of the faces that a browser may take; in Helvetica or Arial the text fits
more loosely. Lengths are in em: 1 is the font's size.
"""

import re
import unicodedata
from collections.abc import Sequence

NODE_LINE_WIDTH = 17.0
"""Of a line in a node: some 28 characters."""

NODE_MAX_LINES = 5
"""Of a step's text."""

LABEL_LINE_WIDTH = 13.0
LABEL_MAX_LINES = 4

BOLD_FACTOR = 1.13
"""How much wider bold letters are."""

_FIRST_CODE_POINT = 0x20
_WIDTHS_IN_HUNDREDTHS = (
    "32 41 46 84 64 95 78 28 39 39 50 84 32 37 32 34 64 64 64 64 64 64 64 64 64 64 34 34 84 84 84 54 "
    "100 69 69 70 77 64 58 78 76 30 30 66 56 87 75 79 61 79 70 64 62 74 69 99 69 62 69 39 34 39 84 50 "
    "50 62 64 55 64 62 36 64 64 28 28 58 28 98 64 62 64 64 42 53 40 64 60 82 60 60 53 64 34 64 84"
)
_ASCII_WIDTHS = tuple(int(each) / 100 for each in _WIDTHS_IN_HUNDREDTHS.split())
_OTHER_WIDTH = 0.8
_FULL_WIDTH = 1.1
_BREAK_POINT = re.compile(r".{8,}[-_/&=?]")


def text_width(text: str) -> float:
    return sum(map(_character_width, text))


def excerpt_lines(text: Sequence[str]) -> list[str]:
    """A step's text, given by its own lines, as it stands in a node."""
    return cut_lines(
        [line for each in text for line in _wrap_words(each, NODE_LINE_WIDTH)],
        NODE_LINE_WIDTH,
        NODE_MAX_LINES,
    )


def label_lines(label: str) -> list[str]:
    """What opens a route, as it stands beside an edge."""
    return wrap_lines(label, LABEL_LINE_WIDTH, LABEL_MAX_LINES)


def wrap_lines(text: str, longest: float, lines: int) -> list[str]:
    """`text` in at most `lines` lines of at most `longest`; what is left out is an ellipsis."""
    return cut_lines(_wrap_words(text, longest), longest, lines)


def cut_lines(written: Sequence[str], longest: float, lines: int) -> list[str]:
    """The first `lines` lines, ending in an ellipsis if there are more."""
    if len(written) <= lines:
        return list(written)
    last = written[lines - 1]
    while last and text_width(f"{last}…") > longest:
        last = last[:-1]
    return [*written[: lines - 1], f"{last.rstrip()}…"]


def _wrap_words(text: str, longest: float) -> list[str]:
    lines: list[str] = []
    line = ""
    for word in text.split():
        if line and text_width(f"{line} {word}") > longest:
            lines.append(line)
            line = ""
        *full, line = _break_word(f"{line} {word}".strip(), longest)
        lines += full
    return [*lines, line] if line else lines


def _break_word(word: str, longest: float) -> list[str]:
    """`word` in parts, as it may be longer than a line; after a sign that joins words, if there is one."""
    parts = [""]
    for c in word:
        if parts[-1] and _character_width(c) and text_width(parts[-1] + c) > longest:
            stays = _BREAK_POINT.match(parts[-1])
            kept = stays[0] if stays else parts[-1]
            parts[-1:] = [kept, parts[-1].removeprefix(kept)]
        parts[-1] += c
    return parts


def _character_width(c: str) -> float:
    if " " <= c <= "~":
        return _ASCII_WIDTHS[ord(c) - _FIRST_CODE_POINT]
    if unicodedata.category(c) in ("Mn", "Me", "Cf"):
        return 0
    if unicodedata.east_asian_width(c) in "WF" or unicodedata.category(c) == "So":
        return _FULL_WIDTH
    bare = unicodedata.normalize("NFD", c)[0]
    return _character_width(bare) if bare != c else _OTHER_WIDTH
