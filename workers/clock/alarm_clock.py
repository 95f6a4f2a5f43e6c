"""The clock rings for every lane and outbox whose alarm is due: mail that nobody has looked at, a lease whose
holder died, a session's deadline, an SMS that has rested long enough. It sleeps until the next alarm, a tick at the
most, since an alarm may be set for sooner while it sleeps. Any number of clocks may run: an alarm that one of them
rang is put off for the others.

A lane's alarm rings for `conversation`, which passes a START on. If nobody comes, it rings for `ratelimit` too: mail that may
be a STOP is for either."""

import math
from typing import Protocol

import redis
import structlog

from config.store import keyspace, redis_client
from config.store.function_calls import function_call
from config.store.server_functions import TakeDueAlarms
from config.telemetry import faults, metrics
from workers.clock.clock_steps import ClockStepDetector, behind_fences_ms, turn_back
from workers.store.outboxes import OutboxStore
from workers.turns.committing import WorkerWaker

log = structlog.get_logger()

MAX_TICK_S = 0.25
ALARM_REPEAT_MS = 5_000
"""After this long, an alarm that nobody answered is rung again."""

MAX_ALARMS_PER_TICK = 1_000
"""Alarms of one shard in one tick."""

REDIS_RETRY_S = 1.0

_QUEUES_OF_ANSWER = {0: keyspace.REPLIES_QUEUE, 1: keyspace.OUTBOUND_QUEUE, 3: keyspace.STARTS_QUEUE}
"""By their place in the answer of `take_due_alarms`: lanes, outboxes, and the lanes to which nobody came when they were rung
for before, so that one whose `conversation` is down is not left to it alone."""


class StopEvent(Protocol):
    def wait(self, timeout_s: float) -> bool:
        """True if the process is to stop; False after `timeout_s`."""
        ...


class AlarmClock:
    def __init__(self, client: redis.Redis, shards: int, waker: WorkerWaker, outboxes: OutboxStore) -> None:
        self._redis = client
        self._shards = shards
        self._outboxes = outboxes
        self._steps = ClockStepDetector()
        self._begun = False
        self._behind_ms = 0
        self._tick_commands = [
            function_call(
                TakeDueAlarms(
                    lane_alarms=keyspace.lane_alarms_key(k),
                    outbox_alarms=keyspace.outbox_alarms_key(k),
                    server=keyspace.server_key(k),
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
        asked_s = self._steps.asked_at_s()
        answers = redis_client.run_commands(self._redis, self._tick_commands)
        if any(lanes or outboxes for lanes, outboxes, *_ in answers):
            faults.reach("after_tick")
        for at, queue in _QUEUES_OF_ANSWER.items():
            self._wake_senders(queue, [sender.decode() for answer in answers for sender in answer[at]])
        self._follow_step_back(answers[-1][4], asked_s)
        nearest: float = min((wait_ms for _, _, wait_ms, *_ in answers if wait_ms >= 0), default=math.inf)
        return min(MAX_TICK_S, nearest / 1000)

    def _follow_step_back(self, now: int, asked_s: float) -> None:
        """Look whether the server's clock was set back, since the last tick or, at the first one, before."""
        self._behind_ms += self._steps.step_back_ms(
            now, asked_s
        )  # more, if the last step could not be followed
        if not self._begun:
            self._behind_ms = behind_fences_ms(self._redis, self._shards, now)
            self._begun = True
        if self._behind_ms:
            turn_back(self._redis, self._shards, self._outboxes, now, self._behind_ms)
            self._behind_ms = 0

    def _wake_senders(self, queue: str, senders: list[str]) -> None:
        if senders:
            self._waker.wake(queue, senders)
            metrics.WAKEUPS.labels(queue).inc(len(senders))
