"""What a channel allows, on a real Valkey: its circuit, its pauses, and who goes first when its rate is short."""

from contextlib import closing
from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import msgspec
import pytest

from config.store import keyspace, pauses, redis_client
from config.store.channel_readings import daily_sms_key
from config.telemetry.redis_stats import StatsReader
from engine.providers import (
    ChannelFault,
    NumberUnreachable,
    OptedOutAtProvider,
    OutcomeUnknown,
    RetryLater,
    SendAccepted,
    SendRejected,
)
from tests.support.waiting import until
from workers.diagnosis.snapshot_reader import read_snapshot
from workers.sending.send_policy import provider_health
from workers.store.channel_state import ACCOUNT_FAULT_REST_MS, CIRCUIT_OPEN_MAX_MS, ChannelStore

RECHECK_MS = 60_000
KIRITIMATI = ZoneInfo("Pacific/Kiritimati")  # 14 hours ahead of UTC: mostly another day than anywhere
FAILS = ("fails", 2_000, "500: out of order")
WORKS = ("works", 10, "")
PROBE_FAILS, PROBE_WORKS = ("probe-fails", 10, "500: again"), ("probe-works", 10, "")


@pytest.fixture
def channels(pipeline):
    """A factory of the channels as one more process has them."""

    def build(**limits):
        world = pipeline(**limits).world
        return ChannelStore(world.lanes, world.settings.channels)

    return build


@pytest.fixture
def one(channels):
    return channels()


@pytest.fixture
def client(valkey):
    return valkey.client()


def wait_over(client):
    """Let the pause that there is be over now."""
    key = keyspace.pause_key("clinic")
    client.pexpire(key, 1)
    until(lambda: not client.exists(key), 5, "the pause is over")


def opened(one):
    circuit = one.report_results("clinic", [FAILS] * 5)
    assert (circuit.opened, circuit.rest_ms > 0) == ("circuit", True)


def paused_by(one):
    return {name: paused.pause.by for name, paused in one.active_pauses(["clinic"]).items()}


def test_failures_in_a_row_open_the_circuit_and_whoever_opened_it_is_told_once(one, channels, monkeypatch):
    monkeypatch.setattr(
        "workers.store.channel_state.CIRCUIT_OPEN_MIN_MS", 30_000
    )  # or it may be over before it is looked at
    assert one.report_results("clinic", [FAILS] * 4).rest_ms == 0
    assert paused_by(one) == {}
    assert channels().report_results("clinic", [FAILS]).opened == "circuit"
    assert one.report_results("clinic", [FAILS] * 5).opened == ""
    (paused,) = one.active_pauses(["clinic"]).values()
    assert (paused.pause.by, paused.pause.why) == ("circuit", FAILS[2])
    assert 0 < paused.left_ms <= 30_000


def test_a_provider_that_takes_every_other_request_is_not_paused(one):
    for _ in range(50):
        assert one.report_results("clinic", [FAILS, WORKS]).rest_ms == 0
    assert one.acquire_send_permits("clinic", ["reply"]).waits_ms == [0]


def test_a_hiccup_under_many_requests_at_once_is_no_outage(one):
    hiccup = ("fails", 50, "503: deploying")
    assert one.report_results("clinic", [hiccup] * 32).rest_ms == 0
    assert paused_by(one) == {}


@pytest.mark.parametrize(
    "outcome, says",
    [
        (SendAccepted("t"), "works"), (SendRejected("121", "no"), "works"), (NumberUnreachable("150", "no"), "works"),
        (OptedOutAtProvider("21610", "no"), "works"), (RetryLater("14107", "one number", this_sms_only=True), "works"),
        (RetryLater("153", "congested"), "fails"), (OutcomeUnknown("ReadTimeout", "no answer"), "fails"),
        (ChannelFault("104", "credit"), "faults"),
    ],
)  # fmt: skip
def test_failures_of_single_numbers_say_nothing_against_the_provider(outcome, says):
    assert provider_health(outcome) == says


def test_one_sms_probes_across_all_processes(one, channels, client):
    opened(one)
    assert all(wait < 0 for wait in one.acquire_send_permits("clinic", ["reply"] * 3).waits_ms)
    wait_over(client)
    processes = [one, channels(), channels()]
    departures = [each.acquire_send_permits("clinic", ["reply"] * 3) for each in processes]
    assert [each.probe for each in departures] == [True, False, False]
    assert [wait == 0 for each in departures for wait in each.waits_ms] == [True] + [False] * 8


