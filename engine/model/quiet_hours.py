"""Computes when an invitation or a reminder may be sent: not in the channel's quiet hours, where the person is.
Replies are never held back. The number's time zones come from libphonenumber; with several, all must be awake; a
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
