"""`parley channel`: nothing leaves on a paused channel until it is resumed, and what it says is so."""

import json

import pytest
from click.testing import CliRunner

from config.cli import main
from config.settings.settings import DEFAULT_SHARDS
from config.store import keyspace, pauses, redis_client
from workers.commands.channel import channel

PEOPLE = ["+33600000001", "+33600000002", "+33600000003"]


@pytest.fixture
def call(pipeline, monkeypatch, tmp_path, valkey):
    """A function: arguments -> output, where three SMS wait."""
    town = pipeline(sms_per_second=10)
    monkeypatch.setenv("PARLEY_REDIS_URL", valkey.url)
    monkeypatch.setenv("PARLEY_BROKER_URL", valkey.broker_url)
    monkeypatch.setenv("PARLEY_CONFIG", str(tmp_path / "parley.toml"))
    for person in PEOPLE:
        town.accept(person, "START")
    town.drain()

    def run(*arguments, status=0):
        result = CliRunner().invoke(channel, arguments)
        assert result.exit_code == status, result.output
        return result.output

    run.client = town.client
    return run


def listed(call):
    (row,) = (json.loads(line) for line in call("list", "--json").splitlines())
    return row


def test_a_pause_says_what_it_did_and_what_waits(call):
    assert call("pause", "clinic", "--why", "carrier incident", "--as", "anna") == (
        "clinic is paused until `parley channel resume` ends it; 3 SMS wait. What is being sent at this moment still "
        "goes.\n"
    )
    row = listed(call)
    assert (row["sms"], row["invitations"]) == (3, 0)
    since = row["paused"].pop("since")
    assert row["paused"] == {"by": "operator", "why": "carrier incident", "who": "anna", "left_ms": None}
    assert redis_client.server_time_ms(call.client) - since < 10_000


def test_a_pause_for_a_while_ends_by_itself(call):
    assert "paused for 2 h" in call("pause", "clinic", "--why", "x", "--for", "2h")
    assert 0 < call.client.pttl(keyspace.pause_key("clinic")) <= 2 * 3_600_000
    assert 0 < listed(call)["paused"]["left_ms"] <= 2 * 3_600_000
    told = json.loads(call("pause", "clinic", "--why", "x", "--for", "1s", "--json"))
    assert (told["for_ms"], told["replaced"]["why"], told["sms"]) == (1_000, "x", 3)


def test_who_pauses_is_whoever_types_unless_said(call):
    call("pause", "clinic", "--why", "x")
    assert "@" in listed(call)["paused"]["who"]


def test_an_operators_pause_replaces_the_providers(call):
    circuit = pauses.encode_pause(pauses.StoredPause(by="circuit", why="500", since=1))
    call.client.set(keyspace.pause_key("clinic"), circuit, px=60_000)
    said = call("pause", "clinic", "--why", "carrier incident", "--as", "anna")
    assert "It was paused already, as its provider fails (500): this pause replaces that." in said
    assert listed(call)["paused"]["by"] == "operator"


def test_a_resume_ends_any_pause_and_says_which(call):
    call("pause", "clinic", "--why", "carrier incident", "--as", "anna")
    assert call("resume", "clinic") == (
        "clinic is resumed; it was paused by an operator, anna (carrier incident). 3 SMS wait, at 10 a second.\n"
    )
    assert listed(call)["paused"] is None
    assert call("resume", "clinic").startswith("clinic was not paused.")


def test_what_rests_because_of_a_pause_is_due_at_the_channels_rate_once_it_is_resumed(call):
    """At ten a second, three are due within 300 ms."""
    call("pause", "clinic", "--why", "x")
    now = redis_client.server_time_ms(call.client)
    for person in PEOPLE:
        k = keyspace.shard_of(person, DEFAULT_SHARDS)
        call.client.set(keyspace.outbox_lock_key(k, person), f"0 {now + 3_600_000} 0 0 untried")
        call.client.zadd(keyspace.outbox_alarms_key(k), {person: now + 3_600_000})
    assert json.loads(call("resume", "clinic", "--json"))["people"] == 3
    due = [
        call.client.zscore(keyspace.outbox_alarms_key(keyspace.shard_of(person, DEFAULT_SHARDS)), person)
        for person in PEOPLE
    ]
    assert max(due) <= redis_client.server_time_ms(call.client) + 300


@pytest.mark.parametrize("arguments", [["pause", "clinik", "--why", "x"], ["resume", "clinik"]])
def test_an_unknown_channel_is_a_mistake_with_a_suggestion(call, arguments):
    assert "channel clinik is unknown: did you mean clinic?" in call(*arguments, status=2)


@pytest.mark.parametrize("written", ["soon", "0s", "-2h", "2"])
def test_what_is_no_length_of_time_is_a_mistake(call, written):
    assert "expected a length of time such as" in call(
        "pause", "clinic", "--why", "x", f"--for={written}", status=2
    )


def test_a_pause_without_a_reason_is_refused(call):
    call("pause", "clinic", status=2)


def test_the_table_says_it_too(call):
    call("pause", "clinic", "--why", "carrier incident", "--as", "anna")
    table = call("list")
    assert "by an operator, anna (carrier incident)" in " ".join(table.split())


def test_a_narrow_terminal_shows_why_a_channel_is_paused(call, monkeypatch):
    monkeypatch.setattr("engine.commands.terminal.PIPED_WIDTH", 80)
    call("pause", "clinic", "--why", "carrier [/incident]", "--as", "anna")
    lines = call("list").splitlines()
    assert max(map(len, lines)) <= 80
    assert {"since", "operator,", "anna", "(carrier", "[/incident])"} <= set(" ".join(lines).split())


def test_a_redis_that_is_full_is_told_in_a_sentence(call):
    call.client.config_set("maxmemory", 1)
    try:
        result = CliRunner().invoke(main, ["channel", "pause", "clinic", "--why", "x"])
    finally:
        call.client.config_set("maxmemory", 0)
    assert result.exit_code == 1
    assert (
        result.stderr
        == "Error: Redis is full and refuses writes: raise its `maxmemory`, then type this again\n"
    )
