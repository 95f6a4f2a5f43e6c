"""What is tried, and what is not tried any more: the delivery worker on a real Valkey, with a provider that obeys."""

import pytest

from config import keyspace
from engine.events import Cancel, Ended, Outbound, Receipt, Unsent, encode
from engine.providers import Accepted, ChannelFault, NotFound, Rejected, RetryLater, Unknown, Unreachable
from tests.support.waiting import until
from workers.dead import stored
from workers.processes import deliveries
from workers.verdicts import CERTAIN_MS, MAX_TRIES, Settlement, backoff_ms, decide

ANNA, BORIS = "+33600000001", "+33600000002"


class Wire:
    """A provider that answers as told, then accepts. What it is told to raise, it raises."""

    def __init__(self, *answers, recourse="repeat"):
        self.sent = []
        self.asked = []
        self.recourse = recourse
        self._answers = list(answers)

    def look_up(self, sms, since, known):
        self.asked.append((sms.text, sorted(known)))
        return self._answers.pop(0)

    def send(self, sms):
        self.sent.append(sms.text)
        answer = self._answers.pop(0) if self._answers else Accepted("ticket")
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def desk(pipeline):
    """A factory of a delivery worker and its pipeline."""
    works = []

    def build(*answers, recourse="repeat", **limits):
        town = pipeline(**limits)
        town.wire = Wire(*answers, recourse=recourse)
        town.work = deliveries(town.world)
        town.work._wires = {"clinic": town.wire}
        works.append(town.work)
        return town

    yield build
    for work in works:
        work.close()


def queue(town, sender, *texts, channel="clinic", uncertain=False):
    k = keyspace.shard_of(sender, town.world.settings.shards)
    for text in texts:
        sms = Outbound(f"id{text}", channel, sender, text, uncertain=uncertain)
        entry = channel.encode() + b"\0" + encode(sms)
        town.client.rpush(keyspace.outbox(k, sender), entry)


def lock(town, sender):
    """The fields of a sender's outbox lock: fence, until, attempts, since, owner."""
    name = keyspace.outbox_lock(keyspace.shard_of(sender, town.world.settings.shards), sender)
    value = town.client.get(name)
    return name, value.split(b" ") if value else []


def set_lock(town, sender, **fields):
    name, values = lock(town, sender)
    for place, field in enumerate(("fence", "until", "attempts", "since", "owner")):
        if field in fields:
            values[place] = str(fields[field]).encode()
    town.client.set(name, b" ".join(values))


