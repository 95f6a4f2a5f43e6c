"""How long is what was said in a session kept? For its survey's `keep` after the session's end, as its version has that; for
that of the survey of today, if an invitation was refused; without one as long as everything else."""

from collections.abc import Iterable

import msgspec

from engine.surveys.program import Survey
from engine.surveys.survey_registry import SurveyRegistry


class KeepTimes(msgspec.Struct, frozen=True):
    """ms by version, and by the name of a current survey: of those alone that say `keep`."""

    by_version: dict[str, int]
    by_name: dict[str, int]


def read_keep_times(surveys: SurveyRegistry, versions: Iterable[str]) -> KeepTimes:
    """Return what the current surveys and these versions say, as far as `surveys` knows them."""
    current = filter(None, map(surveys.current, surveys.current_names()))
    known = filter(None, map(surveys.by_version, versions))
    return KeepTimes(
        by_version={survey.version: keep_ms for survey, keep_ms in _with_keep(known)},
        by_name={survey.name: keep_ms for survey, keep_ms in _with_keep(current)},
    )


def _with_keep(surveys: Iterable[Survey]) -> Iterable[tuple[Survey, int]]:
    return ((survey, survey.keep_ms) for survey in surveys if survey.keep_ms is not None)
