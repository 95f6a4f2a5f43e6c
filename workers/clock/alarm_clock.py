"""The clock rings for every lane and outbox whose alarm is due: mail that nobody has looked at, a lease whose
holder died, a session's deadline, an SMS that has rested long enough. It sleeps until the next alarm, a tick at the
most, since an alarm may be set for sooner while it sleeps. Any number of clocks may run: an alarm that one of them
rang is put off for the others."""

import math
from typing import Protocol

import redis
import structlog

from config.store import keyspace
from config.telemetry import faults, metrics
from workers.turns.committing import Bell

log = structlog.get_logger()

TICK_S = 0.25
AGAIN_MS = 5_000
"""After this long, an alarm that nobody answered is rung again."""

MOST = 1_000
"""Alarms of one shard in one tick."""

AFTER_AN_ERROR_S = 1.0


class Stop(Protocol):
    def wait(self, timeout_s: float) -> bool:
        """True if the process is to stop; False after `timeout_s`."""
        ...


class Clock:
    def __init__(self, client: redis.Redis, shards: int, bell: Bell) -> None:
        self._redis = client
        self._ticks = [
            keyspace.call("tick", [keyspace.alarms(k), keyspace.outbox_alarms(k)], (MOST, AGAIN_MS))
            for k in range(shards)
        ]
        self._bell = bell

    def run(self, stop: Stop) -> None:
        """Tick until `stop` says so. An unreachable Redis is waited for."""
        wait_s = 0.0
        while not stop.wait(wait_s):
            try:
                wait_s = self.tick()
            except redis.RedisError as e:
                log.warning("the clock cannot reach Redis", error=str(e), retry_s=AFTER_AN_ERROR_S)
                wait_s = AFTER_AN_ERROR_S

    def tick(self) -> float:
        """Ring for what is due; how many seconds may pass until the next tick."""
        answers = keyspace.run(self._redis, self._ticks)
        if any(lanes or outboxes for lanes, outboxes, _ in answers):
            faults.reach("after_tick")
        self._ring(keyspace.REPLIES, [sender.decode() for lanes, _, _ in answers for sender in lanes])
        self._ring(keyspace.OUTBOUND, [sender.decode() for _, outboxes, _ in answers for sender in outboxes])
        nearest: float = min((wait_ms for _, _, wait_ms in answers if wait_ms >= 0), default=math.inf)
        return min(TICK_S, nearest / 1000)

    def _ring(self, queue: str, senders: list[str]) -> None:
        if senders:
            self._bell.ring(queue, senders)
            metrics.ALARMS.labels(queue).inc(len(senders))
