"""What is tried, and what is not tried any more: the delivery worker on a real Valkey, with a provider that obeys."""

import asyncio
from collections import Counter
from threading import Event
from time import monotonic

import msgspec
import pytest

from config.host import Host
from config.store import keyspace, redis_client
from config.telemetry.metrics import REGISTRY
from config.telemetry.supervision import LoopRounds
from engine.model import lane as lane_format
from engine.model.events import (
    CancelSession,
    DeliveryReceipt,
    OutboundSms,
    SessionEnded,
    SmsNotSent,
    encode_event,
)
from engine.providers import (
    ChannelFault,
    NumberUnreachable,
    OutcomeUnknown,
    RetryLater,
    SendAccepted,
    SendRejected,
    SmsNotFound,
)
from tests.support.waiting import until
from tests.workers.dead_letters import stored
from workers.composition import build_answer_notes, build_send_steps
from workers.erasure.sender_eraser import SenderEraser
from workers.sending import delivery, send_steps
from workers.sending.bulkhead import SLOTS_PER_CHANNEL
from workers.sending.delivery import DeliveryRunner
from workers.sending.http_client import try_deadline
from workers.sending.loop_thread import ROUND_INTERVAL_S, call_in_thread
from workers.sending.send_policy import (
    MAX_SEND_ATTEMPTS,
    REPEATABLE_FOR_MS,
    SendDecision,
    backoff_ms,
    decide_after_attempt,
)
from workers.store import dead_letter_store as dead_letters
from workers.store.channel_state import ChannelStore
from workers.store.optouts import open_opt_out_list
from workers.store.outboxes import UNCERTAIN_REST_MS

HANGS_AFTER_S = 2 * ROUND_INTERVAL_S

ANNA, BORIS, CLARA, DORA = (f"+3360000000{place}" for place in range(1, 5))


class Wire:
    """A provider that answers as told, then accepts. What it is told to raise, it raises."""

    def __init__(self, *answers, recourse="repeat"):
        self.sent = []
        self.asked = []
        self.recourse = recourse
        self._answers = list(answers)

    def metric_code(self, code):
        return code if code.isdigit() else "other"

    async def look_up(self, sms, since, known, answer_by_s):
        self.asked.append((sms.text, sorted(known)))
        return self._answers.pop(0)

    async def send(self, sms, deadline):
        self.sent.append(sms.text)
        answer = self._answers.pop(0) if self._answers else SendAccepted("ticket")
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
        town.notes = build_answer_notes(town.world)
        town.steps = build_send_steps(town.world, {"clinic": town.wire}, town.notes)
        town.rounds = LoopRounds(HANGS_AFTER_S)
        town.work = DeliveryRunner(town.steps, town.world.wakeup_broker(), town.rounds)
        works.append(town.work)
        return town

    yield build
    for work in works:
        work.close()


def queue(town, sender, *texts, channel="clinic", **more):
    k = keyspace.shard_of(sender, town.world.settings.shards)
    for text in texts:
        sms = OutboundSms(f"id{text}", channel, sender, text, **more)
        entry = channel.encode() + b"\0" + encode_event(sms)
        town.client.rpush(keyspace.outbox_key(k, sender), entry)


def lock(town, sender):
    """The fields of a sender's outbox lock: fence, until, attempts, since, owner."""
    name = keyspace.outbox_lock_key(keyspace.shard_of(sender, town.world.settings.shards), sender)
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


def test_what_the_provider_takes_is_noted_but_not_what_was_in_an_answer(desk):
    """That was noted by whoever answered."""
    town = desk(SendRejected("1", "no"), SendAccepted("t1"), SendAccepted("t2"), SendAccepted("t3"))
    now = redis_client.server_time_ms(town.client)
    for sender, more in (
        (ANNA, {}),
        (BORIS, {"heard": now - 3_000}),
        (CLARA, {"heard": now, "uncertain": True}),
    ):
        queue(town, sender, "Hello", **more)
    queue(town, DORA, "Hello")
    run(town, ANNA, BORIS, CLARA, DORA)
    until(lambda: len(town.wire.sent) == 4, 10, "all were tried")
    town.work.close()
    (noted,) = town.notes.take().values()
    fields = sum(noted.by_minute.values(), Counter())
    assert fields.pop("sms") == sum(noted.by_day.values()) == 2
    (wait,) = fields
    assert 1.2 ** int(wait.removeprefix("w")) >= 3_000


def letters(town):
    return [(letter.sender, letter.reason) for letter in stored(town.client, town.world.settings)]


def run(town, *senders):
    town.work.handle_wakeup("outbound", list(senders))


def heard(town, *texts):
    until(lambda: town.wire.sent == list(texts), 10, f"{texts} were sent, not {town.wire.sent}")


