"""Who is at a step of a survey, or was left there? Looked for among the newest sessions, so that it takes no longer than that.

A page looks at MAX_EXAMINED sessions at the most, however few of them fit, by the index on (survey, opened_at), and says how far
it came: the next page goes on from there.
"""

from collections.abc import Sequence
from typing import Any, Literal, assert_never

import msgspec
from sqlalchemy import Connection, case, func, select

from config.archive import tables

MAX_EXAMINED = 10_000

Whereabouts = Literal["open", "left", "here"]
"""`open`: the step was asked last, and the session is open. `left`: it ended otherwise than completed since. `here`: either."""


class StepSessionFilter(msgspec.Struct, frozen=True):
    """Which sessions of `survey`; an empty `step` or `version` is any."""

    survey: str
    step: str = ""
    version: str = ""
    whereabouts: Whereabouts = "here"


class StepSession(msgspec.Struct, frozen=True):
    """Where one session stands. Moments are ms, 0 for none."""

    session: str
    sender: str
    channel: str
    version: str
    language: str
    state: str
    step: str
    opened_at: int
    last_at: int


class StepSessionPage(msgspec.Struct, frozen=True):
    """The sessions that fit, those that opened last first. `before` is what the next page is asked for with; 0: there is none.
    `examined` sessions were looked at."""

    sessions: Sequence[StepSession]
    before: int
    examined: int


def read_step_sessions(
    connection: Connection, wanted: StepSessionFilter, before: int, limit: int
) -> StepSessionPage:
    """The next `limit` sessions that opened before this moment (ms); 0: the newest. Some more, if they opened in one ms."""
    table = tables.sessions.c
    newest = [table.survey == wanted.survey, table.opened_at.is_not(None)]
    if before:
        newest.append(table.opened_at < before)
    looked = select(table.opened_at).where(*newest).order_by(table.opened_at.desc()).limit(MAX_EXAMINED)
    bounds = looked.subquery("looked").c
    examined, oldest = connection.execute(select(func.count(), func.min(bounds.opened_at))).one()
    if not examined:
        return StepSessionPage([], 0, 0)
    fitting = [*newest, table.opened_at >= oldest, *_conditions(wanted)]
    query = select(*(table[name] for name in StepSession.__struct_fields__)).where(*fitting)
    ordered = query.order_by(table.opened_at.desc(), table.session)
    rows = connection.execute(ordered.limit(limit + 1)).all()
    if len(rows) > limit:
        last = rows[limit - 1].opened_at
        same = connection.execute(query.where(table.opened_at == last).order_by(table.session)).all()
        rows = [*(row for row in rows[:limit] if row.opened_at != last), *same]
        return StepSessionPage(_sessions(rows), last, examined)
    return StepSessionPage(_sessions(rows), oldest if examined == MAX_EXAMINED else 0, examined)


def _conditions(wanted: StepSessionFilter) -> list[Any]:
    table = tables.sessions.c
    conditions: list[Any] = []
    if wanted.step:
        conditions.append(table.step == wanted.step)
    if wanted.version:
        conditions.append(table.version == wanted.version)
    match wanted.whereabouts:
        case "open":
            conditions.append(table.state == "open")
        case "left":
            conditions.append(table.state.not_in(("open", "completed")))
        case "here":
            conditions.append(table.state != "completed")
        case _:
            assert_never(wanted.whereabouts)
    return conditions


def _sessions(rows: Sequence[Any]) -> list[StepSession]:
    return [
        StepSession(
            session=row.session,
            sender=row.sender,
            channel=row.channel,
            version=row.version,
            language=row.language,
            state=row.state,
            step=row.step,
            opened_at=row.opened_at or 0,
            last_at=row.last_at or 0,
        )
        for row in rows
    ]


class VersionSessions(msgspec.Struct, frozen=True):
    """So many sessions of a version of a survey are open, and so many of it there are."""

    survey: str
    version: str
    open: int
    sessions: int


def count_version_sessions(connection: Connection, survey: str = "") -> list[VersionSessions]:
    """The sessions of each version, of one survey or of all that there are."""
    table = tables.sessions.c
    is_open = func.sum(case((table.state == "open", 1), else_=0))
    query = select(table.survey, table.version, is_open, func.count()).where(table.opened_at.is_not(None))
    query = query.where(table.survey == survey) if survey else query
    rows = connection.execute(query.group_by(table.survey, table.version))
    return [VersionSessions(survey, version, int(still), all_) for survey, version, still, all_ in rows]
