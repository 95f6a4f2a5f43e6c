"""A lane's time: silence, absolute ends, reminders and the alarms that they ask for."""

import msgspec
import pytest

from engine.model.events import InboundSms, Mail
from engine.model.lane import Lane
from engine.surveys.survey_reader import read_stored_survey
from engine.surveys.survey_registry import SurveyRegistry
from engine.turns.advance import advance, missing_survey_versions
from engine.turns.turn import UnknownChannelError, UnknownVersionError
from tests.engine.chat import SIMULATED_CHANNEL, T0, SimulatedPhone, policy_for, surveys_of

SURVEY = """
survey: s
idle: 10m
expires: 1h
steps:
  - {id: one, say: One.}
  - {id: two, say: Two.}
  - {id: a, ask: A?, answer: {type: text}, remind: {after: 4m, times: 2, text: Still there?}}
  - {id: b, ask: B?, answer: {type: text}, next: a}
"""
MINUTE_MS = 60_000


@pytest.fixture
def phone():
    return SimulatedPhone(surveys_of({"s.yaml": SURVEY}), policy_for("s"))


def test_silence_counts_from_the_last_sms_of_a_turn_as_they_leave_a_pause_apart(phone):
    phone.text("START")
    assert phone.channel_state.session.last_sms_at == phone.now + 2 * 2000
    assert phone.last_advance.alarm == phone.now + 2 * 2000 + 4 * MINUTE_MS


def test_reminders_come_as_often_as_written_and_keep_the_session_alive(phone):
    phone.text("START")
    assert phone.wait(4 * MINUTE_MS + 4000) == ["Still there?"]
    assert phone.wait(4 * MINUTE_MS) == ["Still there?"]
    assert phone.wait(10 * MINUTE_MS) == []
    assert phone.channel_state.session is not None
    phone.wait(1)
    assert phone.channel_state.ended_how == "idle"


def test_a_session_ends_at_its_absolute_end_however_lively(phone):
    phone.text("START")
    for _ in range(12):
        phone.text("x", after_ms=5 * MINUTE_MS)
    assert phone.channel_state.session is not None
    phone.wait(1)
    assert phone.channel_state.ended_how == "expired"
    assert phone.text("x") == ["Your session has expired. Text START to begin again."]


def test_with_mail_only_deadlines_before_it_are_applied_and_the_alarm_may_lie_in_the_past(phone):
    phone.text("START")
    mail = [Mail(phone.now + 1000, InboundSms("f" * 16, SIMULATED_CHANNEL, "x"))]
    late = advance(
        phone.lane, "+33", mail, phone.now + 86_400_000, phone.surveys, {SIMULATED_CHANNEL: phone.policy}
    )
    assert [sms.text for sms in late.outbox] == ["B?"]
    assert late.alarm < phone.now + 86_400_000


def test_nothing_due_changes_nothing(phone):
    phone.text("START")
    before = msgspec.msgpack.encode(phone.lane)
    assert phone.wait(1000) == []
    nothing = advance(phone.lane, "+33", [], phone.now, phone.surveys, {SIMULATED_CHANNEL: phone.policy})
    assert (nothing.outbox, nothing.records) == ([], [])
    assert msgspec.msgpack.encode(phone.lane) == before


def test_a_session_keeps_the_version_that_it_began_with(phone):
    phone.text("START")
    newer = surveys_of({"s.yaml": SURVEY.replace("B?", "Bee?")})
    assert missing_survey_versions(phone.lane, newer) == {phone.channel_state.session.version}
    newer.add_version(read_stored_survey("s.yaml", SURVEY.encode()))
    phone.surveys = newer
    assert missing_survey_versions(phone.lane, newer) == set()
    assert phone.text("x") == ["B?"]


def test_a_version_or_a_channel_that_is_not_known_is_an_error(phone):
    phone.text("START")
    with pytest.raises(UnknownVersionError):
        advance(phone.lane, "+33", [], T0, SurveyRegistry(), {SIMULATED_CHANNEL: phone.policy})
    with pytest.raises(UnknownChannelError):
        advance(Lane(), "+33", [Mail(T0, InboundSms("a", "gone", "x"))], T0, phone.surveys, {})


def test_a_lane_is_kept_two_days_or_as_long_as_its_session_may_last(phone):
    phone.text("START")
    assert phone.last_advance.keep_until == phone.now + 48 * 60 * MINUTE_MS
    phone.text("STOP")
    assert (
        phone.last_advance.keep_until == phone.now + 48 * 60 * MINUTE_MS
    )  # the list of opt-outs outlasts it
