"""How a START is admitted or refused. A refused START changes nothing else and, as a rule, says nothing."""

import msgspec
import pytest

from engine.model.events import OpeningRefused
from engine.surveys.keywords import is_start
from tests.engine.chat import SimulatedPhone, policy_for, surveys_of

ONE_QUESTION = """
survey: {name}
start: [START, "d[ée]but(er)?"]
idle: 1h
cooldown: 30s
again: {again}
texts: {{refused: Not now.}}
steps:
  - {{id: mood, ask: How are you?, answer: {{type: text}}}}
  - {{id: why, ask: Why?, answer: {{type: text}}}}
"""
QUESTIONS = ["How are you?"]


def phone_with(again="ignore", **limits):
    survey = ONE_QUESTION.format(name="mood", again=again)
    policy = msgspec.structs.replace(policy_for("mood"), **limits)
    return SimulatedPhone(surveys_of({"mood.yaml": survey}), policy)


def refusals(phone):
    return [record.reason for record in phone.records_of(OpeningRefused)]


@pytest.mark.parametrize("text", ["START", "start", " Start! ", "ＳＴＡＲＴ", "début", "DEBUTER", "Débuter."])
def test_a_keyword_starts_in_every_spelling(text):
    assert phone_with().text(text) == QUESTIONS


@pytest.mark.parametrize("text", ["restart", "START now", "", "STOP", "help"])
def test_a_keyword_is_the_whole_sms(text):
    phone = phone_with()
    assert not is_start(text, ["mood"], phone.surveys)
    assert phone.text(text) != QUESTIONS


def test_start_and_unstop_are_starts_whatever_the_keywords():
    surveys = surveys_of({"mood.yaml": "{survey: mood, start: GO, steps: [{id: a, say: A}]}"})
    assert [is_start(text, ["mood"], surveys) for text in ("START", "unstop", "go", "gone")] == [
        True,
        True,
        True,
        False,
    ]


def test_of_two_surveys_that_match_the_first_of_the_channel_opens():
    files = {f"{name}.yaml": ONE_QUESTION.format(name=name, again="ignore") for name in ("one", "two")}
    phone = SimulatedPhone(surveys_of(files), policy_for("two", "one"))
    phone.text("START")
    assert phone.channel_state.session.survey == "two"


def test_starts_beyond_the_burst_are_throttled_and_told_so_once():
    phone = phone_with(again="restart")
    said = [phone.text("START") for _ in range(6)]
    assert said == [QUESTIONS, QUESTIONS, QUESTIONS, ["Not now."], [], []]
    assert refusals(phone) == ["throttled"] * 3
    assert phone.text("START", after_ms=60_000) == QUESTIONS
    assert phone.text("START") == []


@pytest.mark.parametrize("off", [{"start_burst": 0}, {"start_per_minute": 0}])
def test_a_throttle_of_nought_is_none(off):
    phone = phone_with(again="restart", sessions_per_sender_per_day=0, **off)
    assert all(phone.text("START") == QUESTIONS for _ in range(50))


def test_the_daily_cap_counts_days_of_the_channels_time_zone():
    phone = phone_with(again="restart", sessions_per_sender_per_day=2, start_burst=0)
    phone.now = 1_800_050_000_000  # 2027-01-15 22:53:20 in Paris
    assert [phone.text("START") for _ in range(4)] == [QUESTIONS, QUESTIONS, ["Not now."], []]
    assert refusals(phone) == ["daily_cap"] * 2
    assert phone.text("START", after_ms=66 * 60_000) == []  # 23:59
    assert phone.text("START", after_ms=60_000) == QUESTIONS  # 00:00


def test_a_start_while_a_session_is_open_is_ignored():
    phone = phone_with(again="ignore")
    phone.text("START")
    before = phone.channel_state.session
    assert phone.text("START", after_ms=1000) == []
    assert refusals(phone) == ["already_open"]
    assert phone.channel_state.session == before


def test_a_start_while_a_session_is_open_is_an_answer():
    phone = phone_with(again="answer")
    phone.text("START")
    assert phone.text("START") == ["Why?"]


def test_a_start_while_a_session_is_open_begins_again():
    phone = phone_with(again="restart")
    phone.text("START")
    phone.text("fine")
    assert phone.text("START") == QUESTIONS
    assert phone.channel_state.ended_how == "restarted"


def test_a_start_after_a_close_cools_down_without_a_word():
    phone = phone_with()
    for text in ("START", "fine", "sun"):
        phone.text(text)
    assert phone.text("START", after_ms=30_000) == []
    assert refusals(phone) == ["cooldown"]
    assert phone.text("START", after_ms=1) == QUESTIONS


@pytest.mark.parametrize("end", ["STOP", "silence"])
def test_a_start_after_a_stop_or_a_silence_need_not_cool_down(end):
    phone = phone_with()
    phone.text("START")
    if end == "STOP":
        phone.text("STOP")
    else:
        phone.wait(3_600_001)
    assert phone.text("START") == QUESTIONS


@pytest.mark.parametrize("reason", ["new_sessions", "sms_budget"])
def test_a_closed_channel_opens_nothing_and_says_nothing(reason):
    phone = phone_with(closed=reason)
    assert phone.text("START") == []
    assert refusals(phone) == [reason]
    assert phone.last_advance.opened_by_channel == {}
    assert phone.channel_state.session is None


def test_a_closed_channel_lets_a_conversation_finish():
    phone = phone_with()
    phone.text("START")
    phone.policy = msgspec.structs.replace(phone.policy, closed="sms_budget")
    assert phone.text("fine") == ["Why?"]
