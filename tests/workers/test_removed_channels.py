"""A channel that was taken out of the settings: what is left of it is told, and ended on request."""

import json

import pytest
from click.testing import CliRunner

from config.cli import main
from config.settings.settings import load_settings
from config.store import keyspace, redis_client
from config.telemetry.exposition import MetricsExposition
from engine.model.events import Invitation, OpeningRefused, SessionEnded
from tests.support.inviting import hold_command
from tests.workers.dead_letters import stored
from workers.composition import build_turn_runner
from workers.store.deployment import Deployment

ANNA, BORIS, CLARA = "+33600000001", "+33600000002", "+33600000003"
LATER_MS = 4_000_000_000_000
"""In the year 2096."""

SENTENCE = (
    "the channel clinic is not configured, and nobody goes on with what it has (1 held invitation, 2 open sessions, "
    "2 SMS to send): configure it again, or `parley channel close clinic`"
)


@pytest.fixture
def town(deploy, tmp_path):
    """Two people are in sessions on the channel `clinic`, one is invited, and the settings have another channel instead."""
    town = deploy()
    for person in (ANNA, BORIS):
        town.accept(person, "START")
    town.drain()
    k = keyspace.shard_of(CLARA, town.world.settings.shards)
    invitation = Invitation("00000000000000cc", "clinic", "clinic")
    redis_client.run_command(town.client, hold_command(k, CLARA, invitation, LATER_MS))
    config = tmp_path / "parley.toml"
    config.write_text(config.read_text().replace("[channels.clinic", "[channels.other"))
    settings = load_settings({"PARLEY_CONFIG": str(config), "PARLEY_SURVEYS": str(tmp_path / "surveys")})
    town.turns = build_turn_runner(Deployment(settings, town.client, town.world.broker, town.world.surveys))
    return town


def call(*arguments, status=0):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == status, result.output
    return result.output


def leftovers(town):
    rows = [json.loads(line) for line in call("channel", "list", "--json").splitlines()]
    return [row for row in rows if not row["configured"]]


def test_status_check_and_channel_list_say_what_is_left_and_what_to_do(town):
    told = json.loads(call("status", "--json", status=1))
    assert SENTENCE in told["wrong"]
    assert told["removed"] == {"clinic": {"invitations": 1, "sessions": 2, "sms": 2}}
    assert f"warning: {SENTENCE}" in call("check")
    assert leftovers(town) == [
        {"channel": "clinic", "configured": False, "invitations": 1, "sessions": 2, "sms": 2}
    ]
    assert f"{SENTENCE[:1].upper()}{SENTENCE[1:]}." in call("channel", "list")


@pytest.mark.usefixtures("town")
def test_what_it_holds_is_a_metric(valkey, tmp_path):
    settings = load_settings(
        {
            "PARLEY_CONFIG": str(tmp_path / "parley.toml"),
            "PARLEY_REDIS_URL": valkey.url,
            "PARLEY_BROKER_URL": valkey.broker_url,
        }
    )
    assert 'parley_invitations_held{channel="(removed)"} 1.0' in MetricsExposition(settings).text().decode()


def test_what_is_left_is_ended_once_and_nothing_more_is_said(town):
    assert call("channel", "close", "clinic", "--yes") == (
        "1 invitation is withdrawn, 2 sessions are being cancelled, with what they had still to say.\n"
    )
    town.drain()
    for person in (ANNA, BORIS):
        assert town.said(person) == []
        assert [record.how for record in town.records(person) if isinstance(record, SessionEnded)] == [
            "cancelled"
        ]
    assert [record.reason for record in town.records(CLARA) if isinstance(record, OpeningRefused)] == [
        "cancelled"
    ]
    assert leftovers(town) == []
    assert list(stored(town.client, town.world.settings)) == []
    told = json.loads(call("channel", "close", "clinic", "--json"))
    assert told == {"channel": "clinic", "invitations": 0, "sessions": 0}


def test_a_channel_that_is_configured_is_not_closed(town):
    assert "channel other is configured" in call("channel", "close", "other", status=2)
    assert "with --yes nobody is asked" in call("channel", "close", "clinic", status=1)
    assert leftovers(town)
