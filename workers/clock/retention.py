"""When is what was said in a session deleted? When its survey's `keep` has passed since it ended: its entries in the
archive, its dead letters, and whose it was. A survey without `keep` leaves that to PARLEY_KEEP_DAYS, as does what
belongs to no session.

An hour's sweep is made by whichever clock process takes the lock; one that died is made up for by the next. Everything
is read in pages, and deleted as it is read.
"""

from collections.abc import Collection, Iterator, Mapping

import msgspec
import redis
import structlog

from config.store import keyspace
from engine.model.events import Delivered, Ended, Opened, Record, Sent
from engine.surveys.survey_registry import Surveys
from workers.store import archive, dead_letter_store
from workers.store.session_records import session_of
from workers.store.survey_versions import learn

log = structlog.get_logger()

EVERY_MS = 3_540_000
"""A little less than the hour between a clock's looks, so that each look of a lone clock finds the lock free."""

_PAGE = 500


class Swept(msgspec.Struct):
    """What was deleted."""

    sessions: int = 0
    entries: int = 0
    dead_letters: int = 0


class Shard(msgspec.Struct):
    """What a shard's archive says of sessions that are not kept as long as the rest: `due` are over for long enough.
    `tickets` tell whose SMS a receipt is about that names only its ticket."""

    due: set[str]
    tickets: dict[str, str]


def sweep_hourly(client: redis.Redis, shards: int, surveys: Surveys) -> Swept | None:
    """`sweep`, unless someone has within the hour."""
    if not client.set(keyspace.RETENTION, "", nx=True, px=EVERY_MS):
        return None
    swept = sweep(client, shards, surveys, keyspace.server_ms(client))
    if swept.sessions:
        log.info("what was said in old sessions is deleted", **msgspec.structs.asdict(swept))
    return swept


def sweep(client: redis.Redis, shards: int, surveys: Surveys, now: int) -> Swept:
    """Delete what is due at `now` (ms)."""
    learn(client, surveys)
    versions: list[bytes] = keyspace.ask(client, ("HKEYS", keyspace.SURVEYS))
    known = filter(None, (surveys.version(version.decode()) for version in versions))
    keeps = {survey.version: survey.keep_ms for survey in known if survey.keep_ms is not None}
    swept = Swept()
    if keeps:
        for k in range(shards):
            _sweep_shard(client, shards, k, keeps, now, swept)
    return swept


def _sweep_shard(
    client: redis.Redis, shards: int, k: int, keeps: Mapping[str, int], now: int, swept: Swept
) -> None:
    shard = _look_through(client, k, keeps, now)
    if not shard.due:
        return
    swept.sessions += len(shard.due)
    swept.entries += archive.delete(client, k, _entries_of(client, k, shard))
    swept.dead_letters += _bury_for_good(client, k, shard.due)
    archive.forget_references(client, shards, shard.due)
    archive.forget_sessions(client, k, shard.due)


def _look_through(client: redis.Redis, k: int, keeps: Mapping[str, int], now: int) -> Shard:
    kept: dict[str, int] = {}
    shard = Shard(set(), {})
    for entry in archive.stored(client, k):
        for record in entry.records:
            match record:
                case Opened(session=session, version=version) if version in keeps:
                    kept[session] = keeps[version]
                case Ended(at=at, session=session) if session in kept and at + kept[session] < now:
                    shard.due.add(session)
                case Sent(session=session, ticket=ticket) if session in kept and ticket:
                    shard.tickets[ticket] = session
                case _:
                    pass
    return shard


def _entries_of(client: redis.Redis, k: int, shard: Shard) -> Iterator[bytes]:
    """The entries that hold nothing but what is due."""
    for entry in archive.stored(client, k):
        if all(_whose(record, shard) in shard.due for record in entry.records):
            yield entry.id


def _whose(record: Record, shard: Shard) -> str:
    if isinstance(record, Delivered) and not record.sms:
        return shard.tickets.get(record.ticket, "")
    return session_of(record)


def _bury_for_good(client: redis.Redis, k: int, sessions: Collection[str]) -> int:
    """Delete the dead letters of these sessions; answers how many there were."""
    return dead_letter_store.delete(client, k, lambda letter: letter.session in sessions, "keep", "not_kept")