@pytest.mark.parametrize(
    "channel, damage, reason",
    [
        ("a channel of the past", b"1", "unknown_channel"),
        ("clinic", b"\xc1", "undecodable"),
        ("clinic", b"\xff", "undecodable"),
    ],
)
def test_an_sms_that_cannot_be_sent_is_put_aside_alone(desk, channel, damage, reason):
    town = desk()
    k = keyspace.shard_of(ANNA, town.world.settings.shards)
    sms = encode_event(OutboundSms("id1", channel, ANNA, "1"))
    at = 0 if damage == b"\xc1" else sms.rindex(b"1")  # its very first byte, or its text
    entry = channel.encode() + b"\0" + sms[:at] + damage + sms[at + 1 :]
    town.client.rpush(keyspace.outbox_key(k, ANNA), entry)
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
    town.steps._outboxes.lease_oldest([ANNA])
    set_lock(town, ANNA, until=1, attempts=MAX_SEND_ATTEMPTS)
    run(town, ANNA)
    run(town, ANNA)
    heard(town, "2")
    assert letters(town) == [(ANNA, "worker_died")]


def test_an_sms_that_the_provider_may_have_is_not_tried_after_it_forgot_the_id(desk):
    town = desk()
    queue(town, ANNA, "1")
    town.steps._outboxes.lease_oldest([ANNA])
    set_lock(town, ANNA, until=1, since=int(lock(town, ANNA)[1][3]) - REPEATABLE_FOR_MS - 1)
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


UNKNOWN = OutcomeUnknown("ReadTimeout", "the provider gave no answer")


def settled(town, sender, owner):
    """Wait until the sender rests with this verdict, and let the rest be over now; how long it would have been (ms)."""
    until(lambda: (lock(town, sender)[1] or [b""])[-1] == owner, 10, f"it rests, {owner}")
    seconds, us = town.client.time()
    now = seconds * 1000 + us // 1000
    rest_ms = int(lock(town, sender)[1][1]) - now
    set_lock(town, sender, until=now)
    return rest_ms


def test_an_sms_that_the_provider_may_have_is_looked_up_later_and_found(desk):
    town = desk(UNKNOWN, SendAccepted("SM1"), recourse="look_up")
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
    town = desk(UNKNOWN, SmsNotFound(), recourse="look_up")
    queue(town, ANNA, "1")
    run(town, ANNA)
    settled(town, ANNA, b"again?")
    run(town, ANNA)
    heard(town, "1", "1")


@pytest.mark.parametrize("answer", [UNKNOWN, RetryLater("20429", "busy"), ChannelFault("20003", "login")])
def test_while_it_cannot_be_asked_nothing_is_sent_again(desk, answer):
    town = desk(UNKNOWN, answer, SendAccepted("SM1"), recourse="look_up")
    queue(town, ANNA, "1")
    run(town, ANNA)
    settled(town, ANNA, b"again?")
    run(town, ANNA)
    settled(town, ANNA, b"untried?" if isinstance(answer, ChannelFault) else b"again?")
    town.client.delete(keyspace.pause_key("clinic"))
    run(town, ANNA)
    until(lambda: lock(town, ANNA)[1] == [], 10, "it is settled")
    heard(town, "1")
    assert len(town.wire.asked) == 2


def test_a_pause_forgets_nothing(desk):
    town = desk(UNKNOWN, SendAccepted("SM1"), recourse="look_up")
    queue(town, ANNA, "1")
    run(town, ANNA)
    settled(town, ANNA, b"again?")
    town.client.set(keyspace.pause_key("clinic"), "credit", px=60_000)
    run(town, ANNA)
    settled(town, ANNA, b"untried?")
    town.client.delete(keyspace.pause_key("clinic"))
    run(town, ANNA)
    until(lambda: lock(town, ANNA)[1] == [], 10, "it is settled")
    heard(town, "1")


def test_tickets_of_earlier_sms_are_told_apart_from_one_that_is_looked_up(desk):
    town = desk(SendAccepted("SM1"), UNKNOWN, SmsNotFound(), recourse="look_up")
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
    town = desk(SendAccepted("SM1"), recourse="look_up")
    queue(town, ANNA, "1", uncertain=how == "it was put into an answer")
    if how == "its worker died":
        town.steps._outboxes.lease_oldest([ANNA])
        set_lock(town, ANNA, until=1)
    run(town, ANNA)
    until(lambda: town.wire.asked, 10, "it is looked up")
    until(lambda: not town.client.exists(outbox_of(town, ANNA)), 10, "it is settled")
    assert town.wire.sent == []


