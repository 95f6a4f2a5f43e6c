"""`parley results`: what a nurse sees first is right, at any width, and nothing is shown before the audit knows."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from config.archive import tables
from config.archive.pseudonyms import read_pseudonyms
from config.cli import main
from config.store import keyspace
from engine.model.events import Answer, SmsDecided, encode_event
from engine.surveys.survey_reader import read_survey
from tests.support.archive_writer import ArchiveWriter
from tests.support.played_sessions import FIRST_AT, WrittenSession
from tests.support.waiting import HANG_S

CLINIC = b"""
survey: clinic
title: Online clinic
cooldown: 0s
languages: [en, "no"]
steps:
  - {id: name, ask: {en: "What is your name?", "no": "Hva heter du?"}, answer: {type: text}}
  - {id: pain, ask: Pain?, answer: {type: scale, from: 0, to: 10}}
  - id: help
    ask: Help?
    answer: {type: choice, options: [{id: nurse, label: {en: A nurse, "no": Sykepleier}}, {id: none, label: Nobody}]}
"""
SURVEY, _ = read_survey("clinic.yaml", CLINIC)
ANN = "+33612345678"


@pytest.fixture
def clinic(deploy, monkeypatch, tmp_path):
    """A deployment whose archive is empty, but for the survey."""
    town = deploy(survey=CLINIC)
    url = f"sqlite:///{tmp_path / 'archive.db'}"
    monkeypatch.setenv("PARLEY_ARCHIVE_URL", url)
    archive = ArchiveWriter(url)
    archive.keep_survey(SURVEY)
    archive.town = town
    yield archive
    archive.database.close()


@pytest.fixture
def answered(clinic):
    """Ann's session is completed; two more are open."""
    add_session(clinic, ANN, "a", "Ann", 7, how="completed")
    add_session(clinic, "+33622222222", "b", "Bo [red]x[/] :smile:", 7)
    add_session(clinic, "+33633333333", "c", "C" * 60, 3, language="no")
    return clinic


def add_session(archive, sender, identity, name, pain, how="", language="en"):
    each = WrittenSession(identity, version=SURVEY.version, channel="clinic", language=language)
    each.say(("name", "ask")).answer("name", name, "text", ("pain", "ask"), after_ms=4000)
    each.answer("pain", pain, "scale", ("help", "ask")).answer("help", Answer("1", "nurse", 0), "choice")
    archive.add_turns(sender, (each.end(how) if how else each).turns)


def run(*arguments):
    return CliRunner().invoke(main, ["results", *map(str, arguments)])


def shown(*arguments):
    done = run(*arguments)
    assert done.exit_code == 0, done.output + done.stderr
    return done.stdout


def document(*arguments):
    return json.loads(shown("clinic", "--json", *arguments))


def audited(town):
    return [
        {name.decode(): value.decode() for name, value in fields.items()}
        for _, fields in town.client.xrange(keyspace.AUDIT_KEY)
    ]


def test_without_a_session_it_says_so(clinic):
    said = shown("clinic")
    assert "Online clinic (clinic): no sessions yet" in said
    assert "0 answered" in said


def test_states_come_first_then_questions_then_the_latest_sessions(answered):
    said = shown("clinic")
    places = [
        said.index(each)
        for each in ("3 sessions", "completed", "What is your name?", "The latest 3 sessions")
    ]
    assert places == sorted(places)
    assert "Answers are kept for 365 days" in said
    assert "mean 5.67 · median 7" in said
    assert "A nurse" in said


def test_a_survey_that_keeps_less_says_how_long(clinic):
    shorter, _ = read_survey("clinic.yaml", CLINIC.replace(b"cooldown: 0s", b"cooldown: 0s\nkeep: 30d"))
    clinic.keep_survey(shorter)
    assert "Answers are kept for 30 days" in shown("clinic")


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_no_line_is_wider_than_the_terminal_and_no_answer_is_markup(answered, columns, monkeypatch):
    monkeypatch.setattr("engine.commands.terminal.PIPED_WIDTH", columns)
    said = shown("clinic")
    assert max(map(len, said.splitlines())) <= columns
    together = " ".join(said.split())
    assert "[red]x[/]" in together
    assert ":smile:" in together


def test_people_are_named_by_pseudonyms_unless_numbers_are_asked_for(answered):
    pseudonym = read_pseudonyms(answered.database).of(ANN)
    said = shown("clinic")
    assert ANN not in said
    assert pseudonym[:8] in said
    assert ANN in shown("clinic", "--numbers")
    assert {each["person"] for each in document()["latest"]} >= {pseudonym}
    assert ANN in {each["person"] for each in document("--numbers")["latest"]}


