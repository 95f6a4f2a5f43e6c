"""Which ways can a session go? The walks through a survey's steps, with what must be remembered on the way.

A place where a walk can be is a step, together with the regions of earlier answers that later conditions or texts still
ask about, and how often each counted route was taken. What is remembered is a choice: with less of it there are fewer
places, and walks that no session can go; never are there too few.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import product

import msgspec

from engine.model.errors import ParleyError
from engine.proofs.regions import UNANSWERED, AnswerRegion, RegionSet, atoms_of, may_hold
from engine.surveys.program import (
    END_INDEX,
    FixedText,
    QuestionStep,
    ReaskInvalid,
    Route,
    Survey,
    SurveyStep,
    reask_texts,
    successor_indexes,
)
from engine.surveys.texts import LocalizedText, template_slots
from engine.surveys.variables import MESSAGES_KEY

MAX_REMEMBERED = 200_000
"""Spots times what is remembered at each: so much is looked at in some tenths of a second."""

GIVEN_UP = -2
"""Pseudo step index of a session that ended after the last invalid answer to a question."""

KnownRegions = tuple[int, ...]
"""The regions of the remembered places, by number; 0 is unanswered or forgotten."""


class WalkSpot(msgspec.Struct, frozen=True):
    """A step's index, END or OVER; what is known there; how often each counted route was taken."""

    step: int
    known: KnownRegions
    taken: tuple[int, ...]


class WalkMove(msgspec.Struct, frozen=True):
    """On to the spot with number `to`. `region` is the answer's; None where none was given.

    `gave_up`: after the last invalid answer. `route` is the number among the step's routes, -1 for none of them.
    """

    to: int
    region: AnswerRegion | None = None
    gave_up: bool = False
    route: int = -1


class TooManySpotsError(ParleyError):
    """The survey has more spots than the limit that follows from MAX_REMEMBERED."""


class WalkGraph(msgspec.Struct, frozen=True):
    """Every spot that can be reached, the moves from each, and where walks begin."""

    spots: list[WalkSpot]
    moves: list[list[WalkMove]]
    begin: list[int]
    remembered: tuple[str, ...]
    regions: Mapping[str, RegionSet]

    def regions_at(self, spot: WalkSpot) -> dict[str, AnswerRegion]:
        """Return the region of each remembered place at the spot; a place missing here was not remembered, and may
        hold anything."""
        return {
            place: self.regions[place].every[number - 1] if number else UNANSWERED
            for place, number in zip(self.remembered, spot.known, strict=True)
        }


def explore_walks(
    survey: Survey, regions: Mapping[str, RegionSet], remembered: Collection[str]
) -> WalkGraph | None:
    """Every walk, with these places remembered; None if that is too much to look at. How many SMS a person has sent
    changes with every answer, so it may be anything at any spot."""
    try:
        return _WalkExplorer(
            survey, regions, tuple(sorted((regions.keys() & remembered) - {MESSAGES_KEY}))
        ).explore()
    except TooManySpotsError:
        return None


def rough_walks(survey: Survey, regions: Mapping[str, RegionSet]) -> WalkGraph:
    """Every walk, with nothing remembered and nothing counted: a counted route may be open or used up."""
    return _WalkExplorer(survey, regions, (), counting=False).explore()


def condition_places(steps: Sequence[SurveyStep]) -> set[str]:
    """Places that the conditions of another step than their own ask about."""
    return {
        atom.step
        for step in steps
        for route in step.routes
        for atom in atoms_of(route.when)
        if atom.step != step.id
    }


def text_places(survey: Survey) -> set[str]:
    """Places that texts put in."""
    texts = [text for step in survey.steps for text in texts_of(step)]
    return set().union(*map(_slots_in, (*texts, *closing_texts(survey).values())))


def closing_texts(survey: Survey) -> dict[int, LocalizedText]:
    """What a session says at its end, if it says anything, by how it ended: END_INDEX or GIVEN_UP."""
    named: dict[int, FixedText] = {END_INDEX: "completed", GIVEN_UP: "gave_up"}
    return {end: survey.texts[name] for end, name in named.items() if name in survey.texts}