def test_where_a_provider_is_asked_an_sms_whose_try_never_came_back_rests_first(desk):
    """From the end of its lease on: the provider may list only later what it got then."""
    town = desk(SendAccepted("SM1"), recourse="look_up")
    queue(town, ANNA, "1")
    town.steps._outboxes.lease_oldest([ANNA])
    ended_ms = seconds_of(town)
    set_lock(town, ANNA, until=ended_ms)
    run(town, ANNA)
    fields = lock(town, ANNA)[1]
    assert fields[:3] == [b"0", b"%d" % (ended_ms + UNCERTAIN_REST_MS), b"1"]
    assert fields[4] == b"again?"
    run(town, ANNA)
    assert (lock(town, ANNA)[1], town.wire.asked) == (fields, [])
    set_lock(town, ANNA, until=ended_ms)
    run(town, ANNA)
    until(lambda: not town.client.exists(outbox_of(town, ANNA)), 10, "it is settled")
    assert (town.wire.asked, town.wire.sent) == ([("1", [])], [])


def test_one_whose_lease_ended_long_ago_rests_no_more(desk):
    town = desk(SendAccepted("SM1"), recourse="look_up")
    queue(town, ANNA, "1")
    town.steps._outboxes.lease_oldest([ANNA])
    set_lock(town, ANNA, until=seconds_of(town) - UNCERTAIN_REST_MS)
    run(town, ANNA)
    until(lambda: town.wire.asked, 10, "it is looked up at once")


def test_where_repeats_are_known_a_try_that_never_came_back_is_made_again_at_once(desk):
    town = desk()
    queue(town, ANNA, "1")
    town.steps._outboxes.lease_oldest([ANNA])
    set_lock(town, ANNA, until=seconds_of(town))
    run(town, ANNA)
    heard(town, "1")


@pytest.mark.parametrize(
    "earlier", [(), (RetryLater("503", "busy"),), (UNKNOWN,), (UNKNOWN, RetryLater("503", "busy"))]
)
def test_one_that_is_refused_may_have_left_by_an_earlier_try_of_which_nobody_knows(desk, earlier):
    """That one may be under way still: a lease ends early if the server's clock was set back, or was lost."""
    town = desk(*earlier, SendRejected("400", "not this one"))
    queue(town, ANNA, "1")
    for _ in earlier:
        run(town, ANNA)
        until(lambda: (lock(town, ANNA)[1] or [b""])[-1].rstrip(b"?") == b"again", 10, "it rests")
        rest(town, ANNA)
    run(town, ANNA)
    until(lambda: letters(town) == [(ANNA, "rejected")], 10, "it is put aside")
    (letter,) = stored(town.client, town.world.settings)
    assert letter.uncertain == (UNKNOWN in earlier)


def test_a_try_that_came_too_late_to_send_is_left_and_does_not_count(desk):
    town = desk(None)
    queue(town, ANNA, "1")
    run(town, ANNA)
    until(lambda: lock(town, ANNA)[1] == [], 10, "it is left")
    assert town.client.exists(outbox_of(town, ANNA))
    run(town, ANNA)
    heard(town, "1", "1")
    until(lambda: [r.ticket for r in town.records(ANNA)] == ["ticket"], 10, "it is settled")


def test_one_that_came_too_late_after_it_was_looked_up_is_looked_up_again(desk):
    town = desk(UNKNOWN, SmsNotFound(), None, SendAccepted("SM1"), recourse="look_up")
    queue(town, ANNA, "1")
    run(town, ANNA)
    settled(town, ANNA, b"again?")
    run(town, ANNA)
    until(lambda: lock(town, ANNA)[1][4:] == [b"untried?"], 10, "it is left")
    run(town, ANNA)
    until(lambda: not town.client.exists(outbox_of(town, ANNA)), 10, "it was found")
    assert len(town.wire.asked) == 2
    heard(town, "1", "1")


def test_a_send_counts_from_the_moment_that_was_looked_at(desk):
    """Not from when a process that stood still in between gets to it; and a look-up leaves time for a whole try."""
    town = desk(UNKNOWN, SmsNotFound(), recourse="look_up")
    deadlines, limits = [], []
    send, look_up = town.wire.send, town.wire.look_up
    town.wire.send = lambda sms, deadline: (deadlines.append(deadline), send(sms, deadline))[1]
    town.wire.look_up = lambda *asked: (limits.append(asked[-1]), look_up(*asked))[1]
    queue(town, ANNA, "1")
    begun_s = monotonic()
    run(town, ANNA)
    settled(town, ANNA, b"again?")
    now_s = iter((begun_s + 99.5, begun_s + 100.0, begun_s + 101.0, begun_s + 103.0))
    town.steps._host = Host(monotonic_s=lambda: next(now_s))
    (sendable,) = town.steps.lease_sendable([ANNA], town.work._bulkheads)
    asyncio.run(town.steps.run_attempt(sendable, lambda: False))
    assert limits == [begun_s + 99.5 + send_steps.MAX_START_DELAY_AFTER_LOOK_UP_S]
    assert deadlines[1] == try_deadline(begun_s + 101.0)


