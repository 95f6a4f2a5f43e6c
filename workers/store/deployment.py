"""A deployment, as a process or a command of it works with it: its settings, its surveys, both Redis servers, and the
stores on them. How a store is put together is said here and nowhere else; what works on the stores is put together in
workers/composition.py.
"""

from collections.abc import Callable, Sequence

import msgspec
import redis

from config.connections.redis_url import read_cluster_url
from config.host import THIS_HOST, Host
from config.settings.log_key import open_log_key
from config.settings.settings import Settings
from config.store import keyspace, redis_client
from engine.surveys.survey_registry import SurveyRegistry
from workers.runtime.wakeup_broker import WAKEUP_BATCH, WakeupBroker
from workers.store.channel_state import ChannelStore
from workers.store.lanes import LaneStore
from workers.store.optouts import OptOutList, find_opt_out_list, open_opt_out_list
from workers.store.outboxes import OutboxStore


class Deployment(msgspec.Struct, frozen=True):
    """`lanes` and `broker` are clients of the Redis of the lanes and of that of the wake-ups. `surveys` are those that run
    here; a command that needs none, or takes versions from Redis as it comes to them, begins with an empty registry. All
    that works on it asks `host` for the time. `history` is which history of changes the lanes' server had when a command
    connected that is to know that replicas have what it did."""

    settings: Settings
    lanes: redis.Redis
    broker: redis.Redis
    surveys: SurveyRegistry = msgspec.field(default_factory=SurveyRegistry)
    host: Host = THIS_HOST
    history: str = ""

    @property
    def distinct_servers(self) -> list[redis.Redis]:
        """Both servers, or the one that they are."""
        return [self.broker] if _are_same(self.lanes, self.broker) else [self.broker, self.lanes]

    def shard_groups(self, together: int = keyspace.SHARDS_TOGETHER) -> list[range]:
        """All shards, in groups of so many, of which one call may have keys: on a cluster each lies by itself."""
        is_cluster = read_cluster_url(self.settings.redis_url) is not None
        return keyspace.shard_groups(self.settings.shards, 1 if is_cluster else together)

    def lane_store(self, optouts: OptOutList) -> LaneStore:
        settings = self.settings
        return LaneStore(
            self.lanes,
            settings.shards,
            optouts,
            longest_stream_ms=settings.longest_stream_ms,
            repeat_ms=settings.repeat_ms,
            channels=settings.channels,
            host=self.host,
            bells_database=settings.bells_database,
            compacts_records=settings.compact_records,
        )

    def outbox_store(self) -> OutboxStore:
        settings = self.settings
        pauses_s = [channel.limits.pause_s for channel in settings.channels.values()]
        return OutboxStore(
            self.lanes,
            settings.shards,
            longest_pause_ms=round(max(pauses_s, default=0) * 1_000),
            channels=settings.channels,
            host=self.host,
            replicas=settings.replicas,
            compacts_records=settings.compact_records,
        )

    def channel_store(self) -> ChannelStore:
        return ChannelStore(self.lanes, self.settings.channels)

    def wakeup_broker(
        self, batch: int = WAKEUP_BATCH, went_round: Callable[[], None] = lambda: None
    ) -> WakeupBroker:
        return WakeupBroker(self.broker, batch, went_round)

    def open_log_key(self) -> bytes:
        """The key by which logs name people, made if there is none."""
        return open_log_key(self.lanes, self.settings, self.host)

    def open_opt_out_list(self) -> OptOutList:
        """The list of opt-outs, made if there is none. Raises ConfigError if its key is another than the settings'."""
        return open_opt_out_list(self.lanes, self.settings.shards, self.settings.optout_key, self.host)

    def find_opt_out_list(self) -> OptOutList | None:
        """The same, but None if there is none."""
        return find_opt_out_list(self.lanes, self.settings.shards, self.settings.optout_key, self.host)


def _are_same(one: redis.Redis, other: redis.Redis) -> bool:
    if redis_client.is_cluster(one) and redis_client.is_cluster(other):
        return not redis_client.seeds_of(one).isdisjoint(redis_client.seeds_of(other))
    return _server_address(one) == _server_address(other)


_SERVER_ADDRESS_FIELDS = ("host", "port", "path", "db")


def _server_address(client: redis.Redis) -> Sequence[object]:
    if redis_client.is_cluster(client):
        return sorted(redis_client.seeds_of(client))
    pool = client.connection_pool
    named = (getattr(pool, "service_name", None), str(getattr(pool, "sentinel_manager", None)))
    return [*named, *(pool.connection_kwargs.get(each) for each in _SERVER_ADDRESS_FIELDS)]
