"""A long SMS whose parts come one by one is heard once, whole, whatever their order."""

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.model.events import (
    MOST_ATTACHMENTS,
    Attachment,
    SessionEnded,
    SessionOpened,
    SmsPart,
    SmsReceived,
)
from engine.model.lane import decode_lane, encode_lane
from engine.simulator.session_replay import ReplayedSame, replay_session, sessions_of
from engine.turns.advance import advance
from engine.turns.multipart import PARTS_TIMEOUT_MS
from tests.engine.chat import SIMULATED_CHANNEL, SimulatedPhone, policy_for, surveys_of
from tests.support.example_counts import examples

SURVEY = """
survey: s
start: [START, "tell me .*"]
idle: 1d
steps:
  - {id: a, ask: A?, answer: {type: text}}
  - {id: b, ask: B?, answer: {type: text}}
"""
TEXTS = ["One, ", "two, ", "three."]
WHOLE = "".join(TEXTS)


def new_phone(*texts):
    phone = SimulatedPhone(surveys_of({"s.yaml": SURVEY}), policy_for("s"))
    for text in texts:
        phone.text(text)
    return phone


@pytest.fixture
def phone():
    return new_phone("START")


def part(number, total=3, reference="7", identity=None, text=None, originator="", attachments=()):
    text = TEXTS[number - 1] if text is None else text
    identity = identity or f"{reference}-{number}"
    return SmsPart(identity, SIMULATED_CHANNEL, text, reference, number, total, originator, attachments)


def heard(phone):
    return [record.text for record in phone.records_of(SmsReceived)]


@pytest.mark.parametrize("order", list(permutations((1, 2, 3))))
def test_parts_in_any_order_are_one_sms_with_one_id(order):
    phone = new_phone("START")
    for place, number in enumerate(order):
        phone.wait(1000)
        out = phone.apply_event(part(number))
        assert [sms.text for sms in out] == (["B?"] if place == 2 else [])
    assert heard(phone) == ["START", WHOLE]
    (again,) = [record.id for record in phone.records_of(SmsReceived)][1:]
    assert len(again) == 16
    other = new_phone("START")
    for number in (1, 2, 3):
        other.apply_event(part(number))
    assert other.records_of(SmsReceived)[1].id == again
    assert phone.lane.partial_sms == []


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(st.tuples(st.sampled_from((1, 2, 3)), st.booleans()), max_size=12))
def test_doubles_are_harmless_in_any_order(comes):
    """The same event again, or the same part under another id, while it is waited for."""
    phone = new_phone("START")
    missing = {1, 2, 3}
    for place, (number, another) in enumerate(comes):
        event = part(number, identity=f"other-{place}" if another else None)
        if not missing and event.id not in phone.lane.applied_events:
            continue  # it would be a later SMS with the same reference
        phone.apply_event(event)
        missing.discard(number)
    assert heard(phone) == ["START"] + ([WHOLE] if not missing else [])


def test_what_is_not_whole_after_ten_minutes_is_heard_as_it_is(phone):
    phone.apply_event(part(3))
    phone.apply_event(part(1))
    assert phone.last_advance.alarm == phone.now + PARTS_TIMEOUT_MS
    assert phone.wait(PARTS_TIMEOUT_MS - 1) == []
    assert phone.wait(1) == ["B?"]
    assert heard(phone) == ["START", "One, three."]
    phone.apply_event(part(2, identity="late"))
    phone.wait(PARTS_TIMEOUT_MS)
    assert heard(phone) == ["START", "One, three.", "two, "]


def test_a_reference_is_used_again(phone):
    for number in (1, 2, 3):
        phone.apply_event(part(number))
    for number in (2, 1):
        phone.apply_event(part(number, total=2, identity=f"later-{number}"))
    assert heard(phone) == ["START", WHOLE, "One, two, "]