def outbox_of(town, sender):
    return keyspace.outbox_key(keyspace.shard_of(sender, town.world.settings.shards), sender)


def test_an_sms_of_unknown_fate_is_never_sent_again_where_it_cannot_be_asked_about(desk):
    town = desk(UNKNOWN, recourse="none")
    queue(town, ANNA, "1", "2")
    run(town, ANNA)
    until(lambda: letters(town) == [(ANNA, "uncertain")], 10, "it is put aside")
    until(lambda: lock(town, ANNA)[1] == [], 10, "it is settled")
    run(town, ANNA)
    heard(town, "1", "2")
    queue(town, BORIS, "3")
    town.steps._outboxes.lease_oldest([BORIS])
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
        set_lock(town, ANNA, since=int(lock(town, ANNA)[1][3]) - REPEATABLE_FOR_MS - 1)
    else:
        set_lock(town, ANNA, attempts=MAX_SEND_ATTEMPTS)
    run(town, ANNA)
    until(lambda: letters(town) == [(ANNA, "uncertain")], 10, "it is put aside")
    heard(town, "1")


def test_a_try_that_was_certainly_not_made_may_be_old(desk):
    town = desk(RetryLater("20429", "busy"), recourse="look_up")
    queue(town, ANNA, "1")
    run(town, ANNA)
    settled(town, ANNA, b"again")
    set_lock(town, ANNA, since=int(lock(town, ANNA)[1][3]) - REPEATABLE_FOR_MS - 1)
    run(town, ANNA)
    heard(town, "1", "1")
    assert town.wire.asked == []


def test_a_number_that_gets_no_sms_ends_its_session(desk):
    town = desk(NumberUnreachable("21211", "no such number"))
    town.accept(ANNA, "START")
    town.drain()
    queue(town, ANNA, "a second one")
    run(town, ANNA)
    until(lambda: town.client.exists(keyspace.mailbox_key(shard(town, ANNA), ANNA)), 10, "the lane is told")
    town.turns.handle_wakeup("replies", [ANNA])
    ended = [record for record in town.records(ANNA) if isinstance(record, SessionEnded)]
    assert [(record.how, record.why) for record in ended] == [("unreachable", "no such number")]
    assert [r.code for r in town.records(ANNA) if isinstance(r, SmsNotSent)] == ["21211"]
    assert letters(town) == []


def test_what_a_session_has_queued_goes_with_it_when_its_number_is_unreachable(desk):
    town = desk()
    town.accept(ANNA, "START", "Ada")
    town.drain()
    receipt = DeliveryReceipt(
        "r1", "clinic", "t", "failed", "failed", "30006", "a landline", True, "0000000000000001x0"
    )
    town.deposit(ANNA, encode_event(receipt))
    town.drain()
    assert town.said(ANNA) == []
    unsent = [r for r in town.records(ANNA) if isinstance(r, SmsNotSent)]
    assert {r.code for r in unsent} == {"unreachable"}
    assert [r.id for r in unsent] == ["0000000000000001x0", "0000000000000001x1"]


def test_a_cancelled_session_says_nothing_more(desk):
    town = desk()
    town.accept(ANNA, "START", "Ada")
    town.drain()
    town.deposit(ANNA, encode_event(CancelSession("c1", "clinic", "0000000000000001")))
    town.drain()
    assert town.said(ANNA) == []
    assert {r.code for r in town.records(ANNA) if isinstance(r, SmsNotSent)} == {"cancelled"}


def pass_by(town, sender):
    """The next deadline of their lane comes."""
    k = keyspace.shard_of(sender, town.world.settings.shards)
    lane = keyspace.lane_key(k, sender)
    fence, _, state = town.client.get(lane).split(b" ", 2)
    stored = lane_format.decode_lane(state)
    for line in stored.lines.values():
        line.session.opened_at = line.session.last_sms_at = 0
    town.client.set(lane, b" ".join((fence, b"1", lane_format.encode_lane(stored))))
    town.turns.handle_wakeup("replies", [sender])


def paused_then_resumed(town, meanwhile):
    channels = ChannelStore(town.client, town.world.settings.channels)
    channels.pause("clinic", "maintenance")
    meanwhile()
    channels.resume("clinic")
    run(town, ANNA)


def test_what_a_session_has_queued_does_not_leave_once_it_has_ended(desk):
    """Its channel was paused meanwhile: nobody waits for an answer any more."""
    town = desk()

    def meanwhile():
        town.accept(ANNA, "START", "Ada")
        town.drain()
        pass_by(town, ANNA)

    paused_then_resumed(town, meanwhile)
    assert [record.how for record in town.records(ANNA) if isinstance(record, SessionEnded)] == ["expired"]
    assert (town.said(ANNA), town.wire.sent) == ([], [])
    unsent = [(r.id, r.code) for r in town.records(ANNA) if isinstance(r, SmsNotSent)]
    assert unsent == [(f"0000000000000001x{number}", "session_ended") for number in (0, 1)]


