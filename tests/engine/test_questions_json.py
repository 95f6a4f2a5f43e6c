"""Octopush's questions.json does what the tutorial's PHP script does, rule by rule."""

import json

import pytest

from engine.model.events import AnswerRejected, OpeningRefused, SessionEnded, SessionOpened, SmsReceived
from engine.proofs import survey_findings
from engine.proofs.survey_loader import load_surveys
from engine.surveys.program import QuestionStep, StatementStep
from tests.engine.chat import SHIPPED, SimulatedPhone, policy_for, surveys_of

NAME = "What is your name?"
TEMPERATURE = "What is your temperature (Fahrenheit, digits and dot only in format XX.XX)?"
FEVER = "Do you have a fever?"
DOCTOR = "You should see a doctor, our medic will call you soon."
HEALTHY = "Your health is good. Have a nice day!"


@pytest.fixture
def phone():
    return SimulatedPhone(surveys_of(SHIPPED), policy_for("tutorial"))


def phone_with(*items):
    return SimulatedPhone(surveys_of({"q.json": json.dumps(items)}), policy_for("q"))


def problems_of(*items):
    return load_surveys({"q.json": json.dumps(items).encode()})[1]


def test_start_sends_item_0(phone):
    assert phone.text("START") == [NAME]


@pytest.mark.parametrize("sms, said", [("95", FEVER), ("95.01", FEVER), ("94.99", HEALTHY), (" 1e2 ", FEVER)])
def test_the_condition_is_at_least(phone, sms, said):
    phone.text("START")
    phone.text("Ann")
    assert phone.text(sms) == [said]


@pytest.mark.parametrize("sms", ["98,6", "98.6F", "hot"])
def test_no_number_sends_nothing_and_changes_nothing_but_is_recorded(phone, sms):
    phone.text("START")
    phone.text("Ann")
    before = phone.channel_state.session
    assert phone.text(sms, after_ms=1000) == []
    assert phone.channel_state.session == before
    assert [type(record) for record in phone.last_advance.records] == [SmsReceived, AnswerRejected]


def test_an_item_whose_next_is_minus_2_closes_the_session_at_once(phone):
    for text in ("START", "Ann", "80"):
        phone.text(text)
    assert phone.records_of(SessionEnded)[-1].how == "completed"
    assert phone.channel_state.session is None


def test_a_target_of_minus_2_ends_without_a_word():
    phone = phone_with({"text": "A?", "condition": ">=", "value": 1, "true_next": -2, "false_next": 0})
    phone.text("START")
    assert phone.text("0") == ["A?"]
    assert phone.text("1") == []
    assert phone.channel_state.ended_how == "completed"


def test_exactly_30_s_of_silence_are_allowed(phone):
    phone.text("START")
    assert phone.text("Ann", after_ms=30_000) == [TEMPERATURE]
    assert phone.text("98.6", after_ms=30_001) == []
    assert phone.channel_state.ended_how == "idle"


def test_an_expired_session_can_only_be_started_again(phone):
    phone.text("START")
    phone.wait(31_000)
    assert phone.text("Ann") == []
    assert phone.text("START") == [NAME]


def test_start_within_30_s_of_a_close_is_ignored(phone):
    for text in ("START", "Ann", "80"):
        phone.text(text)
    assert phone.text("START", after_ms=30_000) == []
    assert [record.reason for record in phone.records_of(OpeningRefused)] == ["cooldown"]
    assert phone.text("START", after_ms=1) == [NAME]


def test_start_in_a_live_session_is_the_answer(phone):
    phone.text("START")
    assert phone.text("START") == [TEMPERATURE]
    assert phone.channel_state.session.answers["0"].value == "START"


def test_nothing_is_said_outside_a_session(phone):
    assert phone.text("hello") == []


def test_every_text_in_and_out_is_recorded(phone):
    for text in ("START", "Ann", "80"):
        phone.text(text)
    session = phone.records_of(SessionOpened)[0].session
    texts = [record.text for record in phone.records if hasattr(record, "text")]
    assert texts == ["START", NAME, "Ann", TEMPERATURE, "80", HEALTHY]
    assert {record.session for record in phone.records} == {session}


@pytest.mark.parametrize(
    "operator, below, same, above",
    [
        (">=", "no", "yes", "yes"),
        (">", "no", "no", "yes"),
        ("<=", "yes", "yes", "no"),
        ("<", "yes", "no", "no"),
        ("==", "no", "yes", "no"),
        ("!=", "yes", "no", "yes"),
    ],
)
def test_other_operators_of_the_kind_and_numbers_as_strings(operator, below, same, above):
    items = [
        {"text": "?", "condition": operator, "value": "95.5", "true_next": "1", "false_next": "2"},
        {"text": "yes", "next": "-2"},
        {"text": "no", "next": "-2"},
    ]
    said = []
    for number in ("95.4", "95.5", "95.6"):
        phone = phone_with(*items)
        phone.text("START")
        said += phone.text(number)
    assert said == [below, same, above]


def test_position_is_the_id_whatever_the_key_says():
    phone = phone_with(
        {"id": 7, "text": "A?", "next": 1, "note": "ignored"}, {"id": 7, "text": "B", "next": -2}
    )
    assert phone.text("START") == ["A?"]
    assert phone.text("x") == ["B"]


def test_texts_are_not_interpreted():
    assert phone_with({"text": "Hello {name}", "next": -2}).text("START") == ["Hello {name}"]


def test_an_item_that_nothing_reaches_is_a_warning():
    (finding,) = survey_findings(surveys_of(SHIPPED).current("tutorial"))
    assert (finding.level, finding.code, finding.step) == ("warning", "unreachable", "2")
    assert load_surveys({"tutorial.json": SHIPPED["tutorial.json"]})[1] == []


def test_questions_wait_and_statements_do_not():
    steps = surveys_of(SHIPPED).current("tutorial").steps
    assert [type(step) for step in steps] == [
        QuestionStep,
        QuestionStep,
        QuestionStep,
        QuestionStep,
        StatementStep,
        StatementStep,
    ]


def test_all_problems_are_told_at_once():
    items = [{"text": 3}, {"text": "a", "next": 9}, {"text": "a", "condition": "~", "next": 0}, 5]
    assert problems_of(*items, {"text": "a", "condition": ">=", "value": "x", "true_next": 0}) == [
        "q.json:1: item 0, field text: found 3, expected a text",
        "q.json:1: item 1, field next: there is no item 9",
        "q.json:1: item 2, field condition: found '~', expected >=, >, <=, <, == or !=",
        "q.json:1: item 3, the whole of it: found 5, expected a mapping",
        "q.json:1: item 4, field value: found 'x', expected a number",
        "q.json:1: item 4, field false_next is missing",
    ]


def test_a_file_without_questions_is_refused():
    assert problems_of() == ["q.json: questions file need to have at least 1 question"]
