"""A batch of lanes is turned: in order, once, each for itself, whatever is in it."""

import msgspec
import pytest
from redis.exceptions import OutOfMemoryError

from config.store import keyspace, redis_client, stored_values
from config.store.event_entries import entry_records
from config.telemetry import metrics
from engine.model.events import (
    DeliveryReceipt,
    InboundSms,
    Invitation,
    OpeningRefused,
    PersonOptedOut,
    SmsNotSent,
    SmsPart,
    SmsReceived,
    decode_records,
    encode_event,
)
from tests.workers.conftest import SURVEY
from tests.workers.dead_letters import stored
from workers.store.session_records import session_of_record
from workers.store.survey_versions import publish_current
from workers.turns import drafts
from workers.turns.drafts import MAX_CLAIM_ATTEMPTS

DAY_MS = 86_400_000
ANNA, BORIS, CLARA = "+33600000001", "+33600000002", "+33600000003"


def letters(pipeline):
    return list(stored(pipeline.client, pipeline.world.settings))


def lapse(pipeline, sender):
    """Let the lease of whoever holds this lane end, without waiting for it."""
    name = keyspace.lane_lock_key(keyspace.shard_of(sender, pipeline.world.settings.shards), sender)
    fence, _, attempts, since, owner = pipeline.client.get(name).split(b" ")
    pipeline.client.set(name, b" ".join([fence, b"1", attempts, since, owner]))


def die_holding(pipeline, *senders):
    """A worker claims these lanes, in one batch where it may, and is gone."""
    lanes = pipeline.turns._lanes
    for sender in lanes.claim("replies", senders).suspects:
        lanes.claim_suspect("replies", sender)
    for sender in senders:
        lapse(pipeline, sender)


def test_four_sms_back_to_back_are_answered_in_order(pipeline):
    town = pipeline()
    people = [f"+336{i:08}" for i in range(200)]
    for person in people:
        town.accept(person, "START", "Ada", "old", "36")
    town.drain()
    for person in people:
        assert town.said(person) == [
            "What is your name?",
            "How old are you, Ada?",
            "Digits, please. How old are you, Ada?",
            "Goodbye, Ada.",
        ]


def test_mail_from_before_the_servers_clock_was_set_back_ends_no_session(pipeline):
    """It bears a time that is still to come, an hour after everything that waits by then."""
    town = pipeline(SURVEY.replace(b"start:", b"idle: 10m\nstart:"))
    town.accept(ANNA, "START")
    town.drain()
    town.accept(ANNA, "Ada")
    mailbox = keyspace.mailbox_key(keyspace.shard_of(ANNA, town.world.settings.shards), ANNA)
    at, _ = stored_values.parse_mail(entry := town.client.lindex(mailbox, 0))
    town.client.lset(mailbox, 0, stored_values.with_accepted_ms(entry, at + 3_600_000))
    town.drain()
    assert town.said(ANNA) == ["What is your name?", "How old are you, Ada?"]


def test_a_cooldown_lasts_as_long_as_the_survey_says(pipeline):
    """Redis would forget a lane in which nothing is open before."""
    town = pipeline(SURVEY.replace(b"cooldown: 0s", b"cooldown: 30d"))
    town.accept(ANNA, "START", "Ada", "36", "START")
    town.drain()
    assert town.said(ANNA)[-1] == "Goodbye, Ada."
    lane = keyspace.lane_key(keyspace.shard_of(ANNA, town.world.settings.shards), ANNA)
    assert 29 * DAY_MS < town.client.pttl(lane) <= 30 * DAY_MS
    refused = [record.reason for record in town.records(ANNA) if isinstance(record, OpeningRefused)]
    assert refused == ["cooldown"]


def test_a_webhook_sent_again_changes_nothing(pipeline):
    town = pipeline()
    town.accept(ANNA, "START")
    for _ in range(3):
        town.accept(ANNA, "Ada", event_id="00000000000000aa")
        town.drain()
    assert town.said(ANNA) == ["What is your name?", "How old are you, Ada?"]


