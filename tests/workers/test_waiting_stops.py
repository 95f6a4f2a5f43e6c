"""Mail that may be a STOP: any worker takes it, with all that was accepted before it, and nothing is sent until it is read."""

import pytest

from config.store import function_calls, keyspace, redis_client
from config.store.server_functions import (
    AttachedReply,
    AttachReplies,
    ReserveOutbox,
    TakeDueAlarms,
    WatchedShard,
)
from engine.model.events import (
    CancelSession,
    DeliveryReceipt,
    InboundSms,
    Invitation,
    PersonOptedOut,
    ProviderStop,
    SmsPart,
    encode_event,
)
from engine.turns.inbound_sms import may_opt_out
from tests.support.end_survey import ASKED, SURVEY
from workers.store.lanes import MAX_CLAIMED_MAIL
from workers.store.optouts import open_opt_out_list
from workers.store.outboxes import OutboxStore

ANNA = "+33600000001"
EITHER = ["starts", "replies"]


def shard(town):
    return keyspace.shard_of(ANNA, town.world.settings.shards)


def outboxes_of(town):
    return OutboxStore(town.client, town.world.settings.shards)


def turn_alone(town, queue):
    """Only the workers of `queue` live: they are rung for until the lane has no mail."""
    for _ in range(20):
        town.turns.handle_wakeup(queue, [ANNA])
        if not town.client.exists(keyspace.mailbox_key(shard(town), ANNA)):
            return
    raise AssertionError("mail waits, and nobody takes it")


def opt_outs(town):
    return open_opt_out_list(town.client, town.world.settings.shards, "").opt_outs_of(ANNA)


def stops(*texts):
    return [InboundSms(f"b{at:015x}", "clinic", text, may_be_stop=True) for at, text in enumerate(texts)]


def rung_for(town):
    """Whom what was accepted last rang."""
    return [queue for queue in EITHER if town.world.broker.zscore(keyspace.wakeup_queue_key(queue), ANNA)]


@pytest.mark.parametrize("queue", EITHER)
@pytest.mark.parametrize("before", [["START"], ["START", "Ada", "START"], ["START"] * 100, ["hello"] * 100])
def test_any_worker_applies_a_stop_with_all_that_was_accepted_before_it(pipeline, queue, before):
    town = pipeline(SURVEY.encode())
    town.accept(ANNA, *before, "STOP")
    turn_alone(town, queue)
    assert [*opt_outs(town)] == ["clinic"]
    assert town.said(ANNA) == ["You will get no more."]
    assert sum(isinstance(record, PersonOptedOut) for record in town.records(ANNA)) == 1


def test_a_start_after_the_stop_stays_the_rate_limit_workers(pipeline):
    town = pipeline(SURVEY.encode())
    town.accept(ANNA, "START", "STOP", "START")
    town.turns.handle_wakeup("replies", [ANNA])
    assert [*opt_outs(town)] == ["clinic"]
    town.turns.handle_wakeup("replies", [ANNA])
    assert [*opt_outs(town)] == ["clinic"]
    town.turns.handle_wakeup("starts", [ANNA])
    assert not opt_outs(town)
    assert town.said(ANNA)[-1] == ASKED


@pytest.mark.parametrize("mail", [[], ["START"], ["hello"]])
def test_a_stop_wakes_the_workers_of_both_queues(pipeline, mail):
    town = pipeline(SURVEY.encode())
    town.accept(ANNA, *mail)
    town.world.broker.flushdb()
    town.accept(ANNA, "STOP")
    assert rung_for(town) == EITHER


