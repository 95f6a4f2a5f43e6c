"""Publishes the metrics: all that this machine's processes have counted, and what lies in Redis.

What lies in Redis is the deployment's, so every endpoint says the same of it: take `max` over endpoints, never `sum`.
It is read once a second at the most. Of those who ask at once, one reads for all.
"""

from collections.abc import Callable, Iterable, Iterator
from math import inf
from threading import Lock
from time import monotonic

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from config.settings.settings import Settings
from config.store.dead_letter_reasons import DEAD_LETTER_REASONS
from config.telemetry import metrics
from config.telemetry.hook_stats import HookStats
from config.telemetry.library_internals import ScrapeTimeGauge
from config.telemetry.process_registry import ROLES, count_by_role
from config.telemetry.redis_stats import PROCESSES_UNREAD, RedisStats, StatsReader
from config.telemetry.server_stats import ServerStats

STATS_CACHE_S = 1.0
"""How long a reading of Redis is published again."""

REMOVED_CHANNELS = "(removed)"
"""What stands for a channel's name in what is told of channels that are not configured any more."""

GaugeReading = tuple[ScrapeTimeGauge, tuple[str, ...], float]
"""A gauge, its labels' values, and its own."""


class MetricsExposition(Collector):
    """Everything that is published, for a deployment: what was `counted`, by all of this machine unless it is said, and what lies
    in Redis; `more` is asked for what else is found at that moment."""

    def __init__(
        self,
        settings: Settings,
        more: Callable[[], Iterable[GaugeReading]] = tuple,
        counted: Callable[[], Iterable[Metric]] | None = None,
    ) -> None:
        self._stats_reader = StatsReader(settings)
        self._more_gauges = more
        self._counted = counted
        self._reading = Lock()
        self._families: list[Metric] = []
        self._begun_s = self._stats_read_s = -inf
        self._redis_stats = RedisStats(lanes=ServerStats(up=False), broker=ServerStats(up=False))
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def text(self) -> bytes:
        """In Prometheus' text format. Waits for Redis for a few seconds at the most: not for an event loop."""
        return generate_latest(self.registry)

    def collect(self) -> Iterable[Metric]:
        asked_s = monotonic()
        with self._reading:
            if self._begun_s < asked_s:
                begun_s = monotonic()
                self._families = self._collect_families()
                self._begun_s = begun_s  # a reading that failed is nobody's
            return self._families

    def describe(self) -> Iterable[Metric]:
        return ()

    def close(self) -> None:
        self._stats_reader.close()

    def _collect_families(self) -> list[Metric]:
        if monotonic() - self._stats_read_s >= STATS_CACHE_S:
            self._redis_stats = self._stats_reader.read()
            self._stats_read_s = monotonic()
        return [
            *(self._counted or metrics.collect_counted)(),
            *gauge_families([*redis_gauges(self._redis_stats), *self._more_gauges()]),
        ]


def gauge_families(found: Iterable[GaugeReading]) -> Iterable[GaugeMetricFamily]:
    """Each gauge once, with all that was found of it."""
    by_gauge: dict[ScrapeTimeGauge, GaugeMetricFamily] = {}
    for gauge, labels, value in found:
        if gauge not in by_gauge:
            by_gauge[gauge] = gauge.metric_family()
        by_gauge[gauge].add_metric(labels, value)
    return by_gauge.values()


def redis_gauges(found: RedisStats) -> Iterator[GaugeReading]:
    """Yield what was read from Redis as gauges; of a server that does not answer, only that."""
    yield from _server_gauges("lanes", found.lanes)
    yield from _server_gauges("broker", found.broker)
    if found.lanes.up:
        yield metrics.REDIS_SLOTS_UNCOVERED, (), found.lanes.uncovered
        yield metrics.REDIS_REPLICAS, ("online",), found.lanes.replicas
        yield metrics.REDIS_REPLICAS, ("wanted",), found.replicas_wanted
        yield from _lane_gauges(found)
    if found.broker.up:
        for name, queue in found.queues.items():
            yield metrics.QUEUE_DEPTH, (name,), queue.depth
            yield metrics.QUEUE_OLDEST_SECONDS, (name,), queue.oldest_ms / 1_000
        yield metrics.DRAMATIQ_DEAD_LETTERS, (), sum(found.dramatiq_dead.values())


def _server_gauges(name: str, server: ServerStats) -> Iterator[GaugeReading]:
    yield metrics.REDIS_UP, (name,), server.up
    if server.memory:
        yield metrics.REDIS_MEMORY_BYTES, (name, "used"), server.memory
    if server.most_memory:
        yield metrics.REDIS_MEMORY_BYTES, (name, "max"), server.most_memory


def _lane_gauges(found: RedisStats) -> Iterator[GaugeReading]:
    for kind, alarms in (
        ("lane", [shard.lanes for shard in found.shards]),
        ("outbox", [shard.outboxes for shard in found.shards]),
    ):
        yield metrics.ALARMS_WAITING, (kind,), sum(each.set for each in alarms)
        yield metrics.ALARMS_DUE, (kind,), sum(each.due for each in alarms)
        yield metrics.ALARMS_LATE_SECONDS, (kind,), max((each.late_ms for each in alarms), default=0) / 1_000
    yield metrics.LANES_LOCKED, ("held",), sum(shard.held for shard in found.shards)
    yield metrics.LANES_LOCKED, ("abandoned",), sum(shard.abandoned for shard in found.shards)
    waiting = dict.fromkeys(DEAD_LETTER_REASONS, 0) | found.dead_by_reason()
    for reason, count in waiting.items():
        yield metrics.DEAD_LETTERS_WAITING, (reason,), count
    yield (
        metrics.DEAD_LETTERS_OLDEST_SECONDS,
        (),
        max((s.dead_oldest_ms for s in found.shards), default=0) / 1_000,
    )
    unarchived = found.unarchived()
    yield metrics.ARCHIVE_SEEN, (), unarchived.seen
    yield metrics.ARCHIVE_LAG_SECONDS, (), unarchived.oldest_ms / 1_000
    yield metrics.ARCHIVE_WAITING_ENTRIES, (), unarchived.waiting
    for name, channel in found.channels.items():
        yield metrics.INVITATIONS_HELD, (name,), channel.held_near
        if channel.sms_cap:
            yield metrics.SMS_BUDGET_EXHAUSTED, (name,), channel.sms_today >= channel.sms_cap
        if channel.pause is not None:
            yield metrics.CHANNEL_PAUSED, (name, channel.pause.by), 1
    if found.held_elsewhere:
        yield metrics.INVITATIONS_HELD, (REMOVED_CHANNELS,), found.held_elsewhere
    for name, hook in found.hooks.items():
        yield from _hook_gauges(name, hook)
    living = count_by_role(found.processes)
    silent = count_by_role(found.silent)
    for role in ROLES if PROCESSES_UNREAD not in found.unread else ():
        yield metrics.PROCESSES, (role,), living[role]
        yield metrics.PROCESSES_SILENT, (role,), silent[role]


def _hook_gauges(name: str, hook: HookStats) -> Iterator[GaugeReading]:
    yield metrics.HOOK_LAG_SECONDS, (name,), hook.lag_ms / 1_000
    yield metrics.HOOK_HELD, (name,), bool(hook.owner)
    if hook.pause is not None:
        yield metrics.HOOK_PAUSED, (name, "operator"), 1
    if hook.circuit.is_open:
        yield metrics.HOOK_PAUSED, (name, "circuit"), 1
