"""What becomes of turns is counted, each thing once, for what was committed."""

import pytest

from config.store import keyspace, redis_client
from config.telemetry import metrics
from engine.model.events import CancelSession, Invitation, encode_event
from tests.workers.test_turns import die_holding

ANNA, BORIS, CLARA = "+33600000001", "+33600000002", "+33600000003"


@pytest.fixture
def counted():
    """A function: sample and labels -> by how much it has risen since the test began."""
    before = _samples()

    def risen(sample, **labels):
        key = (f"parley_{sample}", tuple(sorted(labels.items())))
        return _samples().get(key, 0) - before.get(key, 0)

    return risen


def _samples():
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in metrics.collect_counted()
        for sample in family.samples
    }


def test_a_session_is_counted_with_its_survey_from_its_start_to_its_end(pipeline, counted):
    town = pipeline()
    town.accept(ANNA, "START", "Ada", "old", "older", "36")
    town.drain()
    assert counted("sessions_opened_total", channel="clinic", survey="clinic") == 1
    assert counted("invalid_answers_total", survey="clinic", step="age") == 2
    assert counted("sessions_ended_total", channel="clinic", survey="clinic", how="completed") == 1
    assert counted("sms_decided_total", channel="clinic") == 5


def test_a_session_that_ends_at_a_later_turn_is_counted_with_its_survey(pipeline, counted):
    town = pipeline()
    town.accept(ANNA, "START")
    town.drain()
    town.accept(ANNA, "STOP")
    town.drain()
    assert counted("sessions_ended_total", channel="clinic", survey="clinic", how="stopped") == 1


def test_a_session_that_is_over_as_soon_as_it_opens_is_counted_with_its_survey(pipeline, counted):
    town = pipeline(
        b"survey: clinic\nstart: [START]\ncooldown: 0s\nsteps:\n  - {id: bye, say: Goodbye., next: end}\n"
    )
    town.accept(ANNA, "START")
    town.drain()
    assert counted("sessions_ended_total", channel="clinic", survey="clinic", how="completed") == 1


def test_a_session_that_a_cancellation_ends_is_counted_too(pipeline, counted):
    town = pipeline()
    session = "a" * 16
    town.deposit(ANNA, encode_event(Invitation(session, "clinic", "clinic")), start=True)
    town.drain()
    town.deposit(ANNA, encode_event(CancelSession("b" * 16, "clinic", session)))
    town.drain()
    assert counted("sessions_opened_total", channel="clinic", survey="clinic") == 1
    assert counted("sessions_ended_total", channel="clinic", survey="clinic", how="cancelled") == 1


def test_a_stop_that_cannot_be_applied_as_others_are_ends_a_session_of_a_survey(pipeline, counted):
    town = pipeline()
    town.accept(ANNA, "START")
    town.drain()
    town.accept(ANNA, "STOP")
    for _ in range(5):
        die_holding(town, ANNA)
    town.turns.handle_wakeup("replies", [ANNA])
    assert counted("dead_letters_total", reason="worker_died") == 1
    assert counted("sessions_ended_total", channel="clinic", survey="clinic", how="stopped") == 1


def test_what_is_not_committed_is_not_counted(pipeline, counted):
    """Another has taken the lane meanwhile."""
    town = pipeline()
    town.accept(ANNA, "START")
    (claim,) = town.turns._lanes.claim("starts", [ANNA]).claimed
    town.client.delete(keyspace.lane_lock_key(keyspace.shard_of(ANNA, town.world.settings.shards), ANNA))
    town.turns._turn_claims("starts", [claim], 0.0)
    assert counted("turns_total", queue="starts", outcome="stale") == 1
    assert counted("sessions_opened_total", channel="clinic", survey="clinic") == 0
    assert counted("claim_seconds_count", queue="starts") == 0
    assert counted("turn_seconds_count", queue="starts") == 0


def test_each_event_is_one_wait_and_each_lane_one_turn(pipeline, counted):
    town = pipeline()
    for person in (ANNA, BORIS):
        town.accept(person, "START")
    town.drain()
    town.accept(ANNA, "Ada", "36")
    town.accept(BORIS, "Bo")
    town.drain()
    assert counted("claim_seconds_count", queue="starts") == 2
    assert counted("turn_seconds_count", queue="starts") == 2
    assert counted("claim_seconds_count", queue="replies") == 3
    assert counted("turn_seconds_count", queue="replies") == 2


def test_a_wait_is_from_acceptance_to_the_claim_by_the_servers_clock(pipeline, counted):
    town = pipeline()
    k = keyspace.shard_of(ANNA, town.world.settings.shards)
    town.accept(ANNA, "hello", "again")
    accepted = redis_client.server_time_ms(town.client) - 20_000
    for place, entry in enumerate(town.client.lrange(keyspace.mailbox_key(k, ANNA), 0, -1)):
        town.client.lset(keyspace.mailbox_key(k, ANNA), place, b"R%013d" % accepted + entry[14:])
    town.drain()
    assert counted("claim_seconds_bucket", queue="replies", le="10.0") == 0
    assert counted("claim_seconds_bucket", queue="replies", le="30.0") == 2
    assert 40 <= counted("claim_seconds_sum", queue="replies") < 60


def test_mail_whose_header_is_damaged_is_no_wait_and_harms_no_other(pipeline, counted):
    town = pipeline()
    k = keyspace.shard_of(ANNA, town.world.settings.shards)
    town.accept(ANNA, "hello")
    town.client.rpush(keyspace.mailbox_key(k, ANNA), b"Rnot a moment")
    town.drain()
    assert counted("turns_total", queue="replies", outcome="committed") == 1
    assert counted("claim_seconds_count", queue="replies") == 1
    assert counted("dead_letters_total", reason="undecodable") == 1


def test_lanes_whose_worker_never_came_back_are_counted_when_they_are_taken_up_again(pipeline, counted):
    town = pipeline()
    for person in (ANNA, BORIS, CLARA):
        town.accept(person, "hello")
    die_holding(town, ANNA, BORIS)
    town.turns.handle_wakeup("replies", [ANNA, BORIS, CLARA])
    assert counted("leases_lost_total", queue="replies") == 2
    assert counted("turns_total", queue="replies", outcome="committed") == 3
