"""Which versions of a survey does the archive have? Every one that a session began with, from the file that it was read from."""

import structlog
from sqlalchemy import Connection, func, select

from config.archive import tables
from engine.surveys.findings import InvalidSurveyError
from engine.surveys.program import Survey
from engine.surveys.survey_reader import read_stored_survey

log = structlog.get_logger()


def read_surveys(connection: Connection, name: str) -> list[Survey]:
    """The versions of the survey `name`, oldest first; none if there is no such survey. One that this release cannot read is
    left out, with a warning in the log."""
    table = tables.surveys.c
    rows = select(table.version, table.file, table.source).where(table.name == name)
    found = []
    for version, file, source in connection.execute(rows.order_by(table.first_at, table.version)):
        try:
            found.append(read_stored_survey(file, source))
        except InvalidSurveyError as e:
            log.warning(
                "an archived survey cannot be read by this release",
                survey=name,
                version=version,
                why=str(e)[:200],
            )
    return found


def survey_names(connection: Connection) -> list[str]:
    """The surveys of which the archive has a version or a session, in alphabetical order. Each name of `sessions` is found by
    its index."""
    names = set(connection.execute(select(tables.surveys.c.name).distinct()).scalars())
    survey = tables.sessions.c.survey
    following = select(func.min(survey)).where(survey > "")
    while (name := connection.execute(following).scalar()) is not None:
        names.add(name)
        following = select(func.min(survey)).where(survey > name)
    return sorted(names)
