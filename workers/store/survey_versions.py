"""Where is the version of a survey that a session began with? In Redis, put there by whoever runs it, before any
session can open on it. So that a process with other files, older or newer, can go on with a session pinned to it.

A version is in use while a process runs it or an open session is pinned to it. Once it has not been for as long as
the archive is kept, so that nothing that is stored refers to it any more, it is forgotten. Keys of one hash slot:

  surveys          hash: version -> the file that it was read from
  {surveys}:since  zset: version -> ms at which it was first put there
  {surveys}:used   zset: version -> ms at which it was last known to be in use
  {surveys}:runs   hash: process -> which versions it runs, and who it is: config/telemetry/process_registry.py
"""

from collections.abc import Collection, Iterable

import msgspec
import redis
import structlog

from config.store import keyspace
from engine.surveys.findings import Rejected
from engine.surveys.program import Survey
from engine.surveys.survey_reader import read_stored_survey
from engine.surveys.survey_registry import Surveys
from workers.store.open_sessions import census

log = structlog.get_logger()

SINCE, USED = (f"{{{keyspace.SURVEYS}}}:{name}" for name in ("since", "used"))

PUBLISH_S = 60.0
"""How often a process says that what it runs is in use."""

Stored = tuple[str, bytes]
"""A file's name and content."""

encode = msgspec.msgpack.encode
decode = msgspec.msgpack.Decoder(Stored).decode


def publish(client: redis.Redis, surveys: Surveys) -> None:
    """Keep this process's versions for the others."""
    put(client, filter(None, map(surveys.current, surveys.names())))


def put(client: redis.Redis, current: Iterable[Survey]) -> None:
    """Keep these versions for the others: they are in use. A version is the hash of its file, so none is ever
    overwritten by another. If the memory is full and they are all there, that will do."""
    now = keyspace.server_ms(client)
    kept = list(current)
    try:
        _keep(client, kept, now)
    except redis.exceptions.OutOfMemoryError:
        if len(stored(client, [survey.version for survey in kept])) < len(kept):
            raise


def _keep(client: redis.Redis, current: Iterable[Survey], now: int) -> None:
    pipeline = client.pipeline()
    for survey in current:
        pipeline.hsetnx(keyspace.SURVEYS, survey.version, encode((survey.file, survey.source)))
        pipeline.zadd(SINCE, {survey.version: now}, nx=True)
        pipeline.zadd(USED, {survey.version: now}, gt=True)
    pipeline.execute()


def stored(client: redis.Redis, wanted: Collection[str] | None = None) -> dict[str, bytes]:
    """The versions that are kept, or those of them that are `wanted`, as they are stored."""
    if wanted is None:
        everything: dict[bytes, bytes] = keyspace.ask(client, ("HGETALL", keyspace.SURVEYS))
        return {version.decode(): file for version, file in everything.items()}
    if not wanted:
        return {}
    found = keyspace.ask(client, ("HMGET", keyspace.SURVEYS, *wanted))
    return {version: file for version, file in zip(wanted, found, strict=True) if file is not None}


def times(client: redis.Redis, key: str) -> dict[str, int]:
    """SINCE or USED: ms by version."""
    found: list[bytes] = keyspace.ask(client, ("ZRANGE", key, 0, -1, "WITHSCORES"))
    return {version.decode(): int(ms) for version, ms in zip(found[::2], found[1::2], strict=True)}


def learn(client: redis.Redis, surveys: Surveys, wanted: Collection[str] | None = None) -> None:
    """Make every version that anyone ran known to this process, or only those that are `wanted`."""
    for version, file in stored(client, wanted).items():
        if surveys.version(version) is None:
            try:
                surveys.add(read_stored_survey(*decode(file)))
            except (Rejected, msgspec.MsgspecError) as e:
                log.error(  # noqa: TRY400 (the sentence is in `why`)
                    "a stored survey cannot be read by this release", version=version, why=str(e)
                )


def forget(client: redis.Redis, keep_ms: int) -> list[str]:
    """Forget the versions that have not been in use for `keep_ms`, and answer which. Lanes are only looked through if
    there might be one; if one of them cannot be read, nothing is forgotten."""
    now = keyspace.server_ms(client)
    _note_unnoted(client, now)
    horizon = now - keep_ms
    unused: list[bytes] = keyspace.ask(client, ("ZRANGEBYSCORE", USED, "-inf", horizon))
    stale = {version.decode() for version in unused}
    if not stale:
        return []
    found = census(client)
    if found.unreadable:
        log.warning("no old version of a survey is forgotten: lanes cannot be read", lanes=found.unreadable)
        return []
    if pinned := stale & found.versions().keys():
        client.zadd(USED, dict.fromkeys(pinned, now), gt=True)
    return [version for version in sorted(stale - pinned) if _drop(client, version, horizon)]


def _note_unnoted(client: redis.Redis, now: int) -> None:
    """An earlier release kept versions without saying when they were in use: as far as we know, they are now."""
    versions: list[bytes] = keyspace.ask(client, ("HKEYS", keyspace.SURVEYS))
    if versions:
        client.zadd(USED, dict.fromkeys(versions, now), nx=True)


def _drop(client: redis.Redis, version: str, horizon: int) -> bool:
    """Forget one version, unless somebody has begun to run it again."""

    def drop(pipeline: "redis.client.Pipeline") -> None:
        used = pipeline.zscore(USED, version)
        pipeline.multi()
        if used is not None and used <= horizon:
            pipeline.hdel(keyspace.SURVEYS, version)
            pipeline.zrem(SINCE, version)
            pipeline.zrem(USED, version)

    return bool(client.transaction(drop, USED))
