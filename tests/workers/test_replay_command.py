"""What the real pipeline stored runs again from the stream, and `parley replay` says what came of it."""

import json

import msgspec
import pytest
from click.testing import CliRunner

from config.settings.channels import channel_policies
from config.store import keyspace
from config.store.event_entries import entry_records
from engine.model.events import ProviderStop, SmsDecided, SmsReceived, decode_records, encode_event
from engine.simulator.session_replay import ReplayedSame, sessions_of
from engine.simulator.session_replay import replay_session as run_again
from engine.surveys.survey_registry import SurveyRegistry
from tests.workers.conftest import SURVEY
from workers.commands.replay import replay
from workers.history.joined_history import HistoryReader
from workers.store import event_stream
from workers.store.survey_versions import load_versions, publish_current

ANN, BOB, CID = "+33600000001", "+33600000002", "+33600000003"
OTHER = SURVEY.replace(b"max: 150", b"max: 40").replace(b"Goodbye", ("ą" * 71).encode())


@pytest.fixture
def deployment(pipeline, valkey, tmp_path, monkeypatch):
    """A pipeline through which three people went, and the environment of a command beside it."""
    line = pipeline()
    publish_current(line.client, line.world.surveys)
    for sender, texts in {
        ANN: ["START", "Ann", "old", "39"],
        BOB: ["hello", "START", "Bob", "50", "thanks", "START", "STOP"],
        CID: ["START"],
    }.items():
        for text in texts:
            line.accept(sender, text)
            line.drain()
    line.deposit(CID, encode_event(ProviderStop("f" * 16, "clinic", "STOP")))
    line.drain()
    monkeypatch.setenv("PARLEY_CONFIG", str(tmp_path / "parley.toml"))
    monkeypatch.setenv("PARLEY_SURVEYS", str(tmp_path / "surveys"))
    monkeypatch.setenv("PARLEY_REDIS_URL", valkey.url)
    monkeypatch.setenv("PARLEY_BROKER_URL", valkey.broker_url)
    return line


@pytest.fixture
def other(tmp_path):
    path = tmp_path / "other.yaml"
    path.write_bytes(OTHER)
    return str(path)


def call(*arguments):
    return CliRunner().invoke(replay, arguments)


def objects(result):
    return [json.loads(line) for line in result.output.splitlines()]


def tamper(line, sender, kind, **fields):
    """Change the last record of a kind, as if it had been stored so."""
    k = keyspace.shard_of(sender, line.world.settings.shards)
    entries = line.client.xrange(keyspace.events_key(k))
    line.client.delete(keyspace.events_key(k))
    records = list(line_records(entries, sender))
    place = max(place for place, record in enumerate(records) if isinstance(record, kind))
    records[place] = msgspec.structs.replace(records[place], **fields)
    line.client.xadd(keyspace.events_key(k), {"to": sender, "e": encode_event(records)})


def line_records(entries, sender):
    for _, fields in entries:
        if fields[b"to"] == sender.encode():
            yield from decode_records(entry_records(fields))


def test_what_the_pipeline_stored_comes_out_byte_for_byte(deployment):
    surveys = SurveyRegistry()
    load_versions(deployment.client, surveys)
    policy = channel_policies(deployment.world.settings.channels)
    endings = []
    for sender in (ANN, BOB, CID):
        k = keyspace.shard_of(sender, deployment.world.settings.shards)
        entries = HistoryReader(deployment.client, None).read_sender(k, sender)
        for session in sessions_of(sender, (record for entry in entries for record in entry.records)):
            assert run_again(session, surveys, policy) == ReplayedSame()
            endings.append(session.ended.how)
    assert endings == ["completed", "completed", "stopped", "stopped"]


def test_a_sender_s_sessions_come_out_the_same(deployment):
    result = call(ANN)
    assert result.exit_code == 0, result.output
    assert "its 11 records come out the same, byte for byte\n" in result.output
    assert [each["result"] for each in objects(call(BOB, "--json"))] == ["same", "same"]


def test_one_session_may_be_named(deployment):
    named = objects(call(BOB, "--json"))[1]["session"]
    assert [each["session"] for each in objects(call(BOB, "--json", "--session", named))] == [named]
    nothing = call(BOB, "--session", "f" * 16)
    assert nothing.exit_code == 2