def test_a_failed_probe_opens_for_twice_as_long_up_to_a_minute_and_an_accepted_one_closes(one, client):
    opened(one)
    rests = []
    for _ in range(8):
        wait_over(client)
        assert one.acquire_send_permits("clinic", ["reply"]).probe
        rests.append(one.report_results("clinic", [PROBE_FAILS]).rest_ms)
    expected = [
        2_000,
        4_000,
        8_000,
        16_000,
        32_000,
        CIRCUIT_OPEN_MAX_MS,
        CIRCUIT_OPEN_MAX_MS,
        CIRCUIT_OPEN_MAX_MS,
    ]
    assert rests == pytest.approx(expected, rel=0.05)
    wait_over(client)
    assert one.acquire_send_permits("clinic", ["reply"]).probe
    assert one.report_results("clinic", [PROBE_WORKS]).closed
    assert not one.report_results("clinic", [PROBE_WORKS]).closed
    found = one.acquire_send_permits("clinic", ["reply"] * 3)
    assert (found.reopened, found.waits_ms) == (True, [0, 0, 0])
    assert not one.acquire_send_permits("clinic", ["reply"]).reopened


def test_a_probe_that_was_not_made_leaves_it_to_another(one, client):
    opened(one)
    wait_over(client)
    assert one.acquire_send_permits("clinic", ["reply"]).probe
    one.report_results("clinic", [("probe-unmade", 0, "")])
    assert one.acquire_send_permits("clinic", ["reply"]).probe


def test_a_probe_whose_process_died_holds_up_nobody_for_longer_than_a_lease(one, client):
    opened(one)
    wait_over(client)
    assert one.acquire_send_permits("clinic", ["reply"]).probe
    assert 0 < client.pttl(keyspace.pause_key("clinic")) <= 15_000
    wait_over(client)
    assert one.acquire_send_permits("clinic", ["reply"]).probe


def test_a_fault_of_the_account_pauses_until_one_sms_gets_through(one, client):
    fault = ("faults", 10, "104: credit")
    assert one.report_results("clinic", [fault, fault]).opened == "account"
    assert one.report_results("clinic", [fault]).opened == ""
    assert ACCOUNT_FAULT_REST_MS - 30_000 < client.pttl(keyspace.pause_key("clinic")) <= ACCOUNT_FAULT_REST_MS
    wait_over(client)
    assert one.acquire_send_permits("clinic", ["reply", "reply"]).probe
    one.report_results("clinic", [("probe-faults", 10, "104: credit")])
    assert paused_by(one) == {"clinic": "account"}
    wait_over(client)
    one.acquire_send_permits("clinic", ["reply"])
    assert one.report_results("clinic", [PROBE_WORKS]).closed
    assert paused_by(one) == {}


def test_an_operators_pause_outranks_the_others_and_is_ended_by_no_probe(one, client):
    opened(one)
    wait_over(client)
    one.acquire_send_permits("clinic", ["reply"])
    replaced = one.pause("clinic", "carrier incident")
    assert replaced.pause.by == "circuit"
    for news in (PROBE_WORKS, PROBE_FAILS, ("faults", 10, "104: credit"), *[FAILS] * 5):
        one.report_results("clinic", [news])
        (paused,) = one.active_pauses(["clinic"]).values()
        assert (paused.pause.by, paused.pause.why, paused.left_ms) == ("operator", "carrier incident", None)
    assert one.acquire_send_permits("clinic", ["reply"]).waits_ms[0] < 0
    assert one.resume("clinic").pause.by == "operator"
    assert one.resume("clinic") is None
    found = one.acquire_send_permits("clinic", ["reply"])
    assert (found.waits_ms, found.reopened, found.probe) == ([0], True, False)


def test_a_probe_that_was_lost_makes_nobody_look_sooner_during_an_operators_pause(one, client):
    opened(one)
    wait_over(client)
    assert one.acquire_send_permits("clinic", ["reply"]).probe
    one.pause("clinic", "carrier incident")
    client.hdel(keyspace.circuit_state_key("clinic"), "looks")
    assert one.acquire_send_permits("clinic", ["reply"]).waits_ms[0] <= -RECHECK_MS


def test_a_pause_lasts_as_long_as_it_is_said_to(one, client):
    one.pause("clinic", "carrier incident")
    assert client.pttl(keyspace.pause_key("clinic")) == -1
    one.pause("clinic", "carrier incident", 7_200_000)
    (paused,) = one.active_pauses(["clinic"]).values()
    assert 7_100_000 < paused.left_ms <= 7_200_000


def test_whoever_tries_while_an_operators_pause_has_no_end_rests(one):
    opened(one)
    one.pause("clinic", "carrier incident")
    assert one.report_results("clinic", [FAILS]).rest_ms == RECHECK_MS


def test_a_pause_that_a_later_release_wrote_is_obeyed(one, client):
    value = '{"by":"regulator","why":"quiet week"}'
    client.set(keyspace.pause_key("clinic"), value, px=60_000)
    assert one.acquire_send_permits("clinic", ["reply"]).waits_ms[0] < 0
    (paused,) = one.active_pauses(["clinic"]).values()
    assert paused.pause == pauses.StoredPause(by="account", why=value)


