"""Has the server's clock been set back? What is to come soon would then come late, by as much.

Moments that are stored are the server's. Those that wait for a deadline stay what they are; those that only wait for a
worker, for the end of a lease or a rest, are moved. A step ahead needs nothing: everything comes sooner, and deadlines are
held back (workers/store/clock_difference.py).
"""

from collections.abc import Iterable, Sequence

import redis
import structlog

from config.host import THIS_HOST, Host
from config.store import keyspace, redis_client
from workers.store.outboxes import OutboxStore

log = structlog.get_logger()

MIN_STEP_MS = 1_000
"""What is less is no step: clocks are slewed."""

SOON_MS = 30_000
"""What waits for a worker or for the end of a lease was not further ahead than this before the step."""

LONGEST_GAP_S = 2.0
"""Who has not looked for longer, as this process or the server stood still, does not know what the clock was meanwhile."""

_PAGE = 1_000
"""Lanes in one command that changes them."""


class ClockStepDetector:
    """Compares what the server's clock says with how long that was ago, by a clock that nobody sets."""

    def __init__(self, host: Host = THIS_HOST) -> None:
        self._seconds = host.monotonic_s
        self._last: tuple[int, float, float] | None = None

    def asked_at_s(self) -> float:
        """Call it before the server is asked."""
        return self._seconds()

    def has_missed_some(self, asked_s: float) -> bool:
        """Whether so much time has passed since the server was last asked, or ever, that the clock may have been set twice since
        it answered."""
        return self._last is None or asked_s - self._last[2] > LONGEST_GAP_S

    def step_back_ms(self, now: int, asked_s: float) -> int:
        """Return by how much the clock was set back since the last time; 0 if it was not. `now` (ms) is what the server
        answered, who was asked at `asked_s`: however long answers take, that is never too much."""
        last, self._last = self._last, (now, self._seconds(), asked_s)
        if last is None:
            return 0
        then, answered_s, _ = last
        behind_ms = round(then + (asked_s - answered_s) * 1_000) - now
        return behind_ms if behind_ms >= MIN_STEP_MS else 0


def behind_fences_ms(fences: Iterable[bytes | None], now: int) -> int:
    """Return by how much the server's clock is behind the last moment at which anybody has worked, of which the shards' fencing
    tokens tell; 0 if it is not. For whoever did not see the step. `now` is what the server says after it has told the tokens:
    by a moment of before, what was done since would be a step."""
    behind_ms = max((int(fence) // 1_000 for fence in fences if fence), default=0) - now
    return behind_ms if behind_ms >= MIN_STEP_MS else 0


def turn_back(
    client: redis.Redis, shards: Sequence[int], outboxes: OutboxStore, now: int, behind_ms: int
) -> None:
    """Let come soon what was to come soon in these shards before their server's clock, which says `now`, was set back by
    `behind_ms`."""
    senders = outboxes.turn_back(shards, behind_ms)
    lanes = sum(_bring_lanes_near(client, k, now, behind_ms + SOON_MS) for k in shards)
    log.warning("the clock of Redis was set back", seconds=behind_ms / 1_000, outboxes=senders, lanes=lanes)


def _bring_lanes_near(client: redis.Redis, k: int, now: int, within_ms: int) -> int:
    """Have every lane looked at now whose alarm is as near as that. One with nothing to do gets the alarm of its deadline
    again."""
    alarms = keyspace.lane_alarms_key(k)
    near = ("ZRANGE", alarms, f"({now}", now + within_ms, "BYSCORE")
    senders = redis_client.run_command(client, near)
    for at in range(0, len(senders), _PAGE):
        scores = [part for sender in senders[at : at + _PAGE] for part in (now, sender)]
        redis_client.run_command(client, ("ZADD", alarms, "XX", "LT", *scores))
    return len(senders)
