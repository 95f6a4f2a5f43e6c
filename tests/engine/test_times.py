"""Times of day: what people write, what is asked again, and what a survey does with the answer."""

import json
from datetime import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.answers import InvalidAnswer, invalid_answer_text, read_answer, times_of_day
from engine.answers.times_of_day import TimeReader
from engine.model.text_normalization import fold_text
from engine.proofs import survey_bounds, survey_findings
from engine.surveys.conditions import Above, AtLeast, AtMost, Below, OneOf
from engine.surveys.findings import InvalidSurveyError
from engine.surveys.survey_reader import read_survey
from engine.surveys.wording import describe_condition
from tests.engine.answer_samples import today
from tests.engine.chat import SimulatedPhone, policy_for, surveys_of

ANY_TIME = TimeReader()


def value(reader, sms):
    """What `sms` is read as, or why it is not."""
    answer = read_answer(reader, sms, today)
    return answer.reason if isinstance(answer, InvalidAnswer) else answer.value


@pytest.mark.parametrize("sms, read", [
    ("14:30", "14:30"), ("14.30", "14:30"), (" 14:30.", "14:30"), ("(14 : 30)", "14:30"), ("1430", "14:30"),
    ("1430 hrs", "14:30"), ("14:30h", "14:30"), ("00:00", "00:00"), ("23:59", "23:59"), ("0:30", "00:30"),
    ("08:30", "08:30"), ("0830", "08:30"), ("10:30", "10:30"), ("12:30", "12:30"), ("08", "08:00"),
    ("14", "14:00"), ("at 14", "14:00"), ("14 o'clock", "14:00"), ("14 please", "14:00"),
    ("2 pm", "14:00"), ("2pm", "14:00"), ("2 PM!", "14:00"), ("2:30pm", "14:30"), ("2.30 p.m.", "14:30"),
    ("2 p. m.", "14:00"), ("9 a.m.", "09:00"), ("12 am", "00:00"), ("12 pm", "12:00"), ("12:15 am", "00:15"),
    ("2 o'clock pm", "14:00"), ("14:30 pm", "14:30"), ("13 pm", "13:00"), ("0:30 am", "00:30"),
    ("14h30", "14:30"), ("14 h 30", "14:30"), ("14h", "14:00"), ("14 heures", "14:00"), ("8h30", "08:30"),
    ("8h", "08:00"), ("à 14h", "14:00"), ("vers 8 heures, s'il vous plaît", "08:00"), ("demain à 9h", "09:00"),
    ("kl 14", "14:00"), ("kl. 14.30", "14:30"), ("klokken 14 takk", "14:00"), ("i morgen kl 14.30", "14:30"),
    ("８：３０ am", "08:30"), ("２ｐｍ", "14:00"), ("１４ｈ３０", "14:30"), ("14\u200b:30", "14:30"),
    ("My appointment is at 2:30 pm on Monday", "14:30"), ("Let's say 9:15 am", "09:15"), ("2pm 😀", "14:00"),
    ("2 in the afternoon", "14:00"), ("7 in the evening", "19:00"), ("8 tomorrow morning", "08:00"),
    ("3h de l'après-midi", "15:00"), ("à 8 heures du soir", "20:00"), ("8h du matin", "08:00"),
    ("8 om kvelden", "20:00"), ("ettermiddag kl 3", "15:00"), ("kl 20 i kveld", "20:00"), ("7 om morgenen", "07:00"),
    ("noon", "12:00"), ("at noon!", "12:00"), ("midi", "12:00"), ("midnight", "00:00"), ("à minuit", "00:00"),
    ("midnatt", "00:00"),
])  # fmt: skip
def test_a_time_is_read_as_people_write_it(sms, read):
    assert value(ANY_TIME, sms) == read


@pytest.mark.parametrize("sms", [
    "8", "at 8", "kl 8", "8:30", "8.30", "830", "12", "at 10", "2 o'clock", "i morgen kl 8", "à 8", "12 in the morning",
    "12 du soir",
])  # fmt: skip
def test_an_hour_that_may_be_of_the_morning_or_of_the_evening_is_asked_again(sms):
    assert value(ANY_TIME, sms) == "am_or_pm"
    assert value(TimeReader("09:00", "17:00"), sms) == "am_or_pm", (
        "who does not know the limits may mean either"
    )


