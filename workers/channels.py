"""What may a channel do now? Limits that span senders, and pauses, shared by all workers through Redis.

Permits are taken in batches from token buckets, by the server's clock. A permit taken and not used is lost: a limit
errs on the safe side. The day's SMS are counted when they are decided, and hold back new sessions only: a
conversation that has begun is finished.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

import redis

from config import keyspace, metrics
from config.settings import Channel
from engine.events import Refusal

_TWO_DAYS_S = 172_800


class Channels:
    """The deployment's channels as they stand. Times are the server's, in ms."""

    def __init__(self, client: redis.Redis, channels: Mapping[str, Channel]) -> None:
        self._redis = client
        self._channels = channels

    def __getitem__(self, name: str) -> Channel:
        return self._channels[name]

    def admit(self, name: str, wanted: int, now: int) -> tuple[int, Refusal | None]:
        """How many of `wanted` sessions may open, and why not all."""
        limits = self._channels[name].limits
        reason: Refusal | None = None
        if limits.sms_per_day:
            left = max(0, limits.sms_per_day - self.sms_today(name, now))
            metrics.SMS_BUDGET_EXHAUSTED.labels(name).set(left == 0)
            if left < wanted:
                wanted, reason = left, "sms_budget"
        if limits.new_sessions_per_minute and wanted:
            rate = limits.new_sessions_per_minute
            granted = keyspace.ask(
                self._redis,
                keyspace.call("grant", [keyspace.session_bucket(name)], (rate / 60, rate, wanted)),
            )
            if granted < wanted:
                wanted, reason = granted, "new_sessions"
        return wanted, reason

    def sms_today(self, name: str, now: int) -> int:
        return int(self._redis.get(self._counter(name, now)) or 0)

    def count_sms(self, name: str, decided: int, now: int) -> None:
        """Add to the day's SMS of a channel, if it has a cap."""
        channel = self._channels.get(name)
        if channel is not None and (cap := channel.limits.sms_per_day):
            counter = self._counter(name, now)
            total, _ = keyspace.run(
                self._redis, [("INCRBY", counter, decided), ("EXPIRE", counter, _TWO_DAYS_S)]
            )
            metrics.SMS_BUDGET_EXHAUSTED.labels(name).set(int(total) >= cap)

    def paused(self, names: Sequence[str]) -> dict[str, int]:
        """The paused ones of these channels, and for how many ms yet."""
        left = keyspace.run(self._redis, [("PTTL", keyspace.pause(name)) for name in names])
        return {name: ms for name, ms in zip(names, left, strict=True) if ms > 0}

    def book(self, name: str, wanted: int) -> list[int]:
        """A permit to send for each of `wanted` SMS: in how many ms it may leave, soonest first."""
        rate = self._channels[name].limits.sms_per_second
        if not rate or not wanted:
            return [0] * wanted
        waits: list[int] = keyspace.ask(
            self._redis, keyspace.call("book", [keyspace.sms_bucket(name)], (rate, max(1, rate), wanted))
        )
        return waits

    def pause(self, name: str, why: str, for_ms: int) -> bool:
        """Let nothing leave on a channel for a while; True if it was not paused already."""
        return bool(self._redis.set(keyspace.pause(name), why, px=for_ms, nx=True))

    def _counter(self, name: str, now: int) -> str:
        day = datetime.fromtimestamp(now / 1000, self._channels[name].timezone).date()
        return keyspace.sms_counter(name, day.isoformat())