def test_what_a_session_said_that_is_completed_leaves_when_it_can(desk):
    town = desk()

    def meanwhile():
        town.accept(ANNA, "START", "Ada", "36")
        town.drain()

    paused_then_resumed(town, meanwhile)
    said = ["What is your name?", "How old are you, Ada?", "Goodbye, Ada."]
    for count in range(1, len(said) + 1):
        heard(town, *said[:count])
        until(lambda: lock(town, ANNA)[1] == [], 10, "it is settled")
        run(town, ANNA)
    assert [record.how for record in town.records(ANNA) if isinstance(record, SessionEnded)] == ["completed"]


def people(count):
    return [f"+336{i:08}" for i in range(count)]


def look_now(town, *senders):
    """Each of them who rests looks now."""
    for sender in senders:
        if lock(town, sender)[1]:
            set_lock(town, sender, until=1)
    run(town, *senders)


def idle(town):
    until(lambda: not town.work._attempts_in_flight(), 10, "all tries are settled")


def outage(town, senders):
    """Let the provider fail for those, as if for a while, until the circuit is open."""
    key, flow = keyspace.pause_key("clinic"), keyspace.circuit_state_key("clinic")
    for _ in range(20):
        if town.client.exists(key):
            return
        if town.client.hexists(flow, "began"):
            town.client.hset(flow, "began", 1)
        look_now(town, *senders)
        idle(town)
    raise AssertionError("the circuit did not open")


def test_an_outage_opens_the_circuit_and_costs_no_sms_more_than_the_tries_before_it(desk):
    everyone = people(10)
    town = desk(*[RetryLater("501", "out of order")] * 200)
    for person in everyone:
        queue(town, person, "1", "2")
    outage(town, everyone)
    attempts = [lock(town, person)[1][2] for person in everyone]
    for _ in range(50):
        tried = len(town.wire.sent)
        town.client.delete(keyspace.pause_key("clinic"))
        look_now(town, *everyone)
        idle(town)
        assert len(town.wire.sent) == tried + 1
    assert [lock(town, person)[1][2] for person in everyone] == attempts
    assert max(map(int, attempts)) < 5
    assert letters(town) == []


def test_it_is_not_always_the_same_sms_that_probes(desk):
    first, *others = everyone = people(3)
    town = desk(*[RetryLater("501", "out of order")] * 200)
    for person in everyone:
        queue(town, person, person)
    outage(town, everyone)
    town.client.hset(keyspace.circuit_state_key("clinic"), "level", 10)
    town.client.delete(keyspace.pause_key("clinic"))
    look_now(town, first)
    idle(town)
    look_now(town, *others)
    assert town.wire.sent[-1] == first
    until_ms = {person: int(lock(town, person)[1][1]) for person in everyone}
    assert until_ms[first] > max(until_ms[person] for person in others)


def test_an_uncertain_sms_that_was_spared_a_try_is_not_sent_after_the_provider_forgot_its_id(desk):
    town = desk(*[UNKNOWN] * 200)
    queue(town, ANNA, "1")
    outage(town, [ANNA])
    queue(town, BORIS, "2")
    town.client.delete(keyspace.pause_key("clinic"))
    run(town, BORIS)
    idle(town)
    _, (_, _, attempts, since, owner) = lock(town, BORIS)
    assert (attempts, owner) == (b"0", b"untried?")
    assert int(since) > 0
    town.client.delete(keyspace.pause_key("clinic"))
    town.wire._answers[0] = RetryLater("501", "out of order")
    look_now(town, BORIS)
    idle(town)
    assert lock(town, BORIS)[1][3:] == [since, b"untried?"]
    set_lock(town, BORIS, since=int(since) - REPEATABLE_FOR_MS)
    look_now(town, BORIS)
    until(lambda: letters(town) == [(BORIS, "uncertain")], 10, "it is put aside")


def test_resumed_a_channel_sends_what_waits_at_its_rate(desk):
    town = desk(sms_per_second=20)
    everyone = people(40)
    for person in everyone:
        queue(town, person, "1")
    channels = ChannelStore(town.client, town.world.settings.channels)
    channels.pause("clinic", "carrier incident")
    run(town, *everyone)
    assert town.wire.sent == []
    ran = monotonic()
    channels.resume("clinic")
    assert town.steps._outboxes.bring_forward("clinic", 20) == 40
    assert town.steps._outboxes.bring_forward("clinic", 20) == 40
    now = seconds_of(town)
    due = sorted(int(lock(town, person)[1][1]) - now for person in everyone)
    assert due[0] <= 0
    assert due[-1] == pytest.approx(39 * 50, abs=200 + 1_000 * (monotonic() - ran))
    look_now(town, *everyone)
    assert len(town.wire.sent) <= 21


