"""The published schema accepts every survey that is one, and refuses what no editor should let pass."""

import copy
import json
import re

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from jsonschema import Draft202012Validator

from engine.commands.schema import schema as command
from engine.surveys.documents import parse_document
from engine.surveys.findings import InvalidSurveyError
from engine.surveys.schema import survey_schema
from engine.surveys.survey_reader import read_survey
from tests.engine.chat import SHIPPED
from tests.engine.random_surveys import surveys
from tests.engine.test_survey_files import EXAMPLE
from tests.support.example_counts import examples

SCHEMA = Draft202012Validator(survey_schema())

GOOD = {
    "survey": "s",
    "title": "t",
    "start": {"en": ["GO", "g+", "*"], "no": "BEGYNN"},
    "languages": ["en", "no"],
    "idle": "none",
    "expires": "1d",
    "cooldown": "0s",
    "again": "restart",
    "most_sms": 9,
    "keep": "30d",
    "variables": {"agentId": 20, "$contact": 30},
    "texts": {"completed": {"en": "bye"}, "help": "none", "opted_in": "Hi again"},
    "steps": [
        {"id": "a", "say": {"en": "x", "no": "y"}, "next": "b"},
        {
            "id": "b", "ask": "?", "answer": {"type": "number", "min": 1, "max": 2.5, "decimals": 1}, "invalid": "!",
            "attempts": 2, "give_up": "end", "remind": {"after": "2h", "times": 2, "text": "?"},
            "next": [{"when": {"any": [{"at_least": 2}, {"variable": "agentId", "equals": "7"}]}, "go": "a", "times": 2},
                     {"when": {"not": {"answer": "c", "one_of": ["x", "y"]}}, "go": "c"}],
        },
        {"id": "c", "ask": "?", "answer": {"type": "choice", "options": ["x", {"id": "y", "label": "Y", "aliases": ["z"]}]}},
        {"id": "d", "ask": "?", "answer": {"type": "choices", "options": ["x", "y"], "min": 1, "max": 2}},
        {"id": "e", "ask": "?", "answer": {"type": "scale", "from": 1, "to": 5, "labels": {"1": "bad"}}},
        {"id": "f", "ask": "?", "answer": {"type": "text", "min": 0, "max": 9, "pattern": "a+"}},
        {"id": "g", "ask": "?", "answer": {"type": "yes_no", "yes": ["sure"]}},
        {"id": "h", "ask": "?", "answer": {"type": "date", "min": "today", "max": "2030-01-01", "order": "mdy"}},
        {"id": "i", "ask": "?", "answer": {"type": "phone", "country": "FR"}},
    ],
}  # fmt: skip


def changed(way, value):
    """GOOD with something else in one place."""
    survey = copy.deepcopy(GOOD)
    holder = survey
    for key in way[:-1]:
        holder = holder[key]
    if value is None:
        del holder[way[-1]]
    else:
        holder[way[-1]] = value
    return survey


def is_read(survey):
    try:
        read_survey("s.json", json.dumps(survey).encode())
    except InvalidSurveyError:
        return False
    return True


@pytest.mark.parametrize("file", SHIPPED)
def test_every_shipped_survey_is_accepted(file):
    assert (
        list(SCHEMA.iter_errors(json.loads(json.dumps(parse_document(file, SHIPPED[file]), default=str))))
        == []
    )


def test_the_example_and_everything_that_can_be_written_is_accepted():
    assert list(SCHEMA.iter_errors(parse_document("clinic.yaml", EXAMPLE.encode()))) == []
    assert list(SCHEMA.iter_errors(GOOD)) == []
    assert is_read(GOOD)


@settings(max_examples=examples(200), deadline=None)
@given(surveys())
def test_whatever_can_be_read_is_accepted(source):
    survey = json.loads(source)
    if is_read(survey):
        assert list(SCHEMA.iter_errors(survey)) == []