@pytest.mark.parametrize("sms", [
    "14:30 or 15:00", "2pm, 3pm", "between 2 pm and 3 pm", "entre 14h et 15h", "after 2 pm", "before 14:30", "not 2 pm",
    "pas 14h", "etter 14:30", "quarter to 3 pm", "3 heures et demie", "3h moins le quart", "kvart over 14:00",
    "in 2h", "dans 2h", "half 2 pm", "14h ou plus tard", "9 pm in the morning", "14h mardi 3",
])  # fmt: skip
def test_a_range_a_part_of_an_hour_and_several_times_are_ambiguous(sms):
    assert value(ANY_TIME, sms) == "ambiguous"


@pytest.mark.parametrize(
    "sms", ["25:00", "24:00", "14:75", "14h60", "2575", "14:30 am", "0 pm", "0:30 pm", "31h"]
)
def test_what_no_clock_shows_is_no_such_time(sms):
    assert value(ANY_TIME, sms) == "no_such_time"


@pytest.mark.parametrize("sms", [
    "", "soon", "now", "half past two", "two", "pm", "h", "98", "98.6", "98.6F", "0", "00", "I have 14 cats", "1200 euros",
    "14.30 kr", "12/05/2026", "20.5.2026", "2-3 pm", "14h-15h", "14:30:00", "14,30", "+33612345678", "06123456", "$14",
    "14%", "#14", "in 2 hours", "om 2 timer", "before noon", "cet après-midi", "14th", "v14:30", "1" * 81,
    "we could perhaps meet at 14:30 in front of the big church then",
])  # fmt: skip
def test_what_is_no_time_of_day_is_none(sms):
    assert value(ANY_TIME, sms) == "not_a_time"


@pytest.mark.parametrize("reader, sms, read", [
    (TimeReader("09:00", "17:00"), "08:59", "too_early"),
    (TimeReader("09:00", "17:00"), "9 am", "09:00"),
    (TimeReader("09:00", "17:00"), "17h", "17:00"),
    (TimeReader("09:00", "17:00"), "17h01", "too_late"),
    (TimeReader("09:00"), "midnight", "too_early"),
    (TimeReader(max="17:00"), "00:00", "00:00"),
])  # fmt: skip
def test_a_limit_is_part_of_what_it_limits(reader, sms, read):
    assert value(reader, sms) == read


@given(st.times())
def test_every_time_of_the_day_is_read_in_every_form(each):
    stored = each.strftime("%H:%M")
    for form in ("%H:%M", "%H.%M", "%Hh%M", "%H%M", "kl. %H.%M", "%I:%M %p", "at %I.%M%p"):
        assert value(ANY_TIME, each.strftime(form)) == stored


@pytest.mark.parametrize("language", ["en", "fr", "no"])
@pytest.mark.parametrize(
    "reader", [ANY_TIME, TimeReader("08:00"), TimeReader(max="12:00"), TimeReader("09:00", "17:00")]
)
def test_the_time_that_a_refusal_shows_is_one_that_is_taken(reader, language):
    words = invalid_answer_text(reader, "am_or_pm", language)
    (example, *_) = (word.strip(",.") for word in words.split() if word[0].isdigit())
    assert time.fromisoformat(value(reader, example))


@pytest.mark.parametrize("reader, why, language, sentence", [
    (TimeReader("09:00", "17:00"), "too_early", "en", "That is too early. Please answer with a time such as 17:00, from 09:00 to 17:00."),
    (ANY_TIME, "am_or_pm", "en", "We cannot tell whether that is am or pm. Please answer with a time such as 14:30."),
    (TimeReader("09:00"), "not_a_time", "fr", "Nous n'y trouvons pas d'heure. Veuillez répondre par une heure comme 09h00, 09h00 ou plus tard."),
    (TimeReader(max="17:00"), "too_late", "no", "Det er for sent. Svar med et klokkeslett, for eksempel 17.00, senest 17.00."),
])  # fmt: skip
def test_a_refusal_says_why_and_what_is_expected(reader, why, language, sentence):
    assert invalid_answer_text(reader, why, language) == sentence


@pytest.mark.parametrize("reader, words", [
    (ANY_TIME, "time"), (TimeReader("09:00"), "time from 09:00"), (TimeReader(max="17:00"), "time up to 17:00"),
    (TimeReader("09:00", "17:00"), "time from 09:00 to 17:00"),
])  # fmt: skip
def test_it_says_what_it_takes(reader, words):
    assert reader.describe_answers() == words


@pytest.mark.parametrize("condition, words", [
    (AtLeast("me", "14:30"), "at or after 14:30"),
    (AtMost("me", "14:30"), "at or before 14:30"),
    (Above("me", "14:30"), "after 14:30"),
    (Below("me", "14:30"), "before 14:30"),
    (OneOf("me", frozenset(["14:30"])), "is '14:30'"),
])  # fmt: skip
def test_a_condition_speaks_of_a_time_and_not_of_a_day(condition, words):
    assert describe_condition(condition, "me") == words


