"""Decide questions about a pattern for all texts at once, through its finite automaton.

Patterns that use syntax only RE2 has, or whose automaton is too large, get no automaton; nothing is claimed about
them."""

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from engine.model.patterns import CompiledPattern
from engine.model.segments import GSM_BASIC, GSM_EXTENSION

if TYPE_CHECKING:
    from interegular.fsm import FSM

_MAX_STATES = 2_000
_MAX_ITERATIONS = 10_000
_MAX_REPETITIONS = 8
_MAX_WIDE_PLACES = 10
"""Of places in a pattern that take several characters, beside one that repeats without end: each may double the states."""

_WIDE_PLACE = re.compile(r"\\[dDsSwWpP]|(?:\\.)|\[\^?\]?(?:\\.|[^\]\\])*\]|\.|\((?!\?)", re.DOTALL)

_COUNTED_REPETITION = re.compile(r"(\\.|\[\^?\]?(?:\\.|[^\]\\])*\])|\{\d+(?:,\d*)?\}", re.DOTALL)
"""Matches a counted repetition such as `{2,5}`; escapes and character classes match first, so that braces inside them
are left alone."""


def common_text(one: CompiledPattern, other: CompiledPattern) -> str | None:
    """A text that both of two patterns for folded text match; None if none is known."""
    if not (_is_modest(one.pattern) and _is_modest(other.pattern)):
        return None
    first, second = (
        _build_automaton(one.pattern, ignore_case=True),
        _build_automaton(other.pattern, ignore_case=True),
    )
    if first is None or second is None:
        return None
    both = first & second
    if both.empty():
        return None
    return next(
        ("".join(map(str, each)).lower() for each in both.strings(max_iterations=_MAX_ITERATIONS)), None
    )


def dearest_character(pattern: CompiledPattern) -> str:
    """Return a character that costs as much as any in the texts that the pattern matches: an emoji (UCS-2 pair), `€`
    (GSM-7 extension) or `x`."""
    source = _COUNTED_REPETITION.sub(lambda found: found[1] or "*", pattern.pattern)
    machine = _build_automaton(source, ignore_case=False)
    if machine is None or _matches_outside(machine, GSM_BASIC | GSM_EXTENSION):
        return "😀"
    return "€" if _matches_outside(machine, GSM_BASIC) else "x"


def _is_modest(source: str) -> bool:
    """Has it an automaton of a size that can be borne? `.*a.{14}` has one of 2 ** 15 states."""
    counts = sum(map(int, re.findall(r"\d+", " ".join(re.findall(r"\{[\d,]+\}", source)))))
    return counts <= _MAX_REPETITIONS or (
        counts <= 20 * _MAX_REPETITIONS and not re.search(r"[*+]|,\}", source)
    )


@lru_cache(1_000)
def _build_automaton(source: str, *, ignore_case: bool) -> "FSM | None":
    if "[:" in source:  # [[:alpha:]] is a class to RE2 only
        return None
    if _may_explode(source):
        return None
    from interegular import (  # noqa: PLC0415 (only surveys with patterns need it)
        InvalidSyntax,
        REFlags,
        Unsupported,
        parse_pattern,
    )

    try:
        flags = REFlags.CASE_INSENSITIVE if ignore_case else REFlags(0)
        machine = parse_pattern(source).to_fsm(flags=flags)
    except (InvalidSyntax, Unsupported, RecursionError, re.error):
        return None
    return machine if len(machine.states) <= _MAX_STATES else None


def _may_explode(source: str) -> bool:
    """May it have an automaton that nobody can build? That of `.*a` with twenty dots after it has a million states."""
    if not re.search(r"[*+]|,\}", source):
        return False
    wide = (found[0] for found in _WIDE_PLACE.finditer(source))
    return sum(each[0] != "\\" or each[1] in "dDsSwWpP" for each in wide) > _MAX_WIDE_PLACES


def _matches_outside(machine: "FSM", characters: frozenset[str]) -> bool:
    """Does it match a text in which there is any other character?"""
    allowed = "".join(re.escape(c) if c.isascii() else c for c in sorted(characters))
    other = _build_automaton(f"(.|\\n)*[^{allowed}](.|\\n)*", ignore_case=False)
    return other is None or not (machine & other).empty()
