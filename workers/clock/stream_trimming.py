"""When does what happened leave Redis? Once an archive has it and PARLEY_STREAM_DAYS are over; where no archive was ever seen,
after 30 days.

`trim_events` (config/store/lua/event_streams.lua) looks how far the archive is and trims in one go, so nothing goes that it
does not have. Redis serves nobody meanwhile: so it takes a little at a time, and rests in between. Any number of clocks may
do this.
"""

import redis

from config.host import THIS_HOST, Host
from config.store import keyspace, redis_client
from config.store.function_calls import function_call
from config.store.server_functions import TrimEvents

TRIM_INTERVAL_S = 60.0

TRIM_STEP_ENTRIES = 1_000
"""Entries that are taken out in one call, at the most: with 400 bytes in each, 0.2 ms of Redis' time."""

TRIM_REST_S = 0.01
"""Between two calls: many at once would be a crowd that a reply has to wait behind."""


def trim_until_done(
    client: redis.Redis, shards: int, now: int, stream_ms: int, host: Host = THIS_HOST
) -> int:
    """Take out of each shard's stream what is not kept at `now` (ms, the server's); answers how many entries. A shard whose server
    is away, while others of a cluster are not, is left for the next time."""
    return sum(_trim_if_there(client, k, now, stream_ms, host) for k in range(shards))


def _trim_if_there(client: redis.Redis, k: int, now: int, stream_ms: int, host: Host) -> int:
    try:
        return _trim_shard(client, k, now, stream_ms, host)
    except redis.RedisError as e:
        if not redis_client.is_alone(client, e):
            raise
        return 0


def _trim_shard(client: redis.Redis, k: int, now: int, stream_ms: int, host: Host) -> int:
    command = function_call(
        TrimEvents(
            events=keyspace.events_key(k),
            archived=keyspace.archived_key(k),
            archived_before_ms=max(0, now - stream_ms),
            unarchived_before_ms=max(0, now - keyspace.UNARCHIVED_STREAM_MS),
            max_entries=TRIM_STEP_ENTRIES,
        )
    )
    trimmed = 0
    while step := redis_client.run_command(client, command):
        trimmed += step
        host.sleep(TRIM_REST_S)
    return trimmed