def test_a_program_reads_one_object(answered):
    found = document("--limit", 1)
    assert (found["survey"], found["sessions"], found["opened"]) == ("clinic", 3, 3)
    assert found["states"] == {"open": 2, "completed": 1}
    name, pain, helped = found["questions"]
    assert (name["type"], name["answered"], name["median_s"], name["distinct"]) == ("text", 3, 4, 3)
    assert pain["distribution"]["median"] == 7
    assert helped["counts"] == [{"value": "nurse", "label": "A nurse", "count": 3}]
    (latest,) = found["latest"]
    assert latest["answers"] == {"name": "C" * 60, "pain": "3", "help": "nurse"}
    assert latest["at"] == "2027-01-15T08:00:00.000+00:00"


def test_labels_are_in_the_language_asked_for(answered):
    assert "Hva heter du?" in shown("clinic", "--label-language", "no")
    assert run("clinic", "--label-language", "fr").exit_code == 2


def test_filters_choose_sessions(answered):
    assert document("--state", "completed")["sessions"] == 1
    assert document("--where", "pain >= 7", "--where", "name contains ann")["sessions"] == 1
    assert document("--language", "no")["sessions"] == 1
    assert document("--since", "2027-01-16")["sessions"] == 0
    assert document("--until", "2027-01-15")["sessions"] == 3


@pytest.mark.parametrize("arguments, said", [
    (("clinik",), "did you mean clinic"),
    (("clinic", "--where", "pian > 3"), "did you mean pain"),
    (("clinic", "--where", "pain"), "is no condition"),
    (("clinic", "--state", "complete"), "did you mean completed"),
    (("clinic", "--channel", "klinic"), "did you mean clinic"),
    (("clinic", "--since", "tomorrow"), "is no moment"),
    (("clinic", "--variable", "agentId"), "agentId=7"),
    (("clinic", "--language", "fr"), "expected en, no"),
])  # fmt: skip
def test_a_mistake_is_told_in_a_sentence_and_is_no_reading(answered, arguments, said):
    done = run(*arguments)
    assert done.exit_code in (1, 2)
    assert said in done.stderr
    assert audited(answered.town) == []


def test_whoever_looks_is_in_the_audit_with_filters_and_without_numbers(answered):
    shown("clinic", "--where", "pain >= 7", "--where", f"name != {ANN}")
    (entry,) = audited(answered.town)
    assert (entry["action"], entry["subject"]) == ("read results", "clinic")
    assert json.loads(entry["detail"])["filters"] == {"answers": ["pain >= 7", "name != a number"]}
    assert ANN not in str(entry)


def test_nothing_is_read_if_the_audit_does_not_take_it(answered):
    answered.town.client.set(keyspace.AUDIT_KEY, "no stream")
    done = run("clinic")
    assert done.exit_code == 1
    assert "nobody's answers are read without it" in done.stderr
    assert "Ann" not in done.output


def test_an_archive_that_has_not_all_says_how_far_behind_it_is(answered):
    town = answered.town
    town.client.xadd(
        keyspace.events_key(0),
        {"to": ANN, "e": encode_event([SmsDecided(FIRST_AT, "clinic", "s", "sx0", "a", "b")])},
    )
    assert "the latest answers are missing" in " ".join(shown("clinic").split())
    assert document()["is_complete"] is False


def test_an_archive_that_is_not_there_is_told(clinic, monkeypatch, tmp_path):
    monkeypatch.setenv("PARLEY_ARCHIVE_URL", f"sqlite:///{tmp_path / 'none.db'}")
    done = run("clinic")
    assert done.exit_code == 2
    assert "the process `archive` makes it" in done.stderr


@pytest.mark.processes
def test_watching_shows_what_comes_and_ends_on_ctrl_c(answered):
    command = [
        sys.executable,
        "-c",
        "from config.cli import main; main()",
        "results",
        "clinic",
        "--watch",
        "--json",
    ]
    watching = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        first = json.loads(watching.stdout.readline())
        add_session(answered, "+33644444444", "d", "Dee", 1)
        second = json.loads(watching.stdout.readline())
        watching.send_signal(signal.SIGINT)
        _, errors = watching.communicate(timeout=HANG_S)
    finally:
        with suppress(ProcessLookupError):
            watching.kill()
        watching.wait()
    assert (first["sessions"], second["sessions"]) == (3, 4)
    assert (watching.returncode, errors) == (0, "")


def test_a_look_that_ctrl_c_meets_is_shown_in_full(answered, monkeypatch):
    """Nothing that reads is broken off: SQLAlchemy does not stand that everywhere."""
    growths = iter([(1,), (2,)])

    def growth(_connection):
        if (found := next(growths)) == (2,):
            signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr("workers.commands.reports.results._growth", growth)
    monkeypatch.setattr("workers.commands.reports.results.WATCH_INTERVAL_S", 0)
    done = run("clinic", "--watch", "--json")
    assert (done.exit_code, len(done.stdout.splitlines())) == (0, 2)


def test_the_archive_is_only_read(answered):
    with answered.database.reading() as connection:
        before = connection.execute(select(tables.sessions)).all()
    shown("clinic")
    with answered.database.reading() as connection:
        assert connection.execute(select(tables.sessions)).all() == before
