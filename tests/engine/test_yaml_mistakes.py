"""Whoever writes a survey is told in which line it is wrong, shown where, and told what to do, in plain words."""

import json
from textwrap import dedent

import pytest

from engine.proofs import survey_findings
from engine.proofs.keep_limit import keep_findings
from engine.proofs.survey_loader import load_surveys
from engine.surveys.documents import FILE_LIMITS
from engine.surveys.findings import InvalidSurveyError
from engine.surveys.survey_reader import read_survey, with_lines
from tests.engine.test_survey_files import EXAMPLE


def told(text):
    return load_surveys({"f.yaml": text.encode()})[1]


@pytest.mark.parametrize(
    "text, line, said",
    [
        ("survey: s\nsteps:\n\t- id: a\n", 3, "spaces, not tabs"),
        ("survey: s\nsteps:\n  - id: a\n\t  say: x\n", 4, "spaces, not tabs"),
        ("survey: s\nsteps:\n  - id: a\n    say: Note: call us\n", 4, "quote a text that has a colon"),
        ("steps:\n  - {id: a, say: Note: call us}\n", 2, "quote a text that has a colon"),
        ("steps:\n  - id: a\n     say: x\n", 3, "indentation differs from line 2: begin it with 4 spaces"),
        ("steps:\n  - id: a\n   say: x\n", 3, "indentation differs from line 2: begin it with 4 spaces"),
        ("steps:\n  - id: a\n  say: x\n", 3, "indentation differs from line 2: begin it with 4 spaces"),
        ("survey: s\n title: y\n", 2, "indentation differs from line 1: begin it with no space"),
        (" survey: s\ntitle: y\n", 2, "indentation differs from line 1: begin it with 1 space"),
        (
            "steps:\n  - id: a\n    next:\n      - {go: b}\n\n # no\n   - id: b\n     say: y\n",
            7,
            "indentation differs from line 2: begin it with 2 spaces",
        ),
        ("survey: s\ntitle\nsteps: []\n", 2, "write `field: value`"),
        ("steps:\n  - id: a\n    say:x\n    next: end\n", 3, "a blank is missing after the colon"),
        ('survey: s\ntitle: "abc\nsteps: []\n', 2, "the quotation mark is never closed"),
        ("survey: s\ntitle: 'it's'\n", 2, "those in it are written"),
        ('survey: s\n"title": "Hi" there\n', 2, "let quotation marks enclose the whole text"),
        (
            "survey: s\ntitle: {name}, hi\n",
            2,
            "begins with { as a collection: put the text into quotation marks",
        ),
        ("steps:\n  - id: a\n    answer: {type: yes_no\n    next: end\n", 3, "close it with }"),
        ("survey: s\nstart: [GO, STOP\nsteps: []\n", 2, "close it with ]"),
        ("survey: s\nstart: [\n", 2, "never closed"),
        ("survey: s\nstart: [GO,, STOP]\n", 2, "a value is missing"),
        ("survey: s\ntitle: @home\n", 2, "no text begins with @ in YAML: put the text into quotation marks"),
        ("survey: s\ntitle: *hello* you\n", 2, "*hello* as a reference"),
        ("survey: s\ntitle: & you\n", 2, "put the text into quotation marks"),
        ("survey: s\ntitle: !hey you\n", 2, "put the text into quotation marks"),
        ("survey: s\ntitle: > hey\n", 2, "into quotation marks"),
        ("survey: s\ntitle: - x\n", 2, "put the text into quotation marks"),
        ('survey: s\ntitle: "a\\d"\n', 2, "write two backslashes"),
        ("survey: s\nsurvey: t\n", 2, "the key 'survey' stands twice"),
        ("survey: s\n---\nsurvey: t\n", 2, "a file is one survey"),
        ("survey: s\r\ntitle: \x01\r\n", 2, "U+0001"),
    ],
)
def test_a_mistake_in_yaml_is_shown_with_its_line_and_what_to_do(text, line, said):
    (problem,) = told(text)
    sentence, shown, caret = problem.split("\n")
    assert sentence.startswith(f"f.yaml:{line}: ")
    assert said in sentence
    expected = text.splitlines()[line - 1].replace("\t", "→").replace("\x01", "?")
    assert shown == f"    {expected}"
    assert caret.strip() == "^"
    assert len(caret) <= len(shown) + 1