def test_whoever_waits_for_a_pause_looks_at_the_channels_rate(channels, client):
    one = channels(sms_per_second=10)
    one.pause("clinic", "carrier incident", 50_000)
    begun = redis_client.server_time_ms(client)
    waits = [-wait for wait in one.acquire_send_permits("clinic", ["reply"] * 100).waits_ms]
    assert client.pttl(keyspace.pause_key("clinic")) <= waits[0] <= 50_000
    assert waits[-1] - waits[0] == pytest.approx(9_900, abs=10)
    (later,) = one.acquire_send_permits("clinic", ["reply"]).waits_ms
    assert redis_client.server_time_ms(client) - later > begun + waits[-1]


def test_replies_book_ahead_and_unasked_sms_yield_until_those_are_through(channels, client):
    one = channels(sms_per_second=10)
    one.acquire_send_permits("clinic", ["unasked"])
    assert one.acquire_send_permits("clinic", ["unasked"] * 10).waits_ms[:4] == [0] * 4
    booked_at = redis_client.server_time_ms(client)
    replies = one.acquire_send_permits("clinic", ["reply"] * 30).waits_ms
    assert min(replies) == 0
    assert all(wait >= 0 for wait in replies)
    looks = one.acquire_send_permits("clinic", ["unasked"] * 10).waits_ms
    assert all(look < 0 for look in looks)
    assert redis_client.server_time_ms(client) - looks[0] >= booked_at + max(replies)
    gaps = [earlier - later for earlier, later in pairwise(looks)]
    assert min(gaps) >= 99


def test_half_of_the_burst_is_left_to_replies(channels):
    one = channels(sms_per_second=10)
    gone = [wait for wait in one.acquire_send_permits("clinic", ["unasked"] * 20).waits_ms if wait == 0]
    assert len(gone) in (5, 6)
    assert one.acquire_send_permits("clinic", ["reply"] * 4).waits_ms == [0] * 4


def test_unasked_sms_do_not_starve_on_a_channel_full_of_replies(channels, client):
    one = channels(sms_per_second=10)
    one.acquire_send_permits("clinic", ["unasked"])
    one.acquire_send_permits("clinic", ["reply"] * 100)
    assert one.acquire_send_permits("clinic", ["unasked"]).waits_ms[0] < 0
    left_ms = int(client.hget(keyspace.circuit_state_key("clinic"), "unasked")) - 5_001
    client.hset(keyspace.circuit_state_key("clinic"), "unasked", left_ms)
    waits = one.acquire_send_permits("clinic", ["unasked"] * 3).waits_ms
    assert [wait > 0 for wait in waits] == [True, False, False]


@pytest.mark.parametrize("rate", [0.5, 1, 2])
def test_a_slow_channel_sends_unasked_sms_too(channels, rate):
    one = channels(sms_per_second=rate)
    assert one.acquire_send_permits("clinic", ["unasked"]).waits_ms == [0]


def test_permits_booked_before_a_pause_are_void_after_it_and_cost_nothing(channels, client):
    one = channels(sms_per_second=10)
    before = one.acquire_send_permits("clinic", ["reply"] * 110)
    assert max(before.waits_ms) == pytest.approx(10_000, abs=100)
    opened(one)
    wait_over(client)
    one.acquire_send_permits("clinic", ["reply"])
    one.report_results("clinic", [PROBE_WORKS])
    after = one.acquire_send_permits("clinic", [before.epoch, before.epoch, "reply"])
    assert after.epoch > before.epoch
    assert all(0 < wait <= 400 for wait in after.waits_ms)
    assert one.acquire_send_permits("clinic", [after.epoch]).waits_ms == [0]


def test_a_channels_day_is_counted_and_read_by_its_own_calendar_wherever_it_is_looked_at(pipeline):
    town = pipeline(sms_per_day=10, new_sessions_per_minute=3)
    channels = {
        "clinic": msgspec.structs.replace(town.world.settings.channels["clinic"], timezone=KIRITIMATI)
    }
    settings = msgspec.structs.replace(town.world.settings, channels=channels)
    world = msgspec.structs.replace(town.world, settings=settings)
    store, now = world.channel_store(), redis_client.server_time_ms(world.lanes)
    store.count_sms("clinic", 4, now)
    store.admit_sessions("clinic", 2, now)
    store.pause("clinic", "why not", 60_000)
    (reading,) = store.read(now).values()
    assert (reading.sms_today, reading.pause.pause.why, store.sms_today("clinic", now)) == (4, "why not", 4)
    assert reading.session_bucket_full_at > now > reading.sms_bucket_full_at == 0
    with closing(StatsReader(settings)) as stats:
        assert stats.read().channels["clinic"].sms_today == 4
    assert read_snapshot(world, "+33600000001").channels["clinic"].sms_today == 4


def test_a_day_begins_at_midnight_where_the_channel_is():
    midnight = round(datetime(2026, 3, 1, tzinfo=KIRITIMATI).timestamp() * 1000)
    days = [daily_sms_key("clinic", KIRITIMATI, midnight + ms)[-10:] for ms in (-1, 0)]
    assert days == ["2026-02-28", "2026-03-01"]
    assert daily_sms_key("clinic", ZoneInfo("UTC"), midnight).endswith("2026-02-28")