def uncounted_targets(step: SurveyStep) -> list[int]:
    """The steps that may follow any number of times."""
    went = [route.go for route in step.routes if route.times is None]
    if (
        isinstance(step, QuestionStep)
        and isinstance(step.invalid, ReaskInvalid)
        and step.invalid.give_up is not None
    ):
        went.append(step.invalid.give_up)
    return [go for go in went if go != END_INDEX]


def texts_of(step: SurveyStep) -> list[LocalizedText]:
    """Every text of a step that can be sent, each once."""
    if not isinstance(step, QuestionStep):
        return [step.text]
    return [step.text, *reask_texts(step), *([step.remind.text] if step.remind else [])]


def open_routes(
    routes: Sequence[Route],
    answers: Mapping[str, AnswerRegion],
    regions: Mapping[str, RegionSet],
    taken: Sequence[int] = (),
) -> Iterator[int]:
    """The numbers of the routes that may be taken. Without `taken`, a counted one may be used up or not."""
    for number, route in enumerate(routes):
        used_up = route.times is not None and bool(taken) and taken[route.counter] >= route.times
        held = False if used_up else may_hold(route.when, answers, regions)
        if held is not False:
            yield number
        if held and (route.times is None or taken):
            return


class _WalkExplorer:
    def __init__(
        self,
        survey: Survey,
        regions: Mapping[str, RegionSet],
        remembered: tuple[str, ...],
        *,
        counting: bool = True,
    ) -> None:
        self._steps = survey.steps
        self._closing_texts = closing_texts(survey)
        self._regions = regions
        self._remembered = remembered
        self._place = {place: number for number, place in enumerate(remembered)}
        counted = sum(route.times is not None for step in survey.steps for route in step.routes)
        self._counters = range(counted if counting else 0)
        self._max_spots = max(2 * len(self._steps), MAX_REMEMBERED // (10 + len(remembered)))
        self._wanted, self._counted = self._analyse_liveness()
        self._spot_numbers: dict[WalkSpot, int] = {}
        self._spots: list[WalkSpot] = []

    def explore(self) -> WalkGraph:
        begin = [
            self._spot_number(0, known, (0,) * len(self._counters)) for known in self._initial_knowledge()
        ]
        moves: list[list[WalkMove]] = []
        while len(moves) < len(self._spots):
            moves.append(_distinct_moves(self._moves_from(self._spots[len(moves)])))
        return WalkGraph(self._spots, moves, sorted(set(begin)), self._remembered, self._regions)

    def _initial_knowledge(self) -> Iterator[KnownRegions]:
        """Nothing is answered; a variable is there from the beginning, and may be anything."""
        options = [
            range(1, len(self._regions[place].every) + 1) if place.startswith("$") else (0,)
            for place in self._remembered
        ]
        return product(*options)

    def _spot_number(self, step: int, known: KnownRegions, taken: tuple[int, ...]) -> int:
        """The spot's number. What no later step asks about is forgotten."""
        wanted, counted = self._wanted.get(step, frozenset()), self._counted.get(step, frozenset())
        spot = WalkSpot(
            step,
            tuple(number if place in wanted else 0 for place, number in enumerate(known)),
            tuple(number if counter in counted else 0 for counter, number in enumerate(taken)),
        )
        if spot not in self._spot_numbers:
            if len(self._spots) >= self._max_spots:
                raise TooManySpotsError
            self._spot_numbers[spot] = len(self._spots)
            self._spots.append(spot)
        return self._spot_numbers[spot]

    def _moves_from(self, spot: WalkSpot) -> Iterator[WalkMove]:
        if spot.step < 0:
            return
        step = self._steps[spot.step]
        answers = {
            self._remembered[place]: self._known_region(place, spot.known[place])
            for place in self._wanted[spot.step]
        }
        if not isinstance(step, QuestionStep):
            yield from self._moves_onward(step, spot, spot.known, answers, None)
            return
        own = self._place.get(step.id)
        for number, region in enumerate(self._regions[step.id].every, 1):
            answers[step.id] = region
            known = spot.known if own is None else (*spot.known[:own], number, *spot.known[own + 1 :])
            yield from self._moves_onward(step, spot, known, answers, region)
        if isinstance(step.invalid, ReaskInvalid):
            to = GIVEN_UP if step.invalid.give_up is None else step.invalid.give_up
            yield WalkMove(self._spot_number(to, spot.known, spot.taken), gave_up=True)

    def _known_region(self, place: int, number: int) -> AnswerRegion:
        return self._regions[self._remembered[place]].every[number - 1] if number else UNANSWERED

    def _moves_onward(
        self,
        step: SurveyStep,
        spot: WalkSpot,
        known: KnownRegions,
        answers: Mapping[str, AnswerRegion],
        region: AnswerRegion | None,
    ) -> Iterator[WalkMove]:
        for number in self._usable_routes(step, spot, answers):
            route = step.routes[number]
            taken = list(spot.taken)
            if route.times is not None and self._counters:
                taken[route.counter] += 1
            yield WalkMove(self._spot_number(route.go, known, tuple(taken)), region, route=number)

    def _usable_routes(
        self, step: SurveyStep, spot: WalkSpot, answers: Mapping[str, AnswerRegion]
    ) -> Iterable[int]:
        """The numbers of the routes that may be taken, however many SMS the person has sent: at a question, one."""
        if MESSAGES_KEY not in self._regions:
            return open_routes(step.routes, answers, self._regions, spot.taken)
        counts = self._regions[MESSAGES_KEY].every
        least = 1 if isinstance(step, QuestionStep) else 0
        return sorted(
            {
                number
                for count in counts
                if count.sms is None or int(count.sms) >= least
                for number in open_routes(
                    step.routes, {**answers, MESSAGES_KEY: count}, self._regions, spot.taken
                )
            }
        )

    def _analyse_liveness(self) -> tuple[dict[int, frozenset[int]], dict[int, frozenset[int]]]:
        """For each step, END included, return the remembered places and the counters that it or a later step reads (a
        liveness analysis). All others are forgotten there."""
        closing = {end: _slots_in(self._closing_texts.get(end)) for end in (END_INDEX, GIVEN_UP)}
        wanted = {end: self._place_bits(places) for end, places in closing.items()}
        wanted[END_INDEX] |= wanted[GIVEN_UP]  # which successor_indexes does not tell apart
        counted = {END_INDEX: 0, GIVEN_UP: 0}
        for place, step in enumerate(self._steps):
            about = {
                atom.step for route in step.routes for atom in atoms_of(route.when) if atom.step != step.id
            }
            wanted[place] = self._place_bits(about.union(*(_slots_in(text) for text in texts_of(step))))
            counted[place] = sum(1 << route.counter for route in step.routes if route.times is not None)
        for bits in (wanted, counted):
            _propagate_liveness(self._steps, bits)
        return (
            {step: _numbers_in(bits, len(self._remembered)) for step, bits in wanted.items()},
            {step: _numbers_in(bits, len(self._counters)) for step, bits in counted.items()},
        )

    def _place_bits(self, places: Iterable[str]) -> int:
        return sum(1 << self._place[place] for place in set(places) if place in self._place)


def _distinct_moves(moves: Iterable[WalkMove]) -> list[WalkMove]:
    """One of those that lead to the same spot by the same route: one for which an SMS is known, if there is any."""
    kept: dict[tuple[int, bool, int], WalkMove] = {}
    for move in moves:
        key = (move.to, move.gave_up, move.route)
        other = kept.get(key)
        if other is None or (has_known_sms(move) and not has_known_sms(other)):
            kept[key] = move
    return list(kept.values())


def has_known_sms(move: WalkMove) -> bool:
    return move.region is None or move.region.sms is not None


def _propagate_liveness(steps: Sequence[SurveyStep], bits: dict[int, int]) -> None:
    """Let every step want what the steps after it want."""
    changed = True
    while changed:
        changed = False
        for place in range(len(steps) - 1, -1, -1):
            wanted = bits[place]
            for go in successor_indexes(steps[place]):
                wanted |= bits[go]
            changed = changed or wanted != bits[place]
            bits[place] = wanted


def _numbers_in(bits: int, count: int) -> frozenset[int]:
    return frozenset(number for number in range(count) if bits >> number & 1)


def _slots_in(text: LocalizedText | None) -> set[str]:
    return {slot.step for template in (text or {}).values() for slot in template_slots(template)}