@pytest.mark.parametrize(
    "line, mark",
    [("title: Note: call", "Note"), ('title: "Hi" there', '"Hi" '), ("title: @home", "title: ")],
)
def test_the_caret_stands_below_the_mistake(line, mark):
    _, shown, caret = told(f"survey: s\n{line}\n")[0].split("\n")
    assert caret.index("^") == shown.index(mark) + len(mark)


def test_of_a_long_line_the_part_with_the_mistake_is_shown():
    _, shown, caret = told("title: " + "x" * 100_000 + ": y" + "z" * 100_000)[0].split("\n")
    assert len(shown) < 120
    assert shown[caret.index("^")] == ":"


def test_broken_json_is_shown_too():
    (problem,) = load_surveys({"f.json": b'{\n "survey": s}'})[1]
    assert problem == (
        "f.json:2: a value is missing here: write a text in quotation marks, a number, true, [ or {"
        '\n     "survey": s}\n               ^'
    )


def test_errors_of_fields_have_their_line():
    text = dedent("""\
        survey: clinic
        titel: Clinic
        texts:
          help: 5
        steps:
          - id: name
            ask: {en: What?, no: 3}
            answer:
              type: text
              max: abc
          - id: twice
            ask: Which?
            answer: {type: yes_no}
            next:
              - {when: {equals: yes}, go: name}
              - go: nowhere
          - id: twice
            say: "{later}"
          - {say: Bye}
          - Bye
        """)
    lines = text.splitlines()
    found = {}
    for problem in told(text):
        place, _, sentence = problem.partition(": ")
        found[sentence.split(":")[0]] = lines[int(place.removeprefix("f.yaml:")) - 1].strip()
    assert found == {
        "field titel is unknown": "titel: Clinic",
        "field texts.help": "help: 5",
        "step 'name', field ask.no": "ask: {en: What?, no: 3}",
        "step 'name', field answer.max": "max: abc",
        "step 'twice', field next[1].go": "- go: nowhere",
        "step 'twice', field id": "- id: twice",
        "step 'twice', field say": 'say: "{later}"',
        "step number 4, field id is missing": "- {say: Bye}",
        "step number 5, a mapping with `say` or `ask` is expected": "- Bye",
    }
    assert "f.yaml:17: step 'twice', field id: another step has the same id" in told(text), "the second one"


def test_what_is_about_no_line_is_told_as_before():
    assert told("survey: clinic\n") == ["f.yaml: field steps is missing"]
    assert told("survey: s\nsteps: [{id: a, say: x, next: end}, {id: b, say: y}]\n") == [
        "f.yaml:2: step 'b', it is never reached: let a route lead to it, or take it out"
    ]
    assert load_surveys({"f.json": json.dumps({"survey": "s"}).encode()})[1] == [
        "f.json: field steps is missing"
    ]


def test_every_wrong_field_of_a_survey_is_found_in_its_line():
    """Whatever field of the example is wrong, what is told of it begins with its line."""
    lines = EXAMPLE.splitlines()
    fields = [number for number, line in enumerate(lines, 1) if line.startswith("    ") and ": " in line]
    fields = [number for number in fields if lines[number - 1].split(":")[0].strip() not in ("ask", "say")]
    assert len(fields) > 8
    for number in fields:
        line = lines[number - 1]
        broken = [*lines]
        broken[number - 1] = (
            line.replace(":", "_: 1 #", 1) if "- {" not in line else line.replace("go", "goo")
        )
        with pytest.raises(InvalidSurveyError) as refused:
            read_survey("f.yaml", "\n".join(broken).encode(), FILE_LIMITS)
        assert number in {each.line for each in refused.value.findings}, line
        assert any(each.startswith(f"f.yaml:{number}: step '") for each in refused.value.tell("f.yaml")), line


