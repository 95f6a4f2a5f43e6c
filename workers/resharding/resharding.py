"""Divides a deployment anew, step by step. Each may be made again: whoever runs the command after a death goes on.

1. What there is is counted, and a mark put in the place of the number of shards: from then on nothing starts.
2. Each person's keys go to the part of their shard that they belong to (key_moves.py), then what stands in indexes
   (index_moves.py), then each event stream is split (stream_split.py), and endpoints get their positions.
3. The archive is divided likewise (archive_split.py).
4. What there is is counted again. If that is as it has to be, the new number takes the mark's place.
"""

from collections.abc import Callable
from typing import NamedTuple

import redis

from config.store import keyspace, redis_client
from config.store.function_calls import Command
from config.telemetry import faults, process_registry
from engine.model.errors import ParleyError
from workers.resharding.census import Census, find_differences, take_census
from workers.resharding.index_moves import IndexMover
from workers.resharding.key_moves import move_keys
from workers.resharding.progress import Progress
from workers.resharding.shard_split import ShardSplit
from workers.resharding.stream_split import copy_stream, replace_stream


class StillRunningError(ParleyError):
    """Processes live. `str` says which."""


class MiscountError(ParleyError):
    """There is not what there has to be. `differing` are kinds of the censuses."""

    def __init__(self, differing: list[str], before: Census, after: Census) -> None:
        super().__init__(", ".join(differing))
        self.differing, self.before, self.after = differing, before, after


class LanesResult(NamedTuple):
    """What lay in the old shards, and lies in the new ones."""

    before: Census
    after: Census


def require_stopped(client: redis.Redis) -> None:
    """Raise StillRunningError if a process has said anything of late."""
    if living := process_registry.living_processes(client):
        raise StillRunningError(", ".join(living))


def begin_division(client: redis.Redis, split: ShardSplit, replicas: int) -> None:
    """Let nothing start any more. Raises StillRunningError if something has meanwhile; then all is as it was."""
    require_stopped(client)
    progress = Progress(client, replicas)
    progress.begin(split, take_census(client, split.old))
    faults.reach("after_reshard_begun")
    try:
        require_stopped(client)
    except StillRunningError:
        progress.give_up(split)
        raise


def divide_lanes(
    client: redis.Redis, split: ShardSplit, replicas: int, on_progress: Callable[[int], object]
) -> LanesResult:
    """Move what lies in Redis, and count it. `on_progress` is called with how many of the old shards more are done. Raises
    StillRunningError, MiscountError and redis.RedisError; then the mark stays."""
    require_stopped(client)
    progress, mover = Progress(client, replicas), IndexMover(client, split, replicas)
    move_keys(client, split, replicas)
    for k in range(split.old):
        mover.move_indexes(k)
        _split_stream(client, split, k, progress, replicas)
        on_progress(1)
    _copy_hook_positions(client, split, replicas)
    return _compare(client, split, progress.read_census())


def end_division(client: redis.Redis, split: ShardSplit, replicas: int) -> None:
    """Let everything start again. Raises StillRunningError and redis.RedisError."""
    require_stopped(client)
    faults.reach("before_reshard_end")
    Progress(client, replicas).end(split)


def _split_stream(client: redis.Redis, split: ShardSplit, k: int, progress: Progress, replicas: int) -> None:
    stage = progress.stage_of(k)
    if stage is None:
        copy_stream(client, split, k, replicas)
        progress.note_stage(k, "copied")
    if stage != "done":
        replace_stream(client, k)
        faults.reach("after_reshard_replaced")
        progress.note_stage(k, "done")


def _copy_hook_positions(client: redis.Redis, split: ShardSplit, replicas: int) -> None:
    """An endpoint is as far in each part of a shard as it is in the shard."""
    for name in list(client.scan_iter(keyspace.hook_key_pattern(), count=1_000)):
        positions = redis_client.run_command(client, ("HGETALL", name))
        words = [
            word
            for k in range(split.old)
            if (position := positions.get(b"%d" % k)) is not None
            for part in split.parts(k)
            for word in (part, position)
        ]
        if words:
            command: Command = ("HSET", name, *words)
            redis_client.run_commands(client, [command], replicas=replicas)


def _compare(client: redis.Redis, split: ShardSplit, before: Census) -> LanesResult:
    after = take_census(client, split.new)
    if differing := find_differences(before, after, split):
        raise MiscountError(differing, before, after)
    return LanesResult(before, after)
