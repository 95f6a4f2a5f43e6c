"""What is proved about a survey before it runs: that it ends, what it costs at most, and that every step, route and
placeholder makes sense.

What is proved is about the program itself: the routes are those that the engine follows, the texts those that it fills
in, and a bound is called attained only if the engine attained it.
"""

from collections.abc import Callable, Collection, Mapping
from functools import cached_property

import msgspec

from engine.proofs.bounds import Bounder, in_weights, out_weights, segment_weights
from engine.proofs.flow import Flow, endless
from engine.proofs.keyword_clashes import commands, greedy
from engine.proofs.regions import LONGEST_NUMBER, regions_of
from engine.proofs.spellings import spellings, untold
from engine.proofs.walks import Walks, asked_about, rough_walks, shown, walks_of
from engine.proofs.weighing import Heaviest, Weights
from engine.proofs.witness import Played, Unplayable, play
from engine.surveys.findings import Finding
from engine.surveys.program import Survey
from engine.surveys.variables import NUMBER, is_variable

_LENIENT = ("unreachable", "shadowed", "endless")
"""What a survey that was not written for Parley may have: it ran elsewhere, and is bounded here."""


class Stop(msgspec.Struct, frozen=True):
    """A session comes by a step, which it says `said` times, and reminds of `reminded` times."""

    step: str
    said: int
    reminded: int


class Bound(msgspec.Struct, frozen=True):
    """No session goes beyond `most`.

    `attained`: a session does come to it, on this `path`, if its person does what is in `script`, a transcript. Else
    `path` is how it seems to be come to, and `script` may be empty.
    """

    most: int
    attained: bool
    path: tuple[Stop, ...]
    script: str


class Bounds(msgspec.Struct, frozen=True):
    """SMS out; SMS in, which are the START, answers and invalid answers; segments out, by language."""

    sms_out: Bound
    sms_in: Bound
    segments: Mapping[str, Bound]


def findings(survey: Survey) -> list[Finding]:
    """Everything that is wrong or odd about the survey, errors first."""
    return Proof(survey).findings()


def bounds(survey: Survey) -> Bounds | None:
    """None if the survey has no end."""
    return Proof(survey).bounds()


def dearest_path(survey: Survey, language: str) -> list[str]:
    """The ids of the steps on the dearest way through the survey, in order; a step may come twice."""
    bound = Proof(survey).segments(language)
    return [stop.step for stop in bound.path] if bound else []


class Proof:
    """All that is proved about one survey. What several proofs need is looked at once."""

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        self._regions = regions_of(survey)
        self._costs: dict[str, Weights] = {}
        self._known_walks: dict[frozenset[str], Walks | None] = {}
        self._played: dict[tuple[object, ...], Played | None] = {}

    def findings(self) -> list[Finding]:
        found = endless(self._survey)
        walks = self._walks(asked_about(self._survey.steps))
        rough = walks is None
        walks = walks or rough_walks(self._survey, self._regions)
        found += Flow(self._survey, walks, rough=rough).findings()
        found += [
            *commands(self._survey),
            *greedy(self._survey),
            *untold(self._survey),
            *spellings(self._survey),
        ]
        if self._survey.lenient:
            found = [
                msgspec.structs.replace(each, level="warning") if each.code in _LENIENT else each
                for each in found
            ]
        return sorted(found, key=lambda finding: finding.level)

    def bounds(self) -> Bounds | None:
        first = self._survey.languages[0]
        segments = {language: self.segments(language) for language in self._survey.languages}
        sms_out = self._bound(out_weights(), first, lambda played: played.sms_out)
        sms_in = self._bound(in_weights(), first, lambda played: played.sms_in)
        if sms_out is None or sms_in is None:
            return None
        return Bounds(sms_out, sms_in, {language: bound for language, bound in segments.items() if bound})

    def segments(self, language: str) -> Bound | None:
        return self._bound(self._dearness(language), language, lambda played: played.segments)

    def _bound(self, weights: Weights, language: str, counted: Callable[[Played], int]) -> Bound | None:
        heaviest = self._bounder.heaviest(weights)
        if heaviest.bound is None:
            return None
        path = tuple(
            Stop(self._survey.steps[visit.step].id, 1 + visit.repeats, visit.reminders)
            for visit in heaviest.visits
        )
        played = self._play(heaviest, language)
        if played is None:
            return Bound(heaviest.bound, attained=False, path=path, script="")
        return Bound(heaviest.bound, counted(played) == heaviest.bound, path, played.script)

    def _play(self, heaviest: Heaviest, language: str) -> Played | None:
        """The conversation that belongs to a walk, with the dearest of invalid answers; None if nobody knows it."""
        key = heaviest.visits, tuple(heaviest.variables.items()), language
        if key not in self._played:
            try:
                variables = _variables(self._survey, heaviest)
                weights = self._dearness(language)
                self._played[key] = play(self._survey, heaviest.visits, language, variables, weights)
            except Unplayable:
                self._played[key] = None
        return self._played[key]

    @cached_property
    def _bounder(self) -> Bounder:
        return Bounder(self._survey, self._walks)

    def _dearness(self, language: str) -> Weights:
        if language not in self._costs:
            self._costs[language] = segment_weights(self._survey, language)
        return self._costs[language]

    def _walks(self, remembered: Collection[str]) -> Walks | None:
        places = frozenset(self._regions.keys() & remembered)
        if places not in self._known_walks:
            self._known_walks[places] = walks_of(self._survey, self._regions, places)
        return self._known_walks[places]


def _variables(survey: Survey, heaviest: Heaviest) -> dict[str, str]:
    """What the invitation and the channel say: what the walk needs, and the dearest of what texts put in besides."""
    asked = {atom for atom in asked_about(survey.steps) if is_variable(atom)}
    variables = {
        place[1:]: LONGEST_NUMBER if place == NUMBER else "😀" * survey.variables[place[1:]]
        for place in sorted(shown(survey))
        if is_variable(place) and place not in asked
    }
    for place, region in heaviest.variables.items():
        if is_variable(place):
            if region.sms is None:
                raise Unplayable
            variables[place[1:]] = region.sms
    return variables
