"""The clock rings for every lane and outbox whose alarm is due: mail that nobody has looked at, a lease whose
holder died, a session's deadline, an SMS that has rested long enough. It sleeps until the next alarm, a tick at the
most, since an alarm may be set for sooner while it sleeps. Any number of clocks may run: an alarm that one of them
rang is put off for the others."""

import math
from typing import Protocol

import redis
import structlog

from config.store import keyspace, redis_client
from config.store.function_calls import function_call
from config.store.server_functions import TakeDueAlarms
from config.telemetry import faults, metrics
from workers.turns.committing import WorkerWaker

log = structlog.get_logger()

MAX_TICK_S = 0.25
ALARM_REPEAT_MS = 5_000
"""After this long, an alarm that nobody answered is rung again."""

MAX_ALARMS_PER_TICK = 1_000
"""Alarms of one shard in one tick."""

REDIS_RETRY_S = 1.0


class StopEvent(Protocol):
    def wait(self, timeout_s: float) -> bool:
        """True if the process is to stop; False after `timeout_s`."""
        ...


class AlarmClock:
    def __init__(self, client: redis.Redis, shards: int, waker: WorkerWaker) -> None:
        self._redis = client
        self._tick_commands = [
            function_call(
                TakeDueAlarms(
                    lane_alarms=keyspace.lane_alarms_key(k),
                    outbox_alarms=keyspace.outbox_alarms_key(k),
                    max_senders=MAX_ALARMS_PER_TICK,
                    repeat_ms=ALARM_REPEAT_MS,
                )
            )
            for k in range(shards)
        ]
        self._waker = waker

    def run(self, stop: StopEvent) -> None:
        """Tick until `stop` says so. An unreachable Redis is waited for."""
        wait_s = 0.0
        while not stop.wait(wait_s):
            try:
                wait_s = self.wake_due()
            except redis.RedisError as e:
                log.warning("the clock cannot reach Redis", error=str(e), retry_s=REDIS_RETRY_S)
                wait_s = REDIS_RETRY_S

    def wake_due(self) -> float:
        """Ring for what is due; how many seconds may pass until the next tick."""
        answers = redis_client.run_commands(self._redis, self._tick_commands)
        if any(lanes or outboxes for lanes, outboxes, _ in answers):
            faults.reach("after_tick")
        self._wake_senders(
            keyspace.REPLIES_QUEUE, [sender.decode() for lanes, _, _ in answers for sender in lanes]
        )
        self._wake_senders(
            keyspace.OUTBOUND_QUEUE, [sender.decode() for _, outboxes, _ in answers for sender in outboxes]
        )
        nearest: float = min((wait_ms for _, _, wait_ms in answers if wait_ms >= 0), default=math.inf)
        return min(MAX_TICK_S, nearest / 1000)

    def _wake_senders(self, queue: str, senders: list[str]) -> None:
        if senders:
            self._waker.wake(queue, senders)
            metrics.WAKEUPS.labels(queue).inc(len(senders))
