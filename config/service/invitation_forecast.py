"""When will the last of the invitations that wait have left? By the channel's pace, as if nobody wrote meanwhile: not sooner than
that. No I/O."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from config.settings.channels import Channel
from config.store.keyspace import MAX_HELD_MS


def forecast_last_invitation(channel: Channel, waiting: int, sms_today: int, now: int) -> int | None:
    """Return when (ms) the last of `waiting` invitations leaves, each of which takes one SMS at least of the day's; None if that is
    further ahead than an invitation may wait."""
    pace = channel.limits.pace_left(channel.timezone, sms_today)
    left, room = float(waiting), float(pace.left_today) if pace.per_day else float("inf")
    for begins, ends, new_day in _awake_spans(channel, now):
        if new_day:
            room = pace.per_day or float("inf")
        leave = min((ends - begins) / 1000 * pace.per_second, room)
        if left <= leave:
            return begins + round(left / pace.per_second * 1000)
        left -= leave
        room -= leave
    return None


def _awake_spans(channel: Channel, now: int) -> Iterator[tuple[int, int, bool]]:
    """Spans (ms) from `now` on in which people of the channel's zone are invited, none over midnight there; whether each is the first
    of a day after that of `now`."""
    at, is_new_day = now, False
    while at - now < MAX_HELD_MS:
        there = datetime.fromtimestamp(at / 1000, channel.timezone)
        midnight = _moment(there + timedelta(days=1), channel, 0)
        ends = midnight
        if channel.quiet is not None:
            awake_at = channel.quiet.next_awake_at("", at, channel.timezone)
            if awake_at > at:
                is_new_day = is_new_day or awake_at >= midnight
                at = awake_at
                continue
            begins = _moment(there, channel, channel.quiet.begins)
            if begins > at:
                ends = min(midnight, begins)
        yield at, ends, is_new_day
        at, is_new_day = ends, ends == midnight


def _moment(day: datetime, channel: Channel, minute: int) -> int:
    """That minute of the day on the channel's clock, in ms."""
    there = datetime(day.year, day.month, day.day, minute // 60, minute % 60, tzinfo=channel.timezone)
    return round(there.timestamp() * 1000)
