"""How much can a session send, hear and cost at most?

With as much remembered on the way as can be afforded, the heaviest walk is the bound. Of surveys too intricate for
that, a coarser bound is told, which no session goes beyond either.

SMS in are those that move the session: the START, answers and invalid answers. What else a person sends changes nothing
and is answered by nothing, fixed texts aside: a STOP is confirmed once, and HELP is answered once an hour.
"""

from collections.abc import Callable, Collection
from graphlib import CycleError, TopologicalSorter

from engine.proofs.costs import TextCosts
from engine.proofs.walks import (
    WalkGraph,
    closing_texts,
    condition_places,
    text_places,
    texts_of,
    uncounted_targets,
)
from engine.proofs.weighing import NOTHING_KNOWN, HeaviestWalk, WalkWeigher, WalkWeights, step_load
from engine.surveys.program import Survey

MAX_LAYERED_SPOTS = 100_000
"""Limit of spots times `most_sms` in the computation by SMS left (Weighing.cut)."""

MAX_CHOICES = 20_000_000
"""Limit of spots times `most_sms` times the repetitions and reminders at each question."""


def out_weights() -> WalkWeights:
    return WalkWeights(lambda _text, _known: 1, 0)


def in_weights() -> WalkWeights:
    return WalkWeights(lambda _text, _known: 0, 1)


def segment_weights(survey: Survey, language: str) -> WalkWeights:
    return WalkWeights(TextCosts(survey, language).most_segments, 0)


class BoundFinder:
    """Finds the heaviest walks of one survey."""

    def __init__(self, survey: Survey, walks: Callable[[Collection[str]], WalkGraph | None]) -> None:
        """`walks(remembered)` returns the walks with those places remembered, or None if they exceed MAX_REMEMBERED."""
        self._survey = survey
        self._walks, self._last_first = _affordable_walks(survey, walks)

    def heaviest_walk(self, weights: WalkWeights) -> HeaviestWalk:
        if self._walks is None:
            return HeaviestWalk(_coarse_bound(self._survey, weights))
        weighing = WalkWeigher(self._survey, self._walks, weights)
        if self._last_first is not None:
            return weighing.heaviest_complete(self._last_first)
        return (
            HeaviestWalk(None)
            if self._survey.most_sms is None
            else weighing.heaviest_within(self._survey.most_sms)
        )


def _affordable_walks(
    survey: Survey, walks_with: Callable[[Collection[str]], WalkGraph | None]
) -> tuple[WalkGraph | None, list[int] | None]:
    """The walks, and their spots last first if every walk may be gone to its end; None, if none can be afforded."""
    conditions = condition_places(survey.steps)
    for remembered in (conditions | text_places(survey), conditions, set[str]()):
        if (walks := walks_with(remembered)) is None:
            continue
        last_first, most = _last_first(walks), survey.most_sms
        if most is None:
            return walks, last_first
        if last_first is not None:
            sms_out = WalkWeigher(survey, walks, out_weights()).heaviest_complete(last_first).bound or 0
            if sms_out <= most:
                return walks, last_first
        if len(walks.spots) * most <= MAX_LAYERED_SPOTS and _choice_count(survey, walks, most) <= MAX_CHOICES:
            return walks, None
    return None, None


def _choice_count(survey: Survey, walks: WalkGraph, most: int) -> int:
    loads = [step_load(survey, step, out_weights(), NOTHING_KNOWN) for step in survey.steps]
    beside = [min(most, 1 + load.repeats + load.reminders) for load in loads]
    return most * sum(beside[spot.step] for spot in walks.spots if spot.step >= 0)


def _last_first(walks: WalkGraph) -> list[int] | None:
    """The spots' numbers, each after those that it leads to; None if walks go round."""
    follows = {number: [move.to for move in moves] for number, moves in enumerate(walks.moves)}
    try:
        return list(TopologicalSorter(follows).static_order())
    except CycleError:
        return None


def _coarse_bound(survey: Survey, weights: WalkWeights) -> int | None:
    """Bound the weight without walks; None if neither `most_sms` nor the counted routes bound it.

    Between two counted routes no step repeats, so the uncounted longest path can be taken once per counted route; and
    no SMS outweighs the heaviest text."""
    bounds = []
    if survey.most_sms is not None:
        texts = [text for step in survey.steps for text in texts_of(step)]
        texts += closing_texts(survey).values()
        dearest = max(weights.text(text, NOTHING_KNOWN) for text in texts)
        bounds.append((survey.most_sms + 1) * (dearest + 2 * weights.sms_in))
    follows = {place: uncounted_targets(step) for place, step in enumerate(survey.steps)}
    try:
        last_first = list(TopologicalSorter(follows).static_order())
    except CycleError:
        return min(bounds) + weights.sms_in if bounds else None
    along: dict[int, int] = {}
    for place in last_first:
        load = step_load(survey, survey.steps[place], weights, NOTHING_KNOWN)
        along[place] = load.total_weight + max((along[each] for each in follows[place]), default=0)
    times = sum(route.times or 0 for step in survey.steps for route in step.routes)
    closing = max((weights.text(text, NOTHING_KNOWN) for text in closing_texts(survey).values()), default=0)
    bounds.append((times + 1) * max(along.values()) + closing)
    return min(bounds) + weights.sms_in