def test_a_reference_that_is_used_again_too_early_begins_anew(phone):
    phone.apply_event(part(1))
    phone.apply_event(part(1, identity="x", text="Quite "))
    assert heard(phone) == ["START", "One, "]
    phone.apply_event(part(2, identity="y", text="another "))
    phone.apply_event(part(3, identity="z", text="text"))
    assert heard(phone) == ["START", "One, ", "Quite another text"]


@pytest.mark.parametrize("number, total", [(0, 3), (4, 3), (1, 1), (1, 0), (1, 33), (-1, -1), (2, 255)])
def test_a_part_that_cannot_be_one_is_an_sms_of_its_own(phone, number, total):
    phone.apply_event(part(number, total, text="hm"))
    assert heard(phone) == ["START", "hm"]
    assert phone.lane.partial_sms == []


def test_a_lane_waits_for_a_bounded_number_and_drops_nothing(phone):
    for number in range(20):
        phone.apply_event(part(1, reference=str(number), text=f"{number} "))
        assert len(phone.lane.partial_sms) <= 8
    phone.wait(PARTS_TIMEOUT_MS)
    assert heard(phone)[1:] == [f"{number} " for number in range(20)]


def test_a_stop_and_a_start_in_parts_are_known_when_they_are_whole():
    phone = new_phone()
    phone.apply_event(part(2, 2, text="me more"))
    assert phone.part("Tell ", 1, 2, "7") == ["A?"]
    assert phone.last_advance.opened_by_channel == {SIMULATED_CHANNEL: 1}
    (opened,) = phone.records_of(SessionOpened)
    assert opened.session == phone.records_of(SmsReceived)[0].id
    phone.apply_event(part(1, 2, "8", text="stop texting "))
    assert not phone.channel_state.opted_out_at
    phone.apply_event(part(2, 2, "8", text="me please"))
    assert phone.channel_state.opted_out_at


def test_another_sms_is_not_held_up(phone):
    phone.apply_event(part(1))
    assert phone.text("quick") == ["B?"]
    assert heard(phone) == ["START", "quick"]


def test_parts_to_different_numbers_are_different_sms(phone):
    phone.apply_event(part(1, 2))
    phone.apply_event(part(2, 2, originator="100", identity="o"))
    assert heard(phone) == ["START"]
    assert len(phone.lane.partial_sms) == 2


def test_a_session_heard_in_parts_comes_out_the_same(phone):
    for number in (3, 1, 2):
        phone.wait(500)
        phone.apply_event(part(number))
    phone.apply_event(part(1, reference="9"))
    phone.wait(PARTS_TIMEOUT_MS)
    assert [ended.how for ended in phone.records_of(SessionEnded)] == ["completed"]
    (session,) = sessions_of("+33612345678", phone.records)
    assert replay_session(session, phone.surveys, {SIMULATED_CHANNEL: phone.policy}) == ReplayedSame()


def test_what_comes_with_parts_is_kept_in_their_order_up_to_as_many_as_an_sms_may_have():
    pictures = [tuple(Attachment("image/png", f"{part}-{n}") for n in range(6)) for part in range(2)]
    phone = new_phone("START")
    phone.apply_event(part(3, attachments=pictures[1]))
    phone.apply_event(part(1, attachments=pictures[0]))
    assert decode_lane(encode_lane(phone.lane)).partial_sms == phone.lane.partial_sms
    phone.apply_event(part(2))
    assert phone.records_of(SmsReceived)[-1].attachments == sum(pictures, ())[:MOST_ATTACHMENTS]


def test_parts_of_a_channel_that_is_gone_stop_nothing(phone):
    phone.apply_event(part(1))
    lane = decode_lane(encode_lane(phone.lane))
    lane.lines.clear()
    done = advance(lane, "+33", [], phone.now + PARTS_TIMEOUT_MS, phone.surveys, {})
    assert [record.text for record in done.records] == ["One, "]
    assert (done.alarm, done.outbox) == (0, [])
