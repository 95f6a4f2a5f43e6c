"""What answers an SMS that no session waits for, or HELP, is sent to a person once an hour at most, so that two robots do not
talk for ever."""

import json

import pytest

from tests.engine.chat import SimulatedPhone, policy_for, surveys_of

HOUR_MS = 3_600_000
SURVEY = {
    "survey": "s",
    "cooldown": "0s",
    "idle": "10m",
    "texts": {"not_found": "No survey.", "unavailable": "It is complete.", "expired": "It has expired.", "help": "Help."},
    "steps": [{"id": "a", "ask": "?", "answer": {"type": "yes_no"}}],
}  # fmt: skip


@pytest.fixture
def phone():
    return SimulatedPhone(surveys_of({"s.json": json.dumps(SURVEY)}), policy_for("s"))


def complete(phone):
    phone.text("START")
    phone.text("yes")


def expire(phone):
    phone.text("START")
    phone.wait(600_001)


BEGINNINGS = [
    (lambda phone: None, "hello", "No survey."),
    (complete, "hello", "It is complete."),
    (expire, "hello", "It has expired."),
    (lambda phone: None, "HELP", "Help."),
]


@pytest.mark.parametrize("begin, text, said", BEGINNINGS)
def test_it_is_sent_once_an_hour_however_often_they_write(phone, begin, text, said):
    begin(phone)
    assert phone.text(text) == [said]
    for _ in range(3):
        assert phone.text(text, after_ms=HOUR_MS // 4) == []
    assert phone.text(text, after_ms=HOUR_MS // 4 - 1) == []
    assert phone.text(text, after_ms=1) == [said]
    assert phone.text(text, after_ms=HOUR_MS - 1) == []


def test_a_session_between_two_begins_no_new_hour(phone):
    complete(phone)
    assert phone.text("hello") == ["It is complete."]
    complete(phone)
    assert phone.text("hello", after_ms=1_000) == []


def test_each_text_has_an_hour_of_its_own(phone):
    assert phone.text("hello") == ["No survey."]
    complete(phone)
    assert phone.text("hello") == ["It is complete."]
    assert phone.text("HELP") == ["Help."]
    expire(phone)
    assert phone.text("hello") == ["It has expired."]
