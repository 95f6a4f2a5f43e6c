"""What each answer type takes. One struct per type: what an author allows, ready to be read with."""

from collections.abc import Callable, Mapping
from datetime import date
from typing import Literal

import msgspec

from engine.model.patterns import CompiledPattern

InvalidReason = Literal[
    "reaction", "too_short", "too_long", "pattern", "not_a_number", "ambiguous", "decimals", "too_low", "too_high",
    "no_such_option", "too_few", "too_many", "not_yes_or_no", "not_a_date", "no_year", "no_such_day", "too_early",
    "too_late", "not_a_phone",
]  # fmt: skip


class InvalidAnswer(msgspec.Struct, frozen=True):
    """The SMS is no answer."""

    reason: InvalidReason


class TextReader(msgspec.Struct, frozen=True):
    """Lengths in characters of the cleaned text; `pattern` matches all of it."""

    min: int
    max: int
    pattern: CompiledPattern | None = None


class NumberReader(msgspec.Struct, frozen=True):
    """`decimals` is how many digits may follow the point; None: any number of them."""

    min: float | None = None
    max: float | None = None
    decimals: int | None = None


class ScaleReader(msgspec.Struct, frozen=True):
    """A whole number from `low` to `high`; `labels` is what a person may write instead, folded -> number."""

    low: int
    high: int
    labels: Mapping[str, int] = {}


class YesNoReader(msgspec.Struct, frozen=True):
    """`yes` and `no` are further words, folded, beside YES and NO, which they win over."""

    yes: frozenset[str] = frozenset()
    no: frozenset[str] = frozenset()


class ChoiceReader(msgspec.Struct, frozen=True):
    """`ids` by place; `places` is what a person may write, folded -> 0-based place."""

    ids: tuple[str, ...]
    places: Mapping[str, int]


class ChoicesReader(msgspec.Struct, frozen=True):
    """Several options, `least` to `most` of them; `ids` and `places` as in ChoiceReader."""

    ids: tuple[str, ...]
    places: Mapping[str, int]
    least: int
    most: int


class DateReader(msgspec.Struct, frozen=True):
    """`min` and `max` are YYYY-MM-DD, or "today"; `order` says what 03/04/2026 is."""

    min: str | None = None
    max: str | None = None
    order: Literal["dmy", "mdy"] = "dmy"


class PhoneReader(msgspec.Struct, frozen=True):
    """`country` (two capital letters) is whose a number without a country code is; None: it must have one."""

    country: str | None = None


class AnythingReader(msgspec.Struct, frozen=True):
    """questions.json without a condition: every SMS is an answer, taken as it came."""


class PhpNumberReader(msgspec.Struct, frozen=True):
    """questions.json with a condition: what PHP's is_numeric takes for a number."""


Reader = (
    TextReader | NumberReader | ScaleReader | YesNoReader | ChoiceReader | ChoicesReader | DateReader | PhoneReader
    | AnythingReader | PhpNumberReader
)  # fmt: skip

Today = Callable[[], date]
"""The day on which the SMS came, where its channel is."""

LONGEST_REPLY = 400
"""Characters of an SMS. Whatever is longer is a text, and nothing else is looked for in it."""
