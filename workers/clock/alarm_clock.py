"""The clock rings for every lane and outbox whose alarm is due: mail that nobody has looked at, a lease whose
holder died, a session's deadline, an SMS that has rested long enough. It sleeps until the next alarm, a tick at the
most, since an alarm may be set for sooner while it sleeps. Any number of clocks may run: an alarm that one of them
rang is put off for the others.

A lane's alarm rings for `conversation`, which passes a START on. If nobody comes, it rings for `ratelimit` too: mail that may
be a STOP is for either."""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import redis
import structlog

from config.host import THIS_HOST, Host
from config.store import keyspace, redis_client
from config.store.function_calls import function_call
from config.store.server_functions import TakeDueAlarms, WatchedShard
from config.telemetry import faults, metrics
from workers.clock.clock_steps import ClockStepDetector, behind_fences_ms, turn_back
from workers.store.outboxes import OutboxStore
from workers.turns.committing import WorkerWaker

log = structlog.get_logger()

MAX_TICK_S = 0.25
ALARM_REPEAT_MS = 5_000
"""After this long, an alarm that nobody answered is rung again."""

MAX_ALARMS_PER_TICK = 100
"""Alarms of one shard in one tick, as a call may have many shards, and others wait for it. What is due beyond is the next tick's, at
once."""

REDIS_RETRY_S = 1.0

_QUEUES_OF_ANSWER = {0: keyspace.REPLIES_QUEUE, 1: keyspace.OUTBOUND_QUEUE, 3: keyspace.STARTS_QUEUE}
"""By their place in the answer of `take_due_alarms`: lanes, outboxes, and the lanes to which nobody came when they were rung
for before, so that one whose `conversation` is down is not left to it alone."""


class StopEvent(Protocol):
    def wait(self, timeout_s: float) -> bool:
        """True if the process is to stop; False after `timeout_s`."""
        ...


class AlarmClock:
    """Rings for all shards; those of a group are asked for in one call."""

    def __init__(
        self,
        client: redis.Redis,
        shard_groups: Sequence[Sequence[int]],
        waker: WorkerWaker,
        outboxes: OutboxStore,
        host: Host = THIS_HOST,
    ) -> None:
        self._redis = client
        self._shard_groups = shard_groups
        self._shards = shards = sum(map(len, shard_groups))
        self._outboxes = outboxes
        self._steps = [ClockStepDetector(host) for _ in range(shards)]  # each may be on a server of its own
        self._behind_ms = [0] * shards
        self._newcomers = 0  # shards whose server nobody has worked on
        self._has_failed_over = False
        self._some_are_away = False
        self._tick_commands = [
            function_call(
                TakeDueAlarms(
                    max_senders=MAX_ALARMS_PER_TICK,
                    repeat_ms=ALARM_REPEAT_MS,
                    shards=[
                        WatchedShard(
                            lane_alarms=keyspace.lane_alarms_key(k),
                            outbox_alarms=keyspace.outbox_alarms_key(k),
                            server=keyspace.server_key(k),
                        )
                        for k in group
                    ],
                )
            )
            for group in shard_groups
        ]
        self._fence_commands = [("GET", keyspace.fence_key(k)) for k in range(shards)]
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
        asked_s = self._steps[0].asked_at_s()
        must_look = self._has_failed_over or any(each.has_missed_some(asked_s) for each in self._steps)
        fence_commands = self._fence_commands if must_look else []
        found = redis_client.try_commands(self._redis, [*fence_commands, *self._tick_commands])
        redis_client.raise_refusals(found)
        fences, of_groups = found[: len(fence_commands)], found[len(fence_commands) :]
        answered = {
            k: answer
            for group, answers in zip(self._shard_groups, of_groups, strict=True)
            if not isinstance(answers, Exception)
            for k, answer in zip(group, answers, strict=True)
        }
        self._notice_away(self._shards - len(answered))
        answers = list(answered.values())
        if any(lanes or outboxes for lanes, outboxes, *_ in answers):
            faults.reach("after_tick")
        for at, queue in _QUEUES_OF_ANSWER.items():
            self._wake_senders(queue, [sender.decode() for answer in answers for sender in answer[at]])
        known_fences = [fence for fence in fences if not isinstance(fence, Exception)]
        self._follow_steps_back(known_fences, {k: answer[4] for k, answer in answered.items()}, asked_s)
        self._notice_failover(sum(answer[5] for answer in answers))
        nearest: float = min((wait_ms for _, _, wait_ms, *_ in answers if wait_ms >= 0), default=math.inf)
        return min(MAX_TICK_S, nearest / 1000)

    def _follow_steps_back(
        self, fences: Sequence[bytes | None], now_of: Mapping[int, int], asked_s: float
    ) -> None:
        """Look whether the clock of a shard's server, which says `now_of` the shard, was set back: since the last tick or, at the
        first one and after a long time, when `fences` are known, from what anybody has worked by."""
        stepped: dict[tuple[int, int], list[int]] = {}
        for k, now in now_of.items():
            self._behind_ms[k] += self._steps[k].step_back_ms(
                now, asked_s
            )  # more, if the last was not followed
            self._behind_ms[k] = max(self._behind_ms[k], behind_fences_ms(fences, now))
            if self._behind_ms[k]:
                stepped.setdefault((now, self._behind_ms[k]), []).append(k)
        for (now, behind_ms), shards in stepped.items():
            turn_back(self._redis, shards, self._outboxes, now, behind_ms)
            for k in shards:
                self._behind_ms[k] = 0

    def _notice_away(self, away: int) -> None:
        """Say once when servers of a cluster are away, and when they are back."""
        if bool(away) != self._some_are_away:
            log.warning(
                "the clock cannot reach some shards" if away else "the clock reaches all shards", shards=away
            )
        self._some_are_away = bool(away)

    def _notice_failover(self, newcomers: int) -> None:
        """Look anew, at the next tick, if more shards have a server on which nobody has worked: one that a failover brought may
        not have what was moved on the former as its clock was set back."""
        self._has_failed_over = newcomers > self._newcomers
        self._newcomers = newcomers

    def _wake_senders(self, queue: str, senders: list[str]) -> None:
        if senders:
            self._waker.wake(queue, senders)
            metrics.WAKEUPS.labels(queue).inc(len(senders))