def test_a_record_that_was_tampered_with_is_found(deployment):
    tamper(deployment, ANN, SmsDecided, text="Goodbye, Bob.")
    result = call(ANN)
    assert result.exit_code == 1
    assert "differs at record 10 of 11\n" in result.output
    assert "  stored:   < Goodbye, Bob." in result.output
    assert "  came out: < Goodbye, Ann." in result.output
    (different,) = objects(call(ANN, "--json"))
    assert (different["record"], different["came_out"]["text"]) == (9, "Goodbye, Ann.")
    everything = call("--all")
    assert everything.exit_code == 1
    assert f"see: parley replay {ANN} --session " in everything.output


def test_all_sessions_are_counted(deployment):
    result = call("--all")
    assert (result.exit_code, result.output) == (
        0,
        "sessions: 4 same, 0 different, 0 cannot be run again\n",
    )
    assert objects(call("--all", "--json"))[0] == {
        "same": 4,
        "different": 0,
        "impossible": {},
        "first_different": [],
    }


def test_where_to_look_is_told_with_what_it_is_compared_to(deployment, other):
    (see,) = [
        line
        for line in call("--all", "--against", other).output.splitlines()
        if f"see: parley replay {ANN}" in line
    ]
    assert call(*see.split()[3:]).exit_code == 1


def test_sessions_that_have_not_ended_are_among_all(deployment):
    deployment.accept("+33600000004", "START", "Dan")
    deployment.drain()
    assert call("--all").output == "sessions: 5 same, 0 different, 0 cannot be run again\n"


def test_all_sessions_are_read_page_by_page(deployment, monkeypatch):
    monkeypatch.setattr(event_stream, "STREAM_PAGE_SIZE", 1)
    assert "sessions: 4 same, " in call("--all").output


def test_a_session_whose_beginning_is_gone_is_said_to_be(deployment):
    k = keyspace.shard_of(ANN, deployment.world.settings.shards)
    first = next(
        entry
        for entry, fields in deployment.client.xrange(keyspace.events_key(k))
        if fields[b"to"] == ANN.encode()
    )
    deployment.client.xdel(keyspace.events_key(k), first)
    result = call(ANN)
    assert result.exit_code == 2
    assert "cannot be run again: its beginning is no longer stored\n" in result.output
    everything = call("--all")
    assert everything.exit_code == 0
    assert "  1: its beginning is no longer stored\n" in everything.output


def test_a_version_that_redis_has_not_may_be_given(deployment, tmp_path):
    deployment.client.delete(keyspace.SURVEYS_KEY)
    result = call(ANN)
    assert result.exit_code == 2
    assert "of the survey 'clinic' is no longer stored" in result.output
    assert call(ANN, "--survey", str(tmp_path / "surveys" / "clinic.yaml")).exit_code == 0


def test_against_another_version_each_session_has_a_row(deployment, other):
    result = call(BOB, "--against", other)
    assert result.exit_code == 1
    assert "before: name > age > bye" in result.output
    assert "after: name > age > age" in result.output
    assert "age: too_high" in result.output
    assert "completed → stopped" not in result.output
    same = call(CID, "--against", other)
    assert same.exit_code == 0
    assert "same" in same.output


def test_before_a_new_version_is_deployed_the_whole_archive_is_compared(deployment, other):
    result = call("--all", "--against", other)
    assert result.exit_code == 1
    assert "  another path: 1\n" in result.output
    assert "  completed, as before: 1\n" in result.output
    assert "  completed, now expired: 1\n" in result.output
    assert "  replies to 'age' that are no longer read, too_high: 1\n" in result.output
    (summary,) = objects(call("--all", "--against", other, "--json"))
    assert (summary["same"], summary["different"], summary["paths_differ"]) == (2, 2, 1)
    assert {"before": "stopped", "after": "stopped", "sessions": 2} in summary["outcomes"]
    assert summary["no_longer_read"] == [{"step": "age", "why": "too_high", "replies": 1}]
    assert summary["segments"]["before"] != summary["segments"]["after"]


