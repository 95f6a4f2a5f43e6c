"""Where is the version of a survey that a session began with? In Redis, put there by whoever runs it, before any
session can open on it. So that a process with other files, older or newer, can go on with a session pinned to it.

A version is in use while a process runs it or an open session is pinned to it. Once it has not been for as long as the
event streams are kept, and they have nothing any more that is older than its last use, it is forgotten: nothing here refers
to it, and an archive has it with what does, as nothing leaves the streams that it does not have. Keys of one hash slot:

  surveys          hash: version -> the file that it was read from
  {surveys}:since  zset: version -> ms at which it was first put there
  {surveys}:used   zset: version -> ms at which it was last known to be in use
  {surveys}:runs   hash: process -> which versions it runs, and who it is: config/telemetry/process_registry.py
"""

from collections.abc import Collection, Iterable

import msgspec
import redis
import structlog

from config.store import keyspace, redis_client
from config.store.entry_id import EntryId
from config.store.function_calls import Command
from engine.surveys.findings import InvalidSurveyError
from engine.surveys.program import Survey
from engine.surveys.survey_reader import read_stored_survey
from engine.surveys.survey_registry import SurveyRegistry
from workers.store.open_sessions import count_open_sessions

log = structlog.get_logger()

FIRST_STORED_KEY, LAST_USED_KEY = (f"{{{keyspace.SURVEYS_KEY}}}:{name}" for name in ("since", "used"))

VERSION_PUBLISH_INTERVAL_S = 60.0
"""How often a process says that what it runs is in use."""

StoredSurveyFile = tuple[str, bytes]
"""A file's name and content."""

encode_survey_file = msgspec.msgpack.encode
decode_survey_file = msgspec.msgpack.Decoder(StoredSurveyFile).decode


def publish_current(client: redis.Redis, surveys: SurveyRegistry) -> None:
    """Keep this process's versions for the others."""
    store_versions(client, filter(None, map(surveys.current, surveys.current_names())))


def store_versions(client: redis.Redis, current: Iterable[Survey]) -> None:
    """Keep these versions for the others: they are in use. A version is the hash of its file, so none is ever
    overwritten by another. If the memory is full and they are all there, that will do."""
    now = redis_client.server_time_ms(client)
    kept = list(current)
    try:
        _write_versions(client, kept, now)
    except redis.exceptions.OutOfMemoryError:
        if len(stored_versions(client, [survey.version for survey in kept])) < len(kept):
            raise


def _write_versions(client: redis.Redis, current: Iterable[Survey], now: int) -> None:
    commands: list[Command] = []
    for survey in current:
        file = encode_survey_file((survey.file, survey.source))
        commands += [
            ("HSETNX", keyspace.SURVEYS_KEY, survey.version, file),
            ("ZADD", FIRST_STORED_KEY, "NX", now, survey.version),
            ("ZADD", LAST_USED_KEY, "GT", now, survey.version),
        ]
    redis_client.run_commands(client, commands, transaction=True)


def stored_versions(client: redis.Redis, wanted: Collection[str] | None = None) -> dict[str, bytes]:
    """The versions that are kept, or those of them that are `wanted`, as they are stored."""
    if wanted is None:
        everything: dict[bytes, bytes] = redis_client.run_command(client, ("HGETALL", keyspace.SURVEYS_KEY))
        return {version.decode(): file for version, file in everything.items()}
    if not wanted:
        return {}
    found = redis_client.run_command(client, ("HMGET", keyspace.SURVEYS_KEY, *wanted))
    return {version: file for version, file in zip(wanted, found, strict=True) if file is not None}


def version_times(client: redis.Redis, key: str) -> dict[str, int]:
    """SINCE or USED: ms by version."""
    found: list[bytes] = redis_client.run_command(client, ("ZRANGE", key, 0, -1, "WITHSCORES"))
    return {version.decode(): int(ms) for version, ms in zip(found[::2], found[1::2], strict=True)}


def load_versions(
    client: redis.Redis, surveys: SurveyRegistry, wanted: Collection[str] | None = None
) -> None:
    """Make every version that anyone ran known to this process, or only those that are `wanted`."""
    for version, file in stored_versions(client, wanted).items():
        if surveys.by_version(version) is None:
            try:
                surveys.add_version(read_stored_survey(*decode_survey_file(file)))
            except (InvalidSurveyError, msgspec.MsgspecError) as e:
                log.error(  # noqa: TRY400 (the sentence is in `why`)
                    "a stored survey cannot be read by this release", version=version, why=str(e)
                )


def forget_unused(client: redis.Redis, shards: int, keep_ms: int) -> list[str]:
    """Forget the versions that have not been in use for `keep_ms`, nor since the oldest entry of the event streams, and
    answer which. Lanes are only looked through if there might be one; if one of them cannot be read, nothing is forgotten."""
    now = redis_client.server_time_ms(client)
    horizon = min(now - keep_ms, _oldest_entry_ms(client, shards, now))
    unused: list[bytes] = redis_client.run_command(client, ("ZRANGEBYSCORE", LAST_USED_KEY, "-inf", horizon))
    stale = {version.decode() for version in unused}
    if not stale:
        return []
    found = count_open_sessions(client)
    if found.unreadable:
        log.warning("no old version of a survey is forgotten: lanes cannot be read", lanes=found.unreadable)
        return []
    if pinned := stale & found.count_by_version().keys():
        client.zadd(LAST_USED_KEY, dict.fromkeys(pinned, now), gt=True)
    return [version for version in sorted(stale - pinned) if _delete_if_unused(client, version, horizon)]


def _oldest_entry_ms(client: redis.Redis, shards: int, now: int) -> int:
    """Since when (ms) the event streams have what happened; `now` if they are empty."""
    firsts = redis_client.run_commands(
        client, [("XRANGE", keyspace.events_key(k), "-", "+", "COUNT", 1) for k in range(shards)]
    )
    return min((EntryId.parse(entry_id).ms for ((entry_id, _),) in filter(None, firsts)), default=now)


def _delete_if_unused(client: redis.Redis, version: str, horizon: int) -> bool:
    """Forget one version, unless somebody has begun to run it again."""

    def delete_version(pipeline: "redis.client.Pipeline") -> None:
        used = pipeline.zscore(LAST_USED_KEY, version)
        pipeline.multi()
        if used is not None and used <= horizon:
            pipeline.hdel(keyspace.SURVEYS_KEY, version)
            pipeline.zrem(FIRST_STORED_KEY, version)
            pipeline.zrem(LAST_USED_KEY, version)

    server = redis_client.server_of(client, LAST_USED_KEY)
    return bool(server.transaction(delete_version, LAST_USED_KEY))
