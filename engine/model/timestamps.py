"""When? Moments, which are ms since the epoch everywhere, as people and programs read them.

What is stored for later reading is in UTC; what an operator compares with a clock on the wall is on that clock.
"""

from datetime import UTC, datetime, tzinfo


def format_utc(ms: int) -> str:
    """Write a moment in UTC, to the second: `2026-11-29 02:10:00`."""
    return _moment(ms, UTC).strftime("%Y-%m-%d %H:%M:%S")


def format_utc_ms(ms: int) -> str:
    """Write a moment in UTC, to the ms, with its offset: `2026-11-29T02:10:00.000+00:00`, which ISO 8601 reads back."""
    return _moment(ms, UTC).isoformat(timespec="milliseconds")


def format_local(ms: int, zone: tzinfo) -> str:
    """Write a moment on that zone's clock, to the second, with its offset: `2026-11-29 03:10:00+01:00`."""
    return _moment(ms, zone).isoformat(" ", "seconds")


def format_clock_time(ms: int, now: int, zone: tzinfo = UTC) -> str:
    """Say a moment on that zone's clock: `02:10 CET`, with the day if it is not that of `now`: `Nov 21 02:10 CET`."""
    moment, today = _moment(ms, zone), _moment(now, zone)
    return moment.strftime("%H:%M %Z" if moment.date() == today.date() else "%b %d %H:%M %Z")


def _moment(ms: int, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(ms / 1_000, UTC).astimezone(zone)
