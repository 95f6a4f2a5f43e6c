"""How far is it? While lanes are divided anew, a mark stands in the place of their number (config/settings/shard_count.py), and
a hash beside it says what there was before and which streams are done, so that a run that died is gone on with.
"""

from typing import Literal

import msgspec
import redis

from config.settings.shard_count import division_mark
from config.store import keyspace, redis_client
from workers.resharding.census import Census, decode_census
from workers.resharding.shard_split import ShardSplit

StreamStage = Literal["copied", "done"]

_CENSUS_FIELD = "census"


class Progress:
    """What is known of a division that is under way."""

    def __init__(self, client: redis.Redis, replicas: int) -> None:
        self._redis = client
        self._replicas = replicas

    def begin(self, split: ShardSplit, found: Census) -> None:
        """From now on nothing starts. Raises redis.RedisError."""
        redis_client.run_command(self._redis, ("DEL", keyspace.RESHARDING_KEY))
        redis_client.run_command(
            self._redis, ("HSET", keyspace.RESHARDING_KEY, _CENSUS_FIELD, msgspec.json.encode(found))
        )
        self._set_shards(division_mark(*split))

    def end(self, split: ShardSplit) -> None:
        """From now on everything may start."""
        self._set_shards(str(split.new))
        redis_client.run_command(self._redis, ("DEL", keyspace.RESHARDING_KEY))

    def give_up(self, split: ShardSplit) -> None:
        """Nothing has been moved yet: all is as it was."""
        self._set_shards(str(split.old))
        redis_client.run_command(self._redis, ("DEL", keyspace.RESHARDING_KEY))

    def read_census(self) -> Census:
        """What there was before."""
        stored = redis_client.run_command(self._redis, ("HGET", keyspace.RESHARDING_KEY, _CENSUS_FIELD))
        return decode_census(stored)

    def stage_of(self, k: int) -> StreamStage | None:
        """How far the event stream of shard `k` is."""
        stored = redis_client.run_command(self._redis, ("HGET", keyspace.RESHARDING_KEY, f"events {k}"))
        return stored.decode() if stored else None

    def note_stage(self, k: int, stage: StreamStage) -> None:
        command = ("HSET", keyspace.RESHARDING_KEY, f"events {k}", stage)
        redis_client.run_commands(self._redis, [command], replicas=self._replicas)

    def _set_shards(self, value: str) -> None:
        command = ("SET", keyspace.SHARDS_KEY, value)
        redis_client.run_commands(self._redis, [command], replicas=self._replicas)
