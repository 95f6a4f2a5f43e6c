"""Which surveys does the archive know? Their versions, and how many sessions there are of each."""

from collections.abc import Collection

import msgspec
from sqlalchemy import Connection, func, select

from config.archive import tables


class KeptVersion(msgspec.Struct, frozen=True):
    """A version that sessions opened on, and when (ms) the archive first had it."""

    version: str
    first_at: int


class SurveyOverview(msgspec.Struct):
    """`versions`, oldest first, and how many sessions there are in each state."""

    versions: list[KeptVersion] = []
    sessions: dict[str, int] = {}


def read_survey_overviews(connection: Connection, channels: Collection[str]) -> dict[str, SurveyOverview]:
    """What the archive knows of each survey, by name. Sessions are counted on these channels alone, and a survey that has none
    there is left out."""
    found: dict[str, SurveyOverview] = {}
    table = tables.sessions.c
    counted = (
        select(table.survey, table.state, func.count())
        .where(table.channel.in_(sorted(channels)), table.survey != "")
        .group_by(table.survey, table.state)
    )
    for survey, state, sessions in connection.execute(counted):
        found.setdefault(survey, SurveyOverview([], {})).sessions[state] = sessions
    kept = tables.surveys.c
    versions = select(kept.name, kept.version, kept.first_at).order_by(kept.first_at, kept.version)
    for name, version, first_at in connection.execute(versions):
        if name in found:
            found[name].versions.append(KeptVersion(version, first_at or 0))
    return found


def has_sessions(connection: Connection, survey: str, channels: Collection[str]) -> bool:
    """Are there sessions of the survey on these channels?"""
    table = tables.sessions.c
    query = select(table.session).where(table.survey == survey, table.channel.in_(sorted(channels))).limit(1)
    return connection.execute(query).first() is not None


def archived_surveys(connection: Connection, channels: Collection[str]) -> list[str]:
    """The names of the surveys of which there are sessions on these channels."""
    kept = tables.surveys.c
    names = connection.execute(select(kept.name).distinct().order_by(kept.name)).scalars()
    return [name for name in names if has_sessions(connection, name, channels)]
