"""What can be said of patterns for every text at once, by way of their automata.

A pattern that uses what only RE2 knows, or whose automaton is enormous, has none here; nothing is claimed of it then.
"""

import re
from functools import lru_cache

from interegular import InvalidSyntax, REFlags, Unsupported, parse_pattern
from interegular.fsm import FSM

from engine.model.patterns import Pattern
from engine.model.segments import BASIC, EXTENSION

_MOST_STATES = 2_000
_FEW_ENOUGH = 10_000
_HIGHEST_COUNT = 8

_COUNTED = re.compile(r"(\\.|\[\^?\]?(?:\\.|[^\]\\])*\])|\{\d+(?:,\d*)?\}", re.DOTALL)
"""`{2,5}`, or what only looks as if there were some in it."""


def common(one: Pattern, other: Pattern) -> str | None:
    """A text that both of two patterns for folded text match; None if none is known."""
    if not (_is_modest(one.pattern) and _is_modest(other.pattern)):
        return None
    first, second = _machine(one.pattern, ignore_case=True), _machine(other.pattern, ignore_case=True)
    if first is None or second is None:
        return None
    both = first & second
    if both.empty():
        return None
    return next(("".join(map(str, each)).lower() for each in both.strings(max_iterations=_FEW_ENOUGH)), None)


def dearest_character(pattern: Pattern) -> str:
    """A character as dear as any in the texts that the pattern matches: an emoji, `€` or `x`."""
    source = _COUNTED.sub(lambda found: found[1] or "*", pattern.pattern)
    machine = _machine(source, ignore_case=False)
    if machine is None or _holds_other_than(machine, BASIC | EXTENSION):
        return "😀"
    return "€" if _holds_other_than(machine, BASIC) else "x"


def _is_modest(source: str) -> bool:
    """Has it an automaton of a size that can be borne? `.*a.{14}` has one of 2 ** 15 states."""
    counts = sum(map(int, re.findall(r"\d+", " ".join(re.findall(r"\{[\d,]+\}", source)))))
    return counts <= _HIGHEST_COUNT or (counts <= 20 * _HIGHEST_COUNT and not re.search(r"[*+]|,\}", source))


@lru_cache(1_000)
def _machine(source: str, *, ignore_case: bool) -> FSM | None:
    if "[:" in source:  # [[:alpha:]] is a class to RE2 only
        return None
    try:
        flags = REFlags.CASE_INSENSITIVE if ignore_case else REFlags(0)
        machine = parse_pattern(source).to_fsm(flags=flags)
    except (InvalidSyntax, Unsupported, RecursionError, re.error):
        return None
    return machine if len(machine.states) <= _MOST_STATES else None


def _holds_other_than(machine: FSM, characters: frozenset[str]) -> bool:
    """Does it match a text in which there is any other character?"""
    allowed = "".join(re.escape(c) if c.isascii() else c for c in sorted(characters))
    other = _machine(f"(.|\\n)*[^{allowed}](.|\\n)*", ignore_case=False)
    return other is None or not (machine & other).empty()
