"""What does the archive let go of? What was said in a session that ended, or was refused, longer ago than PARLEY_KEEP_DAYS, or
than its survey's `keep`, whichever is sooner; in one that never ended, if nothing was heard of it for PARLEY_KEEP_DAYS. What
belongs to no session goes when it is older than PARLEY_KEEP_DAYS; a version of a survey too, once no session of it is left.
Redis does the same by the same times: workers/clock/retention.py. Opt-outs, which are hashes, and the audit stay for good.

Law: what is deleted was due under the lock of its shard, and no transaction deletes more than a page, so that whoever archives
waits for little. A sweep that dies half-way is gone on with by the next one.
"""

from collections.abc import Iterator, Sequence

import msgspec
import structlog
from sqlalchemy import ColumnElement, Connection, Table, and_, delete, exists, select, tuple_

from config.archive import tables
from config.archive.database import EVENTS_SOURCE, ArchiveDatabase
from config.settings.settings import Settings
from config.store import keyspace, redis_client
from engine.surveys.survey_registry import SurveyRegistry
from workers.archiving.archived_versions import load_archived_versions
from workers.archiving.deployment_pairing import is_ours
from workers.archiving.row_deletion import (
    ENTRY_TABLES,
    SESSION_TABLES,
    delete_of_sessions,
    delete_page,
    named_tables,
)
from workers.store.clock_difference import ServerClockJudge
from workers.store.deployment import Deployment
from workers.store.keep_times import read_keep_times
from workers.store.survey_versions import load_versions

log = structlog.get_logger()

SWEEP_INTERVAL_MS = 3_540_000
"""A little less than the hour between a process's looks, so that each look of a lone one finds the lock free."""

SESSIONS_A_PAGE = 500
ROWS_A_PAGE = 5_000
"""Deleted in one transaction."""

SESSIONS_FOUND_AT_ONCE = 20_000

_DAY_MS = 86_400_000

_Condition = ColumnElement[bool]


class RetentionCounts(msgspec.Struct):
    """How much a sweep deleted: sessions, entries of theirs and of no session, rows of other tables, versions of surveys."""

    sessions: int = 0
    entries: int = 0
    other_rows: int = 0
    surveys: int = 0

    def add_rows(self, counts: dict[str, int]) -> None:
        for name, rows in counts.items():
            counted = name if name in ("sessions", "entries") else "other_rows"
            setattr(self, counted, getattr(self, counted) + rows)


def sweep_archive_hourly(deployment: Deployment, database: ArchiveDatabase) -> RetentionCounts | None:
    """`run_retention`, unless a process has within the hour, there is no archive yet, it is of another deployment, or the clocks
    of Redis and of this machine differ: what is deleted by a wrong time is gone."""
    client = deployment.lanes
    if not is_ours(client, database):
        return None
    now_ms = redis_client.server_time_ms(client)
    if ServerClockJudge(deployment.host).judge(now_ms).hold_deadlines:
        log.warning("nothing is deleted from the archive: the clocks of Redis and of this machine differ")
        return None
    if not client.set(keyspace.ARCHIVE_RETENTION_KEY, "", nx=True, px=SWEEP_INTERVAL_MS):
        return None
    load_versions(client, deployment.surveys)
    swept = run_retention(database, deployment.settings, deployment.surveys, now_ms)
    if swept != RetentionCounts():
        log.info("what was said in old sessions is deleted from the archive", **msgspec.structs.asdict(swept))
    return swept


def run_retention(
    database: ArchiveDatabase, settings: Settings, surveys: SurveyRegistry, now_ms: int
) -> RetentionCounts:
    """Delete what is due at `now_ms`, and count it. `surveys` are those in use, and their versions."""
    swept = RetentionCounts()
    for due in _due_sessions(database, settings, surveys, now_ms):
        _delete_sessions(database, due, swept)
    horizon = now_ms - settings.keep_ms
    for name, table in named_tables((*ENTRY_TABLES, "refusals")):
        _delete_without_session(database, name, table, horizon, swept)
    swept.surveys = _delete_versions(database, surveys, horizon)
    return swept


# Which sessions are due


def _due_sessions(
    database: ArchiveDatabase, settings: Settings, surveys: SurveyRegistry, now_ms: int
) -> Iterator[_Condition]:
    """Yield the conditions on `sessions` under which one is due, each of which an index serves."""
    table = tables.sessions.c
    horizon = now_ms - settings.keep_ms
    yield table.ended_at < horizon
    yield and_(table.ended_at.is_(None), table.last_at < horizon)
    for survey, versions, keep_ms in _shorter_keeps(database, settings, surveys):
        horizon = now_ms - keep_ms
        # the index has when the end was recorded, which differs from when it was by no more than clocks do
        recorded = and_(table.survey == survey, table.ended_ms > 0, table.ended_ms < horizon + _DAY_MS)
        yield and_(recorded, table.version.in_(versions), table.ended_at < horizon)


