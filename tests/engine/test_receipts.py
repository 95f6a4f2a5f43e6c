"""What has become of an SMS only goes forwards, whatever its receipts' order; a number that gets none ends a session."""

from itertools import permutations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.model.events import (
    DeliveryReceipt,
    InboundSms,
    Mail,
    ReceiptRecorded,
    SessionEnded,
    SmsDecided,
    SmsNotSent,
    SmsReceived,
)
from engine.proofs.transcripts import PersonInvited
from engine.simulator.session_replay import ReplayedSame, replay_session, sessions_of
from engine.turns.advance import advance
from tests.engine.chat import SIMULATED_CHANNEL, SimulatedPhone, policy_for, surveys_of
from tests.support.example_counts import examples

SURVEY = """
survey: s
idle: 1h
steps:
  - {id: a, ask: A?, answer: {type: text}}
  - {id: b, ask: B?, answer: {type: text}}
"""
RANK = {"sent": 1, "failed": 2, "delivered": 3}
ORDERS = [order for length in (1, 2, 3) for order in permutations(RANK, length)]
POLICY = msgspec.structs.replace(policy_for("s"), originators=("100", "200"))


@pytest.fixture
def phone():
    phone = SimulatedPhone(surveys_of({"s.yaml": SURVEY}), POLICY)
    phone.text("START")
    return phone


def told(phone):
    return [record.state for record in phone.records_of(ReceiptRecorded)]


@pytest.mark.parametrize(
    "name", [{"sms": "0000000000000001x0"}, {"ticket": "SM1"}, {"sms": "1x0", "ticket": "SM1"}]
)
@pytest.mark.parametrize("order", ORDERS)
def test_a_receipt_makes_a_record_only_if_it_leads_forwards(phone, order, name):
    known = 0
    expected = []
    for state in order:
        phone.receipt(state, **name)
        if RANK[state] > known:
            known = RANK[state]
            expected.append(state)
        for again in order[: order.index(state) + 1]:
            phone.receipt(again, **name)
    assert told(phone) == expected
    assert phone.channel_state.session is not None


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["t1", "t2", "t3"]), st.sampled_from(sorted(RANK))), max_size=20))
def test_whatever_comes_each_sms_ends_where_it_came_farthest(receipts):
    phone = SimulatedPhone(surveys_of({"s.yaml": SURVEY}), POLICY)
    for ticket, state in receipts:
        phone.receipt(state, ticket=ticket)
    for ticket in {ticket for ticket, _ in receipts}:
        states = [record.state for record in phone.records_of(ReceiptRecorded) if record.ticket == ticket]
        assert states == sorted(set(states), key=RANK.__getitem__)
        assert RANK[states[-1]] == max(RANK[state] for each, state in receipts if each == ticket)


def test_receipts_do_not_crowd_out_what_tells_a_second_copy_of_an_sms(phone):
    seen = dict(phone.lane.applied_events)
    for number in range(300):
        phone.receipt("delivered", ticket=f"t{number}")
    assert phone.lane.applied_events == seen
    assert len(phone.channel_state.receipts) == 64
    assert phone.last_advance.duplicates == 0


def test_what_a_receipt_says_of_segments_and_cost_is_recorded(phone):
    fields = {"sms": "0000000000000001x0", "segments": 2, "cost_micros": 55_000, "currency": "EUR"}
    phone.apply_event(DeliveryReceipt("e" * 16, SIMULATED_CHANNEL, "SM1", "OK", "delivered", **fields))
    (record,) = phone.records_of(ReceiptRecorded)
    assert {field: getattr(record, field) for field in fields} == fields


def test_a_receipt_of_the_previous_release_is_recorded_once(phone):
    for identity in ("a", "b", "a", "b"):
        phone.apply_event(DeliveryReceipt(identity, SIMULATED_CHANNEL, "t", "ACK"))
    assert [(record.status, record.state) for record in phone.records_of(ReceiptRecorded)] == [
        ("ACK", ""),
        ("ACK", ""),
    ]


def test_a_number_that_gets_no_sms_ends_the_session_with_the_reason(phone):
    phone.text("x")
    phone.receipt("failed", permanent=True, why="unknown subscriber")
    (ended,) = phone.records_of(SessionEnded)
    assert (ended.how, ended.why) == ("unreachable", "unknown subscriber")
    assert [answer.raw for answer in ended.answers.values()] == ["x"]
    assert phone.last_advance.withdrawn == {ended.session: "unreachable"}
    assert phone.last_advance.silenced == []
    assert phone.last_advance.alarm == 0
    assert not phone.channel_state.opted_out_at
    assert isinstance(phone.records[-1], SessionEnded)


@pytest.mark.parametrize("before", ["failed", "delivered"])
def test_what_failed_already_or_was_delivered_ends_nothing(phone, before):
    phone.receipt(before)
    phone.receipt("failed", permanent=True)
    assert phone.channel_state.session is not None


def test_only_the_session_of_the_sms_ends(phone):
    phone.invite(PersonInvited())
    first, second = (said.id for said in phone.records_of(SmsDecided))
    phone.receipt("failed", sms=second, permanent=True)
    assert [ended.session for ended in phone.records_of(SessionEnded)] == [second.partition("x")[0]]
    assert phone.channel_state.session.id == first.partition("x")[0]
    phone.receipt("failed", sms="0123456789abcdefx4", permanent=True)
    assert len(phone.records_of(SessionEnded)) == 1
    assert phone.last_advance.withdrawn == {"0123456789abcdef": "unreachable"}


@pytest.mark.parametrize("name", [{"ticket": "SM1"}, {"sms": "0123456789abcdefr0"}])
def test_without_the_name_of_a_session_every_open_one_ends(phone, name):
    phone.invite(PersonInvited())
    phone.receipt("failed", permanent=True, **name)
    assert [ended.how for ended in phone.records_of(SessionEnded)] == ["unreachable"] * 2


def test_what_the_same_batch_decided_is_taken_back(phone):
    session = phone.channel_state.session.id
    mail = [
        Mail(phone.now, InboundSms("a", SIMULATED_CHANNEL, "x")),
        Mail(
            phone.now,
            DeliveryReceipt(
                "b", SIMULATED_CHANNEL, "t", "failed", "failed", permanent=True, sms=f"{session}x0"
            ),
        ),
    ]
    batch = advance(phone.lane, "+33", mail, phone.now, phone.surveys, {SIMULATED_CHANNEL: phone.policy})
    assert batch.outbox == []
    assert [(each.id, each.code) for each in batch.records if isinstance(each, SmsNotSent)] == [
        (f"{session}x1", "unreachable")
    ]
    assert any(isinstance(each, SmsReceived) for each in batch.records)


@pytest.mark.parametrize("how", ["cancelled", "unreachable"])
def test_a_session_that_ended_from_outside_comes_out_the_same(phone, how):
    phone.text("x", after_ms=1000)
    phone.wait(1000)
    phone.cancel() if how == "cancelled" else phone.receipt("failed", permanent=True, why="gone")
    (session,) = sessions_of("+33612345678", phone.records)
    assert session.ended.how == how
    assert replay_session(session, phone.surveys, {SIMULATED_CHANNEL: POLICY}) == ReplayedSame()
