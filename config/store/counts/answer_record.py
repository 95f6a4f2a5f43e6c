"""How many SMS did a channel's provider take of late, and how long did people wait for theirs?

Whoever hands SMS to a provider notes them, and writes what it has noted every few seconds, by its own clock: no send and no
turn waits for that. It is for people to look at: what is lost of it is lost, and nothing is decided by it.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime, tzinfo
from threading import Lock
from typing import Any

import msgspec
import redis

from config.store import keyspace, redis_client
from config.store.function_calls import Command

TREND_MINUTES = 10
"""Whole minutes of which it is told how many answers each had."""

WINDOW_MINUTES = 5
"""So many of the last of them, and the one that is not over, are what is meant by "of late"."""

WRITE_INTERVAL_S = 5.0
"""How often what was noted is written, if there is anything."""

_MINUTE_MS = 60_000
_MINUTES_KEPT_MS = (TREND_MINUTES + 5) * _MINUTE_MS
_DAY_KEPT_MS = 3 * 86_400_000

_STEP = 1.2
"""A wait is known by the power of this that it is within: so what is told of it is wrong by a tenth at the most."""

_SMS_FIELD, _WAIT_PREFIX = "sms", "w"


class NotedSms(msgspec.Struct):
    """What was noted of a channel since it was written last: by minute (since 1970), the fields of its hash; SMS by the channel's
    day, each of which begins with a minute."""

    by_minute: Mapping[int, Counter[str]]
    by_day: Counter[str]


class AnswerNotes:
    """What this process has handed to providers and not written yet. Any thread may note, and any may take."""

    def __init__(self, timezones: Mapping[str, tzinfo]) -> None:
        self._timezones = timezones
        self._noted: dict[str, dict[int, Counter[str]]] = {}
        self._lock = Lock()

    def note(self, channel: str, now: int, wait_ms: int | None = None) -> None:
        """The provider took an SMS at `now` (ms); it was a first answer, for which somebody waited so long, or None."""
        with self._lock:
            fields = self._noted.setdefault(channel, {}).setdefault(now // _MINUTE_MS, Counter())
            fields[_SMS_FIELD] += 1
            if wait_ms is not None:
                fields[f"{_WAIT_PREFIX}{_step_of(wait_ms)}"] += 1

    def take(self) -> dict[str, NotedSms]:
        """Return what was noted since the last time, by channel."""
        with self._lock:
            noted, self._noted = self._noted, {}
        return {
            channel: NotedSms(by_minute, self._by_day(channel, by_minute))
            for channel, by_minute in noted.items()
        }

    def _by_day(self, channel: str, by_minute: Mapping[int, Counter[str]]) -> Counter[str]:
        days = Counter[str]()
        for minute, fields in by_minute.items():
            days[_day_of(minute * _MINUTE_MS, self._timezones[channel])] += fields[_SMS_FIELD]
        return days


def note_commands(channel: str, noted: NotedSms) -> Iterator[Command]:
    """Write what was noted."""
    for minute, fields in noted.by_minute.items():
        key = keyspace.answers_key(channel, minute)
        for field, count in fields.items():
            yield ("HINCRBY", key, field, count)
        yield ("PEXPIRE", key, _MINUTES_KEPT_MS)
    for day, count in noted.by_day.items():
        counter = keyspace.accepted_sms_key(channel, day)
        yield ("INCRBY", counter, count)
        yield ("PEXPIRE", counter, _DAY_KEPT_MS)


def write_notes(client: redis.Redis, notes: AnswerNotes) -> None:
    """Write what was noted since the last time. Raises redis.RedisError, and then it is lost."""
    for channel, noted in notes.take().items():
        redis_client.run_commands(client, list(note_commands(channel, noted)), transaction=True)


class AnswerReading(msgspec.Struct, frozen=True, kw_only=True):
    """Of a channel: `sms_today` are those that its provider took on the channel's day. `by_minute`: first answers in each of the
    last TREND_MINUTES that are over, oldest first. Of late, which is `span_ms`: `answers`, `sms` in all, and answers by
    how long their person waited, as `waits` has it: step -> count."""

    sms_today: int = 0
    by_minute: tuple[int, ...] = (0,) * TREND_MINUTES
    span_ms: int = 0
    answers: int = 0
    sms: int = 0
    waits: Mapping[int, int] = {}


def answer_commands(channel: str, timezone: tzinfo, now: int) -> tuple[Command, ...]:
    """Ask for what `parse_answers` reads; `now` (ms) is the server's time."""
    minute = now // _MINUTE_MS
    return (
        ("GET", keyspace.accepted_sms_key(channel, _day_of(now, timezone))),
        *(
            ("HGETALL", keyspace.answers_key(channel, each))
            for each in range(minute - TREND_MINUTES, minute + 1)
        ),
    )


def parse_answers(answers: Iterator[Any], now: int) -> AnswerReading:
    """Read the next answers, which are to `answer_commands`."""
    today = int(next(answers) or 0)
    minutes = [_counts(next(answers)) for _ in range(TREND_MINUTES + 1)]
    waits: Counter[int] = Counter()
    for fields in minutes[-WINDOW_MINUTES - 1 :]:
        waits.update(_waits(fields))
    return AnswerReading(
        sms_today=today,
        by_minute=tuple(sum(_waits(fields).values()) for fields in minutes[:-1]),
        span_ms=WINDOW_MINUTES * _MINUTE_MS + now % _MINUTE_MS,
        answers=sum(waits.values()),
        sms=sum(fields.get(_SMS_FIELD, 0) for fields in minutes[-WINDOW_MINUTES - 1 :]),
        waits=dict(sorted(waits.items())),
    )


def wait_quantile_ms(waits: Mapping[int, int], share: float) -> int | None:
    """Return how long the quickest `share` of all waited at the most, to a tenth; None if nobody waited."""
    left = share * sum(waits.values())
    for step, count in sorted(waits.items()):
        left -= count
        if left <= 0:
            return round(_STEP ** (step - 0.5)) if step else 0
    return None


def _step_of(wait_ms: int) -> int:
    """The power of _STEP that a wait is within; 0 for less than a ms."""
    return max(0, math.ceil(math.log(wait_ms, _STEP))) if wait_ms > 0 else 0


def _waits(fields: Mapping[str, int]) -> dict[int, int]:
    return {
        int(field[len(_WAIT_PREFIX) :]): count
        for field, count in fields.items()
        if field.startswith(_WAIT_PREFIX)
    }


def _counts(stored: Mapping[bytes, bytes]) -> dict[str, int]:
    return {field.decode(): int(count) for field, count in (stored or {}).items()}


def _day_of(now: int, timezone: tzinfo) -> str:
    return datetime.fromtimestamp(now / 1000, timezone).date().isoformat()