def _shorter_keeps(
    database: ArchiveDatabase, settings: Settings, surveys: SurveyRegistry
) -> Iterator[tuple[str, Sequence[str], int]]:
    """Yield a survey's name, some of its versions (the empty one is of sessions that never opened), and for how long (ms) they
    are kept, if that is not as long as everything."""
    current = list(filter(None, map(surveys.current, surveys.current_names())))
    known = SurveyRegistry(current)
    with database.reading() as connection:
        archived = connection.execute(select(tables.surveys.c.version)).scalars().all()
        load_archived_versions(connection, known)
    times = read_keep_times(known, {*archived, *(survey.version for survey in current)})
    keeps = {(name, keep_ms): [""] for name, keep_ms in times.by_name.items()}
    for version, keep_ms in times.by_version.items():
        if survey := known.by_version(version):
            keeps.setdefault((survey.name, keep_ms), []).append(version)
    yield from (
        (name, kept, keep_ms) for (name, keep_ms), kept in keeps.items() if keep_ms < settings.keep_ms
    )


# What is deleted


def _delete_sessions(database: ArchiveDatabase, due: _Condition, swept: RetentionCounts) -> None:
    """Delete the sessions that are due, with all that is theirs, shard by shard."""
    while found := _find_sessions(database, due):
        before = swept.sessions
        for k, sessions in found.items():
            for at in range(0, len(sessions), SESSIONS_A_PAGE):
                page = sessions[at : at + SESSIONS_A_PAGE]
                with database.writing() as connection:
                    database.lock_position(connection, EVENTS_SOURCE, k)
                    swept.add_rows(_delete_session_page(connection, due, page))
        if swept.sessions == before:
            return


def _find_sessions(database: ArchiveDatabase, due: _Condition) -> dict[int, list[str]]:
    """Some of the sessions that are due, by shard."""
    table = tables.sessions.c
    found: dict[int, list[str]] = {}
    with database.reading() as connection:
        query = select(table.shard, table.session).where(due).limit(SESSIONS_FOUND_AT_ONCE)
        for k, session in connection.execute(query):
            found.setdefault(k, []).append(session)
    return found


def _delete_session_page(connection: Connection, due: _Condition, page: Sequence[str]) -> dict[str, int]:
    """Delete those of the page that are due still, now that nobody changes them."""
    table = tables.sessions.c
    query = select(table.session).where(table.session.in_(page), due)
    sessions = connection.execute(query).scalars().all()
    refused = _delete_refusals(connection, sessions)
    return delete_of_sessions(connection, (*ENTRY_TABLES, *SESSION_TABLES), sessions) | {"refusals": refused}


def _delete_refusals(connection: Connection, sessions: Sequence[str]) -> int:
    """Delete the refusals of these sessions' invitations, which stand where the sessions ended."""
    table, refusals = tables.sessions.c, tables.refusals.c
    ends = select(table.shard, table.ended_ms, table.ended_seq).where(table.session.in_(sessions))
    place = tuple_(refusals.shard, refusals.entry_ms, refusals.entry_seq)
    due = delete(tables.refusals).where(place.in_(ends), refusals.event.in_(sessions))
    return connection.execute(due).rowcount if sessions else 0


def _delete_without_session(
    database: ArchiveDatabase, name: str, table: Table, horizon: int, swept: RetentionCounts
) -> None:
    """Delete what is older than `horizon` (ms) and belongs to no session that is kept. Of most shards it is nothing: those are
    not locked."""
    session = table.c.event if name == "refusals" else table.c.session
    kept = exists().where(tables.sessions.c.session == session)
    old = and_(table.c.entry_ms < horizon, ~kept)
    for k in _shards_with(database, table, old):
        rows = ROWS_A_PAGE
        while rows == ROWS_A_PAGE:
            with database.writing() as connection:
                database.lock_position(connection, EVENTS_SOURCE, k)
                rows = delete_page(connection, table, and_(table.c.shard == k, old), ROWS_A_PAGE)
            swept.add_rows({name: rows})


def _shards_with(database: ArchiveDatabase, table: Table, condition: _Condition) -> Sequence[int]:
    """The shards of which the table has a row that meets the condition; each is looked at by the index of places."""
    positions = tables.positions.c
    there = exists().where(table.c.shard == positions.shard, condition)
    query = select(positions.shard).where(positions.source == EVENTS_SOURCE, there)
    with database.reading() as connection:
        return connection.execute(query.order_by(positions.shard)).scalars().all()


def _delete_versions(database: ArchiveDatabase, surveys: SurveyRegistry, horizon: int) -> int:
    """Delete the versions that came before `horizon` (ms), of which there is no session, and which nobody runs."""
    table = tables.surveys.c
    of_it = exists().where(tables.sessions.c.survey == table.name, tables.sessions.c.version == table.version)
    with database.writing() as connection:
        old = connection.execute(select(table.version).where(table.first_at < horizon, ~of_it)).scalars()
        unused = [version for version in old if surveys.by_version(version) is None]
        if unused:
            connection.execute(delete(tables.surveys).where(table.version.in_(unused)))
    return len(unused)
