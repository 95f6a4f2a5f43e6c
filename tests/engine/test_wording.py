"""Conditions and answer types read as a person would say them."""

import pytest

from engine.answers.dates import DateReader
from engine.answers.numbers import NumberReader
from engine.answers.octopush_answers import AnythingReader, PhpNumberReader
from engine.answers.phones import PhoneReader
from engine.answers.scales import ScaleReader
from engine.answers.several_choices import ChoicesReader
from engine.answers.single_choice import ChoiceReader
from engine.answers.text_answers import TextReader
from engine.answers.yes_no import YesNoReader
from engine.model.patterns import compile_folded, compile_pattern
from engine.surveys.conditions import (
    Above,
    AllOf,
    AnyOf,
    AtLeast,
    AtMost,
    Below,
    ContainsText,
    ContainsWord,
    IncludesOption,
    MatchesPattern,
    Not,
    OneOf,
    StepAnswered,
)
from engine.surveys.wording import describe_condition

OWN = AtLeast("me", 95)
OTHER = OneOf("fever", frozenset([False]))


@pytest.mark.parametrize("condition, words", [
    (AtLeast("me", 95.0), "at least 95"),
    (AtMost("me", 98.6), "at most 98.6"),
    (Above("me", -1), "above -1"),
    (Below("me", 1234567.0), "below 1234567"),
    (AtLeast("me", "2030-01-02"), "on or after 2030-01-02"),
    (Below("me", "2030-01-02"), "before 2030-01-02"),
    (OneOf("me", frozenset([True])), "is yes"),
    (OneOf("me", frozenset(["a few words"])), "is 'a few words'"),
    (OneOf("me", frozenset([10, 2, 1.5])), "is 1.5, 2 or 10"),
    (OneOf("me", frozenset(["b", "c", "a"])), "is a, b or c"),
    (OneOf("me", frozenset()), "is nothing"),
    (MatchesPattern("me", compile_folded("check ?up")), "matches /check ?up/"),
    (ContainsText("me", ("bad", "so so")), "contains 'bad' or 'so so'"),
    (ContainsWord("me", ("bad", "so so")), "contains the word 'bad' or 'so so'"),
    (IncludesOption("me", frozenset(["y", "x"])), "includes x or y"),
    (StepAnswered("me"), "answered"),
    (OTHER, "'fever' is no"),
    (AtLeast("fever", 3), "'fever' is at least 3"),
    (OneOf("$agentid", frozenset([7.0])), "agentId is 7"),
    (OneOf("$colour", frozenset(["red"])), "colour is red"),
])  # fmt: skip
def test_a_condition_says_what_it_compares_and_leaves_its_own_step_out(condition, words):
    assert describe_condition(condition, "me") == words


@pytest.mark.parametrize("condition, words", [
    (Not(OWN), "not at least 95"),
    (Not(OTHER), "'fever' is not no"),
    (Not(OneOf("me", frozenset([1, 2]))), "is none of 1 and 2"),
    (Not(StepAnswered("fever")), "'fever' is not answered"),
    (Not(ContainsText("me", ("bad",))), "does not contain 'bad'"),
    (Not(ContainsWord("me", ("bad",))), "does not contain the word 'bad'"),
    (Not(MatchesPattern("me", compile_folded("x"))), "does not match /x/"),
    (Not(IncludesOption("me", frozenset(["x"]))), "does not include x"),
    (Not(Not(OWN)), "at least 95"),
    (Not(AllOf((OWN, OTHER))), "not (at least 95 and 'fever' is no)"),
])  # fmt: skip
def test_a_denial_keeps_its_meaning(condition, words):
    assert describe_condition(condition, "me") == words


@pytest.mark.parametrize("condition, words", [
    (AllOf((OWN, OTHER)), "at least 95 and 'fever' is no"),
    (AnyOf((OWN, AllOf((OTHER, StepAnswered("me"))))), "at least 95 or ('fever' is no and answered)"),
    (AllOf((AnyOf((OWN,)), OTHER)), "at least 95 and 'fever' is no"),
    (AllOf(()), "always"),
    (AnyOf(()), "never"),
])  # fmt: skip
def test_what_is_combined_is_bracketed_where_it_could_be_misread(condition, words):
    assert describe_condition(condition, "me") == words


def test_about_no_step_every_step_is_named():
    assert describe_condition(OWN, "") == "'me' is at least 95"


@pytest.mark.parametrize("reader, words", [
    (TextReader(1, 40), "text, up to 40 characters"),
    (TextReader(3, 40, compile_pattern("a+")), "text, 3 to 40 characters, like /a+/"),
    (NumberReader(80, 115), "number 80–115"),
    (NumberReader(-5, 5, 0), "whole number -5 to 5"),
    (NumberReader(None, 5.5, 1), "number up to 5.5, up to 1 decimal"),
    (NumberReader(2), "number from 2"),
    (ScaleReader(1, 10), "scale 1–10"),
    (YesNoReader(), "yes or no"),
    (ChoiceReader(("a", "b", "c"), {}), "1 of 3"),
    (ChoicesReader(("a", "b", "c"), {}, 1, 3), "1 to 3 of 3"),
    (ChoicesReader(("a", "b", "c"), {}, 2, 2), "2 of 3"),
    (ChoicesReader(("a", "b", "c"), {}, 1, 2, (2,)), "1 to 2 of 3, or 3 alone"),
    (DateReader(), "date"),
    (DateReader("today"), "date from today"),
    (DateReader("today", "2030-01-02"), "date from today to 2030-01-02"),
    (PhoneReader(), "phone number"),
    (PhoneReader("FR"), "phone number (FR)"),
    (AnythingReader(), "anything"),
    (PhpNumberReader(), "number"),
])  # fmt: skip
def test_an_answer_type_says_what_it_takes(reader, words):
    assert reader.describe_answers() == words
