"""Of several choices one may exclude the others: it is chosen alone, and whoever combines it is told so."""

import pytest

from engine.answers import invalid_answer_text
from engine.answers.options import Option
from engine.answers.several_choices import ChoicesAnswer
from engine.codebook.codebook import build_codebook
from engine.proofs import survey_bounds
from engine.surveys.findings import InvalidSurveyError
from engine.surveys.survey_reader import read_survey
from tests.engine.chat import SimulatedPhone, policy_for, surveys_of
from tests.engine.test_findings import ask, found, say, survey, to

NONE_OPTION, UNSURE_OPTION = (Option(each, each, exclusive=True) for each in ("none", "unsure"))
NONE = {"id": "none", "label": {"en": "None of these", "no": "Ingen av disse"}, "exclusive": True}
UNSURE = {"id": "unsure", "label": "I do not know", "exclusive": True}
SYMPTOMS = {"type": "choices", "options": ["fever", "cough", "rash", NONE]}
IN_ENGLISH = SYMPTOMS | {"options": [*SYMPTOMS["options"][:3], NONE | {"label": "None of these"}]}


def phone_with(answer, **fields):
    steps = [ask("what", "What do you have?", answer), say("bye", "So: {what}.")]
    source = survey(*steps, **{"languages": ["en", "no"]} | fields)
    phone = SimulatedPhone(surveys_of({"s.json": source}), policy_for("s"))
    phone.text("START")
    return phone


@pytest.mark.parametrize(
    "reply, said",
    [
        ("4", "So: None of these."),
        ("none of these", "So: None of these."),
        ("ingen av disse!", "So: None of these."),
        ("none", "So: None of these."),
        ("1 3", "So: fever, rash."),
        ("all", "So: fever, cough, rash."),
        ("4 and 4", "So: None of these."),
    ],
)
def test_it_is_chosen_alone_and_all_are_all_others(reply, said):
    assert phone_with(SYMPTOMS).text(reply) == [said]


@pytest.mark.parametrize("reply", ["1 4", "none and fever", "1 2 3 4"])
def test_whoever_combines_it_is_told_what_to_answer(reply):
    (told,) = phone_with(SYMPTOMS).text(reply)
    assert told.startswith(
        "That option goes with no other. "
        "Please answer with 1 to 3 numbers from 1 to 4, such as 1 2, or 4 alone. What do you have?"
    )


def test_the_least_and_the_most_hold_for_the_others():
    phone = phone_with(SYMPTOMS | {"min": 2, "max": 2})
    assert phone.text("1")[0].startswith(
        "That is too few. Please answer with 2 numbers from 1 to 4, such as 1 2, or 4"
    )
    assert phone.text("1 2 3")[0].startswith("That is too many.")
    assert phone.text("4") == ["So: None of these."]


def test_there_may_be_several_anywhere_in_the_list():
    reader = ChoicesAnswer([NONE_OPTION, "fever", UNSURE_OPTION, "cough"]).compile_reader(pytest.fail)
    assert reader.describe_answers() == "1 to 2 of 4, or 1 or 3 alone"
    assert invalid_answer_text(reader, "combined", "en") == (
        "That option goes with no other. Please answer with 1 to 2 numbers from 1 to 4, such as 2 4, or 1 or 3 alone."
    )
    assert invalid_answer_text(reader, "combined", "no").endswith("for eksempel 2 4, eller 1 eller 3 alene.")
    assert invalid_answer_text(reader, "combined", "fr").endswith("comme 2 4, ou 1 ou 3 seul.")


@pytest.mark.parametrize(
    "answer, sentence",
    [
        ({"type": "choices", "options": [NONE, UNSURE]}, "at least one that is not exclusive is expected"),
        (SYMPTOMS | {"max": 4}, "nobody can choose from 1 to 4 of 3 options that are not exclusive"),
        (SYMPTOMS | {"min": 4}, "nobody can choose from 4 to 3 of 3 options that are not exclusive"),
        (
            {"type": "choice", "options": ["fever", NONE]},
            "answer.options[1].exclusive: it is for `choices`",
        ),
    ],
)
def test_what_makes_no_sense_is_told(answer, sentence):
    with pytest.raises(InvalidSurveyError) as refused:
        read_survey("s.json", survey(ask("what", "?", answer), languages=["en", "no"]))
    assert any(sentence in each for each in refused.value.problems), refused.value.problems


def test_what_conditions_ask_of_it_is_proved():
    routes = [to("well", contains="none"), to("ill", contains=["fever", "cough"]), to("end")]
    steps = [ask("what", "?", IN_ENGLISH, next=routes), say("well", next="end"), say("ill", next="end")]
    assert found(*steps) == []
    never = [{"go": "well", "when": {"all": [{"contains": "none"}, {"contains": "rash"}]}}, to("ill")]
    told = found(ask("what", "?", IN_ENGLISH, next=never), *steps[1:])
    assert {each[:3] for each in told if each[0] == "error"} == {
        ("error", "shadowed", "what"), ("error", "unreachable", "well"),
    }  # fmt: skip
    equal = [to("well", equals="none"), to("ill")]
    assert found(ask("what", "?", IN_ENGLISH, next=equal), *steps[1:]) == []


def test_what_it_costs_is_proved_and_played():
    long = {
        "id": "none",
        "label": "None of these, nor anything else that is like it " + "x" * 100,
        "exclusive": True,
    }
    answer = {"type": "choices", "options": ["a" * 30, "b" * 30, long]}
    of = survey(ask("what", "?", answer, attempts=2), say("bye", "{what}"), texts={"gave_up": "none"})
    bound = survey_bounds(read_survey("s.json", of)[0]).segments["en"]
    assert bound.attained
    of = survey(
        ask("what", "?", {"type": "choices", "options": ["é" * 80, "b" * 70, long | {"label": "c" * 10}]}),
        say("bye", "{what}"),
    )
    assert survey_bounds(read_survey("s.json", of)[0]).segments["en"].attained


def test_the_codebook_tells_which_it_is():
    compiled, _ = read_survey("s.json", survey(ask("what", "?", SYMPTOMS), languages=["en", "no"]))
    (question,) = build_codebook([compiled]).questions
    assert {option.id: option.exclusive for option in question.options} == {
        "fever": False, "cough": False, "rash": False, "none": True,
    }  # fmt: skip
    assert question.max is None
