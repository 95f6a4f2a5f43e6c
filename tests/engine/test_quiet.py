"""Nothing is begun in the quiet hours of where a person is; a reply is never held back."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.model.events import InboundSms, Mail, SessionEnded, SmsDecided
from engine.model.lane import Lane
from engine.model.quiet_hours import QuietHours, next_time_of_day
from engine.simulator.simulator import SIMULATED_SENDER
from engine.turns.advance import advance
from tests.engine.chat import SIMULATED_CHANNEL, SimulatedPhone, policy_for, surveys_of
from tests.support.example_counts import examples

NIGHT = QuietHours(20 * 60, 8 * 60)
NOON = QuietHours(12 * 60, 14 * 60)
PARIS = ZoneInfo("Europe/Paris")
NUMBERS = {
    "+33612345678": "Europe/Paris",
    "+4741000000": "Europe/Oslo",
    "+12125550123": "America/New_York",
    "+81312345678": "Asia/Tokyo",
    "+916512345678": "Asia/Calcutta",
    "36111": "Europe/Paris",  # nobody knows: as the channel
}
SURVEY = """
survey: s
idle: {idle}
expires: 3d
steps:
  - {{id: a, ask: A?, answer: {{type: text}}, remind: {{after: 4h, times: 2, text: Still there?}}}}
