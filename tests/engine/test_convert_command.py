"""`parley convert`: the YAML survey behaves as the questions.json that it is made of."""

import json

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from engine.commands.convert import convert
from engine.model.events import SmsDecided
from engine.proofs.survey_loader import load_surveys
from engine.surveys.questions_conversion import convert_questions, converted_form
from engine.surveys.survey_reader import read_survey
from tests.engine.chat import SHIPPED, SimulatedPhone, policy_for, surveys_of

TUTORIAL = SHIPPED["tutorial.json"]

TEXTS = st.sampled_from(
    [
        "Hello {name}", "{", "}{", "\\{x}", "{{name}}", "{$contact|you}", "a # b", "- x", "yes", '"', "'", "\\", "\\n", "two\nlines", "tab\t",
        "é 👍🏽", "none", "%", "|", "a\x7f", "a\x85", "a\u2028", "\ufeffa", "مرحبا", "end\\",
    ]
) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)  # fmt: skip


@st.composite
def questions(draw):
    """The items of a questions.json that has no errors."""
    count = draw(st.integers(1, 5))
    target = st.one_of(st.integers(0, count - 1), st.just(-2), st.just("-2"), st.just("0"))
    numbers = st.one_of(
        st.integers(-200, 200), st.floats(allow_nan=False), st.sampled_from(["95.5", "1e2", "1e400"])
    )
    items = []
    for _ in range(count):
        item = {"text": draw(TEXTS)}
        if draw(st.booleans()):
            item["condition"] = draw(st.sampled_from([">=", ">", "<=", "<", "==", "!="]))
            item |= {"value": draw(numbers), "true_next": draw(target), "false_next": draw(target)}
        else:
            item["next"] = draw(target)
        items.append(item)
    return [
        item if item.get("value") not in (float("inf"), -float("inf")) else item | {"value": 1}
        for item in items
    ]


def convert_items(items, file="q.json"):
    source = json.dumps(items).encode()
    return read_survey(file, source)[0], convert_questions(file, source)


@given(questions())
def test_it_compiles_to_the_same(items):
    survey, converted = convert_items(items)
    again, _ = read_survey("q.yaml", converted.source.encode())
    assert converted_form(survey, "q") == converted_form_of_yaml(again)


def converted_form_of_yaml(survey):

    return msgspec.structs.replace(survey, file="", source=b"", version="", variables={}, durations={})


@given(questions(), st.data())
def test_a_random_walk_through_both_is_the_same_conversation(items, data):
    _, converted = convert_items(items)
    phones = [
        SimulatedPhone(surveys_of({"q.json": json.dumps(items)}), policy_for("q")),
        SimulatedPhone(surveys_of({"q.yaml": converted.source}), policy_for("q")),
    ]
    for _ in range(data.draw(st.integers(1, 12))):
        sms = data.draw(
            st.sampled_from(
                ["START", "start!", "0", "95", "95.5", "-1e3", "hot", "Liked “Hello”", "STOP", "HELP", "?"]
            )
        )
        after_ms = data.draw(st.sampled_from([0, 1000, 29_999, 30_000, 30_001, 90_000, 86_400_000]))
        assert phones[0].text(sms, after_ms=after_ms) == phones[1].text(sms, after_ms=after_ms)
    kinds = [[type(record) for record in phone.records] for phone in phones]
    assert kinds[0] == kinds[1]
    said = [[record.text for record in phone.records_of(SmsDecided)] for phone in phones]
    assert said[0] == said[1]


def test_the_tutorial_is_no_less_provable_than_it_was():
    converted = convert_questions("tutorial.json", TUTORIAL)
    surveys, problems = load_surveys({"tutorial.yaml": converted.source.encode()})
    assert problems == []
    assert list(surveys.current_names()) == ["tutorial"]


def test_the_keyword_and_the_30_seconds_can_be_changed():
    source = convert_questions("tutorial.json", TUTORIAL).source
    changed = source.replace("start: START", "start: BEGIN").replace("idle: 30s", "idle: 10m")
    phone = SimulatedPhone(surveys_of({"tutorial.yaml": changed}), policy_for("tutorial"))
    assert phone.text("START") == []
    assert phone.text("BEGIN") == ["What is your name?"]
    assert len(phone.text("Ann", after_ms=600_000)) == 1


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "questions.json").write_bytes(TUTORIAL)
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(convert, arguments)


def test_it_is_written_beside_and_nothing_is_overwritten(folder):
    assert call("questions.json").exit_code == 0
    written = (folder / "questions.yaml").read_text()
    assert "survey: questions\n" in written
    (folder / "questions.yaml").write_text("mine")
    result = call("questions.json")
    assert (result.exit_code, "is there already" in result.output) == (1, True)
    assert (folder / "questions.yaml").read_text() == "mine"


def test_another_file_or_standard_output(folder):
    assert call("questions.json", "--out", "clinic.yaml").exit_code == 0
    assert call("questions.json", "--out", "-").stdout == (folder / "clinic.yaml").read_text()


def test_a_name_that_no_yaml_survey_may_have_is_told(folder):
    (folder / "2 questions.json").write_bytes(TUTORIAL)
    result = call("2 questions.json")
    assert result.exit_code == 0
    assert "as channels must say" in result.stderr
    assert (folder / "q_2_questions.yaml").exists()


@pytest.mark.parametrize(
    "file, content, said",
    [
        ("broken.json", "[{}]", "broken.json:1: item 0, field text is missing"),
        (
            "broken.json",
            "[",
            "broken.json:1: a value is missing here: write a text in quotation marks, a number, true, [ or {\n    [\n     ^\n",
        ),
        ("clinic.yaml", SHIPPED["clinic.yaml"].decode(), "a survey of Parley's own language already"),
        ("notes.txt", "[]", "a survey's file is called"),
    ],
)
def test_what_is_no_questions_json_is_refused(folder, file, content, said):
    (folder / file).write_text(content)
    result = call(file)
    assert (result.exit_code, said in result.output) == (2, True), result.output