@pytest.mark.parametrize(
    "poison", [b"not msgpack", encode_event(InboundSms("00000000000000bb", "no such channel", "hello"))]
)
def test_an_event_that_cannot_be_applied_is_put_aside_alone(pipeline, poison):
    town = pipeline()
    for person in (ANNA, BORIS, CLARA):
        town.accept(person, "START")
    town.drain()
    town.accept(ANNA, "Ada")
    town.accept(BORIS, "Bo")
    town.deposit(BORIS, poison)
    town.accept(BORIS, "36")
    town.accept(CLARA, "Clara")
    town.drain()
    assert town.said(BORIS)[1:] == ["How old are you, Bo?", "Goodbye, Bo."]
    assert town.said(ANNA)[1:] == ["How old are you, Ada?"]
    assert town.said(CLARA)[1:] == ["How old are you, Clara?"]
    (letter,) = letters(town)
    assert (letter.sender, letter.what[14:], letter.attempts) == (BORIS, poison, 1)
    assert letter.traceback


def test_an_event_that_kills_its_workers_is_put_aside_and_its_neighbours_are_not(pipeline):
    town = pipeline()
    for person in (ANNA, BORIS):
        town.accept(person, "START")
    town.drain()
    town.accept(ANNA, "Ada")
    town.accept(BORIS, "deadly", "Bo", "36")
    die_holding(town, ANNA, BORIS)
    town.turns.handle_wakeup("replies", [ANNA])
    assert town.said(ANNA)[1:] == ["How old are you, Ada?"]
    for _ in range(MAX_CLAIM_ATTEMPTS - 1):
        assert letters(town) == []
        die_holding(town, BORIS)
    town.turns.handle_wakeup("replies", [BORIS])
    town.drain()
    (letter,) = letters(town)
    assert (letter.reason, letter.sender, letter.attempts) == ("worker_died", BORIS, MAX_CLAIM_ATTEMPTS + 1)
    assert town.said(BORIS)[1:] == ["How old are you, Bo?", "Goodbye, Bo."]


@pytest.mark.parametrize("more, holds", [(0, True), (1, False)])
def test_a_stop_that_is_given_up_unread_holds_unless_that_too_kills(pipeline, more, holds):
    town = pipeline()
    town.accept(ANNA, "START")
    town.drain()
    town.accept(ANNA, "STOP")
    for _ in range(MAX_CLAIM_ATTEMPTS + more):
        die_holding(town, ANNA)
    town.turns.handle_wakeup("replies", [ANNA])
    (letter,) = letters(town)
    assert (letter.reason, letter.attempts) == ("worker_died", MAX_CLAIM_ATTEMPTS + 1 + more)
    assert any(isinstance(record, PersonOptedOut) for record in town.records(ANNA)) == holds


def test_a_state_that_cannot_be_read_is_not_taken_for_a_new_person(pipeline):
    town = pipeline()
    town.accept(ANNA, "START")
    town.drain()
    key = keyspace.lane_key(keyspace.shard_of(ANNA, town.world.settings.shards), ANNA)
    town.client.set(key, b"1 0 corrupt")
    town.accept(ANNA, "Ada")
    town.drain()
    (letter,) = letters(town)
    assert letter.reason == "unreadable_state"
    assert town.client.get(key).endswith(b" corrupt")
    assert town.said(ANNA) == ["What is your name?"]


NESTED = encode_event(InboundSms("00000000000000bb", "clinic", "hello"))
NESTED = bytes([NESTED[0] + 1]) + NESTED[1:] + b"\x91" * 5_000 + b"\x01"
NO_TEXT = encode_event(InboundSms("00000000000000bb", "clinic", "hello")).replace(b"hello", b"hell\xff")


@pytest.mark.parametrize("event", [NESTED, NO_TEXT])
def test_whatever_it_is_that_cannot_be_decoded_is_put_aside_alone(pipeline, event):
    town = pipeline()
    town.deposit(ANNA, event)
    town.accept(ANNA, "START")
    town.accept(BORIS, "START")
    town.drain()
    assert [(letter.sender, letter.reason) for letter in letters(town)] == [(ANNA, "undecodable")]
    assert town.said(ANNA) == town.said(BORIS) == ["What is your name?"]