"""


def ms(*when, zone="Europe/Paris"):
    return round(datetime(*when, tzinfo=ZoneInfo(zone)).timestamp() * 1000)


@pytest.mark.parametrize("number", sorted(NUMBERS))
def test_whoever_is_texted_at_night_is_texted_at_eight_where_they_are(number):
    zone = NUMBERS[number]
    for when in ((2027, 1, 15, 20, 0), (2027, 1, 15, 23, 59), (2027, 1, 16, 0, 0), (2027, 1, 16, 7, 59)):
        assert NIGHT.next_awake_at(number, ms(*when, zone=zone), PARIS) == ms(2027, 1, 16, 8, zone=zone)
    for when in ((2027, 1, 15, 19, 59), (2027, 1, 16, 8, 0)):
        assert NIGHT.next_awake_at(number, ms(*when, zone=zone), PARIS) == ms(*when, zone=zone)


def test_where_a_country_has_several_zones_it_must_be_day_in_all():
    number = "+61491570156"  # an Australian mobile: from Sydney to the Cocos Islands
    awake = NIGHT.next_awake_at(number, ms(2027, 1, 15, 7, zone="Australia/Sydney"), PARIS)
    assert awake == ms(2027, 1, 15, 8, zone="Indian/Cocos")


@pytest.mark.parametrize("number", sorted(NUMBERS))
def test_a_time_of_the_day_is_the_next_such_where_the_person_is(number):
    zone = NUMBERS[number]
    for when, day in (((8, 59), 15), ((9, 0), 15), ((9, 1), 16)):
        asked = ms(2027, 1, 15, *when, zone=zone)
        assert next_time_of_day(number, 9 * 60, asked, PARIS) == ms(2027, 1, day, 9, zone=zone)


def test_where_a_country_has_several_zones_it_is_the_westernmosts_time():
    """In none of them is it earlier then, though it may be nine tomorrow in the east before it is nine today in the west."""
    number = "+61491570156"
    for asked in (ms(2027, 1, 15, 8, zone="Indian/Cocos"), ms(2027, 1, 15, 10, zone="Australia/Sydney")):
        assert next_time_of_day(number, 9 * 60, asked, PARIS) == ms(2027, 1, 15, 9, zone="Indian/Cocos")


def test_a_time_that_clocks_leave_out_or_show_twice_comes_once():
    number, minute = "+33612345678", 2 * 60 + 30
    assert next_time_of_day(number, minute, ms(2027, 3, 27, 12), PARIS) == ms(2027, 3, 28, 3, 30)
    first = round(datetime(2027, 10, 31, 0, 30, tzinfo=UTC).timestamp() * 1000)
    assert next_time_of_day(number, minute, ms(2027, 10, 30, 12), PARIS) == first
    assert next_time_of_day(number, minute, first + 1, PARIS) == ms(2027, 11, 1, 2, 30)


@pytest.mark.parametrize("day", [(2027, 3, 28), (2027, 10, 31)], ids=["put forward", "put back"])
@settings(max_examples=examples(200), deadline=None)
@given(
    begins=st.integers(0, 1439), ends=st.integers(0, 1439), minute=st.integers(-600, 2_000),
)  # fmt: skip
def test_whatever_the_hours_the_moment_is_the_first_that_is_not_quiet(day, begins, ends, minute):
    """On the nights on which clocks change, too."""
    assume(day != (2027, 3, 28) or not 120 <= ends < 180)  # no such time on that day: up to an hour late
    quiet = QuietHours(begins, ends)
    at = ms(*day) + minute * 60_000
    awake = quiet.next_awake_at(SIMULATED_SENDER, at, PARIS)

    def is_quiet(moment):
        there = datetime.fromtimestamp(moment / 1000, UTC).astimezone(PARIS)
        now = there.hour * 60 + there.minute
        return begins <= now < ends if begins <= ends else now >= begins or now < ends

    assert not is_quiet(awake)
    between = [at + each * 60_000 for each in range((awake - at) // 60_000)]
    hour_twice = {ms(2027, 10, 31, 2) + each * 60_000 for each in range(120)}
    assert all(is_quiet(moment) for moment in between if moment not in hour_twice)


def quiet_phone(idle="2d", quiet=NIGHT):
    policy = msgspec.structs.replace(policy_for("s"), quiet=quiet)
    return SimulatedPhone(surveys_of({"s.yaml": SURVEY.format(idle=idle)}), policy, now=ms(2027, 1, 15, 17))


def test_a_reminder_waits_for_the_morning_and_the_next_one_counts_from_it():
    phone = quiet_phone()
    phone.text("START")
    assert phone.last_advance.alarm == ms(2027, 1, 16, 8)
    assert phone.wait(15 * 3_600_000) == ["Still there?"]
    assert phone.records_of(SmsDecided)[-1].at == ms(2027, 1, 16, 8)
    assert phone.last_advance.alarm == ms(2027, 1, 16, 12)


def test_a_reminder_by_day_does_not_wait():
    phone = quiet_phone(quiet=NOON)
    phone.text("START")
    assert phone.last_advance.alarm == ms(2027, 1, 15, 21)


def test_a_session_that_is_over_by_morning_is_not_reminded():
    phone = quiet_phone(idle="5h")
    phone.text("START")
    assert phone.wait(3 * 86_400_000) == []
    assert [ended.how for ended in phone.records_of(SessionEnded)] == ["idle"]


def test_a_reply_is_never_held_back():
    phone = quiet_phone()
    phone.now = ms(2027, 1, 15, 23)
    assert phone.text("START") == ["A?"]
    assert phone.text("HELP") != []


@pytest.mark.parametrize("number", sorted(NUMBERS))
def test_a_reminder_comes_by_day_where_the_person_is(number):
    surveys = surveys_of({"s.yaml": SURVEY.format(idle="2d")})
    policy = {SIMULATED_CHANNEL: msgspec.structs.replace(policy_for("s"), quiet=NIGHT)}
    for hour in range(24):
        now = ms(2027, 1, 15, hour)
        start = Mail(now, InboundSms("1" * 16, SIMULATED_CHANNEL, "START", start=True))
        alarm = advance(Lane(), number, [start], now, surveys, policy).alarm
        there = datetime.fromtimestamp(alarm / 1000, ZoneInfo(NUMBERS[number]))
        assert 8 <= there.hour < 20
        assert alarm >= now + 4 * 3_600_000
