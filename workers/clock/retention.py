"""When is what was said in a session deleted from Redis? When its survey's `keep` has passed since it ended: its entries in
the event stream, its dead letters, and whose it was. An invitation that was refused counts as a session that ended then, of
its survey as it is today. What belongs to no session, and to a survey without `keep`, stays for as long as the stream is kept.
The archive does the same by the same times (workers/archiving/archive_retention.py); what this sweep deletes before it was archived
never gets there.

An hour's sweep is made by whichever clock process takes the lock; one that died is made up for by the next. Everything
is read in pages, and deleted as it is read.
"""

from collections.abc import Collection, Iterator, Mapping

import msgspec
import redis
import structlog

from config.store import keyspace, redis_client
from config.store.counts import campaigns
from config.store.entry_id import EntryId
from config.store.function_calls import function_call
from config.store.server_functions import ForgetCampaigns
from engine.model.events import (
    ArchiveRecord,
    Invitation,
    OpeningRefused,
    ReceiptRecorded,
    SessionEnded,
    SessionOpened,
    SmsSent,
)
from engine.surveys.survey_registry import SurveyRegistry
from workers.store import dead_letter_store, event_stream
from workers.store.keep_times import read_keep_times
from workers.store.session_records import session_of_record
from workers.store.survey_versions import load_versions

log = structlog.get_logger()

SWEEP_INTERVAL_MS = 3_540_000
"""A little less than the hour between a clock's looks, so that each look of a lone clock finds the lock free."""

CAMPAIGN_KEEP_MS = 400 * 86_400_000
"""How long a campaign's counts are kept after the last change."""

_PAGE = 500


class SweepCounts(msgspec.Struct):
    """Counts of what a sweep deleted."""

    sessions: int = 0
    entries: int = 0
    dead_letters: int = 0


class ExpiringSessions(msgspec.Struct):
    """The sessions of a shard that are not kept as long as the rest: `due_sessions` ended long enough ago.
    `session_by_ticket` tells whose SMS a receipt is about that names only its ticket."""

    due_sessions: set[str]
    session_by_ticket: dict[str, str]


def sweep_hourly(client: redis.Redis, shards: int, surveys: SurveyRegistry) -> SweepCounts | None:
    """`sweep_expired`, unless someone has within the hour."""
    if not client.set(keyspace.RETENTION_KEY, "", nx=True, px=SWEEP_INTERVAL_MS):
        return None
    now = redis_client.server_time_ms(client)
    swept = sweep_expired(client, shards, surveys, now)
    if many := forget_idle_campaigns(client, shards, now - CAMPAIGN_KEEP_MS):
        log.info("campaigns are forgotten that nothing happened in for long", campaigns=many)
    if swept.sessions:
        log.info("what was said in old sessions is deleted", **msgspec.structs.asdict(swept))
    return swept


def sweep_expired(client: redis.Redis, shards: int, surveys: SurveyRegistry, now: int) -> SweepCounts:
    """Delete what is due at `now` (ms)."""
    load_versions(client, surveys)
    versions: list[bytes] = redis_client.run_command(client, ("HKEYS", keyspace.SURVEYS_KEY))
    known = read_keep_times(surveys, [version.decode() for version in versions])
    swept = SweepCounts()
    if known.by_version:
        keeps = known.by_version | known.by_name
        away = [k for k in range(shards) if not _sweep_if_there(client, shards, k, keeps, now, swept)]
        if away:
            log.warning("shards are swept later, as their server is away", shards=away)
    return swept


def forget_idle_campaigns(client: redis.Redis, shards: int, before_ms: int) -> int:
    """Forget what shards have of campaigns whose counts have not changed since `before_ms`; how many there were, by shard. Shards
    whose server is away wait for the next sweep."""
    answers = redis_client.try_commands(client, campaigns.list_commands(shards))
    redis_client.raise_refusals(answers)
    commands = []
    for k, found in enumerate(answers):
        stored = {} if isinstance(found, Exception) else found
        idle = [name for name, value in stored.items() if campaigns.decode_campaign(value).at < before_ms]
        if idle:
            call = ForgetCampaigns(
                campaigns=keyspace.campaigns_key(k),
                campaign_sessions=keyspace.campaign_sessions_key(k),
                before_ms=before_ms,
                names=idle,
            )
            commands.append(function_call(call))
    forgotten = redis_client.try_commands(client, commands) if commands else []
    redis_client.raise_refusals(forgotten)
    return sum(each for each in forgotten if not isinstance(each, Exception))


def _sweep_if_there(
    client: redis.Redis, shards: int, k: int, keeps: Mapping[str, int], now: int, swept: SweepCounts
) -> bool:
    """Sweep a shard. Return False if its server is away, while others of a cluster are not: it is left for the next sweep."""
    try:
        _sweep_shard(client, shards, k, keeps, now, swept)
    except redis.RedisError as e:
        if not redis_client.is_alone(client, e):
            raise
        return False
    return True


def _sweep_shard(
    client: redis.Redis, shards: int, k: int, keeps: Mapping[str, int], now: int, swept: SweepCounts
) -> None:
    shard = _find_expiring(client, k, keeps, now)
    if not shard.due_sessions:
        return
    # the entries last, by which the next sweep finds what this one does not come to: references lie in any shard
    event_stream.forget_references(client, shards, shard.due_sessions)
    event_stream.forget_sessions(client, k, shard.due_sessions)
    swept.sessions += len(shard.due_sessions)
    swept.dead_letters += _delete_dead_letters(client, k, shard.due_sessions)
    swept.entries += event_stream.delete_entries(client, k, _due_entries(client, k, shard))


def _find_expiring(client: redis.Redis, k: int, keeps: Mapping[str, int], now: int) -> ExpiringSessions:
    kept: dict[str, int] = {}
    shard = ExpiringSessions(set(), {})
    for entry in event_stream.scan_entries(client, k):
        for record in entry.records:
            match record:
                case SessionOpened(session=session, version=version) if version in keeps:
                    kept[session] = keeps[version]
                case OpeningRefused(at=at, id=session, invitation=Invitation(survey=survey)) if (
                    survey in keeps and at + keeps[survey] < now
                ):
                    shard.due_sessions.add(session)
                case SessionEnded(at=at, session=session) if session in kept and at + kept[session] < now:
                    shard.due_sessions.add(session)
                case SmsSent(session=session, ticket=ticket) if session in kept and ticket:
                    shard.session_by_ticket[ticket] = session
                case _:
                    pass
    return shard


def _due_entries(client: redis.Redis, k: int, shard: ExpiringSessions) -> Iterator[EntryId]:
    """The entries that hold nothing but what is due."""
    for entry in event_stream.scan_entries(client, k):
        if all(_resolve_session(record, shard) in shard.due_sessions for record in entry.records):
            yield entry.id


def _resolve_session(record: ArchiveRecord, shard: ExpiringSessions) -> str:
    if isinstance(record, ReceiptRecorded) and not record.sms:
        return shard.session_by_ticket.get(record.ticket, "")
    return session_of_record(record)


def _delete_dead_letters(client: redis.Redis, k: int, sessions: Collection[str]) -> int:
    """Delete the dead letters of these sessions; answers how many there were."""
    return dead_letter_store.delete_matching(
        client, k, lambda letter: letter.session in sessions, "keep", "not_kept"
    )
