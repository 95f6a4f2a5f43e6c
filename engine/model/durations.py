"""How long? Lengths of time in ms: as survey files and transcripts write them, and in words.

Four forms, each for one reader. `compact_duration` is exact, and read back by `parse_duration`. `survey_duration` is the
one number and unit that a survey file has. `format_duration` is for an operator's glance, and rounds; `format_wait` does
for waits, of which milliseconds matter.
"""

import re

_UNIT_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
"""Unit -> its length in ms, the longest first."""

_DURATION_PATTERN = re.compile(
    r"(?=[0-9])(?:([0-9]{1,9})d)? ?(?:([0-9]{1,9})h)? ?(?:([0-9]{1,9})m(?!s))? ?"
    r"(?:([0-9]{1,9})s)? ?(?:([0-9]{1,9})ms)?"
)
_SPOKEN_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))


def parse_duration(text: str) -> int | None:
    """Read `1d2h`, `1h 30m`, `90s` or `500ms` as ms; None if `text` is no duration."""
    found = _DURATION_PATTERN.fullmatch(text)
    if found is None:
        return None
    return sum(int(count or 0) * ms for count, ms in zip(found.groups(), _UNIT_MS.values(), strict=True))


def compact_duration(ms: int) -> str:
    """Write `ms`, which is not negative, exactly and in all its units: `1h30m`."""
    parts: list[str] = []
    for unit, length in _UNIT_MS.items():
        whole, ms = divmod(ms, length)
        parts += [f"{whole}{unit}"] if whole else []
    return "".join(parts) or "0s"


def survey_duration(ms: int) -> str:
    """Write `ms` exactly and in one unit, as authors write it in a survey file: 90 minutes are `90m`."""
    units = ((unit, length) for unit, length in _UNIT_MS.items() if length >= 1_000)
    unit, length = next((each for each in units if ms and ms % each[1] == 0), ("s", 1_000))
    return f"{ms / length:g}{unit}"


def format_duration(ms: float) -> str:
    """Say `ms` by its two largest units: `2 h 10 min`, `7 min`, `3 s`, `0.4 s`. A negative length is `0 s`."""
    ms = max(0, ms)
    if ms < 10_000:
        return f"{ms / 1_000:.1f}".removesuffix(".0") + " s"
    rest = round(ms / 1_000) * 1_000
    parts: list[str] = []
    for place, (unit, length) in enumerate(_SPOKEN_UNITS):
        whole, rest = divmod(rest, length)
        if whole:
            parts = [f"{whole} {unit}"]
            if place + 1 < len(_SPOKEN_UNITS) and place != 2:  # nobody wants the seconds of minutes
                next_unit, next_length = _SPOKEN_UNITS[place + 1]
                parts += [f"{rest // next_length} {next_unit}"] if rest >= next_length else []
            break
    return " ".join(parts)


def format_wait(ms: float) -> str:
    """Say `13 ms`, `0.4 s`, `2 min`: what is known to a tenth is told no more exactly."""
    return f"{ms:.0f} ms" if ms < 100 else format_duration(ms)
