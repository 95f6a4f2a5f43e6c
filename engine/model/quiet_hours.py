"""Computes when an invitation or a reminder may be sent: not in the channel's quiet hours, where the person is.
Replies are never held back. And when is it a time of the day there? The number's time zones come from libphonenumber;
with several, all must be awake, and it is the time of the westernmost, so that it is no earlier in any of them; a
number without any (short code, satellite phone) has the channel's."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import phonenumbers
import phonenumbers.timezone

_CACHED_NUMBERS = 4_096
_MOST_ROUNDS = 8
"""More than the edges of all quiet hours of one country's zones in a day."""

_DAYS_LOOKED_AT = 3
"""For a time of the day: today's may be past, and clocks that are put ahead leave one out."""


class QuietHours(msgspec.Struct, frozen=True):
    """Minutes of the day, from `begins` up to, not including, `ends`; past midnight if `begins` is the later one."""

    begins: int
    ends: int

    def next_awake_at(self, number: str, at: int, home: ZoneInfo) -> int:
        """The first moment (ms) from `at` on at which `number` may be texted."""
        zones = _time_zones_of(number) or (home,)
        moment = datetime.fromtimestamp(at / 1000, UTC)
        awake = self._next_awake(moment, zones)
        return at if awake == moment else round(awake.timestamp() * 1000)

    def _next_awake(self, moment: datetime, zones: Sequence[ZoneInfo]) -> datetime:
        """If no moment of the day suits all zones, the last one tried is as good as any."""
        for _ in range(_MOST_ROUNDS):
            later = max(self._quiet_end(moment, zone) for zone in zones)
            if later == moment:
                return moment
            moment = later
        return moment

    def _quiet_end(self, moment: datetime, zone: ZoneInfo) -> datetime:
        """`moment`, or the end of the quiet hours that it falls into in `zone`."""
        there = moment.astimezone(zone)
        minute = there.hour * 60 + there.minute
        if self.begins <= self.ends:
            quiet, tomorrow = self.begins <= minute < self.ends, False
        else:
            quiet, tomorrow = minute >= self.begins or minute < self.ends, minute >= self.begins
        if not quiet:
            return moment
        day = there.date() + timedelta(days=tomorrow)
        end = datetime(day.year, day.month, day.day, self.ends // 60, self.ends % 60, tzinfo=zone)
        again = end.replace(fold=1)  # clocks that are put back show it twice
        return max(moment, end.astimezone(UTC), again.astimezone(UTC))


def next_time_of_day(number: str, minute: int, at: int, home: ZoneInfo) -> int:
    """The first moment (ms) from `at` on at which it is that minute of the day where `number` is."""
    moment = datetime.fromtimestamp(at / 1000, UTC)
    zone = min(_time_zones_of(number) or (home,), key=lambda each: _utc_offset(each, moment))
    today = moment.astimezone(zone).date()
    for day in (today + timedelta(days=days) for days in range(_DAYS_LOOKED_AT)):
        then = datetime(day.year, day.month, day.day, minute // 60, minute % 60, tzinfo=zone).astimezone(UTC)
        if then >= moment:
            break
    return round(then.timestamp() * 1000)


def _utc_offset(zone: ZoneInfo, moment: datetime) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


@lru_cache(_CACHED_NUMBERS)
def _time_zones_of(number: str) -> tuple[ZoneInfo, ...]:
    """Where the number may be; empty if nobody knows."""
    try:
        names = phonenumbers.timezone.time_zones_for_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:
        return ()
    return tuple(zone for name in names if (zone := _load_zone(name)) is not None)


def _load_zone(name: str) -> ZoneInfo | None:
    if name == phonenumbers.timezone.UNKNOWN_TIMEZONE:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return None