@pytest.mark.parametrize(
    "text, line, said, shown",
    [
        ('{"survey": "s",\n}', 2, "a field's name is missing here", "}"),
        ('{"survey": "s"\n "steps": []}', 2, "a comma is missing before this", '"steps"'),
        ('{"survey" "s"}', 1, "a colon is missing before this", '"s"'),
        ('{"survey": "s}', 1, "the text that begins here does not end", '"s}'),
        ('{"survey": "s\n"}', 1, "a text has a line break or a tab in it", ""),
        ('{"survey": "\\d"}', 1, "a backslash stands before a character that needs none", "\\d"),
        ('{"survey": "s"}}', 1, "something follows where all is closed", "}"),
        ("[\n]\n[]", 3, "something follows where all is closed", "[]"),
    ],
)
def test_what_is_wrong_with_json_is_told_in_plain_words(text, line, said, shown):
    (problem,) = load_surveys({"f.json": text.encode()})[1]
    first, excerpt, caret = problem.split("\n")
    assert first.startswith(f"f.json:{line}: {said}: ")
    assert excerpt[caret.index("^") :].startswith(shown)


def test_a_character_that_is_not_utf_8_is_shown_where_it_stands():
    (problem,) = load_surveys({"f.yaml": "survey: \ufffd\ntitle: ".encode() + b"Caf\xe9\n"})[1]
    assert problem == (
        "f.yaml:2: character 11 is not written in UTF-8: save the file as UTF-8\n"
        "    title: Caf\ufffd\n"
        "              ^"
    )


PROVED = """
survey: s
keep: 9999d
idle: 24h
languages: [en, "no"]
start: {en: GO, "no": GO}
texts:
  completed: {en: "Bye…, as there is nothing more to say to you today, good night!", "no": Ha det}
steps:
  - id: a
    ask: {en: How many?, "no": Hvor mange?}
    answer: {type: number, min: 1, max: 5}
    remind:
      text: Well?
      after: 48h
    next:
      - {when: {at_least: 2}, go: b}
      - when: {at_least: 3}
        go: end
      - {go: b}
  - id: b
    say: {en: "{c}", "no": "{a}"}
    next: end
  - id: c
    ask: {en: Why?}
    answer: {type: text}
"""


def test_what_is_proved_is_told_with_the_line_that_it_is_about():
    survey, written = read_survey("f.yaml", PROVED.encode())
    lines = PROVED.splitlines()
    found = with_lines(survey, [*survey_findings(survey), *written, *keep_findings(survey, 365)])
    assert {(each.code, lines[each.line - 1].strip() if each.line else "") for each in found} == {
        ("unreachable", "- id: c"),
        ("shadowed", "- when: {at_least: 3}"),
        ("unanswered", "- id: b"),
        ("never_reminded", "after: 48h"),
        (
            "ucs2",
            'completed: {en: "Bye…, as there is nothing more to say to you today, good night!", "no": Ha det}',
        ),
        ("keyword", 'start: {en: GO, "no": GO}'),
        ("language_missing", "ask: {en: Why?}"),
        ("one_language", "- id: c"),
        ("keep", "keep: 9999d"),
    }


@pytest.mark.parametrize("indent", ["  ", "\t"])
def test_what_is_wrong_with_json_has_its_line(indent):
    source = '{\n@"survey": "s",\n@"steps": [\n@{"id": "a", "say": 3}]\n}'.replace("@", indent)
    (problem,) = load_surveys({"f.json": source.encode()})[1]
    assert problem == "f.json:4: step 'a', field say: found 3, expected a text or a mapping"


def test_an_item_of_a_questions_json_has_its_line():
    items = '[\n  {"text": "a",\n   "next": 7},\n  {"text": "b", "next": -2},\n  {"next": -2}\n]'
    assert load_surveys({"f.json": items.encode()})[1] == [
        "f.json:3: item 0, field next: there is no item 7",
        "f.json:5: item 2, field text is missing",
    ]
    survey, _ = read_survey(
        "f.json", items.replace("7", "2").replace('{"next"', '{"text": "c", "next"').encode()
    )
    assert [(each.step, each.line) for each in with_lines(survey, survey_findings(survey))] == [("1", 4)]
