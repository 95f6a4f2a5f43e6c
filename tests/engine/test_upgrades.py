"""What an upgrade would change is told completely, in the author's terms, and nothing else is."""

import pytest
import re2

from engine.proofs.survey_loader import load_surveys
from engine.simulator.survey_diff import FieldDifference, StepChange, diff_versions

BASE = """
survey: quiz
title: Quiz
languages: [en, fr]
start: [QUIZ, "q+"]
idle: 10m
cooldown: 30s
steps:
  - id: name
    ask: {en: "Name?", fr: "Nom ?"}
    answer: {type: text, max: 40, pattern: "[a-z]+"}
    attempts: 2
    give_up: bye
  - id: age
    ask: {en: "Age, {name}?", fr: "Age ?"}
    answer: {type: number, min: 1, max: 99}
    invalid: {en: "Digits.", fr: "Chiffres."}
    remind: {after: 90m, text: {en: "Still there?", fr: "Toujours la ?"}}
    next:
      - {when: {at_least: 18}, go: bye}
      - {go: young}
  - id: young
    say: {en: "So young!", fr: "Si jeune !"}
  - id: bye
    say: {en: "Bye.", fr: "Au revoir."}
    next: end
"""


def survey(text):
    re2.purge()  # or the same pattern would be the same object
    surveys, problems = load_surveys({"quiz.yaml": text.encode()})
    assert problems == []
    return surveys.current("quiz")


def upgrade(*changes):
    """From BASE to BASE with each of these (was, is) put in."""
    new = BASE
    for was, now in changes:
        assert was in new
        new = new.replace(was, now)
    return diff_versions(survey(BASE), survey(new))


def test_a_version_does_not_differ_from_itself_nor_by_a_comment():
    assert not upgrade()
    assert not upgrade(("attempts: 2", "attempts: 2   # enough"))


@pytest.mark.parametrize(
    "change, step, field, was, now",
    [
        (("Nom ?", "Votre nom ?"), "name", "ask (fr)", "Nom ?", "Votre nom ?"),
        (("Age, {name}?", "Age?"), "age", "ask (en)", "Age, {name}?", "Age?"),
        (("So young!", "Young!"), "young", "say (en)", "So young!", "Young!"),
        (("max: 99", "max: 120"), "age", "answer", "number 1–99", "number 1–120"),
        (("Chiffres.", "Chiffre."), "age", "invalid (fr)", "Chiffres.", "Chiffre."),
        (("attempts: 2", "attempts: 4"), "name", "attempts", "2", "4"),
        (("give_up: bye", "give_up: young"), "name", "give_up", "bye", "young"),
        (("    give_up: bye\n", ""), "name", "give_up", "bye", ""),
        (("after: 90m", "after: 2h"), "age", "remind", "after 90m", "after 2h"),
        (("Still there?", "Hello?"), "age", "remind text (en)", "Still there?", "Hello?"),
        (("at_least: 18", "at_least: 21"), "age", "next", "bye if at least 18; young", "bye if at least 21; young"),
        (("Bye.", "Bye!"), "bye", "say (en)", "Bye.", "Bye!"),
    ],
)  # fmt: skip
def test_a_step_that_changed_says_what(change, step, field, was, now):
    (changed,) = upgrade(change).steps
    assert (changed.step, changed.kind) == (step, "changed")
    assert changed.differences == (FieldDifference(field, was, now),)


def test_what_words_do_not_tell_is_a_difference_all_the_same():
    choice = "{type: choice, options: [{id: red, label: red%s}, blue]}"
    old, new = (
        BASE.replace("{type: number, min: 1, max: 99}", choice % aliases)
        for aliases in ("", ", aliases: [ruby]")
    )
    old, new = (text.replace("at_least: 18", "equals: red") for text in (old, new))
    (changed,) = diff_versions(survey(old), survey(new)).steps
    assert FieldDifference("answer", "1 of 2", "1 of 2") in changed.differences


@pytest.mark.parametrize(
    "change, field, was, now",
    [
        (("idle: 10m", "idle: 2h"), "idle", "10m", "2h"),
        (("idle: 10m", "idle: none"), "idle", "10m", "none"),
        (("cooldown: 30s", "cooldown: 0s"), "cooldown", "30s", "0s"),
        (("title: Quiz", "title: Test"), "title", "Quiz", "Test"),
        (("cooldown: 30s", "texts: {help: {en: Well, fr: Bien}}"), "texts.help (fr)", None, "Bien"),
        (("[QUIZ, ", "[TEST, "), "start", "quiz, q+", "test, q+"),
        (('"q+"', '"q+x"'), "start", "quiz, q+", "quiz, q+x"),
    ],
)
def test_the_survey_as_a_whole_says_what_changed(change, field, was, now):
    found = upgrade(change)
    assert (field, now) in [(each.field, each.now) for each in found.whole if was in (each.was, None)]
    assert found.steps == ()


def test_steps_that_come_and_go_are_told_and_so_is_where_their_neighbours_lead():
    found = upgrade(
        ('  - id: young\n    say: {en: "So young!", fr: "Si jeune !"}\n', ""),
        ("      - {go: young}\n", "      - {go: old}\n"),
        ("  - id: bye\n", '  - {id: old, say: {en: "Old!", fr: "Vieux !"}}\n  - id: bye\n'),
    )  # fmt: skip
    assert [(step.step, step.kind) for step in found.steps] == [
        ("age", "changed"), ("old", "added"), ("young", "removed")
    ]  # fmt: skip
    assert found.steps[0].differences == (
        FieldDifference("next", "bye if at least 18; young", "bye if at least 18; old"),
    )
    assert found.steps[1] == StepChange("old", "added")


def test_a_step_put_between_is_told_of_the_step_before_it():
    between = '  - {id: well, say: {en: "Well.", fr: "Bien."}}\n  - id: bye\n'
    found = upgrade(("  - id: bye\n", between))
    assert [(step.step, step.kind) for step in found.steps] == [("young", "changed"), ("well", "added")]
    assert found.steps[0].differences == (FieldDifference("next", "bye", "well"),)


def test_a_statement_that_becomes_a_question_is_both():
    (changed,) = upgrade(('say: {en: "So young!"', 'answer: {type: yes_no}\n    ask: {en: "So young!"')).steps
    assert {"say (en)", "ask (en)", "answer"} <= {each.field for each in changed.differences}
