"""`web` in the simulation: it answers in place and spools, and oracles see it if that goes wrong."""

from types import SimpleNamespace

import pytest

from config.store import keyspace, stored_values
from engine.model.events import (
    DeliveryReceipt,
    InboundSms,
    ReceiptRecorded,
    SmsReceived,
    SmsSent,
    encode_event,
)
from tests.simulated.exploring.random_faults import ScheduledFaults
from tests.simulated.oracles.recorded_receipts import ReceiptOracle
from tests.simulated.oracles.spooled import SpoolOracle
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.oracles.waiting_stops import WaitingStopOracle
from tests.simulated.plays.impatient import IMPATIENT
from tests.simulated.plays.play import perform
from tests.simulated.plays.spooling import SPOOLING
from tests.simulated.plays.webhook_answers import WEBHOOK_ANSWERS
from tests.simulated.world.ledger import Acceptance, Ledger

ANNA = "+33600000001"
RECEIPT = DeliveryReceipt("r1", "clinic", "t1", "sent", "sent", sms="s1")
RECORDED = ReceiptRecorded(1, "clinic", "t1", "sent", "sent", sms="s1")
DELIVERED = ReceiptRecorded(1, "clinic", "t1", "delivered", "delivered", sms="s1")


def test_without_faults_replies_go_into_answers():
    stage = perform(WEBHOOK_ANSWERS, ScheduledFaults({}), "answers 1")
    answered = [each for each in stage.world.ledger.arrivals if each.sms.id in stage.world.ledger.taken_late]
    assert {each.sms.text for each in answered} >= {"Welcome.", "What is your name?"}


def test_what_was_said_in_one_moment_may_be_in_one_answer():
    stage = perform(IMPATIENT, ScheduledFaults({}), "impatient 1")
    answered = [each for each in stage.world.ledger.arrivals if each.sms.id in stage.world.ledger.taken_late]
    assert [each.sms.text for each in answered][:3] == [
        "Text JOIN to begin.",
        "Welcome.",
        "What is your name?",
    ]


def test_what_comes_while_redis_is_away_is_spooled_and_handed_over():
    stage = perform(SPOOLING, ScheduledFaults({}), "spool 1")
    spooled = [each for each in stage.world.ledger.acceptances if each.mailbox_us > each.at_us + 1_000_000]
    assert spooled
    assert all(each.change > 0 for each in spooled)


def watcher(*records):
    seen = [(record, SimpleNamespace(at_us=0)) for record in records]
    return SimpleNamespace(records=lambda sender: seen)


def world(*events):
    ledger = Ledger()
    ledger.acceptances = [Acceptance(ANNA, event, 0, 1_000_000, 1, 1_000_000) for event in events]
    return SimpleNamespace(ledger=ledger, lanes=SimpleNamespace(has_lost=False), has_lost_promised=False)


def test_a_receipt_is_recorded_once():
    ReceiptOracle(world(RECEIPT), watcher(RECORDED), [ANNA]).judge()
    ReceiptOracle(world(RECEIPT), watcher(DELIVERED), [ANNA]).judge()


@pytest.mark.parametrize(
    "records", [(), (RECORDED, RECORDED), (RECORDED, *[SmsSent(1, "clinic", "", "s1", "t1")] * 2)]
)
def test_a_receipt_that_is_not_recorded_once_is_found(records):
    with pytest.raises(PromiseBroken):
        ReceiptOracle(world(RECEIPT), watcher(*records), [ANNA]).judge()


SMS = InboundSms("e1", "clinic", "hello")


def judge_spooled(heard_ms, damaged=b""):
    heard = SmsReceived(heard_ms, "clinic", "", "e1", "hello")
    SpoolOracle(world(SMS), watcher(heard), [ANNA], SimpleNamespace(damaged=damaged), []).judge()


def test_what_was_spooled_keeps_its_time():
    judge_spooled(heard_ms=900)
    with pytest.raises(PromiseBroken, match="applied_as_of_acknowledgement"):
        judge_spooled(heard_ms=20_000)


def test_what_is_put_aside_is_found():
    with pytest.raises(PromiseBroken, match="nothing_put_aside"):
        judge_spooled(heard_ms=900, damaged=b"what")


@pytest.mark.parametrize("lock", ["5 9 1 0 token", "0 9 1 1 entrusted token?"])
def test_an_sms_that_is_taken_while_a_stop_waits_is_found(lock):
    stop = InboundSms("e1", "clinic", "STOP", may_be_stop=True)
    k = keyspace.shard_of(ANNA, 1)
    strings = {keyspace.outbox_lock_key(k, ANNA): b"0 9 0 0 reserved token"}
    mail = [stored_values.mail_entry(b"R", 1, encode_event(stop))]
    lanes = SimpleNamespace(
        version=(1, 0), losses=0, view=SimpleNamespace(string=strings.get, items=lambda key: mail)
    )
    oracle = WaitingStopOracle(
        SimpleNamespace(
            lanes=lanes, settings=SimpleNamespace(shards=1), scheduler=SimpleNamespace(observers=[])
        ),
        [ANNA],
    )
    oracle.look()
    lanes.version = (2, 0)
    strings[keyspace.outbox_lock_key(k, ANNA)] = lock.encode()
    with pytest.raises(PromiseBroken):
        oracle.look()
