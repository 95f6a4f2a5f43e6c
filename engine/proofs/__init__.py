"""Prove, before a survey runs, that it ends, how much a session costs at most, and that every step, route and
placeholder can be used.

The proofs walk the compiled program: the same routes that the engine follows and the same texts that it fills in. A
bound counts as attained only after the engine itself has played a conversation that reaches it."""

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
"""Codes of errors that become warnings in a survey imported from another system: it already ran there, and the engine
bounds it with `most_sms`."""


_LONGEST_PLAYED = 10_000
"""SMS of a conversation that is played: of `attempts: 1000000000` the bound is computed, and not shown."""


class PathStop(msgspec.Struct, frozen=True):
    """One step on a path: its id, how often its text is sent, and how many reminders follow."""

    step: str
    said: int
    reminded: int


class UpperBound(msgspec.Struct, frozen=True):
    """An upper bound for every session: none exceeds `most` (SMS or segments).

    `attained`: the engine played a session that reaches `most`, on `path`; `script` is the transcript of what its
    person does. Otherwise `path` is the walk that the bound was computed from, and `script` may be empty."""

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
    """Return all errors and warnings about the survey, errors first."""
    return SurveyProof(survey).findings()


def survey_bounds(survey: Survey) -> SessionBounds | None:
    """Return the survey's upper bounds; None if it has a cycle that nothing ends."""
    return SurveyProof(survey).bounds()


def dearest_path(survey: Survey, language: str) -> list[str]:
    """The ids of the steps on the dearest way through the survey, in order; a step may come twice."""
    bound = SurveyProof(survey).segment_bound(language)
    return [stop.step for stop in bound.path] if bound else []


class SurveyProof:
    """Runs all proofs of one survey, and computes once what several of them need (regions, walks, weights)."""

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
        if sum(1 + visit.repeats + visit.reminders for visit in heaviest.visits) > _LONGEST_PLAYED:
            return None
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
    """Return the variables that the invitation and the channel supply for the played walk: the values that its
    conditions need, and the costliest values for variables that only texts use. Raises UnplayableWalkError if a needed
    value is unknown."""
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
