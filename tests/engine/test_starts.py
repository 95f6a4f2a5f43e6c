"""How a START is admitted or refused. A refused START changes nothing else and, as a rule, says nothing."""

import msgspec
import pytest

from engine.model.events import OpeningRefused
from engine.model.lane import decode_lane, encode_lane
from engine.proofs.transcripts import PersonInvited
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


DAYS = 86_400_000
REST = """
survey: {name}
start: {start}
cooldown: {cooldown}
again: restart
steps:
  - {{id: mood, ask: "{name}?", answer: {{type: text}}}}
"""


def phone_with_two(one="9d", two="9d"):
    """Two surveys of one channel, `one` and `two`, with a keyword and a cooldown each."""
    files = {
        f"{name}.yaml": REST.format(name=name, start=name.upper(), cooldown=cooldown)
        for name, cooldown in (("one", one), ("two", two))
    }
    policy = msgspec.structs.replace(policy_for("one", "two"), start_burst=0, sessions_per_sender_per_day=0)
    return SimulatedPhone(surveys_of(files), policy)


def complete(phone, survey):
    assert phone.text(survey.upper()) == [f"{survey}?"]
    phone.text("fine")


def test_each_survey_cools_down_for_itself():
    phone = phone_with_two()
    complete(phone, "one")
    complete(phone, "two")
    assert [phone.text(each) for each in ("ONE", "TWO")] == [[], []]
    assert refusals(phone) == ["cooldown", "cooldown"]
    phone.wait(9 * DAYS)
    assert phone.text("ONE", after_ms=1) == ["one?"]


def test_no_session_of_another_survey_nor_an_invitation_that_comes_to_nothing_shortens_it():
    phone = phone_with_two(two="0s")
    complete(phone, "one")
    for _ in range(3):
        complete(phone, "two")
    phone.invite(PersonInvited(survey="one"))
    phone.text("STOP")
    (told,) = phone.text("ONE", after_ms=5 * DAYS)
    assert told.startswith("You will get our messages again.")
    assert refusals(phone)[-1] == "cooldown"
    assert phone.text("TWO") == ["two?"]
    assert phone.text("ONE") == [], "nor is a session of another one restarted by it"
    assert phone.channel_state.session.survey == "two"


def test_an_open_session_may_begin_anew_while_its_survey_cools_down():
    phone = phone_with_two()
    complete(phone, "one")
    assert phone.invite(PersonInvited(survey="one"))
    assert phone.text("ONE") == ["one?"]
    assert refusals(phone) == []


def test_what_is_over_is_forgotten():
    phone = phone_with_two(one="1h", two="1h")
    for after_ms in (0, 3_600_001, 3_600_001):
        phone.wait(after_ms)
        complete(phone, "one")
        complete(phone, "two")
        assert set(phone.channel_state.cooling) == {"one"}
    phone.wait(3_600_001)
    complete(phone, "two")
    assert phone.channel_state.cooling == {}


def test_a_lane_is_kept_for_as_long_as_a_cooldown_lasts():
    phone = phone_with_two(one="30d", two="1h")
    complete(phone, "one")
    until = phone.now + 30 * DAYS
    assert phone.last_advance.keep_until == until
    complete(phone, "two")
    phone.text("hello", after_ms=60_000)
    assert phone.last_advance.keep_until == until
    phone.text("hello", after_ms=29 * DAYS)
    assert phone.last_advance.keep_until == phone.now + 2 * DAYS


def test_a_lane_of_an_earlier_release_cools_down_and_that_release_reads_this_ones():
    """Before, a line had no field `cooling`; whatever follows the fields that a release knows, it passes over."""
    phone = phone_with_two()
    complete(phone, "one")
    complete(phone, "two")
    lane = msgspec.msgpack.decode(encode_lane(phone.lane))
    fields = lane[2][phone.channel]
    assert fields.pop() == {"one": phone.channel_state.cooling["one"]}
    phone.lane = decode_lane(msgspec.msgpack.encode(lane))
    assert phone.text("TWO") == []
    assert phone.text("ONE") == ["one?"], "0.1.0 knew the last session only"
    newer = [*fields, {"one": 7}, "of a later release"]
    lane[2][phone.channel] = newer
    assert decode_lane(msgspec.msgpack.encode(lane)).lines[phone.channel].cooling == {"one": 7}
