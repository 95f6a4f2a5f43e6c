"""What does Redis hold of a channel at a moment? Its pause, the SMS of its day, and when its token buckets are full
again. Every view of a channel is of one such reading, and the day's counter is named here alone.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from config.store import keyspace
from config.store.function_calls import Command
from config.store.pauses import StoredPause, decode_pause, pause_left_ms


class ActivePause(msgspec.Struct, frozen=True):
    """A pause, and for how many ms yet; None: until it is ended."""

    pause: StoredPause
    left_ms: int | None


class ChannelReading(msgspec.Struct, frozen=True):
    """`sms_today` counts the SMS decided on the channel's day; only where they have a limit. A bucket is full at its
    moment (ms); 0 if nobody has taken anything from it of late."""

    pause: ActivePause | None
    sms_today: int
    sms_bucket_full_at: float
    session_bucket_full_at: float


def daily_sms_key(channel: str, timezone: ZoneInfo, now: int) -> str:
    """The counter of the SMS decided on the day of `now` (ms), by the channel's calendar."""
    day = datetime.fromtimestamp(now / 1000, timezone).date()
    return keyspace.sms_counter_key(channel, day.isoformat())


def pause_commands(channel: str) -> tuple[Command, Command]:
    """Ask for what `parse_pause` reads."""
    return ("GET", keyspace.pause_key(channel)), ("PTTL", keyspace.pause_key(channel))


def parse_pause(value: bytes | None, pttl: int) -> ActivePause | None:
    """The pause that is stored, by the answers to `pause_commands`; None if there is none."""
    return None if value is None else ActivePause(decode_pause(value), pause_left_ms(pttl))


def reading_commands(channel: str, timezone: ZoneInfo, now: int) -> tuple[Command, ...]:
    """Ask for what `parse_reading` reads; `now` (ms) is the server's time."""
    return (
        *pause_commands(channel),
        ("GET", daily_sms_key(channel, timezone, now)),
        ("GET", keyspace.sms_bucket_key(channel)),
        ("GET", keyspace.session_bucket_key(channel)),
    )


def parse_reading(answers: Iterator[Any]) -> ChannelReading:
    """Read the next answers, which are to `reading_commands`."""
    return ChannelReading(
        parse_pause(next(answers), next(answers)),
        int(next(answers) or 0),
        float(next(answers) or 0),
        float(next(answers) or 0),
    )
