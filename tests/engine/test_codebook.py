"""A codebook tells of every column what it holds, for all versions of a survey at once."""

import re
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.answers.type_registry import ANSWER_SPECS
from engine.codebook.codebook import STATE_MEANINGS, build_codebook, merge_kinds
from engine.codebook.column_names import LONGEST_COLUMN, ColumnNames, safe_column
from engine.model.events import SessionEnding
from engine.surveys.survey_reader import read_stored_survey
from tests.engine.chat import SHIPPED

FIRST = """
survey: clinic
languages: [en, "no"]
variables: {agentName: 30, ward: 20}
steps:
  - id: name
    ask: {en: "Name?", "no": "Navn?"}
    answer: {type: text, max: 40, pattern: "[a-z]+"}
  - id: temperature
    ask: Temperature?
    answer: {type: number, min: 80, max: 115, decimals: 1}
  - id: gone
    ask: Gone?
    answer: {type: yes_no}
  - id: colour
    ask: Colour?
    answer: {type: choice, options: [red, {id: g, label: {en: Green, "no": Grønn}}]}
"""
SECOND = """
survey: clinic
title: The clinic
languages: [en, fr]
variables: [AgentName]
steps:
  - id: hello
    say: Hello
  - id: temperature
    ask: {en: "How hot, {agentName}?", fr: "Quelle température ?"}
    answer: {type: text}
  - id: colour
    ask: Colour?
    answer: {type: choice, options: [{id: b, label: Blue}, {id: g, label: Lime}]}
  - id: toppings
    ask: Toppings?
    answer: {type: choices, options: [oil, "salt & pepper"], min: 1, max: 2}
  - id: stars
    ask: Stars?
    answer: {type: scale, from: 0, to: 5, labels: {"0": awful, "5": {en: great, fr: super}}}
"""


def survey(source, file="clinic.yaml"):
    return read_stored_survey(file, source.encode())


@pytest.fixture(scope="module")
def merged():
    return build_codebook([survey(FIRST), survey(SECOND)], ["Note"])


def question(codebook, step):
    (found,) = [each for each in codebook.questions if each.step == step]
    return found


def test_questions_of_all_versions_stand_once_each_where_it_was_asked(merged):
    assert [each.step for each in merged.questions] == [
        "name", "temperature", "gone", "colour", "toppings", "stars",
    ]  # fmt: skip


def test_a_question_tells_what_its_newest_version_asks_and_which_versions_have_it(merged):
    first, second = (each.version for each in merged.versions)
    temperature = question(merged, "temperature")
    assert temperature.texts == {"en": "How hot, {agentName}?", "fr": "Quelle température ?"}
    assert temperature.versions == [first, second]
    assert question(merged, "gone").versions == [first]
    assert question(merged, "toppings").versions == [second]


def test_a_type_that_changed_is_told_and_its_column_holds_texts(merged):
    first, second = (each.version for each in merged.versions)
    temperature = question(merged, "temperature")
    assert (temperature.type_changed, temperature.kind) == (True, "text")
    assert temperature.types == {first: "number", second: "text"}
    assert not any(each.type_changed for each in merged.questions if each.step != "temperature")


@pytest.mark.parametrize(
    "kinds, merged_into",
    [
        (["date"], "date"),
        (["number", "whole_number"], "number"),
        (["option", "options"], "text"),
        (["number", "yes_no"], "text"),
    ],
)
def test_what_a_column_holds_where_versions_differ(kinds, merged_into):
    assert merge_kinds(kinds) == merged_into


def test_options_of_all_versions_stand_at_the_place_where_people_saw_them(merged):
    first, second = (each.version for each in merged.versions)
    options = question(merged, "colour").options
    assert [(each.id, each.place, each.versions) for each in options] == [
        ("b", 1, [second]),
        ("g", 2, [first, second]),
        ("red", 1, [first]),
    ]
    assert options[1].labels == {"en": "Lime", "fr": "Lime", "no": "Lime"}
    labels = question(build_codebook([survey(FIRST)]), "colour").options[1].labels
    assert labels == {"en": "Green", "no": "Grønn"}


def test_labels_of_a_scale_stand_at_their_numbers(merged):
    stars = question(merged, "stars")
    assert (stars.kind, stars.min, stars.max) == ("whole_number", 0, 5)
    assert [(each.id, each.place, each.labels["fr"]) for each in stars.options] == [
        ("0", 0, "awful"),
        ("5", 5, "super"),
    ]


def test_each_of_several_options_has_a_column_of_its_own(merged):
    options = question(merged, "toppings").options
    assert [(each.name, each.column) for each in options] == [
        ("toppings/oil", "toppings_oil"),
        ("toppings/salt & pepper", "toppings_salt_pepper"),
    ]


