"""What the archive says of surveys: how people go through one, and how many are on which version."""

import msgspec

from config.archive.funnel import Funnel, read_funnel
from config.archive.result_filters import ResultFilters
from config.archive.step_sessions import (
    StepSessionFilter,
    StepSessionPage,
    VersionSessions,
    count_version_sessions,
    read_step_sessions,
)
from config.archive.surveys_kept import read_surveys
from config.settings.survey_folder import read_survey_files
from engine.proofs.survey_loader import reload_surveys
from engine.surveys.program import Survey
from workers.console.console_archive import LONGEST_READING_S, ArchiveAwayError
from workers.history.readable_archive import open_readable_archive
from workers.results.archive_state import ArchiveState, read_archive_state
from workers.store import survey_versions
from workers.store.deployment import Deployment

PEOPLE_A_PAGE = 50


class SurveyReading(msgspec.Struct, frozen=True):
    """What became of the sessions of one survey, those of all its versions. `kept` are the versions that the archive has, newest
    first."""

    funnel: Funnel
    archive: ArchiveState
    versions: list[VersionSessions]
    kept: list[Survey]


class SurveyTotals(msgspec.Struct, frozen=True):
    """How many sessions each version of each survey has."""

    versions: list[VersionSessions]


def read_survey(deployment: Deployment, survey: str) -> SurveyReading:
    """Raises ArchiveAwayError and SQLAlchemyError."""
    with open_readable_archive(deployment) as (archive, why):
        if archive is None:
            raise ArchiveAwayError(why)
        with archive.reading(LONGEST_READING_S) as connection:
            kept = read_surveys(connection, survey)[::-1]
            return SurveyReading(
                funnel=read_funnel(connection, ResultFilters(survey=survey)),
                archive=read_archive_state(connection, deployment, kept),
                versions=count_version_sessions(connection, survey),
                kept=kept,
            )


def read_totals(deployment: Deployment) -> SurveyTotals:
    """Raises ArchiveAwayError and SQLAlchemyError."""
    with open_readable_archive(deployment) as (archive, why):
        if archive is None:
            raise ArchiveAwayError(why)
        with archive.reading(LONGEST_READING_S) as connection:
            return SurveyTotals(count_version_sessions(connection))


def read_people(deployment: Deployment, wanted: StepSessionFilter, before: int) -> StepSessionPage:
    """A page of who is at a step. Raises ArchiveAwayError and SQLAlchemyError."""
    with open_readable_archive(deployment) as (archive, why):
        if archive is None:
            raise ArchiveAwayError(why)
        with archive.reading(LONGEST_READING_S) as connection:
            return read_step_sessions(connection, wanted, before, PEOPLE_A_PAGE)


def read_refused_files(deployment: Deployment) -> dict[str, list[str]]:
    """The files of the folder that no process takes up, each with what is wrong with it."""
    settings = deployment.settings
    try:
        files = read_survey_files(settings.surveys)
    except OSError as e:
        return {str(settings.surveys): [f"it cannot be read ({e.strerror})"]}
    found = reload_surveys(files, deployment.surveys.snapshot(), settings.offered_surveys)
    return dict(found.refused)


def find_version(deployment: Deployment, name: str, version: str) -> Survey | None:
    """A version of the survey `name`, from here or from Redis; the current one if none is asked for."""
    if not version:
        return deployment.surveys.current(name)
    if deployment.surveys.by_version(version) is None:
        survey_versions.load_versions(deployment.lanes, deployment.surveys, [version])
    found = deployment.surveys.by_version(version)
    return found if found is not None and found.name == name else None
