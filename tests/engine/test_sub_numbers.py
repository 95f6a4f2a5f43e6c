"""One person, one channel, several conversations at once: each over a number of ours of its own."""

import msgspec
import pytest

from engine.model.events import (
    Invitation,
    OpeningRefused,
    PersonOptedOut,
    SessionEnded,
    SessionOpened,
    SmsDecided,
    SmsReceived,
)
from engine.model.lane import Lane, decode_lane, encode_lane
from engine.simulator.session_replay import ReplayedSame, replay_session, sessions_of
from tests.engine.chat import SIMULATED_CHANNEL, SimulatedPhone, policy_for, surveys_of

FRUIT = """
survey: fruit
start: FRUIT
idle: 1h
again: restart
texts: {completed: "Thanks for {kind}."}
steps:
  - {id: kind, ask: Which fruit?, answer: {type: text}}
  - {id: many, ask: How many?, answer: {type: number}, remind: {after: 10m, text: How many now?}}
"""
TREES = FRUIT.replace("fruit", "tree").replace("FRUIT", "TREE")
MAIN, ONE, TWO = "26199", "26199000000001", "26199000000002"
POLICY = msgspec.structs.replace(policy_for("fruit", "tree"), number=MAIN, originators=(ONE, TWO))
MINUTE_MS = 60_000


@pytest.fixture
def phone():
    return SimulatedPhone(surveys_of({"fruit.yaml": FRUIT, "tree.yaml": TREES}), POLICY)


def invited(phone, survey="fruit", originator=""):
    """The SMS that an invitation sends, or the reason why it does not."""
    event = Invitation(f"f{len(phone.records):015x}", SIMULATED_CHANNEL, survey, originator=originator)
    out = phone.apply_event(event)
    refused = [each.reason for each in phone.last_advance.records if isinstance(each, OpeningRefused)]
    return refused[0] if refused else [(sms.originator, sms.text) for sms in out]


def said(phone, text, originator="", **more):
    phone.text(text, originator=originator, **more)
    return [(sms.originator, sms.text) for sms in phone.last_advance.outbox]


def test_a_person_holds_two_surveys_at_once_and_each_answer_goes_to_the_one_it_was_written_to(phone):
    assert invited(phone, "fruit") == [("", "Which fruit?")]
    assert invited(phone, "tree") == [(ONE, "Which tree?")]
    assert said(phone, "oak", ONE) == [(ONE, "How many?")]
    assert said(phone, "pear") == [("", "How many?")]
    assert said(phone, "2", ONE) == [(ONE, "Thanks for oak.")]
    assert said(phone, "5", MAIN) == [("", "Thanks for pear.")]
    assert {(each.session, each.originator) for each in phone.records_of(SessionOpened)} == {
        (phone.records_of(SessionOpened)[0].session, ""),
        (phone.records_of(SessionOpened)[1].session, ONE),
    }
    assert [sorted(each.answers) for each in phone.records_of(SessionEnded)] == [["kind", "many"]] * 2


def test_the_same_survey_may_be_held_twice_and_when_no_number_is_free_nobody_is_invited(phone):
    assert [invited(phone) for _ in range(4)] == [
        [("", "Which fruit?")],
        [(ONE, "Which fruit?")],
        [(TWO, "Which fruit?")],
        "already_open",
    ]
    for text in ("plum", "1"):
        said(phone, text, ONE)
    assert invited(phone) == [(ONE, "Which fruit?")]


def test_an_invitation_that_names_its_number_gets_that_one_or_none(phone):
    assert invited(phone, originator=TWO) == [(TWO, "Which fruit?")]
    assert invited(phone, originator=TWO) == "already_open"
    assert invited(phone, originator=MAIN) == [("", "Which fruit?")]
    assert invited(phone, originator=MAIN) == "already_open"
    made_up = "26199777777777"  # by the gateway, for this session
    assert invited(phone, originator=made_up) == [(made_up, "Which fruit?")]
    assert said(phone, "fig", made_up) == [(made_up, "How many?")]


def test_an_sms_to_a_number_without_a_session_goes_to_the_one_on_the_channels_own(phone):
    invited(phone)
    assert said(phone, "pear", ONE) == [("", "How many?")]
    assert said(phone, "3", "some other number") == [("", "Thanks for pear.")]


def test_a_keyword_opens_a_session_on_the_number_it_was_written_to(phone):
    assert said(phone, "FRUIT") == [("", "Which fruit?")]
    assert said(phone, "TREE", ONE) == [(ONE, "Which tree?")]
    assert said(phone, "TREE", ONE) == [(ONE, "Which tree?")]
    assert [each.how for each in phone.records_of(SessionEnded)] == ["restarted"]
    assert said(phone, "oak", ONE) == [(ONE, "How many?")]
    assert said(phone, "pear") == [("", "How many?")]


def test_what_is_said_outside_a_session_comes_from_the_number_that_was_written_to(phone):
    (answer,) = said(phone, "hello", ONE)
    assert answer[0] == ONE
    (answer,) = said(phone, "HELP", TWO)
    assert answer[0] == TWO
    (answer,) = said(phone, "STOP", "some other number")
    assert answer[0] == ""


def test_what_is_said_outside_a_session_is_of_the_one_that_was_last_there_or_else_on_the_channels_number(
    phone,
):
    for text in ("FRUIT", "fig", "1"):
        said(phone, text)
    (late,) = said(phone, "thanks", ONE)
    assert late[1].startswith("This survey is complete")
    invited(phone, "tree", ONE)
    phone.wait(61 * MINUTE_MS)
    (late,) = said(phone, "oak", ONE)
    assert late[1].startswith("Your session has expired")