def seconds_of(town):
    seconds, us = town.client.time()
    return seconds * 1000 + us // 1000


def test_a_rest_that_is_not_the_channels_is_left_alone_when_it_resumes(desk):
    town = desk(RetryLater("501", "busy"))
    queue(town, ANNA, "1")
    run(town, ANNA)
    idle(town)
    before = lock(town, ANNA)
    assert before[1][-1] == b"again"
    assert town.steps._outboxes.bring_forward("clinic", 0) == 0
    assert lock(town, ANNA) == before


def test_what_the_provider_may_have_is_not_asked_for_sooner_because_its_channel_works_again(desk):
    town = desk(*[UNKNOWN] * 20, recourse="look_up")
    everyone = people(10)
    for person in everyone:
        queue(town, person, person)
    outage(town, everyone)
    begun = seconds_of(town)
    town.client.delete(keyspace.pause_key("clinic"))
    town.wire._answers.clear()
    for person in (
        "+33700000001",
        "+33700000002",
    ):  # one probes; with the other those who wait are brought forward
        queue(town, person, person)
        run(town, person)
        idle(town)
    assert not town.client.hexists(keyspace.circuit_state_key("clinic"), "held")
    owners = {lock(town, person)[1][4] for person in everyone}
    assert owners == {b"untried?"}
    assert min(int(lock(town, person)[1][1]) for person in everyone) > begun + UNCERTAIN_REST_MS / 2


def tries_of(town, sender, sms):
    return [(each.code, each.why) for each in town.steps._outboxes.failed_attempts(sender, sms)]


def test_failed_tries_are_kept_beside_the_outbox_until_the_sms_is_done(desk):
    town = desk(RetryLater("153", "congested"), RetryLater("501", "busy"))
    queue(town, ANNA, "1", "2")
    run(town, ANNA)
    idle(town)
    look_now(town, ANNA)
    idle(town)
    assert tries_of(town, ANNA, "id1") == [("153", "congested"), ("501", "busy")]
    assert tries_of(town, ANNA, "id2") == []
    assert letters(town) == []
    look_now(town, ANNA)
    idle(town)
    assert not town.client.exists(keyspace.failed_attempts_key(shard(town, ANNA), ANNA))


def test_a_dead_letter_has_every_try_of_its_sms(desk):
    town = desk(RetryLater("153", "congested"), SendRejected("121", "no STOP mention"))
    queue(town, ANNA, "1")
    run(town, ANNA)
    idle(town)
    look_now(town, ANNA)
    idle(town)
    (letter,) = dead_letters.scan_unordered(town.client, shard(town, ANNA))
    assert [(tried.code, tried.why) for tried in letter.tries] == [
        ("153", "congested"),
        ("121", "no STOP mention"),
    ]
    assert 0 < letter.tries[0].at <= letter.tries[1].at == letter.at


def test_no_more_than_twenty_tries_are_kept(desk):
    town = desk(*[RetryLater(str(code), "busy") for code in range(100, 125)])
    queue(town, ANNA, "1")
    outage(town, [ANNA])
    while len(town.wire.sent) < 24:
        town.client.delete(keyspace.pause_key("clinic"))
        look_now(town, ANNA)
        idle(town)
    kept = tries_of(town, ANNA, "id1")
    assert [code for code, _ in kept] == [str(code) for code in range(104, 124)]


def number(name, **labels):
    return REGISTRY.get_sample_value(f"parley_{name}", {"channel": "clinic"} | labels) or 0.0


def test_what_the_provider_says_of_segments_and_cost_is_recorded(desk):
    town = desk(SendAccepted("t", 94.5, 2, 55_000, "EUR"))
    queue(town, ANNA, "x" * 161)
    run(town, ANNA)
    (sent,) = until(lambda: town.records(ANNA), 10, "it is recorded")
    assert (sent.ticket, sent.segments, sent.cost_micros, sent.currency) == ("t", 2, 55_000, "EUR")


def test_what_is_accepted_is_measured_from_its_decision_and_from_the_webhook(desk):
    town = desk(SendAccepted("t", 94.5))
    now = seconds_of(town)
    names = (
        "outbox_seconds_sum",
        "outbox_seconds_count",
        "reply_seconds_sum",
        "reply_seconds_count",
        "segments_total",
    )
    before = {name: number(name) for name in names}
    queue(town, ANNA, "x" * 161, decided=now - 2_000, heard=now - 3_000)
    queue(town, BORIS, "of an age that nobody knows")
    run(town, ANNA, BORIS)
    idle(town)
    grown = {name: number(name) - before[name] for name in names}
    took_s = (seconds_of(town) - now) / 1_000
    assert 2 <= grown["outbox_seconds_sum"] <= 2 + took_s
    assert 3 <= grown["reply_seconds_sum"] <= 3 + took_s
    assert (grown["outbox_seconds_count"], grown["reply_seconds_count"], grown["segments_total"]) == (1, 1, 3)
    assert number("credit") == 94.5