@pytest.mark.parametrize("table", ["_HALF_WORDS", "_NAMED_TIMES", "_INTRODUCTIONS", "_TIME_CHANGING_WORDS"])
def test_a_table_of_words_is_folded(table):
    assert [word for word in getattr(times_of_day, table) if word != fold_text(word)] == []


SURVEY = """
survey: delivery
start: GO
languages: [en, fr]
steps:
  - id: when
    ask: {en: "When may we come?", fr: "Quand pouvons-nous passer ?"}
    answer: {type: time, min: 08:00, max: 20:00}
    next:
      - {when: {equals: 12:00}, go: noon}
      - {when: {below: 12:00}, go: morning}
      - {when: {at_most: 13:59}, go: lunch}
      - {go: later}
  - {id: noon, say: {en: "At noon.", fr: "A midi."}, next: end}
  - {id: morning, say: {en: "In the morning, {when}.", fr: "Le matin, {when}."}, next: end}
  - {id: lunch, say: {en: "At lunch, {when}.", fr: "Au repas, {when}."}, next: end}
  - id: later
    say: {en: "Later, {when}.", fr: "Plus tard, {when}."}
    next: end
"""
"""Times that YAML 1.1 would take for numbers of minutes."""


@pytest.mark.parametrize("sms, said", [
    ("noon", "At noon."), ("11:59", "In the morning, 11:59."), ("9 am", "In the morning, 09:00."),
    ("13h59", "At lunch, 13:59."), ("14:00", "Later, 14:00."), ("8 pm", "Later, 20:00."),
])  # fmt: skip
def test_a_survey_goes_on_by_the_time(sms, said):
    phone = SimulatedPhone(surveys_of({"delivery.yaml": SURVEY}), policy_for("delivery"))
    phone.text("GO")
    assert phone.text(sms) == [said]


def test_a_survey_asks_again_and_says_why():
    phone = SimulatedPhone(surveys_of({"delivery.yaml": SURVEY}), policy_for("delivery"))
    phone.text("GO")
    (said,) = phone.text("at 9")
    assert said == (
        "We cannot tell whether that is am or pm. Please answer with a time such as 20:00, from 08:00 to 20:00. "
        "When may we come?"
    )
    assert phone.text("9 pm")[0].startswith("That is too late.")


def test_the_proofs_know_every_region_of_times():
    survey, _ = read_survey("delivery.yaml", SURVEY.encode())
    assert survey_findings(survey) == []
    bounds = survey_bounds(survey)
    assert bounds.sms_out.attained
    assert all(limit.attained for limit in bounds.segments.values())


def test_a_route_that_no_time_takes_is_found():
    survey, _ = read_survey("delivery.yaml", SURVEY.replace("13:59", "12:00").encode())
    assert any("lunch" in str(finding) for finding in survey_findings(survey) if finding.level == "error")


@pytest.mark.parametrize("answer, when, problem", [
    ({"min": "25:00"}, {}, "field answer.min: found '25:00', expected HH:MM, such as 08:30 or 14:00"),
    ({"max": "2 pm"}, {}, "field answer.max: found '2 pm', expected HH:MM, such as 08:30 or 14:00"),
    ({"min": "8:30"}, {}, "field answer.min: found '8:30', expected HH:MM, such as 08:30 or 14:00"),
    ({"min": "22:00", "max": "06:00"}, {}, "field answer: no time of a day, which begins at 00:00, lies between 22:00 and 06:00"),
    ({}, {"at_least": "2030-01-01"}, "field next[0].when.at_least: found '2030-01-01', expected a time as HH:MM, such as 08:30 or 14:00"),
    ({}, {"below": 14}, "field next[0].when.below: found '14', expected a time as HH:MM, such as 08:30 or 14:00"),
    ({}, {"one_of": ["14:30", "2 pm"]}, "field next[0].when.one_of: found '2 pm', expected a time as HH:MM, such as 08:30 or 14:00"),
    ({"order": "dmy"}, {}, "field answer.order is not one of those here"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(answer, when, problem):
    step = {"id": "t", "ask": "?", "answer": {"type": "time"} | answer}
    if when:
        step["next"] = [{"when": when, "go": "end"}, {"go": "end"}]
    with pytest.raises(InvalidSurveyError) as raised:
        read_survey("s.json", json.dumps({"survey": "s", "steps": [step]}).encode())
    assert raised.value.problems == [f"line 1: step 't', {problem}"]
