"""A survey with the keyword "*" is started by any SMS that nothing else waits for, and by nothing else."""

import json

import msgspec
import pytest

from engine.model.events import OpeningRefused, PersonOptedIn, SessionEnded, SessionOpened
from engine.proofs import survey_bounds, survey_findings
from engine.proofs.keyword_clashes import keyword_clashes
from engine.proofs.survey_loader import load_surveys
from engine.simulator.simulator import SIMULATED_SENDER
from engine.surveys.keywords import match_start
from engine.surveys.survey_reader import read_survey
from tests.engine.chat import SHIPPED, SimulatedPhone, policy_for, surveys_of

ANYTHING = "{survey: any, start: '*', cooldown: 0s, idle: 4h, steps: [{id: a, ask: 'A{$messages}', answer: {type: text, min: 0}, next: [{go: a, times: 9}]}]}"
NAMED = "{survey: named, start: [GO, 'g+'], steps: [{id: b, ask: B, answer: {type: text}}, {id: c, ask: C, answer: {type: text}}]}"
SURVEYS = surveys_of({"any.yaml": ANYTHING, "named.yaml": NAMED})
STRANGE = ["Hello", "", "?", "👍", "go away", "*", "no", "7", "x" * 1500, "two\nlines"]


def phone_for(*surveys, **limits):
    policy = msgspec.structs.replace(policy_for(*(surveys or ("any",))), **limits)
    return SimulatedPhone(SURVEYS, policy)


def compiled(name="any", **fields):
    source = json.dumps({"survey": name, "steps": [{"id": "a", "say": "!"}], **fields}).encode()
    return read_survey(f"{name}.json", source)[0]


@pytest.mark.parametrize("text", STRANGE)
def test_whatever_is_texted_starts_it(text):
    assert phone_for().text(text) == ["A1"]


@pytest.mark.parametrize("order", [("any", "named"), ("named", "any")])
def test_a_keyword_starts_its_own_survey_wherever_the_other_stands(order):
    phone = phone_for(*order)
    assert phone.text("ggg") == ["B"]
    assert phone.text("Hello") == ["C"]  # an answer, while a session is open
    assert phone.text("Bye") == []
    assert phone.text("Hello") == ["A1"]


@pytest.mark.parametrize("text", ["START", "UNSTOP"])
def test_start_starts_it_as_anything_does(text):
    assert phone_for().text(text) == ["A1"]


def test_stop_and_help_come_first():
    phone = phone_for()
    assert phone.text("HELP")[0].startswith("Text START to begin")
    assert phone.channel_state.session is None
    assert phone.text("STOP")[0].startswith("You are unsubscribed")
    assert phone.records_of(SessionOpened) == []


@pytest.mark.parametrize("text", [*STRANGE, "HELP", "STOP"])
def test_whoever_opted_out_is_not_opted_in_again_by_just_anything(text):
    phone = phone_for()
    phone.text("STOP")
    assert phone.text(text, after_ms=86_400_000) == []
    assert phone.records_of(PersonOptedIn) == []
    assert phone.text("START") == ["A1"]
    assert len(phone.records_of(PersonOptedIn)) == 1


def test_every_sms_of_a_lively_conversation_is_answered_however_fast_they_come():
    phone = phone_for(start_burst=1, start_per_minute=1)
    assert [phone.text("x", after_ms=10) for _ in range(10)] == [[f"A{n}"] for n in range(1, 11)]
    assert phone.records_of(OpeningRefused) == []


def test_who_opens_one_session_after_the_other_is_held_up_as_any_start_is():
    source = "{survey: any, start: '*', cooldown: 0s, steps: [{id: a, say: A}]}"
    phone = SimulatedPhone(surveys_of({"any.yaml": source}), policy_for("any"))
    assert [phone.text("x", after_ms=1000) for _ in range(5)] == [["A"], ["A"], ["A"], [], []]
    assert [record.reason for record in phone.records_of(OpeningRefused)] == ["throttled", "throttled"]