def test_against_its_own_version_nothing_differs(deployment, tmp_path):
    result = call("--all", "--against", str(tmp_path / "surveys" / "clinic.yaml"))
    assert result.exit_code == 0
    assert "sessions: 4 same, " in result.output


def test_against_another_survey_nothing_can_be_run(deployment, tmp_path):
    path = tmp_path / "years.yaml"
    path.write_bytes(SURVEY.replace(b"survey: clinic", b"survey: years"))
    result = call("--all", "--against", str(path))
    assert result.exit_code == 2
    assert "  4: it is of the survey 'clinic', not of 'years'" in result.output


# From a transcript

TRANSCRIPT = """# clinic: a talk

> START
< What is your name?
> Ann
< How old are you, Ann?
> 50
< Goodbye, Ann.
* completed
"""


@pytest.fixture
def transcript(tmp_path):
    path = tmp_path / "talk.txt"
    path.write_text(TRANSCRIPT)
    return str(path)


@pytest.fixture
def clinic(tmp_path):
    path = tmp_path / "clinic.yaml"
    path.write_bytes(SURVEY)
    return str(path)


def test_a_transcript_comes_out_the_same_without_any_server(transcript, clinic):
    result = call(transcript, "--survey", clinic)
    assert (result.exit_code, result.output) == (0, f"{transcript} comes out the same.\n")


def test_a_transcript_of_what_is_not_said_any_more_differs(transcript, other):
    result = call(transcript, "--survey", other)
    assert result.exit_code == 1
    assert "\n-< Goodbye, Ann.\n" in result.output
    (plain,) = objects(call(transcript, "--survey", other, "--json"))
    assert plain["result"] == "different"
    assert "-< Goodbye, Ann." in plain["diff"]


def test_a_transcript_runs_against_another_version(transcript, clinic, other):
    result = call(transcript, "--survey", clinic, "--against", other, "--json")
    assert result.exit_code == 1
    (plain,) = objects(result)
    assert (plain["before"]["outcome"], plain["after"]["outcome"]) == ("completed", "expired")
    assert plain["no_longer_read"] == [{"step": "age", "why": "too_high"}]
    assert plain["parts_at"] == 2


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ([], "name a transcript or a sender, or say --all"),
        (["--all", ANN], "name a transcript or a sender, or say --all, not both"),
        (
            ["33600000001"],
            "33600000001 is no transcript, and no sender either: one is written as in +33612345678",
        ),
        ([__file__], "name the file of its survey with --survey"),
        ([__file__, "--survey", "none.yaml"], "none.yaml: cannot be read"),
        ([ANN, "--against", "none.yaml"], "none.yaml: cannot be read"),
    ],
)
def test_what_cannot_be_run_is_told_with_status_2(arguments, sentence):
    result = call(*arguments)
    assert result.exit_code == 2
    assert sentence in result.output


def test_a_transcript_that_cannot_be_read_is_told_with_status_2(tmp_path, clinic):
    path = tmp_path / "x.txt"
    path.write_text("what?\n")
    assert "line 1: found 'what?', expected" in call(str(path), "--survey", clinic).output
    path.write_text("# years: x\n")
    result = call(str(path), "--survey", clinic)
    assert result.exit_code == 2
    assert "of the survey 'years'" in result.output


def test_nothing_archived_of_a_sender_is_told_with_status_2(deployment):
    result = call("+33699999999")
    assert result.exit_code == 2
    assert "no session of +33699999999 is archived" in result.output
    assert f"no session none of {ANN} is archived" in call(ANN, "--session", "none").output


def test_what_was_heard_is_what_runs(deployment):
    """Tampering with what a person wrote shows in how it was read; of 0.1.0, which did not record that, in what was said
    next, or in the result."""
    tamper(deployment, ANN, SmsReceived, text="40")
    assert "differs at record 9 of 11\n" in call(ANN).output
    tamper(deployment, ANN, SmsReceived, step="", answer=None, answer_type="")
    assert "differs at record 11 of 11\n" in call(ANN).output  # the age is not said anywhere
    tamper(deployment, ANN, SmsReceived, text="old")
    assert "differs at record 10 of 11\n" in call(ANN).output
