"""Until when do invitations wait? By the pace, the night, and what is left of the day."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from config.service.invitation_forecast import forecast_last_invitation
from config.settings.channels import Channel, ChannelLimits
from config.settings.config_errors import Secret
from engine.model.quiet_hours import QuietHours

PARIS = ZoneInfo("Europe/Paris")
NIGHT = QuietHours(21 * 60, 8 * 60)


def channel(quiet=None, zone=UTC, **limits):
    return Channel(
        "clinic",
        "simulator",
        "+33700000001",
        ("clinic",),
        Secret(),
        zone,
        ChannelLimits(**limits),
        quiet=quiet,
    )


def forecast(channel, waiting, at, sms_today=0):
    now = datetime.fromisoformat(at).replace(tzinfo=channel.timezone)
    found = forecast_last_invitation(channel, waiting, sms_today, int(now.timestamp() * 1000))
    return found and datetime.fromtimestamp(found / 1000, channel.timezone).isoformat(" ", "minutes")[:16]


@pytest.mark.parametrize(
    "limits, until",
    [
        ({"invitations_per_second": 1}, "2026-06-01 11:00"),
        ({"sms_per_second": 4}, "2026-06-01 10:30"),
        ({"sms_per_second": 0}, "2026-06-01 10:00"),  # 100 a second
        ({"invitations_per_second": 1, "new_sessions_per_minute": 10}, "2026-06-01 16:00"),
    ],
)
def test_they_leave_at_the_pace_of_the_channel(limits, until):
    assert forecast(channel(**limits), 3_600, "2026-06-01 10:00") == until


def test_not_at_night():
    slow = channel(NIGHT, PARIS, invitations_per_second=1)
    assert forecast(slow, 3_600, "2026-06-01 20:30") == "2026-06-02 08:30"
    assert forecast(slow, 3_600, "2026-06-01 23:00") == "2026-06-02 09:00"
    assert forecast(slow, 3_600, "2026-06-02 03:00") == "2026-06-02 09:00"
    noon = channel(QuietHours(12 * 60, 13 * 60), PARIS, invitations_per_second=1)
    assert forecast(noon, 3_600, "2026-06-01 11:30") == "2026-06-01 13:30"


def test_not_more_in_a_day_than_it_has_sms():
    capped = channel(zone=PARIS, invitations_per_second=10, sms_per_day=100)
    assert forecast(capped, 50, "2026-06-01 10:00") == "2026-06-01 10:00"
    assert forecast(capped, 50, "2026-06-01 10:00", sms_today=60) == "2026-06-02 00:00"
    assert forecast(capped, 250, "2026-06-01 10:00", sms_today=100) == "2026-06-04 00:00"
    at_night_too = channel(NIGHT, PARIS, invitations_per_second=10, sms_per_day=100)
    assert forecast(at_night_too, 150, "2026-06-01 22:00") == "2026-06-03 08:00"


def test_a_day_of_another_length_is_one():
    """The clocks of Paris are put back at 3 in the morning of 2026-10-25."""
    assert (
        forecast(channel(zone=PARIS, invitations_per_second=1), 25 * 3_600, "2026-10-25 00:00")
        == "2026-10-26 00:00"
    )


def test_nobody_can_tell_what_takes_longer_than_one_may_wait():
    assert forecast(channel(zone=PARIS, sms_per_day=10), 400, "2026-06-01 10:00") is None