def test_limits_are_as_the_author_wrote_them():
    name, temperature, *_ = build_codebook([survey(FIRST)]).questions
    assert (name.type, name.pattern) == ("text", "[a-z]+")
    assert (temperature.min, temperature.max, temperature.decimals) == (80, 115, 1)


def test_variables_are_in_their_spelling_with_who_names_them(merged):
    found = {each.key: (each.name, each.longest, each.source) for each in merged.variables}
    assert found["agentname"] == ("AgentName", 100, "survey")
    assert found["ward"] == ("ward", 20, "survey")
    assert found["agentid"] == ("agentId", 100, "puzzel")
    assert found["$contact"] == ("$contact", 0, "parley")
    assert found["note"] == ("Note", 0, "sessions")


def test_what_was_answered_and_no_version_explains_has_a_column(merged):
    codebook = build_codebook([survey(FIRST)], further_steps=["name", "lost"])
    assert [each.step for each in codebook.questions] == ["name", "temperature", "gone", "colour", "lost"]
    assert (question(codebook, "lost").kind, question(codebook, "lost").versions) == ("text", ())
    assert [each.step for each in build_codebook([], (), ["lost"], "clinic").questions] == ["lost"]


def test_every_state_is_explained(merged):
    assert {each.state for each in merged.states} == {"open", "refused", *get_args(SessionEnding)}
    assert all(STATE_MEANINGS.values())


def test_languages_are_the_newest_versions_first(merged):
    assert merged.languages == ["en", "fr", "no"]
    assert [each.languages for each in merged.versions] == [["en", "no"], ["en", "fr"]]


def test_it_is_json_and_comes_back(merged):
    encoded = msgspec.json.encode(merged)
    again = msgspec.json.decode(encoded, type=type(merged))
    assert msgspec.json.encode(again) == encoded


def test_a_questions_json_has_one_too():
    codebook = build_codebook([survey(SHIPPED["tutorial.json"].decode(), "tutorial.json")])
    assert [(each.step, each.column, each.type) for each in codebook.questions] == [
        ("0", "q0", "anything"),
        ("1", "q1", "numeric"),
        ("2", "q2", "anything"),
        ("3", "q3", "anything"),
    ]
    assert codebook.questions[0].texts == {"en": "What is your name?"}


@pytest.mark.parametrize("file", SHIPPED)
def test_every_survey_that_ships_has_one(file):
    codebook = build_codebook([read_stored_survey(file, SHIPPED[file])])
    assert codebook.questions
    assert all(each.texts.keys() == set(codebook.languages) for each in codebook.questions)


def test_a_question_that_is_called_as_another_column_is_known_by_its_prefix():
    clash = """
survey: clash
variables: [Age, State]
steps:
  - {id: state, ask: "State?", answer: {type: text}}
  - {id: age, ask: "Age?", answer: {type: number}}
  - {id: AGE, ask: "AGE?", answer: {type: number}}
"""
    codebook = build_codebook([survey(clash)])
    assert [(each.name, each.column) for each in codebook.questions] == [
        ("answer.state", "state_2"),
        ("age", "age"),
        ("answer.AGE", "AGE_2"),
    ]
    names = {each.key: each.name for each in codebook.variables}
    assert (names["age"], names["state"]) == ("variable.Age", "variable.State")


@pytest.mark.parametrize(
    "wanted, column",
    [
        ("temperature", "temperature"),
        ("0", "q0"),
        ("$contact", "contact"),
        ("salt & pepper", "salt_pepper"),
        ("Grønn", "Grnn"),
        ("ça va", "ca_va"),
        ("with", "with_"),
        ("👍", "q"),
        ("x" * 80, "x" * 32),
    ],
)
def test_a_column_is_safe_in_statistics_programs(wanted, column):
    assert safe_column(wanted) == column


@given(st.lists(st.text(max_size=40) | st.sampled_from(["a", "A", "x" * 40, "x" * 50, "with", "a_2"])))
def test_no_two_columns_have_the_same_name(wanted):
    names = ColumnNames()
    allotted = [names.allot(each, "answer") for each in wanted]
    for used in zip(*allotted, strict=True):
        assert len({each.lower() for each in used}) == len(wanted)
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", column) for _, column in allotted)
    assert all(len(column) <= LONGEST_COLUMN for _, column in allotted)


@pytest.mark.parametrize("spec", ANSWER_SPECS)
def test_no_answer_type_is_without_a_description(spec):
    fields = {"options": ["a"]} if "options" in spec.__struct_fields__ else {}
    fields |= {"to": 5} if "to" in spec.__struct_fields__ else {}
    assert spec(**fields).describe_values().kind