@pytest.mark.parametrize("written_to", ["", ONE, TWO, "elsewhere"])
def test_a_stop_to_any_number_ends_every_session_of_the_channel(phone, written_to):
    for survey in ("fruit", "tree", "fruit"):
        invited(phone, survey)
    assert len(said(phone, "STOP", written_to)) == 1
    assert [each.how for each in phone.records_of(SessionEnded)] == ["stopped"] * 3
    assert phone.last_advance.silenced == [SIMULATED_CHANNEL]
    assert phone.last_advance.alarm == 0
    assert len(phone.records_of(PersonOptedOut)) == 1
    assert said(phone, "oak", ONE) == []
    assert invited(phone, "tree", TWO) == "opted_out"
    assert said(phone, "UNSTOP", TWO)[0][0] == TWO
    assert invited(phone, "tree", TWO) == [(TWO, "Which tree?")]


def test_limits_are_the_persons_whatever_the_number(phone):
    phone.policy = msgspec.structs.replace(POLICY, sessions_per_sender_per_day=2)
    said(phone, "FRUIT")
    said(phone, "TREE", ONE)
    said(phone, "TREE", TWO)
    assert [each.reason for each in phone.records_of(OpeningRefused)] == ["daily_cap"]
    said(phone, "TREE", TWO)
    assert [each.reason for each in phone.records_of(OpeningRefused)] == ["daily_cap", "throttled"]


def test_each_session_has_its_own_deadlines(phone):
    invited(phone)
    phone.wait(5 * MINUTE_MS)
    invited(phone, "tree")
    said(phone, "oak", ONE)
    assert phone.wait(9 * MINUTE_MS) == []
    phone.wait(MINUTE_MS)
    assert [(sms.originator, sms.text) for sms in phone.last_advance.outbox] == [(ONE, "How many now?")]
    phone.wait(120 * MINUTE_MS)
    assert [each.how for each in phone.records_of(SessionEnded)] == ["idle", "idle"]
    assert phone.last_advance.alarm == 0


def test_a_cancel_ends_one_session_and_takes_back_its_sms_only(phone):
    invited(phone)
    invited(phone, "tree")
    first, second = (each.session for each in phone.records_of(SessionOpened))
    assert phone.cancel(second) == []
    assert phone.last_advance.withdrawn == {second: "cancelled"}
    assert phone.last_advance.silenced == []
    assert [(each.session, each.how) for each in phone.records_of(SessionEnded)] == [(second, "cancelled")]
    assert said(phone, "pear") == [("", "How many?")]
    phone.cancel(second)
    phone.cancel("no such session")
    assert len(phone.records_of(SessionEnded)) == 1
    assert phone.channel_state.session.id == first


def test_a_lane_remembers_a_bounded_number_of_numbers(phone):
    for number in range(40):
        invited(phone, originator=f"26199{number:09}")
        phone.cancel()
    assert len(phone.lane.lines) <= 17
    opened = [invited(phone, originator=f"26199{number:09}") for number in range(40)]
    assert opened.count("already_open") == 40 - 16
    assert len(phone.lane.lines) == 17
    assert invited(phone) == [("", "Which fruit?")]


def test_a_lane_of_the_previous_release_is_read_and_goes_on(phone):
    """Its arrays were shorter: of the lane, of the line, of the session."""
    said(phone, "FRUIT")
    raw = msgspec.msgpack.decode(encode_lane(phone.lane))
    (line,) = raw[2].values()
    del line[0][-1], line[-1], raw[-1]
    phone.lane = decode_lane(msgspec.msgpack.encode(raw))
    assert phone.lane != Lane()
    assert said(phone, "pear") == [("", "How many?")]


def test_sessions_that_ran_beside_each_other_come_out_the_same(phone):
    invited(phone, "fruit")
    invited(phone, "tree")
    invited(phone, "fruit", TWO)
    said(phone, "oak", ONE, after_ms=1000)
    said(phone, "pear", "elsewhere", after_ms=1000)
    said(phone, "HELP", ONE, after_ms=1000)
    said(phone, "FRUIT", TWO, after_ms=1000)
    phone.wait(11 * MINUTE_MS)
    said(phone, "3", MAIN)
    phone.cancel(next(each.session for each in phone.records_of(SessionOpened) if each.originator == ONE))
    said(phone, "STOP", ONE)
    found = list(sessions_of("+33612345678", phone.records))
    assert [(each.opened.originator, each.ended.how) for each in found] == [
        (TWO, "restarted"),
        ("", "completed"),
        (ONE, "cancelled"),
        (TWO, "stopped"),
    ]
    assert [replay_session(each, phone.surveys, {SIMULATED_CHANNEL: phone.policy}) for each in found] == [
        ReplayedSame()
    ] * 4
    changed = msgspec.structs.replace(phone.policy, number="36000", originators=(), contacts={})
    assert [replay_session(each, phone.surveys, {SIMULATED_CHANNEL: changed}) for each in found] == [
        ReplayedSame()
    ] * 4


def test_every_sms_is_heard_with_the_number_it_was_written_to(phone):
    said(phone, "FRUIT", ONE)
    said(phone, "pear", ONE)
    assert [each.originator for each in phone.records_of(SmsReceived)] == [ONE, ONE]
    assert len({each.id for each in phone.records_of(SmsDecided)}) == 2
