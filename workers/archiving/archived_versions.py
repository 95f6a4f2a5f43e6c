"""Makes the versions of surveys that the archive has known to this process, as workers/store/survey_versions.py does with those
in Redis."""

import structlog
from sqlalchemy import Connection

from config.archive.survey_sources import read_survey_sources
from engine.surveys.findings import InvalidSurveyError
from engine.surveys.survey_reader import read_stored_survey
from engine.surveys.survey_registry import SurveyRegistry

log = structlog.get_logger()


def load_archived_versions(connection: Connection, surveys: SurveyRegistry) -> None:
    """Add to `surveys` the versions that it does not know."""
    for stored in read_survey_sources(connection):
        if surveys.by_version(stored.version) is None:
            try:
                surveys.add_version(read_stored_survey(stored.file, stored.source))
            except InvalidSurveyError as e:
                log.error(  # noqa: TRY400 (the sentence is in `why`)
                    "an archived survey cannot be read by this release", version=stored.version, why=str(e)
                )
