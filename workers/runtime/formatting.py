"""How long, and when? As an operator reads it at a glance."""

from datetime import UTC, datetime, tzinfo

_DURATION_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))


def format_duration(ms: float) -> str:
    """A length of time by its two largest units: `2 h 10 min`, `7 min`, `3 s`, `0.4 s`. What is negative is none."""
    ms = max(0, ms)
    if ms < 10_000:
        return f"{ms / 1_000:.1f}".removesuffix(".0") + " s"
    rest = round(ms / 1_000) * 1_000
    parts: list[str] = []
    for place, (unit, length) in enumerate(_DURATION_UNITS):
        whole, rest = divmod(rest, length)
        if whole:
            parts = [f"{whole} {unit}"]
            if place + 1 < len(_DURATION_UNITS) and place != 2:  # nobody wants the seconds of minutes
                next_unit, next_length = _DURATION_UNITS[place + 1]
                parts += [f"{rest // next_length} {next_unit}"] if rest >= next_length else []
            break
    return " ".join(parts)


def format_clock_time(ms: int, now: int, zone: tzinfo = UTC) -> str:
    """A moment on that zone's clock: `02:10 CET`, with the day if it is not that of `now`: `Nov 21 02:10 CET`."""
    moment, today = (datetime.fromtimestamp(each / 1_000, UTC).astimezone(zone) for each in (ms, now))
    return moment.strftime("%H:%M %Z" if moment.date() == today.date() else "%b %d %H:%M %Z")
