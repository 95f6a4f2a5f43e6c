"""When does an invitation's turn come, by how many wait before it? At its channel's pace, within its day's SMS. An estimate: what
replies need of the day, quiet hours, and a service that is busy make it later. Pure."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec


class InvitationPace(msgspec.Struct, frozen=True):
    """How fast a channel's invitations go: so many a second and, of `per_day` on a day of `timezone` (0: no limit), so many as are
    `left_today`."""

    per_second: float
    timezone: ZoneInfo
    per_day: int = 0
    left_today: int = 0

    def turn_at(self, now: int, before: int) -> int:
        """The moment (ms) at which the turn comes of whoever has so many `before` them at `now`."""
        soonest = now + round(before * 1000 / self.per_second)
        if not self.per_day or before < self.left_today:
            return soonest
        days, before_that_day = divmod(before - max(0, self.left_today), self.per_day)
        day = datetime.fromtimestamp(now / 1000, self.timezone).date() + timedelta(days=days + 1)
        midnight = datetime(day.year, day.month, day.day, tzinfo=self.timezone).astimezone(UTC)
        return max(
            soonest, round(midnight.timestamp() * 1000) + round(before_that_day * 1000 / self.per_second)
        )