def rest(town, sender):
    """Wait until the sender is at rest, and let the rest be over now."""
    until(lambda: lock(town, sender)[1][:1] == [b"0"], 10, "the try is settled")
    seconds, us = town.client.time()
    set_lock(town, sender, until=seconds * 1000 + us // 1000)


def letters(town):
    return [(letter.sender, letter.reason) for letter in stored(town.client, town.world.settings)]


def run(town, *senders):
    town.work.run("outbound", list(senders))


def heard(town, *texts):
    until(lambda: town.wire.sent == list(texts), 10, f"{texts} were sent, not {town.wire.sent}")


@pytest.mark.parametrize(
    "channel, reason", [("a channel of the past", "unknown_channel"), ("clinic", "undecodable")]
)
def test_an_sms_that_cannot_be_sent_is_put_aside_alone(desk, channel, reason):
    town = desk()
    k = keyspace.shard_of(ANNA, town.world.settings.shards)
    if reason == "undecodable":
        town.client.rpush(keyspace.outbox(k, ANNA), b"clinic\0garbage")
    else:
        queue(town, ANNA, "1", channel=channel)
    queue(town, ANNA, "2")
    queue(town, BORIS, "3")
    run(town, ANNA, BORIS)
    heard(town, "3")
    run(town, ANNA)
    heard(town, "3", "2")
    assert letters(town) == [(ANNA, reason)]


def test_a_try_that_fails_in_our_own_code_is_repeated_later_and_frees_its_slot(desk):
    town = desk(ValueError("a header that no request may have"))
    for _ in range(40):
        queue(town, ANNA, "1")
    run(town, ANNA)
    heard(town, "1")
    rest(town, ANNA)
    run(town, ANNA)
    heard(town, "1", "1")
    assert letters(town) == []


def test_an_sms_whose_workers_all_die_is_put_aside(desk):
    town = desk()
    queue(town, ANNA, "1", "2")
    town.work._outboxes.take([ANNA])
    set_lock(town, ANNA, until=1, attempts=MAX_TRIES)
    run(town, ANNA)
    run(town, ANNA)
    heard(town, "2")
    assert letters(town) == [(ANNA, "worker_died")]


def test_an_sms_that_the_provider_may_have_is_not_tried_after_it_forgot_the_id(desk):
    town = desk()
    queue(town, ANNA, "1")
    town.work._outboxes.take([ANNA])
    set_lock(town, ANNA, until=1, since=int(lock(town, ANNA)[1][3]) - CERTAIN_MS - 1)
    run(town, ANNA)
    until(lambda: letters(town) == [(ANNA, "uncertain")], 10, "it is put aside")
    assert town.wire.sent == []


def test_the_confirmation_of_a_stop_does_not_wait_for_what_it_withdrew(desk):
    town = desk(RetryLater("500", "busy"))
    town.accept(ANNA, "START")
    town.drain()
    run(town, ANNA)
    until(lambda: lock(town, ANNA)[1][:1] == [b"0"], 10, "the try is settled")
    town.accept(ANNA, "STOP")
    town.drain()
    run(town, ANNA)
    until(lambda: len(town.wire.sent) == 2, 10, "the confirmation was sent")


def test_booked_permits_that_were_not_used_in_time_are_void(desk):
    town = desk(sms_per_second=10)
    people = [f"+336{i:08}" for i in range(40)]
    for person in people:
        queue(town, person, "1")
    run(town, *people)
    until(lambda: len(town.wire.sent) == 10, 10, "the burst has left")
    waiting = [person for person in people if (lock(town, person)[1] or [b""])[-1] == b"booked"]
    assert len(waiting) == 30
    for person in waiting:
        set_lock(town, person, until=1)
    run(town, *waiting)
    assert len(town.wire.sent) < 20


UNKNOWN = Unknown("ReadTimeout", "the provider gave no answer")


def settled(town, sender, owner):
    """Wait until the sender rests with this verdict, and let the rest be over now; how long it would have been (ms)."""
    until(lambda: (lock(town, sender)[1] or [b""])[-1] == owner, 10, f"it rests, {owner}")
    seconds, us = town.client.time()
    now = seconds * 1000 + us // 1000
    rest_ms = int(lock(town, sender)[1][1]) - now
    set_lock(town, sender, until=now)
    return rest_ms


def test_an_sms_that_the_provider_may_have_is_looked_up_later_and_found(desk):
    town = desk(UNKNOWN, Accepted("SM1"), recourse="look_up")
    queue(town, ANNA, "1", "2")
    run(town, ANNA)
    assert settled(town, ANNA, b"again?") > 8_000
    run(town, ANNA)
    until(lambda: lock(town, ANNA)[1] == [], 10, "it is settled")
    run(town, ANNA)
    heard(town, "1", "2")
    assert town.wire.asked == [("1", [])]
    until(
        lambda: [r.ticket for r in town.records(ANNA)] == ["SM1", "ticket"], 10, "both are archived as sent"
    )
    assert letters(town) == []


def test_an_sms_that_the_provider_does_not_have_is_sent_then(desk):
    town = desk(UNKNOWN, NotFound(), recourse="look_up")
    queue(town, ANNA, "1")
    run(town, ANNA)
    settled(town, ANNA, b"again?")
    run(town, ANNA)
    heard(town, "1", "1")


@pytest.mark.parametrize("answer", [UNKNOWN, RetryLater("20429", "busy"), ChannelFault("20003", "login")])
def test_while_it_cannot_be_asked_nothing_is_sent_again(desk, answer):
    town = desk(UNKNOWN, answer, Accepted("SM1"), recourse="look_up")
    queue(town, ANNA, "1")
    run(town, ANNA)
    settled(town, ANNA, b"again?")
    run(town, ANNA)
    settled(town, ANNA, b"untried?" if isinstance(answer, ChannelFault) else b"again?")
    town.client.delete(keyspace.pause("clinic"))
    run(town, ANNA)
    until(lambda: lock(town, ANNA)[1] == [], 10, "it is settled")
    heard(town, "1")
    assert len(town.wire.asked) == 2


def test_a_pause_forgets_nothing(desk):
    town = desk(UNKNOWN, Accepted("SM1"), recourse="look_up")
    queue(town, ANNA, "1")
    run(town, ANNA)
    settled(town, ANNA, b"again?")
    town.client.set(keyspace.pause("clinic"), "credit", px=60_000)
    run(town, ANNA)
    settled(town, ANNA, b"untried?")
    town.client.delete(keyspace.pause("clinic"))
    run(town, ANNA)
    until(lambda: lock(town, ANNA)[1] == [], 10, "it is settled")
    heard(town, "1")


def test_tickets_of_earlier_sms_are_told_apart_from_one_that_is_looked_up(desk):
    town = desk(Accepted("SM1"), UNKNOWN, NotFound(), recourse="look_up")
    queue(town, ANNA, "same", "same")
    run(town, ANNA)
    until(lambda: lock(town, ANNA)[1] == [], 10, "the first is settled")
    run(town, ANNA)
    settled(town, ANNA, b"again?")
    run(town, ANNA)
    heard(town, "same", "same", "same")
    assert town.wire.asked == [("same", ["SM1"])]


@pytest.mark.parametrize("how", ["its worker died", "it was put into an answer"])
def test_an_sms_of_unknown_fate_is_looked_up_before_anything_is_sent(desk, how):
    town = desk(Accepted("SM1"), recourse="look_up")
    queue(town, ANNA, "1", uncertain=how == "it was put into an answer")
    if how == "its worker died":
        town.work._outboxes.take([ANNA])
        set_lock(town, ANNA, until=1)
    run(town, ANNA)
    until(lambda: town.wire.asked, 10, "it is looked up")
    until(lambda: not town.client.exists(outbox_of(town, ANNA)), 10, "it is settled")
    assert town.wire.sent == []


def outbox_of(town, sender):
    return keyspace.outbox(keyspace.shard_of(sender, town.world.settings.shards), sender)


def test_an_sms_of_unknown_fate_is_never_sent_again_where_it_cannot_be_asked_about(desk):
    town = desk(UNKNOWN, recourse="none")
    queue(town, ANNA, "1", "2")
    run(town, ANNA)
    until(lambda: letters(town) == [(ANNA, "uncertain")], 10, "it is put aside")
    until(lambda: lock(town, ANNA)[1] == [], 10, "it is settled")
    run(town, ANNA)
    heard(town, "1", "2")
    queue(town, BORIS, "3")
    town.work._outboxes.take([BORIS])
    set_lock(town, BORIS, until=1)
    run(town, BORIS)
    until(lambda: (BORIS, "uncertain") in letters(town), 10, "it is put aside")
    heard(town, "1", "2")


@pytest.mark.parametrize("why", ["old", "tried too often"])
def test_an_sms_whose_fate_stays_unknown_goes_to_the_dead_letters(desk, why):
    town = desk(UNKNOWN, recourse="look_up")
    queue(town, ANNA, "1")
    run(town, ANNA)
    settled(town, ANNA, b"again?")
    if why == "old":
        set_lock(town, ANNA, since=int(lock(town, ANNA)[1][3]) - CERTAIN_MS - 1)
    else:
        set_lock(town, ANNA, attempts=MAX_TRIES)
    run(town, ANNA)
    until(lambda: letters(town) == [(ANNA, "uncertain")], 10, "it is put aside")
    heard(town, "1")


def test_a_try_that_was_certainly_not_made_may_be_old(desk):
    town = desk(RetryLater("20429", "busy"), recourse="look_up")
    queue(town, ANNA, "1")
    run(town, ANNA)
    settled(town, ANNA, b"again")
    set_lock(town, ANNA, since=int(lock(town, ANNA)[1][3]) - CERTAIN_MS - 1)
    run(town, ANNA)
    heard(town, "1", "1")
    assert town.wire.asked == []


def test_a_number_that_gets_no_sms_ends_its_session(desk):
    town = desk(Unreachable("21211", "no such number"))
    town.accept(ANNA, "START")
    town.drain()
    queue(town, ANNA, "a second one")
    run(town, ANNA)
    until(lambda: town.client.exists(keyspace.mailbox(shard(town, ANNA), ANNA)), 10, "the lane is told")
    town.turns.run("replies", [ANNA])
    ended = [record for record in town.records(ANNA) if isinstance(record, Ended)]
    assert [(record.how, record.why) for record in ended] == [("unreachable", "no such number")]
    assert [r.code for r in town.records(ANNA) if isinstance(r, Unsent)] == ["21211"]
    assert letters(town) == []


def test_what_a_session_has_queued_goes_with_it_when_its_number_is_unreachable(desk):
    town = desk()
    town.accept(ANNA, "START", "Ada")
    town.drain()
    receipt = Receipt(
        "r1", "clinic", "t", "failed", "failed", "30006", "a landline", True, "0000000000000001x0"
    )
    town.deposit(ANNA, encode(receipt))
    town.drain()
    assert town.said(ANNA) == []
    unsent = [r for r in town.records(ANNA) if isinstance(r, Unsent)]
    assert {r.code for r in unsent} == {"unreachable"}
    assert [r.id for r in unsent] == ["0000000000000001x0", "0000000000000001x1"]


def test_a_cancelled_session_says_nothing_more(desk):
    town = desk()
    town.accept(ANNA, "START", "Ada")
    town.drain()
    town.deposit(ANNA, encode(Cancel("c1", "clinic", "0000000000000001")))
    town.drain()
    assert town.said(ANNA) == []
    assert {r.code for r in town.records(ANNA) if isinstance(r, Unsent)} == {"cancelled"}


def shard(town, sender):
    return keyspace.shard_of(sender, town.world.settings.shards)


@pytest.mark.parametrize(
    "outcome, tries, expected",
    [
        (Accepted("t"), 1, Settlement("done", 2_000, "accepted")),
        (RetryLater("153", "busy"), 1, Settlement("again", 1_000, "retry", "153", "busy")),
        (RetryLater("153", "busy"), 5, Settlement("again", 16_000, "retry", "153", "busy")),
        (
            RetryLater("153", "busy"),
            MAX_TRIES,
            Settlement("done", 0, "tries_exhausted", "153", "busy", "tries_exhausted"),
        ),
        (UNKNOWN, 5, Settlement("again", 16_000, "unknown", UNKNOWN.code, UNKNOWN.why)),
        (Unreachable("150", "no"), 1, Settlement("done", 0, "unreachable", "150", "no")),
        (Rejected("151", "no"), 1, Settlement("done", 0, "rejected", "151", "no", "rejected")),
        (ChannelFault("104", "no"), 1, Settlement("untried", 60_000, "channel_fault", "104", "no")),
    ],
)
def test_each_outcome_has_its_consequence(outcome, tries, expected):
    assert decide(outcome, tries, 2_000, 0.5, "repeat") == expected


def test_backoff_is_jittered_and_bounded():
    assert [backoff_ms(tries, 0.0) for tries in (1, 2, 3, 30)] == [500, 1_000, 2_000, 450_000]
    assert backoff_ms(30, 1.0) == 1_350_000
