"""What is proved about a survey before it runs: that it ends, what it costs at most, and that every step, route and
placeholder makes sense.

What is proved is about the program itself: the routes are those that the engine follows, the texts those that it fills
in, and a bound is called attained only if the engine attained it.
"""

from collections.abc import Callable, Mapping

import msgspec

from engine.findings import Finding
from engine.program import Survey
from engine.proofs.bounds import Bounder, in_weights, out_weights, segment_weights
from engine.proofs.flow import Flow, endless
from engine.proofs.regions import regions_of
from engine.proofs.spellings import spellings
from engine.proofs.walks import asked_about, rough_walks, shown, walks_of
from engine.proofs.weighing import Heaviest, Weights
from engine.proofs.witness import Played, Unplayable, play
from engine.variables import is_variable

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
    found = endless(survey)
    regions = regions_of(survey)
    walks = walks_of(survey, regions, asked_about(survey.steps)) or rough_walks(survey, regions)
    found += Flow(survey, walks).findings()
    found += spellings(survey)
    if survey.lenient:
        found = [
            msgspec.structs.replace(each, level="warning") if each.code in _LENIENT else each
            for each in found
        ]
    return sorted(found, key=lambda finding: finding.level)


def bounds(survey: Survey) -> Bounds | None:
    """None if the survey has no end."""
    bounder = Bounder(survey, regions_of(survey))
    first = survey.languages[0]
    sms_out = _bound(survey, first, bounder, out_weights(), lambda played: played.sms_out, "the most SMS out")
    sms_in = _bound(survey, first, bounder, in_weights(), lambda played: played.sms_in, "the most SMS in")
    if sms_out is None or sms_in is None:
        return None
    segments = {
        language: bound
        for language in survey.languages
        if (bound := _segments(survey, language, bounder)) is not None
    }
    return Bounds(sms_out, sms_in, segments)


def dearest_path(survey: Survey, language: str) -> list[str]:
    """The ids of the steps on the dearest way through the survey, in order; a step may come twice."""
    bound = _segments(survey, language, Bounder(survey, regions_of(survey)))
    return [stop.step for stop in bound.path] if bound else []


def _segments(survey: Survey, language: str, bounder: Bounder) -> Bound | None:
    weights = segment_weights(survey, language)
    title = f"the dearest conversation in {language}"
    return _bound(survey, language, bounder, weights, lambda played: played.segments, title)


def _bound(
    survey: Survey,
    language: str,
    bounder: Bounder,
    weights: Weights,
    counted: Callable[[Played], int],
    title: str,
) -> Bound | None:
    heaviest = bounder.heaviest(weights)
    if heaviest.bound is None:
        return None
    path = tuple(
        Stop(survey.steps[visit.step].id, 1 + visit.repeats, visit.reminders) for visit in heaviest.visits
    )
    try:
        played = play(survey, heaviest.visits, language, _variables(survey, heaviest), weights, title)
    except Unplayable:
        return Bound(heaviest.bound, attained=False, path=path, script="")
    return Bound(heaviest.bound, counted(played) == heaviest.bound, path, played.script)


def _variables(survey: Survey, heaviest: Heaviest) -> dict[str, str]:
    """What the invitation says: what the walk needs, and the dearest of what texts put in besides."""
    asked = {atom for atom in asked_about(survey.steps) if is_variable(atom)}
    variables = {
        place[1:]: "😀" * survey.variables[place[1:]]
        for place in sorted(shown(survey))
        if is_variable(place) and place not in asked
    }
    for place, region in heaviest.variables.items():
        if is_variable(place):
            if region.sms is None:
                raise Unplayable
            variables[place[1:]] = region.sms
    return variables
