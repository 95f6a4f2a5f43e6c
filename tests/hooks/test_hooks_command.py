"""`parley hooks`, and what `parley dead` does with what an endpoint refused."""

import json
from collections import Counter
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from config.archive import archive_schema
from config.archive.database import ArchiveDatabase
from config.settings.settings import load_settings
from config.store import keyspace
from config.store.audit import operator_name
from tests.hooks.test_telling import SHARDS, say, sender, told_all
from tests.support.archiving import archive_everything
from tests.support.hook_endpoint import SECRET, Answer
from tests.support.telling import read_hook, telling
from tests.support.waiting import until
from workers.commands.dead import dead
from workers.commands.hooks import hooks
from workers.hooks.hook_store import HookStore
from workers.store import dead_letter_store

SURVEY = """
survey: clinic
start: [START]
steps:
  - {id: temperature, ask: "What is your temperature?", answer: {type: number}}
"""
CONFIG = """
[channels.clinic]
number = "+33700000001"
surveys = ["clinic"]

[hooks.crm]
url = "URL/events"
secret_env = "CRM_SECRET"
begin = "beginning"
events = ["session.opened", "session.ended"]
"""


@pytest.fixture
def deployed(client, endpoint, valkey, monkeypatch, tmp_path):
    """The environment of commands; the settings that they load."""
    (tmp_path / "parley.toml").write_text(CONFIG.replace("URL", endpoint.url))
    (tmp_path / "surveys").mkdir()
    (tmp_path / "surveys" / "clinic.yaml").write_text(SURVEY)
    environ = {
        "PARLEY_CONFIG": str(tmp_path / "parley.toml"),
        "PARLEY_SURVEYS": str(tmp_path / "surveys"),
        "PARLEY_REDIS_URL": valkey.url,
        "PARLEY_BROKER_URL": valkey.broker_url,
        "PARLEY_SHARDS": str(SHARDS),
        "PARLEY_ARCHIVE_URL": f"sqlite:///{tmp_path / 'archive.db'}",
        "PARLEY_HOOKS_ALLOW_PRIVATE": "1",
        "CRM_SECRET": SECRET,
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return load_settings(environ)


def run(command, *arguments, status=0, text=""):
    result = CliRunner().invoke(command, arguments, input=text)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.output


def rows(command, *arguments, status=0):
    """What a command says in JSON; what a process of the test logs meanwhile is not its."""
    lines = run(command, *arguments, "--json", status=status).splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def tell(client, settings, endpoint, count, archive=None):
    with telling(client, SHARDS, list(settings.hooks.values()), archive):
        told_all(endpoint, count)


def letters_of(client):
    return [letter for k in range(SHARDS) for letter in dead_letter_store.scan_unordered(client, k)]


def test_what_is_told_is_listed(deployed, client, endpoint):
    (row,) = rows(hooks, "list")
    assert (row["hook"], row["state"], row["behind_ms"]) == ("crm", "unheld", None)
    assert row["events"] == ["session.ended", "session.opened"]
    assert "not begun" in run(hooks, "list")
    say(client, range(3))
    with telling(client, SHARDS, list(deployed.hooks.values())):
        told_all(endpoint, 6)
        until(lambda: rows(hooks, "list")[0]["behind_ms"] == 0, 10, "all is told")
        assert rows(hooks, "list")[0]["state"] == "told"
    assert SECRET not in run(hooks, "list")


def test_an_endpoint_that_fails_is_listed_with_what_it_says(deployed, client, endpoint):
    endpoint.answer = lambda _: Answer(500, b"no disk")
    say(client, range(3))
    with telling(client, SHARDS, list(deployed.hooks.values())):
        until(lambda: rows(hooks, "list")[0]["state"] == "failing", 10, "its circuit opens")
        (row,) = rows(hooks, "list")
        assert row["why"] == "500 Internal Server Error"  # what it said may be what it was told
        assert row["behind_ms"] > 0
        assert "500 Internal Server Error" in " ".join(run(hooks, "list").split())


def test_a_test_sends_one_event_and_shows_the_answer(deployed, client, endpoint):
    assert run(hooks, "test", "crm").startswith(f"crm: {endpoint.url}/… took it (200) in ")
    (event,) = endpoint.taken
    assert (event["type"], event["source"], event["data"]) == ("hook.test", "/hooks/crm", {"hook": "crm"})
    assert client.keys("{hook:*") == []
    endpoint.answer = lambda _: Answer(403, b"who are you?")
    assert "refused it for good (403 Forbidden: who are you?)" in run(hooks, "test", "crm", status=1)
    (told,) = rows(hooks, "test", "crm", status=1)
    assert (told["outcome"], told["status"]) == ("refused", 403)


def test_a_hook_that_there_is_not(deployed):
    for command in (("test",), ("pause", "--why", "x"), ("resume",), ("rewind", "--to", "now", "--yes")):
        assert "expected crm" in run(hooks, command[0], "cmr", *command[1:], status=2)


def test_it_is_told_nothing_while_it_is_paused(deployed, client, endpoint):
    run(hooks, "pause", "crm", "--why", "the CRM moves house", "--as", "ada")
    say(client, range(3))
    (row,) = rows(hooks, "list")
    assert (row["state"], row["paused"]["why"], row["paused"]["who"]) == (
        "paused",
        "the CRM moves house",
        "ada",
    )
    assert "told again" in run(hooks, "resume", "crm")
    assert "neither paused nor failing" in run(hooks, "resume", "crm")
    run(hooks, "pause", "crm", "--why", "x", "--for", "2h")
    assert 0 < client.pttl(keyspace.hook_pause_key("crm")) <= 7_200_000


def test_it_is_told_again_from_a_moment_on(deployed, client, endpoint):
    archive = ArchiveDatabase(deployed.archive_url)
    archive_schema.migrate(archive)
    say(client, range(4))
    tell(client, deployed, endpoint, 8, archive)
    moment = client.time()[0] + 1
    until(lambda: client.time()[0] >= moment, 5, "time goes on")
    say(client, range(4, 8))
    tell(client, deployed, endpoint, 16, archive)
    archive_everything(client, SHARDS, archive)
    for k in range(SHARDS):
        client.xtrim(keyspace.events_key(k), maxlen=1, approximate=False)

    def told_since(*arguments, count):
        before = len(endpoint.taken)
        run(hooks, "rewind", "crm", *arguments)
        tell(client, deployed, endpoint, before + count, archive)
        return Counter(event["subject"] for event in endpoint.taken[before:])

    iso = f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"
    assert told_since("--to", "beginning", "--yes", count=16) == {f"s{n}": 2 for n in range(8)}
    assert told_since("--to", iso, "--yes", count=8) == {f"s{n}": 2 for n in range(4, 8)}
    assert told_since("--to", "1h", "--yes", count=16) == {f"s{n}": 2 for n in range(8)}
    archive.close()


def test_what_it_has_not_got_is_skipped_if_an_operator_says_so(deployed, client, endpoint):
    say(client, range(4))
    assert "is skipped" in run(hooks, "rewind", "crm", "--to", "now", status=1, text="n\n")
    assert read_hook(client, "crm").positions == {}
    run(hooks, "rewind", "crm", "--to", "now", text="y\n")
    say(client, range(4, 8))
    tell(client, deployed, endpoint, 8)
    assert {event["subject"] for event in endpoint.taken} == {"s4", "s5", "s6", "s7"}


def test_a_moment_that_is_none(deployed):
    assert "or beginning, or now" in run(hooks, "rewind", "crm", "--to", "yesterday", "--yes", status=2)


def test_one_that_was_removed_can_be_forgotten(deployed, client, endpoint):
    HookStore(client, "x").begin("old-crm", [(0, 0)] * SHARDS)
    assert "`parley hooks forget old-crm`" in run(hooks, "list").replace("\n", " ")
    assert rows(hooks, "list")[-1] == {"hook": "old-crm", "configured": False}
    assert "remove [hooks.crm] first" in run(hooks, "forget", "crm", "--yes", status=2)
    run(hooks, "forget", "old-crm", "--yes")
    assert client.keys("{hook:old-crm}*") == []
    assert "unknown" in run(hooks, "forget", "old-crm", "--yes", status=2)


def test_operators_are_in_the_audit(deployed, client):
    run(hooks, "pause", "crm", "--why", "x")
    run(hooks, "resume", "crm")
    run(hooks, "rewind", "crm", "--to", "now", "--yes")
    said = [entry for _, entry in client.xrange(keyspace.AUDIT_KEY)]
    assert [(each[b"action"], each[b"subject"]) for each in said] == [
        (b"pause hook", b"crm"),
        (b"resume hook", b"crm"),
        (b"rewind hook", b"crm"),
    ]
    assert {each[b"actor"].decode() for each in said} == {f"operator {operator_name()}"}


@pytest.fixture
def refused(deployed, client, endpoint):
    """Three events that the endpoint has refused, and takes now."""
    endpoint.answer = lambda told: (
        Answer(422, b"no such person") if told.events[0]["type"] == "session.ended" else Answer()
    )
    say(client, range(3))
    with telling(client, SHARDS, list(deployed.hooks.values())):
        until(lambda: len(letters_of(client)) == 3, 10, "they are put aside")
    endpoint.answer = lambda _: Answer()
    return {letter.session: letter for letter in letters_of(client)}


def test_refused_events_are_listed_and_shown(refused, client):
    assert [row["hook"] for row in rows(dead, "list", "--hook", "crm")] == ["crm"] * 3
    assert len(rows(dead, "list", "--queue", "hooks", "--reason", "endpoint_refused")) == 3
    assert rows(dead, "list", "--hook", "other") == []
    letter = refused["s1"]
    (shown,) = rows(dead, "show", letter.id)
    assert (shown["kind"], shown["hook"], shown["code"]) == ("hook", "crm", "422")
    assert json.loads(shown["what"])["type"] == "session.ended"
    assert shown["why"].endswith(": no such person")
    assert shown["replay"]["finding"] == "delivered"
    assert "session.ended" in run(dead, "show", letter.id)


def test_a_refused_event_is_sent_again_as_it_was(refused, client, endpoint):
    before = {event["id"]: event for event in endpoint.of("/events")}
    taken = len(endpoint.taken)
    (told,) = rows(dead, "replay", refused["s1"].id, "--dry-run")
    assert told["outcome"] == "delivered"
    assert len(endpoint.taken) == taken
    (told,) = rows(dead, "replay", refused["s1"].id)
    assert told["outcome"] == "delivered"
    (again,) = endpoint.taken[taken:]
    assert before[again["id"]] == again
    assert {letter.session for letter in letters_of(client)} == {"s0", "s2"}
    assert rows(dead, "audit")[-1]["outcome"] == "delivered"
    assert {row["outcome"] for row in rows(dead, "replay", "--hook", "crm", "--yes")} == {"delivered"}
    assert letters_of(client) == []


def test_one_that_is_refused_again_stays(refused, client, endpoint):
    endpoint.answer = lambda _: Answer(422, b"still not")
    (told,) = rows(dead, "replay", refused["s1"].id, status=1)
    assert told["outcome"] == "failing"
    assert told["why"].endswith(": still not")
    assert len(letters_of(client)) == 3


def test_one_whose_endpoint_was_removed_stays(refused, client, monkeypatch, tmp_path):
    path = tmp_path / "parley.toml"
    path.write_text(path.read_text().partition("[hooks")[0])
    (told,) = rows(dead, "replay", refused["s1"].id, status=1)
    assert "parley.toml has no [hooks.crm]" in told["why"]
    assert {row["outcome"] for row in rows(dead, "drop", "--hook", "crm", "--yes")} == {"dropped"}
    assert letters_of(client) == []


def test_a_letter_of_an_event_is_its_persons(refused, client):
    assert [row["sender"] for row in rows(dead, "list", "--sender", sender(1))] == [sender(1)]
