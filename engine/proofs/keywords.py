"""Which SMS start two surveys? Then only the first of a channel that offers both is ever started by them."""

from collections.abc import Iterator, Sequence
from itertools import combinations

from engine.findings import Finding
from engine.folding import fold_word
from engine.program import Survey
from engine.proofs.automata import common


def clashes(surveys: Sequence[Survey]) -> list[Finding]:
    """A warning for each two surveys of one channel, in its order, that one SMS would start."""
    return [
        Finding(
            "warning", "keyword", "", f"'{text}' starts '{one.name}' and would start '{other.name}' as well",
            "give them keywords of their own, or offer them on different channels",
        )
        for one, other in combinations(surveys, 2)
        if (text := _in_both(one, other)) is not None
    ]  # fmt: skip


def _in_both(one: Survey, other: Survey) -> str | None:
    """An SMS that starts both; None if none is known."""
    for survey, another in ((one, other), (other, one)):
        for word in survey.start.words:
            if another.start.match(word, fold_word(word)) is not None:
                return word
    return next(_by_patterns(one, other), None)


def _by_patterns(one: Survey, other: Survey) -> Iterator[str]:
    for first, _ in one.start.patterns:
        for second, _ in other.start.patterns:
            if (text := common(first, second)) is not None:
                yield text
