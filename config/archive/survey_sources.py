"""Which versions of surveys does the archive have? Their files, as they were when a process first ran them."""

from typing import NamedTuple

from sqlalchemy import Connection, select

from config.archive import tables


class SurveySource(NamedTuple):
    """A version of a survey: its file's name and content."""

    version: str
    file: str
    source: bytes


def read_survey_sources(connection: Connection) -> list[SurveySource]:
    """Return all versions, oldest first."""
    table = tables.surveys.c
    query = select(table.version, table.file, table.source).order_by(table.first_at, table.version)
    return [SurveySource(*row) for row in connection.execute(query)]
