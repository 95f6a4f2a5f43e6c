"""`parley funnel`, and `parley graph --live`, which draws it: what is counted is shown, in the order of the survey's file."""

import json

import pytest
from click.testing import CliRunner

from config.cli import main
from config.store import keyspace
from engine.surveys.survey_reader import read_survey
from tests.support.archive_writer import ArchiveWriter
from tests.support.played_sessions import WrittenSession

CLINIC = b"""
survey: clinic
languages: [en, "no"]
cooldown: 0s
steps:
  - {id: name, ask: Name?, answer: {type: text}, attempts: 2}
  - id: age
    ask: Age?
    answer: {type: number}
    next: [{when: {below: 18}, go: young}, {when: {above: 99}, go: young}, {go: end}]
  - {id: young, say: Too young.}
"""
SURVEY, _ = read_survey("clinic.yaml", CLINIC)


@pytest.fixture
def clinic(deploy, monkeypatch, tmp_path):
    """A deployment whose archive has three sessions: one is completed, one idle at the name, one gave up there."""
    town = deploy(survey=CLINIC)
    url = f"sqlite:///{tmp_path / 'archive.db'}"
    monkeypatch.setenv("PARLEY_ARCHIVE_URL", url)
    archive = ArchiveWriter(url)
    archive.keep_survey(SURVEY)
    archive.town, archive.file = town, tmp_path / "surveys" / "clinic.yaml"
    done = (
        begun("a").answer("name", "Ann", "text", ("age", "ask")).answer("age", 7, "number", ("young", "say"))
    )
    archive.add_turns("+331", done.end("completed").turns)
    archive.add_turns("+332", begun("b", language="no").end("idle").turns)
    archive.add_turns(
        "+333",
        begun("c")
        .misread("name", "too_long", ("name", "reask"))
        .misread("name", "too_long")
        .end("gave_up")
        .turns,
    )
    yield archive
    archive.database.close()


def begun(identity, language="en"):
    return WrittenSession(identity, version=SURVEY.version, language=language, channel="clinic").say(
        ("name", "ask")
    )


def run(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


def shown(*arguments):
    done = run(*arguments)
    assert done.exit_code == 0, done.output + done.stderr
    return done.stdout


def test_steps_and_ways_are_shown_in_the_order_of_the_file(clinic):
    said = shown("funnel", "clinic")
    assert "clinic: 3 sessions opened" in said
    places = [said.index(f"\n  {step} ") for step in ("name", "age", "young")]
    assert places == sorted(places)
    (row,) = [
        line.split() for line in said.splitlines() if line.startswith("  name ") and "reached" not in line
    ][:1]
    assert row[1] == "3"
    assert "1 gave up, 1 idle" in " ".join(said.split())


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_no_line_is_wider_than_the_terminal(clinic, columns, monkeypatch):
    monkeypatch.setattr("engine.commands.terminal.PIPED_WIDTH", columns)
    said = shown("funnel", "clinic")
    assert max(map(len, said.splitlines())) <= columns
    assert "young" in said


def test_a_program_reads_one_object(clinic):
    found = json.loads(shown("funnel", "clinic", "--json"))
    assert (found["survey"], found["sessions"]) == ("clinic", 3)
    name, age, young = found["steps"]
    assert (name["reached"], name["left"], name["misreads"]) == (
        3,
        {"gave_up": 1, "idle": 1},
        {"too_long": 2},
    )
    assert (age["answered"], young["reached"], young["asks"]) == (1, 1, False)
    assert {"tail": "young", "head": "(end)", "sessions": 1, "passages": 1} in found["edges"]


@pytest.mark.parametrize("by, expected", [("language", {"en": 2, "no": 1}), ("version", {SURVEY.version: 3})])
def test_there_is_one_for_each_group(clinic, by, expected):
    found = json.loads(shown("funnel", "clinic", "--by", by, "--json"))
    assert {each[by]: each["sessions"] for each in found["groups"]} == expected
    for name, number in expected.items():
        assert f"clinic, {by} {name}: {number} session" in shown("funnel", "clinic", "--by", by)


def test_filters_choose_sessions(clinic):
    assert json.loads(shown("funnel", "clinic", "--json", "--where", "age < 18"))["sessions"] == 1
    assert json.loads(shown("funnel", "clinic", "--json", "--state", "idle"))["states"] == {"idle": 1}


def test_a_survey_without_sessions_is_shown_all_the_same(clinic):
    clinic.clear()
    clinic.keep_survey(SURVEY)
    assert "clinic: 0 sessions opened" in shown("funnel", "clinic")
    assert "No sessions yet" in shown("funnel", "clinic", "--by", "language")


def test_a_mistake_is_told_in_a_sentence(clinic):
    assert "did you mean clinic" in run("funnel", "clinc").stderr
    assert run("funnel", "clinic", "--by", "moon").exit_code == 2


def test_whoever_looks_is_in_the_audit(clinic):
    shown("funnel", "clinic")
    shown("graph", clinic.file, "--live")
    actions = [fields[b"action"] for _, fields in clinic.town.client.xrange(keyspace.AUDIT_KEY)]
    assert actions == [b"read funnel", b"read funnel"]
    clinic.town.client.delete(keyspace.AUDIT_KEY)
    clinic.town.client.set(keyspace.AUDIT_KEY, "no stream")
    assert run("funnel", "clinic").exit_code == 1
    assert run("graph", clinic.file, "--live").exit_code == 1


@pytest.mark.parametrize("form", ["svg", "mermaid", "dot"])
def test_the_graph_bears_the_numbers_in_every_form(clinic, form):
    drawn = shown("graph", clinic.file, "--live", "--as", form)
    plain = drawn.replace("#37;", "%").replace("#40;", "(").replace("#41;", ")")
    assert "3 sessions until" in drawn
    for line in (
        "3 reached it (100 %)",
        "1 answered (33 %)",
        "2 left here (gave up, idle)",
        "1 reached it (33 %)",
    ):
        assert line in plain, line
    assert "2 ways together" in drawn
    assert "3 sessions" not in shown("graph", clinic.file, "--as", form)


def test_the_graph_takes_no_filter_without_live(clinic):
    done = run("graph", clinic.file, "--since", "1d")
    assert done.exit_code == 2
    assert "--live" in done.stderr
    assert "2 sessions until" not in shown("graph", clinic.file, "--live", "--until", "2027-01-14")