def test_the_daily_cap_counts_its_sessions():
    phone = phone_for(sessions_per_sender_per_day=1)
    assert phone.text("x") == ["A1"]
    assert phone.text("x", after_ms=5 * 3_600_000) == []
    assert [record.reason for record in phone.records_of(OpeningRefused)] == ["daily_cap"]


def test_it_may_have_keywords_besides_and_a_language_for_each():
    start = {"en": ["HELLO", "*"], "no": "HEI"}
    survey = compiled(start=start, languages=["en", "no"])
    assert (dict(survey.start.words), survey.start.any_sms_language) == ({"hello": "en", "hei": "no"}, "en")
    assert survey.start.languages == {"en", "no"}
    known = surveys_of({"any.json": survey.source})
    spoken = [match_start(text, ["any"], known)[1:] for text in ("Hei!", "Hello", "Hola")]
    assert spoken == [("no", True), ("en", True), ("en", False)]


def test_it_clashes_with_no_keyword_and_with_another_of_its_kind():
    one, other, named = compiled("one", start="*"), compiled("other", start=["*", "HI"]), compiled("named")
    assert keyword_clashes([one, named]) == keyword_clashes([named, one]) == []
    (clash,) = keyword_clashes([one, named, other])
    assert clash.reason == "any SMS starts 'one' and would start 'other' as well"


@pytest.mark.parametrize("pattern", [".*", "(.|x)+", "[^@]*", r"(?s).*"])
def test_a_pattern_that_matches_anything_is_told_what_to_write(pattern):
    (warning,) = survey_findings(compiled(start=["HI", pattern]))
    assert (warning.level, warning.code) == ("warning", "keyword")
    assert warning.reason == f"the keyword /{pattern}/ matches any SMS, other surveys' keywords too"
    assert warning.mend.startswith('write "*"')


@pytest.mark.parametrize("pattern", ["hi.*", "[a-z]{1,5}", ".*help me.*", "[0-9]+"])
def test_a_pattern_that_matches_much_is_a_keyword(pattern):
    assert survey_findings(compiled(start=pattern)) == []


# -- the conversation that we ship


@pytest.fixture
def conversation():
    surveys, problems = load_surveys({"conversation.yaml": SHIPPED["conversation.yaml"]})
    assert problems == []
    policy = policy_for("conversation")
    policy = msgspec.structs.replace(policy, number="+15005550006", contacts={SIMULATED_SENDER: "Rey"})
    return SimulatedPhone(surveys, policy)


def test_a_hundred_sms_are_counted_and_the_next_one_is_a_first_one_again(conversation):
    said = [conversation.text(f"SMS {n}", after_ms=60_000) for n in range(1, 102)]
    assert said[:100] == [[f"Rey has messaged +15005550006 {n} times"] for n in range(1, 101)]
    assert said[100] == ["Rey has messaged +15005550006 1 times"]
    assert [record.how for record in conversation.records_of(SessionEnded)] == ["completed"]


def test_what_it_comes_to_at_most_is_what_somebody_comes_to_who_just_writes(conversation):
    most = survey_bounds(conversation.surveys.current("conversation"))
    assert (most.sms_out.most, most.sms_in.most, most.segments["en"].most) == (100, 100, 200)
    for bound in (most.sms_out, most.sms_in, most.segments["en"]):
        assert bound.attained
        assert "! invited" not in bound.script


def test_four_hours_of_silence_end_it_without_a_word_and_not_a_moment_less(conversation):
    hours_ms = 4 * 3_600_000
    conversation.text("Hi")
    assert conversation.text("Hi", after_ms=hours_ms) == ["Rey has messaged +15005550006 2 times"]
    assert conversation.wait(hours_ms + 1) == []
    assert [record.how for record in conversation.records_of(SessionEnded)] == ["idle"]
    assert conversation.text("Hi") == ["Rey has messaged +15005550006 1 times"]


def test_two_that_answer_each_other_come_to_an_end(conversation):
    """A number that answers all it gets, at once and for ever, is answered no more than the day's sessions long."""
    answered = sum(bool(conversation.text("Friend has messaged you", after_ms=2_000)) for _ in range(700))
    assert answered == 500