def test_a_stop_holds_though_the_state_is_damaged_in_the_middle_of_a_word(pipeline):
    town = pipeline()
    town.accept(ANNA, "START", "Ada")
    town.drain()
    key = keyspace.lane_key(keyspace.shard_of(ANNA, town.world.settings.shards), ANNA)
    town.client.set(key, town.client.get(key).replace(b"Ada", b"Ad\xff"))
    town.accept(ANNA, "STOP")
    town.accept(BORIS, "START")
    town.drain()
    (letter,) = letters(town)
    assert (letter.sender, letter.reason, letter.stopped) == (ANNA, "unreadable_state", True)
    assert town.said(ANNA) == []
    assert town.said(BORIS) == ["What is your name?"]


def test_a_stop_that_fails_even_alone_is_put_aside_alone(pipeline, monkeypatch):
    town = pipeline()

    def broken(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr(drafts, "advance", broken)
    monkeypatch.setattr(drafts, "apply_stop_only", broken)
    town.accept(ANNA, "STOP")
    town.drain()
    assert [(letter.reason, letter.stopped) for letter in letters(town)] == [("engine_error", False)]


def test_a_wake_up_for_nobody_for_the_wrong_queue_or_twice_does_nothing(pipeline):
    town = pipeline()
    town.turns.handle_wakeup("replies", [ANNA])
    town.turns.handle_wakeup("starts", [ANNA])
    assert town.client.keys("*:lane:*") == []
    town.accept(ANNA, "START")
    town.turns.handle_wakeup("replies", [ANNA, ANNA])
    assert town.said(ANNA) == []
    town.turns.handle_wakeup("starts", [ANNA])
    town.turns.handle_wakeup("starts", [ANNA])
    assert town.said(ANNA) == ["What is your name?"]


def test_a_channel_opens_no_more_sessions_a_minute_than_it_may(pipeline):
    town = pipeline(new_sessions_per_minute=3)
    people = [f"+336{i:08}" for i in range(10)]
    for person in people:
        town.accept(person, "START")
    town.drain()
    assert sum(bool(town.said(person)) for person in people) == 3
    refusals = [
        record for person in people for record in town.records(person) if isinstance(record, OpeningRefused)
    ]
    assert {refusal.reason for refusal in refusals} == {"new_sessions"}


def test_a_flood_that_is_refused_anyway_takes_no_permit_from_others(pipeline):
    town = pipeline(new_sessions_per_minute=5, start_burst=1, start_per_minute=1)
    for _ in range(100):
        town.accept(ANNA, "START")
    town.drain()
    others = [f"+337{i:08}" for i in range(4)]
    for person in others:
        town.accept(person, "START")
    town.drain()
    assert all(town.said(person) == ["What is your name?"] for person in others)


def test_past_the_days_sms_nothing_new_starts_and_what_runs_goes_on(pipeline):
    town = pipeline(sms_per_day=2)
    for person in (ANNA, BORIS, CLARA):
        town.accept(person, "START")
        town.drain()
    assert town.said(CLARA) == []
    town.accept(ANNA, "Ada", "36")
    town.drain()
    assert town.said(ANNA)[-1] == "Goodbye, Ada."


def test_a_flood_of_starts_never_occupies_the_conversation_worker(pipeline):
    """The queues are apart: replies are answered though not one START of a flood has been looked at."""
    town = pipeline()
    town.accept(ANNA, "START")
    town.drain()
    for _ in range(1000):
        town.accept(BORIS, "START")
    town.accept(ANNA, "Ada")
    assert town.woken("replies") == [ANNA]
    assert town.said(ANNA)[-1] == "How old are you, Ada?"
    assert town.woken("replies") == []


def test_a_session_goes_on_with_the_version_it_began_with(pipeline):
    old = pipeline()
    publish_current(old.client, old.world.surveys)
    old.accept(ANNA, "START")
    old.drain()
    new = pipeline(b"survey: clinic\nsteps: [{id: other, ask: Other?, answer: {type: yes_no}}]")
    publish_current(new.client, new.world.surveys)
    new.accept(ANNA, "Ada", event_id="00000000000000aa")
    new.accept(BORIS, "START", event_id="00000000000000bb")
    new.drain()
    assert new.said(ANNA) == ["What is your name?", "How old are you, Ada?"]
    assert new.said(BORIS) == ["Other?"]
    old.accept(BORIS, "yes", event_id="00000000000000cc")
    old.drain()
    assert letters(old) == []


def test_a_stop_withdraws_what_is_queued_and_says_one_thing(pipeline):
    town = pipeline()
    town.accept(ANNA, "START", "Ada", "STOP", "36", "STOP")
    town.drain()
    (confirmation,) = town.said(ANNA)
    assert "START" in confirmation


def test_sms_that_a_stop_withdraws_are_archived_as_unsent(pipeline):
    town = pipeline()
    town.accept(ANNA, "START")
    town.drain()
    town.accept(ANNA, "STOP")
    town.drain()
    (unsent,) = [record for record in town.records(ANNA) if isinstance(record, SmsNotSent)]
    assert (unsent.id, unsent.code) == ("0000000000000001x0", "stopped")


def test_a_damaged_sms_that_a_stop_withdraws_hides_no_other(pipeline):
    town = pipeline()
    k = keyspace.shard_of(ANNA, town.world.settings.shards)
    town.client.rpush(keyspace.outbox_key(k, ANNA), b"clinic\0\xc1")
    town.accept(ANNA, "START")
    town.drain()
    town.accept(ANNA, "STOP")
    town.drain()
    assert [record.code for record in town.records(ANNA) if type(record) is SmsNotSent] == ["stopped"]


def test_poison_leaves_the_sessions_deadline_and_the_lanes_expiry_as_they_were(pipeline):
    town = pipeline()
    town.accept(ANNA, "START")
    town.drain()
    k = keyspace.shard_of(ANNA, town.world.settings.shards)
    lane = keyspace.lane_key(k, ANNA)

    def times():
        deadline = town.client.get(lane).split(b" ")[1]
        return deadline, town.client.pexpiretime(lane), town.client.zscore(keyspace.lane_alarms_key(k), ANNA)

    before = times()
    town.deposit(ANNA, b"poison")
    town.drain()
    assert len(letters(town)) == 1
    assert times() == before


def test_a_damaged_lane_stops_nobody_else_of_its_shard(pipeline):
    town = pipeline(shards=16)
    shards = town.world.settings.shards
    people = [f"+337{i:08}" for i in range(64)]
    mates = [
        person for person in people if keyspace.shard_of(person, shards) == keyspace.shard_of(ANNA, shards)
    ]
    for person in [ANNA, *mates]:
        town.accept(person, "START")
    town.drain()
    town.client.set(keyspace.lane_key(keyspace.shard_of(ANNA, shards), ANNA), b"garbage")
    for person in [ANNA, *mates]:
        town.accept(person, "Ada")
    town.drain()
    assert all(town.said(person)[-1] == "How old are you, Ada?" for person in mates)
    (letter,) = letters(town)
    assert (letter.sender, letter.reason) == (ANNA, "unreadable_state")


def test_a_lane_that_cannot_be_committed_harms_no_other(pipeline):
    town = pipeline(shards=16)
    shards = town.world.settings.shards
    mate = next(
        person
        for person in (f"+337{i:08}" for i in range(64))
        if keyspace.shard_of(person, shards) == keyspace.shard_of(ANNA, shards)
    )
    k = keyspace.shard_of(ANNA, shards)
    town.client.set(keyspace.outbox_key(k, ANNA), "not a list")
    town.accept(mate, "START")
    town.accept(ANNA, "START")
    town.drain()
    assert town.said(mate) == ["What is your name?"]
    assert town.client.zscore(keyspace.outbox_alarms_key(k), mate)
    assert town.client.zscore(keyspace.lane_alarms_key(k), ANNA)


def test_what_is_waiting_is_worked_off_though_the_memory_is_full(pipeline):
    town = pipeline()
    town.accept(ANNA, "START")
    town.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(OutOfMemoryError):
            town.accept(BORIS, "START")
        town.drain()
    finally:
        town.client.config_set("maxmemory", 0)
    assert town.said(ANNA) == ["What is your name?"]


def test_a_turn_counts_its_sms_though_the_memory_is_full(pipeline):
    town = pipeline(sms_per_day=10)
    town.accept(ANNA, "START")
    opened = metrics.SESSIONS_OPENED.labels("clinic", "clinic")
    before = opened._value.get()
    town.client.config_set("maxmemory", 1)
    try:
        town.drain()
    finally:
        town.client.config_set("maxmemory", 0)
    assert opened._value.get() == before + 1
    assert town.turns._channel_store.sms_today("clinic", redis_client.server_time_ms(town.client)) == 1


def test_functions_that_a_server_lost_are_given_to_it_again(pipeline):
    town = pipeline()
    town.client.function_flush()
    town.accept(ANNA, "START")
    town.client.function_flush()
    town.drain()
    assert town.said(ANNA) == ["What is your name?"]


def test_a_stored_version_that_cannot_be_read_hides_no_other(pipeline):
    old = pipeline()
    publish_current(old.client, old.world.surveys)
    old.client.hset(keyspace.SURVEYS_KEY, "0" * 16, msgspec.msgpack.encode(("old.yaml", b"steps: nonsense")))
    old.accept(ANNA, "START")
    old.drain()
    new = pipeline(b"survey: clinic\nsteps: [{id: other, ask: Other?, answer: {type: yes_no}}]")
    new.accept(ANNA, "Ada", event_id="00000000000000aa")
    new.drain()
    assert new.said(ANNA)[-1] == "How old are you, Ada?"


def invite(town, sender, identity):
    town.deposit(sender, encode_event(Invitation(identity, "clinic", "clinic")), start=True)


def test_invitations_take_no_permits_as_they_have_theirs(pipeline):
    town = pipeline(new_sessions_per_minute=2)
    people = [f"+336{i:08}" for i in range(5)]
    for place, person in enumerate(people):
        invite(town, person, f"{place:016x}")
    town.drain()
    assert all(town.said(person) == ["What is your name?"] for person in people)
    for person in ("+33700000001", "+33700000002"):
        town.accept(person, "START", event_id=f"{person[-1]:0>16}")
        town.drain()
        assert town.said(person) == ["What is your name?"]


def test_a_start_in_parts_needs_a_permit_too(pipeline):
    town = pipeline(new_sessions_per_minute=3)
    people = [f"+336{i:08}" for i in range(10)]
    for person in people:
        for number, text in ((2, "RT"), (1, "STA")):
            town.deposit(
                person, encode_event(SmsPart(f"{person[1:]}{number}", "clinic", text, "7", number, 2))
            )
    town.drain()
    assert sum(bool(town.said(person)) for person in people) == 3


def test_receipts_are_counted_once_by_what_they_say(pipeline):
    town = pipeline()
    town.accept(ANNA, "START")
    town.drain()
    count = metrics.RECEIPTS.labels("clinic", "delivered")._value
    before = count.get()
    for place, state in enumerate(("delivered", "sent", "delivered")):
        receipt = DeliveryReceipt(f"r{place}", "clinic", "t", state, state, sms="0000000000000001x0")
        town.deposit(ANNA, encode_event(receipt))
    town.drain()
    assert count.get() == before + 1


def test_the_archive_holds_one_session_or_none_in_each_entry(pipeline):
    """So that what was said in a session can be deleted alone."""
    town = pipeline()
    town.accept(ANNA, "START", "STOP", "START", "Ada", "36", "hello?", "STOP")
    town.drain()
    k = keyspace.shard_of(ANNA, town.world.settings.shards)
    entries = [
        decode_records(entry_records(fields)) for _, fields in town.client.xrange(keyspace.events_key(k))
    ]
    owners = [{session_of_record(record) for record in entry} for entry in entries]
    assert all(len(owner) == 1 for owner in owners)
    assert {f"{1:016x}", f"{3:016x}"} < set.union(*owners)
    assert any(isinstance(record, SmsReceived) and record.text == "START" for record in entries[0])


def test_sessions_and_refused_invitations_are_found_by_their_ids(pipeline):
    town = pipeline()
    town.accept(ANNA, "START")
    invite(town, BORIS, "00000000000000b1")
    invite(town, BORIS, "00000000000000b2")
    town.drain()
    shards = town.world.settings.shards
    for person, session in ((ANNA, f"{1:016x}"), (BORIS, "00000000000000b1"), (BORIS, "00000000000000b2")):
        key = keyspace.session_key(keyspace.shard_of(person, shards), session)
        assert town.client.get(key).endswith(b" " + person.encode())
        assert town.client.pttl(key) > town.world.settings.longest_stream_ms