def test_errors_are_counted_by_codes_that_are_known_and_circuits_that_open(desk):
    town = desk(SendRejected("121", "no"), *[RetryLater("whatever a gateway says", "busy")] * 99)
    before = [number("send_errors_total", code="121"), number("send_errors_total", code="other")]
    opened = number("circuits_opened_total")
    queue(town, ANNA, "1", "2")
    run(town, ANNA)
    idle(town)
    outage(town, [ANNA])
    assert number("send_errors_total", code="121") == before[0] + 1
    assert number("send_errors_total", code="other") >= before[1] + 5
    assert number("circuits_opened_total") == opened + 1


class Hanging(Wire):
    """Answers nothing until it is let go."""

    def __init__(self):
        super().__init__()
        self.free = Event()

    async def send(self, sms, deadline):
        answer = await super().send(sms, deadline)
        await call_in_thread(lambda: self.free.wait(60))
        return answer


@pytest.fixture
def two_channels(desk):
    """A delivery worker of two channels: `slow` hangs, `clinic` does not."""
    town = desk()
    town.work.close()
    settings = town.world.settings
    clinic = settings.channels["clinic"]
    both = {"clinic": clinic, "slow": msgspec.structs.replace(clinic, name="slow")}
    town.slow = Hanging()
    world = msgspec.structs.replace(town.world, settings=msgspec.structs.replace(settings, channels=both))
    town.steps = build_send_steps(world, {"clinic": town.wire, "slow": town.slow}, build_answer_notes(world))
    town.rounds = LoopRounds(HANGS_AFTER_S)
    town.work = DeliveryRunner(town.steps, world.wakeup_broker(), town.rounds)
    yield town
    town.slow.free.set()
    town.work.close()


def test_a_provider_that_hangs_takes_no_slots_from_another(two_channels):
    town = two_channels
    crowd = people(2 * SLOTS_PER_CHANNEL)
    for person in crowd:
        queue(town, person, "1", channel="slow")
    run(town, *crowd)
    until(lambda: len(town.slow.sent) == SLOTS_PER_CHANNEL, 10, "all its slots are taken")
    queue(town, ANNA + "9", "2")
    run(town, *crowd, ANNA + "9")
    heard(town, "2")
    assert len(town.slow.sent) == SLOTS_PER_CHANNEL
    waiting = [lock(town, person)[1] for person in crowd]
    assert sum(fields[-1] == b"untried" and fields[2] == b"0" for fields in waiting) == SLOTS_PER_CHANNEL


def test_a_provider_that_hangs_keeps_no_loop_from_going_round(two_channels):
    town = two_channels
    crowd = people(SLOTS_PER_CHANNEL)
    for person in crowd:
        queue(town, person, "1", channel="slow")
    run(town, *crowd)
    until(lambda: len(town.slow.sent) == SLOTS_PER_CHANNEL, 10, "all its slots are taken")
    taken_s = monotonic()

    def all_went_round():
        town.rounds.went_round()
        return monotonic() - town.rounds.longest_silence()[1] > taken_s

    until(all_went_round, 20, "each channel's loop goes round while tries wait")


async def end_loop():
    asyncio.get_running_loop().stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("how", ["hangs", "has died"])
def test_a_loop_of_tries_that_goes_round_no_more_is_seen_though_the_others_do(two_channels, how):
    town, free = two_channels, Event()

    async def hold_loop_up():
        free.wait(60)

    town.work._bulkheads["slow"].run_in_slots(0.0, [hold_loop_up if how == "hangs" else end_loop])

    def hangs():
        town.rounds.went_round()
        return town.rounds.hangs() and town.rounds.longest_silence()[0] == "tries slow"

    try:
        until(hangs, 20, "it is seen")
    finally:
        free.set()
    if how == "hangs":
        until(lambda: not hangs(), 20, "it goes round again")
    town.work._bulkheads["slow"].release_slot(0.0)


def test_a_channel_whose_keys_cannot_be_used_keeps_back_its_own_sms_alone(two_channels):
    town = two_channels
    town.slow.free.set()
    town.client.set(keyspace.circuit_state_key("slow"), "not a hash")
    queue(town, BORIS, "1", channel="slow")
    queue(town, ANNA, "2")
    run(town, BORIS, ANNA)
    heard(town, "2")
    assert town.slow.sent == []
    fields = lock(town, BORIS)[1]
    assert (fields[2], fields[-1]) == (b"0", b"untried"), "it does not wait for the end of its lease"


async def nothing():
    pass


