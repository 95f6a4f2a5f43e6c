"""What is proved about a survey before it runs: that it ends, what it costs at most, and that every step, route and
placeholder makes sense.

What is proved is about the program itself: the routes are those that the engine follows, the texts those that it fills
in, and a bound is called attained only if the engine attained it.
"""

from collections.abc import Callable, Collection, Mapping
from functools import cached_property

import msgspec

from engine.proofs.bounds import BoundFinder, in_weights, out_weights, segment_weights
from engine.proofs.flow import FlowChecker, endless_cycles
from engine.proofs.keyword_clashes import command_answers, greedy_patterns
from engine.proofs.regions import LONGEST_CHANNEL_NUMBER, regions_of
from engine.proofs.spellings import spelling_findings, unknown_builtin_variables
from engine.proofs.walks import WalkGraph, condition_places, explore_walks, rough_walks, text_places
from engine.proofs.weighing import HeaviestWalk, WalkWeights
from engine.proofs.witness import PlayedWalk, UnplayableWalkError, play_walk
from engine.surveys.findings import SurveyFinding
from engine.surveys.program import Survey
from engine.surveys.variables import NUMBER_KEY, is_variable

_LENIENT_CODES = ("unreachable", "shadowed", "endless")
"""What a survey that was not written for Parley may have: it ran elsewhere, and is bounded here."""


class PathStop(msgspec.Struct, frozen=True):
    """A session comes by a step, which it says `said` times, and reminds of `reminded` times."""

    step: str
    said: int
    reminded: int


class UpperBound(msgspec.Struct, frozen=True):
    """No session goes beyond `most`.

    `attained`: a session does come to it, on this `path`, if its person does what is in `script`, a transcript. Else
    `path` is how it seems to be come to, and `script` may be empty.
    """

    most: int
    attained: bool
    path: tuple[PathStop, ...]
    script: str


class SessionBounds(msgspec.Struct, frozen=True):
    """SMS out; SMS in, which are the START, answers and invalid answers; segments out, by language."""

    sms_out: UpperBound
    sms_in: UpperBound
    segments: Mapping[str, UpperBound]


def survey_findings(survey: Survey) -> list[SurveyFinding]:
    """Everything that is wrong or odd about the survey, errors first."""
    return SurveyProof(survey).findings()


def survey_bounds(survey: Survey) -> SessionBounds | None:
    """None if the survey has no end."""
    return SurveyProof(survey).bounds()


def dearest_path(survey: Survey, language: str) -> list[str]:
    """The ids of the steps on the dearest way through the survey, in order; a step may come twice."""
    bound = SurveyProof(survey).segment_bound(language)
    return [stop.step for stop in bound.path] if bound else []


class SurveyProof:
    """All that is proved about one survey. What several proofs need is looked at once."""

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        self._regions = regions_of(survey)
        self._weights_by_language: dict[str, WalkWeights] = {}
        self._walks_by_places: dict[frozenset[str], WalkGraph | None] = {}
        self._played_walks: dict[tuple[object, ...], PlayedWalk | None] = {}

    def findings(self) -> list[SurveyFinding]:
        found = endless_cycles(self._survey)
        walks = self._walks_remembering(condition_places(self._survey.steps))
        rough = walks is None
        walks = walks or rough_walks(self._survey, self._regions)
        found += FlowChecker(self._survey, walks, rough=rough).findings()
        found += [
            *command_answers(self._survey),
            *greedy_patterns(self._survey),
            *unknown_builtin_variables(self._survey),
            *spelling_findings(self._survey),
        ]
        if self._survey.lenient:
            found = [
                msgspec.structs.replace(each, level="warning") if each.code in _LENIENT_CODES else each
                for each in found
            ]
        return sorted(found, key=lambda finding: finding.level)

    def bounds(self) -> SessionBounds | None:
        first = self._survey.languages[0]
        segments = {language: self.segment_bound(language) for language in self._survey.languages}
        sms_out = self._upper_bound(out_weights(), first, lambda played: played.sms_out)
        sms_in = self._upper_bound(in_weights(), first, lambda played: played.sms_in)
        if sms_out is None or sms_in is None:
            return None
        return SessionBounds(
            sms_out, sms_in, {language: bound for language, bound in segments.items() if bound}
        )

    def segment_bound(self, language: str) -> UpperBound | None:
        return self._upper_bound(self._segment_weights(language), language, lambda played: played.segments)

    def _upper_bound(
        self, weights: WalkWeights, language: str, counted: Callable[[PlayedWalk], int]
    ) -> UpperBound | None:
        heaviest = self._bound_finder.heaviest_walk(weights)
        if heaviest.bound is None:
            return None
        path = tuple(
            PathStop(self._survey.steps[visit.step].id, 1 + visit.repeats, visit.reminders)
            for visit in heaviest.visits
        )
        played = self._play_walk(heaviest, language)
        if played is None:
            return UpperBound(heaviest.bound, attained=False, path=path, script="")
        return UpperBound(heaviest.bound, counted(played) == heaviest.bound, path, played.script)

    def _play_walk(self, heaviest: HeaviestWalk, language: str) -> PlayedWalk | None:
        """The conversation that belongs to a walk, with the dearest of invalid answers; None if nobody knows it."""
        key = heaviest.visits, tuple(heaviest.variables.items()), language
        if key not in self._played_walks:
            try:
                variables = _initial_variables(self._survey, heaviest)
                weights = self._segment_weights(language)
                self._played_walks[key] = play_walk(
                    self._survey, heaviest.visits, language, variables, weights
                )
            except UnplayableWalkError:
                self._played_walks[key] = None
        return self._played_walks[key]

    @cached_property
    def _bound_finder(self) -> BoundFinder:
        return BoundFinder(self._survey, self._walks_remembering)

    def _segment_weights(self, language: str) -> WalkWeights:
        if language not in self._weights_by_language:
            self._weights_by_language[language] = segment_weights(self._survey, language)
        return self._weights_by_language[language]

    def _walks_remembering(self, remembered: Collection[str]) -> WalkGraph | None:
        places = frozenset(self._regions.keys() & remembered)
        if places not in self._walks_by_places:
            self._walks_by_places[places] = explore_walks(self._survey, self._regions, places)
        return self._walks_by_places[places]


def _initial_variables(survey: Survey, heaviest: HeaviestWalk) -> dict[str, str]:
    """What the invitation and the channel say: what the walk needs, and the dearest of what texts put in besides."""
    asked = {atom for atom in condition_places(survey.steps) if is_variable(atom)}
    variables = {
        place[1:]: LONGEST_CHANNEL_NUMBER if place == NUMBER_KEY else "😀" * survey.variables[place[1:]]
        for place in sorted(text_places(survey))
        if is_variable(place) and place not in asked
    }
    for place, region in heaviest.variables.items():
        if is_variable(place):
            if region.sms is None:
                raise UnplayableWalkError
            variables[place[1:]] = region.sms
    return variables
