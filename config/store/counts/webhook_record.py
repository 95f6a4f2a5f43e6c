"""When did a channel's provider last call with the right token, and how many calls came of late that nobody has signed?

Each `web` writes what it has noticed every few seconds, by its own clock. It is for people to look at: what is lost of it is
lost, and nothing is decided by it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from config.store import keyspace
from config.store.function_calls import Command

FORGED_MINUTES = 5
"""For so long back, calls with a wrong token or signature are counted."""

_MINUTE_MS = 60_000
_COUNTS_KEPT_MS = (FORGED_MINUTES + 5) * _MINUTE_MS
_RECORD_KEPT_MS = 400 * 86_400_000


class NoticedWebhooks(msgspec.Struct):
    """What one `web` has noticed of a channel since it wrote last: ms of the last good call and of the last forged one, 0 if
    there was none; and how many forged ones came in each minute (since 1970)."""

    good_ms: int = 0
    forged_ms: int = 0
    forged_by_minute: dict[int, int] = {}

    def add_forged(self, now: int) -> None:
        minute = now // _MINUTE_MS
        self.forged_ms = now
        self.forged_by_minute[minute] = self.forged_by_minute.get(minute, 0) + 1


class WebhookReading(msgspec.Struct, frozen=True):
    """ms of the last good call and of the last forged one, 0 if none is known; and how many forged ones came in the last
    FORGED_MINUTES."""

    good_ms: int = 0
    forged_ms: int = 0
    forged_lately: int = 0


def record_commands(channel: str, noticed: NoticedWebhooks) -> Iterator[Command]:
    """Write what was noticed."""
    key = keyspace.webhooks_key(channel)
    for field, at in (("good", noticed.good_ms), ("forged", noticed.forged_ms)):
        if at:
            yield ("HSET", key, field, at)
    yield ("PEXPIRE", key, _RECORD_KEPT_MS)
    for minute, count in noticed.forged_by_minute.items():
        counter = keyspace.forged_webhooks_key(channel, minute)
        yield ("INCRBY", counter, count)
        yield ("PEXPIRE", counter, _COUNTS_KEPT_MS)


def webhook_commands(channel: str, now: int) -> tuple[Command, Command]:
    """Ask for what `parse_webhooks` reads; `now` (ms) is the server's time."""
    minute = now // _MINUTE_MS
    minutes = range(minute - FORGED_MINUTES + 1, minute + 1)
    counters = [keyspace.forged_webhooks_key(channel, each) for each in minutes]
    return ("HGETALL", keyspace.webhooks_key(channel)), ("MGET", *counters)


def parse_webhooks(answers: Iterator[Any]) -> WebhookReading:
    """Read the next answers, which are to `webhook_commands`."""
    record: Mapping[bytes, bytes] = next(answers)
    lately = sum(int(count) for count in next(answers) if count)
    return WebhookReading(int(record.get(b"good", 0)), int(record.get(b"forged", 0)), lately)