@pytest.mark.parametrize(
    "way, value",
    [
        (["survey"], None),
        (["survey"], "1st"),
        (["steps"], []),
        (["steps"], None),
        (["titel"], "x"),
        (["idle"], "30"),
        (["expires"], "none"),
        (["keep"], "none"),
        (["again"], "maybe"),
        (["languages"], []),
        (["languages"], "en"),
        (["languages"], ["english"]),
        (["most_sms"], 0),
        (["start"], 5),
        (["variables"], {"a": "long"}),
        (["texts", "goodbye"], "x"),
        (["texts", "help"], 3),
        (["steps", 0, "id"], None),
        (["steps", 0, "say"], None),
        (["steps", 0, "say"], 5),
        (["steps", 0, "ask"], "both"),
        (["steps", 0, "id"], "has blanks"),
        (["steps", 0], "a"),
        (["steps", 1, "answer"], None),
        (["steps", 1, "answer"], "number"),
        (["steps", 1, "answer", "type"], None),
        (["steps", 1, "answer", "type"], "stars"),
        (["steps", 1, "answer", "min"], "low"),
        (["steps", 1, "answer", "decimals"], -1),
        (["steps", 1, "answer", "pattern"], "a number has none"),
        (["steps", 1, "attempts"], 0),
        (["steps", 1, "remind", "after"], "soon"),
        (["steps", 1, "remind", "times"], 0),
        (["steps", 1, "remind", "text"], None),
        (["steps", 1, "next", 0, "go"], None),
        (["steps", 1, "next", 0, "times"], 0),
        (["steps", 1, "next", 0, "when"], {}),
        (["steps", 1, "next", 0, "when"], {"at_lest": 5}),
        (["steps", 1, "next", 0, "when", "any"], [{"at_least": [5]}]),
        (["steps", 2, "answer", "options"], []),
        (["steps", 2, "answer", "options", 1, "label"], None),
        (["steps", 3, "answer", "min"], 0),
        (["steps", 4, "answer", "to"], None),
        (["steps", 5, "answer", "max"], 0),
        (["steps", 6, "answer", "yes"], "sure"),
        (["steps", 7, "answer", "order"], "ymd"),
        (["steps", 7, "answer", "min"], "tomorrow"),
        (["steps", 8, "answer", "country"], "France"),
    ],
)
def test_what_is_broken_is_refused_by_the_schema_and_by_the_reader_alike(way, value):
    survey = changed(way, value)
    assert not SCHEMA.is_valid(survey)
    assert not is_read(survey)


def described_places(schema, way=""):
    """Each property of a schema, by the way to it, and its description."""
    for key, each in schema.items() if isinstance(schema, dict) else enumerate(schema):
        if key == "properties":
            yield from ((f"{way}.{name}", about.get("description")) for name, about in each.items())
        if isinstance(each, dict | list):
            yield from described_places(each, f"{way}.{key}")


def test_every_property_is_described_in_a_sentence():
    """An editor shows what a field means."""
    places = dict(described_places(survey_schema()))
    assert len(places) > 80
    assert [place for place, about in places.items() if not about] == []
    assert [about for about in places.values() if not re.fullmatch(r"(?s)\S.{8,}[.]", about)] == []


def test_what_is_described_are_the_defaults():
    properties = survey_schema()["$defs"]["AskStep"]["properties"]
    assert f"({properties['attempts']['default']})" in properties["attempts"]["description"]


@pytest.mark.parametrize("items", [[], [{"text": ""}], [{"next": 1}], [{"text": "a", "condition": "~"}]])
def test_a_broken_questions_file_is_refused(items):
    assert not SCHEMA.is_valid(items)
    assert not is_read(items)


def test_the_command_prints_it():
    printed = CliRunner().invoke(command)
    assert printed.exit_code == 0
    assert json.loads(printed.output) == json.loads(json.dumps(survey_schema()))
    Draft202012Validator.check_schema(survey_schema())