EVENTS = [
    *stops("STOP"),
    InboundSms("a1", "clinic", "?", handled="stop", may_be_stop=True),
    InboundSms("a1", "clinic", "hello", originator="+33700000002"),
    InboundSms("a1", "clinic", "START", start=True),
    SmsPart("a1", "clinic", "ST", "r", 1, 2),
    ProviderStop("a1", "clinic"),
    DeliveryReceipt("a1", "clinic", "stop", "part", sms="stop"),
    CancelSession("a1", "clinic", "stop"),
    Invitation("a1", "clinic", "clinic"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_the_server_takes_for_a_possible_stop_what_the_engine_does(pipeline, event):
    town = pipeline(SURVEY.encode())
    town.accept(ANNA, "hello")
    town.world.broker.flushdb()
    town.deposit(ANNA, encode_event(event))
    assert rung_for(town) == (EITHER if may_opt_out(event) else [])


@pytest.mark.parametrize("kind", [b"", b"stop", b"\xc1\xa3sms", b"\x99\xa3sms", encode_event("sms")])
def test_what_cannot_be_read_is_no_stop_and_harms_nobody(pipeline, kind):
    town = pipeline(SURVEY.encode())
    town.deposit(ANNA, kind, start=True)
    town.deposit(ANNA, kind)
    assert rung_for(town) == ["starts"]
    town.accept(ANNA, "STOP")
    town.drain()
    assert [*opt_outs(town)] == ["clinic"]


def test_an_sms_that_an_earlier_release_accepted_stays_whose_it_was(pipeline):
    """It says nothing of what it may be."""
    town = pipeline(SURVEY.encode())
    town.accept(ANNA, "START")
    town.deposit(ANNA, encode_event(InboundSms("a2", "clinic", "STOP"))[:-2].replace(b"\x9a", b"\x98", 1))
    town.turns.handle_wakeup("replies", [ANNA])
    assert not opt_outs(town)
    town.drain()
    assert [*opt_outs(town)] == ["clinic"]


def test_what_is_queued_waits_for_mail_that_may_be_a_stop_and_no_longer(pipeline):
    """Whoever has read it: an earlier release's worker leaves nothing but an empty mailbox."""
    town = pipeline(SURVEY.encode())
    town.accept(ANNA, "START")
    town.drain()
    town.deposit(ANNA, encode_event(CancelSession("a1", "clinic", "another")))
    town.accept(ANNA, "End")
    now = redis_client.server_time_ms(town.client)
    assert outboxes_of(town).lease_oldest([ANNA]) == []
    alarm = town.client.zscore(keyspace.outbox_alarms_key(shard(town)), ANNA)
    assert now + 1_000 < alarm <= redis_client.server_time_ms(town.client) + 2_000
    town.client.delete(keyspace.mailbox_key(shard(town), ANNA))
    (lease,) = outboxes_of(town).lease_oldest([ANNA])
    assert b"Go on?" in lease.entry


def test_a_word_that_is_the_answer_opts_nobody_out(pipeline):
    town = pipeline(SURVEY.encode())
    town.accept(ANNA, "START")
    town.drain()
    town.accept(ANNA, "End")
    assert outboxes_of(town).lease_oldest([ANNA]) == []
    town.drain()
    assert town.said(ANNA) == [ASKED, "So be it."]
    assert not opt_outs(town)
    (lease,) = outboxes_of(town).lease_oldest([ANNA])
    assert b"Go on?" in lease.entry


def test_other_mail_holds_nothing_up(pipeline):
    town = pipeline(SURVEY.encode())
    town.accept(ANNA, "START")
    town.drain()
    town.accept(ANNA, "START", "hello")
    assert len(outboxes_of(town).lease_oldest([ANNA])) == 1


def test_a_flood_of_mail_may_have_a_stop_that_nobody_sees(pipeline):
    """No more than a thousand entries are looked at: whoever lives works on more, and they hold up what is queued."""
    town = pipeline(SURVEY.encode())
    town.accept(ANNA, "START")
    town.drain()
    k = shard(town)
    for _ in range(1_002):
        town.deposit(ANNA, encode_event(DeliveryReceipt("a1", "clinic", "t", "delivered")), start=True)
    assert outboxes_of(town).lease_oldest([ANNA]) == []
    (claim,) = town.turns._lanes.claim("replies", [ANNA]).claimed
    assert len(claim.mail) == MAX_CLAIMED_MAIL
    town.client.delete(keyspace.lane_lock_key(k, ANNA))
    town.client.ltrim(keyspace.mailbox_key(k, ANNA), 2, -1)
    assert len(outboxes_of(town).lease_oldest([ANNA])) == 1
    assert town.turns._lanes.claim("replies", [ANNA]).other_queue == [ANNA]


def test_no_answer_to_a_webhook_holds_an_sms_past_a_stop(pipeline):
    town = pipeline(SURVEY.encode())
    k = shard(town)
    box = {"outbox": keyspace.outbox_key(k, ANNA), "outbox_lock": keyspace.outbox_lock_key(k, ANNA)}

    def call(function):
        return redis_client.run_command(town.client, function_calls.function_call(function))

    assert call(ReserveOutbox(**box, token="t", lease_ms=5_000)) == 1
    town.accept(ANNA, "START")
    town.drain()
    (entry,) = town.client.lrange(box["outbox"], 0, -1)
    attach = AttachReplies(
        **box, mailbox=keyspace.mailbox_key(k, ANNA), outbox_alarms=keyspace.outbox_alarms_key(k), sender=ANNA,
        token="t", rest_ms=20_000, replies=[AttachedReply(entry=entry, marked=b"marked")],
    )  # fmt: skip
    town.accept(ANNA, "STOP")
    assert call(attach) == 0
    assert town.client.lrange(box["outbox"], 0, -1) == [entry]
    town.client.delete(keyspace.mailbox_key(k, ANNA))
    assert call(attach) == 1


def test_the_clock_rings_for_both_workers_if_nobody_comes(pipeline):
    town = pipeline(SURVEY.encode())
    town.accept(ANNA, "hello")
    k = shard(town)
    alarms = keyspace.lane_alarms_key(k)
    watched = WatchedShard(
        lane_alarms=alarms, outbox_alarms=keyspace.outbox_alarms_key(k), server=keyspace.server_key(k)
    )
    tick = TakeDueAlarms(max_senders=9, repeat_ms=5_000, shards=[watched])

    def rings():
        """A tick, once the alarm is due: lanes, and those to which nobody came."""
        town.client.zincrby(alarms, -10_000, ANNA)
        ((lanes, _, _, unanswered, *_),) = redis_client.run_command(
            town.client, function_calls.function_call(tick)
        )
        return lanes, unanswered

    anna = [ANNA.encode()]
    assert rings() == (anna, [])
    assert rings() == (anna, anna)
    assert rings() == (anna, anna)
    town.drain()
    town.accept(ANNA, "hello")
    assert rings() == (anna, [])
