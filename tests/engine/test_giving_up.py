"""A question is given up after its last invalid answer: the person is told by `gave_up`, and what that costs is proved."""

import pytest

from engine.model.events import OpeningRefused, SessionEnded, SmsDecided
from engine.proofs import survey_bounds
from engine.simulator.explanations import explain_moment
from engine.simulator.session_replay import ReplayedSame, replay_session, sessions_of
from engine.surveys.phrases import fixed_text
from engine.surveys.survey_reader import read_survey
from tests.engine.chat import SimulatedPhone, policy_for, surveys_of
from tests.engine.test_findings import ask, found, say, survey

NAME = ask("name", "Name?", "text")
AGE = ask("age", "Age?", "number", attempts=2)
TWO_LANGUAGES = {"languages": ["en", "no"], "start": {"en": "CHECK", "no": "SJEKK"}}


def phone_with(*steps, **fields):
    source = survey(*(steps or (NAME, AGE)), **fields)
    return SimulatedPhone(surveys_of({"s.json": source}), policy_for("s"))


def endings(phone):
    return [record.how for record in phone.records_of(SessionEnded)]


@pytest.mark.parametrize("keyword, language", [("CHECK", "en"), ("SJEKK", "no")])
def test_the_last_invalid_answer_ends_the_session_with_a_word_of_ours(keyword, language):
    phone = phone_with(**TWO_LANGUAGES)
    for text in (keyword, "Ann", "old"):
        phone.text(text)
    assert phone.text("older") == [fixed_text("gave_up", language, keyword)]
    assert endings(phone) == ["gave_up"]
    last = phone.records_of(SmsDecided)[-1]
    assert (last.kind, last.step, last.session) == (
        "fixed",
        "gave_up",
        phone.records_of(SessionEnded)[0].session,
    )


def test_whoever_does_as_the_word_says_may_begin_at_once():
    phone = phone_with(NAME, AGE, cooldown="1h", **TWO_LANGUAGES)
    for text in ("CHECK", "Ann", "old", "older"):
        phone.text(text)
    assert phone.text("CHECK", after_ms=1) == ["Name?"]
    assert phone.records_of(OpeningRefused) == []


def test_the_authors_word_may_hold_answers():
    phone = phone_with(texts={"gave_up": "Bye, {name|friend}."})
    for text in ("START", "Ann", "old"):
        phone.text(text)
    assert phone.text("older") == ["Bye, Ann."]
    phone = phone_with(texts={"gave_up": "Bye, {name|friend}."})
    phone.text("START")
    assert [phone.text("") for _ in range(3)][-1] == ["Bye, friend."]
    told = found(NAME, AGE, texts={"gave_up": "Bye, {name}."})
    assert [each for each in told if each[0] == "error"] == [
        ("error", "unanswered", "", "{name} is not answered on every way to it, as by 'name' -> the end")
    ]
    anything = ask("name", "Name?", {"type": "text", "min": 0}, invalid="none")
    assert found(anything, AGE, texts={"gave_up": "Bye, {name}."}) == []


def test_with_none_it_ends_without_a_word():
    phone = phone_with(texts={"gave_up": "none"})
    for text in ("START", "Ann", "old"):
        phone.text(text)
    assert phone.text("older") == []
    assert endings(phone) == ["gave_up"]


def test_where_a_step_follows_that_step_speaks():
    phone = phone_with(ask("age", "Age?", "number", attempts=1, give_up="sorry"), say("sorry", "Sorry."))
    phone.text("START")
    assert phone.text("old") == ["Sorry."]
    assert endings(phone) == ["completed"]


def test_a_session_that_may_send_no_more_ends_without_it():
    phone = phone_with(NAME, AGE, most_sms=3)
    for text in ("START", "Ann", "old"):
        phone.text(text)
    assert phone.text("older") == []
    assert endings(phone) == ["gave_up"]


def test_chat_says_why():
    phone = phone_with()
    for text in ("START", "Ann", "old", "older"):
        phone.text(text)
    lines = [
        line
        for moment in phone.moments
        for line in explain_moment(moment, phone.channel, phone.surveys, phone.policy)
    ]
    assert lines[-3:] == [
        "That is invalid answer 2 of 2, and there is no `give_up`.",
        "The fixed text `gave_up` is said.",
        "The session ended: there were too many invalid answers.",
    ]


def proved(*steps, **fields):
    return survey_bounds(read_survey("s.json", survey(*steps, **fields))[0])


DEAR = "No. " * 60


def test_what_it_costs_is_proved_and_played():
    silent, dear = (proved(AGE, say("bye", "Bye."), texts={"gave_up": text}) for text in ("none", DEAR))
    assert (silent.segments["en"].most, dear.segments["en"].most) == (3, 4)
    assert (silent.sms_out.most, dear.sms_out.most) == (3, 3), "giving up, or going on to the end"
    assert dear.segments["en"].attained
    assert dear.sms_out.attained
    assert "* " not in dear.segments["en"].script
    assert proved(AGE, texts={"gave_up": "none"}).sms_out.most == 2
    assert proved(AGE).sms_out.most == 3
    of_answers = proved(NAME, AGE, texts={"gave_up": "{name|x}"})
    assert of_answers.segments["en"].most == 1 + 2 + 1 + 1 + 20
    assert of_answers.segments["en"].attained


def test_what_a_survey_may_send_at_most_holds_it_too():
    routes = [{"go": "age", "times": 99}, {"go": "end"}]
    bounded = proved(ask("age", "Age?", "number", next=routes), most_sms=5, texts={"gave_up": DEAR})
    assert (bounded.sms_out.most, bounded.segments["en"].most) == (5, 6)
    assert bounded.segments["en"].attained


def test_a_session_that_was_given_up_without_a_word_comes_out_the_same():
    """As 0.1.0 gave up, on the version that it began with."""
    phone = phone_with()
    for text in ("START", "Ann", "old", "older"):
        phone.text(text, after_ms=1_000)
    said = next(record for record in phone.records if getattr(record, "step", "") == "gave_up")
    without = [record for record in phone.records if record is not said]
    policies = {phone.channel: phone.policy}
    for records in (phone.records, without):
        (session,) = sessions_of("+33612345678", records)
        assert replay_session(session, phone.surveys, policies) == ReplayedSame()
