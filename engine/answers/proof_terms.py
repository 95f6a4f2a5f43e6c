"""In which terms does an answer type tell what can be proved about it? What conditions ask of its answers, and how wide
an answer can get in a text.

The proofs know conditions and texts, and no answer type; an answer type knows neither.
"""

from collections.abc import Sequence

import msgspec

from engine.model.patterns import CompiledPattern
from engine.model.segments import GSM_EXTENSION, is_gsm

FILLER = "\U0001e8d0"
"""A combining character that costs as much as a character can, and that folding removes."""

DEAREST_CHARACTER = "😀"


class AskedConditions(msgspec.Struct, frozen=True):
    """What a survey's conditions ask of one place's answers, each in the order in which they stand.

    `bounds` are where one begins or ceases to hold: what answers are compared with, and what they equal if that is no
    bool. `equals` are all that they equal, `words` what they contain, `patterns` what they match, `options` those that
    they include.
    """

    bounds: tuple[str | float, ...] = ()
    equals: tuple[str | float | bool, ...] = ()
    words: tuple[str, ...] = ()
    patterns: tuple[CompiledPattern, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def asks_of_spelling(self) -> bool:
        """Does one look at how an answer is written?"""
        return bool(self.words or self.patterns)

    @property
    def asks_nothing_but_presence(self) -> bool:
        return not (self.bounds or self.equals or self.words or self.patterns or self.options)


class TextWidth(msgspec.Struct, frozen=True):
    """A text of `least` to `most` characters, none dearer than `character`; if there is a `pattern`, that matches it."""

    most: int
    least: int = 1
    character: str = "0"
    pattern: CompiledPattern | None = None


def dominating_text(values: Sequence[str]) -> str:
    """A text at least as dear as each of `values`, wherever it stands."""
    longest, every = max(map(len, values)), "".join(values)
    if not is_gsm(every):
        return DEAREST_CHARACTER * longest
    return ("€" if GSM_EXTENSION.intersection(every) else "x") * longest