def test_those_without_a_slot_look_again_by_turns(two_channels):
    town = two_channels
    slots = town.work._bulkheads["slow"]
    slots._host = Host(monotonic_s=lambda: 100.0)
    slots.run_in_slots(96.8, [nothing] * SLOTS_PER_CHANNEL)
    waits = [slots.slot_wait_ms() for _ in range(100)]
    assert waits[0] == pytest.approx(100, abs=1)
    assert waits[99] == pytest.approx(10_000, abs=1)
    for begun_s in list(slots._begun_s):
        slots.release_slot(begun_s)


def test_told_to_stop_it_hands_back_what_it_has_not_begun(two_channels):
    town = two_channels
    queue(town, ANNA, "1")
    town.work.stop()
    run(town, ANNA)
    assert town.wire.sent == []
    assert lock(town, ANNA)[1] == []
    assert town.world.broker.zscore(keyspace.wakeup_queue_key("outbound"), ANNA) is not None
    (sendable,) = town.steps.lease_sendable([ANNA], town.work._bulkheads)
    town.work._begin_attempts(town.work._bulkheads["clinic"], [sendable])
    until(lambda: lock(town, ANNA)[1] == [], 10, "it is handed back")
    assert town.wire.sent == []


def test_a_try_that_outlasts_all_patience_is_left_as_by_a_kill(two_channels, monkeypatch):
    monkeypatch.setattr(delivery, "IN_FLIGHT_TIMEOUT_S", 0.2)
    town = two_channels
    queue(town, ANNA, "1", channel="slow")
    queue(town, BORIS, "2")
    run(town, ANNA, BORIS)
    until(lambda: town.slow.sent, 10, "it is under way")
    told_s = monotonic()
    town.work.close()
    assert monotonic() - told_s < 15
    assert int(lock(town, ANNA)[1][0]) > 0
    assert lock(town, BORIS)[1] == []
    set_lock(town, ANNA, until=1)
    (take,) = town.steps._outboxes.lease_oldest([ANNA])
    assert take.uncertain


def test_nothing_of_an_erased_persons_tries_is_left(desk):
    town = desk(RetryLater("501", "busy"))
    queue(town, ANNA, "1")
    run(town, ANNA)
    idle(town)
    key = keyspace.failed_attempts_key(shard(town, ANNA), ANNA)
    assert town.client.exists(key)
    world = town.world
    optouts = open_opt_out_list(town.client, world.settings.shards, "")
    SenderEraser(world, optouts).erase(ANNA)
    assert not town.client.exists(key)


def shard(town, sender):
    return keyspace.shard_of(sender, town.world.settings.shards)


@pytest.mark.parametrize(
    "outcome, tries, expected",
    [
        (SendAccepted("t"), 1, SendDecision("done", 2_000, "accepted")),
        (RetryLater("153", "busy"), 1, SendDecision("again", 1_000, "retry", "153", "busy")),
        (RetryLater("153", "busy"), 5, SendDecision("again", 16_000, "retry", "153", "busy")),
        (
            RetryLater("153", "busy"),
            MAX_SEND_ATTEMPTS,
            SendDecision("done", 0, "tries_exhausted", "153", "busy", "tries_exhausted"),
        ),
        (UNKNOWN, 5, SendDecision("again", 16_000, "unknown", UNKNOWN.code, UNKNOWN.why)),
        (NumberUnreachable("150", "no"), 1, SendDecision("done", 0, "unreachable", "150", "no")),
        (SendRejected("151", "no"), 1, SendDecision("done", 0, "rejected", "151", "no", "rejected")),
        (ChannelFault("104", "no"), 1, SendDecision("untried", 60_000, "channel_fault", "104", "no")),
    ],
)
def test_each_outcome_has_its_consequence(outcome, tries, expected):
    assert decide_after_attempt(outcome, tries, 2_000, 0.5, "repeat") == expected


def test_backoff_is_jittered_and_bounded():
    assert [backoff_ms(tries, 0.0) for tries in (1, 2, 3, 30)] == [500, 1_000, 2_000, 450_000]
    assert backoff_ms(30, 1.0) == 1_350_000


@pytest.mark.processes
def test_what_a_try_came_to_is_written_once_redis_is_back_and_not_when_its_lease_ends(desk, valkey):
    """Nobody rings for the sender here: what is not written again waits for ever."""
    town = desk()
    queue(town, ANNA, "1", "2")
    send = town.wire.send

    def send_as_redis_dies(sms, deadline):
        valkey.kill9()
        return send(sms, deadline)

    town.wire.send = send_as_redis_dies
    run(town, ANNA)
    until(lambda: town.steps._unwritten, 30, "it could not be written")
    town.wire.send = send
    valkey.start()
    k = keyspace.shard_of(ANNA, town.world.settings.shards)
    until(lambda: town.client.llen(keyspace.outbox_key(k, ANNA)) == 1, 30, "it is written")
    assert town.wire.sent == ["1"]
