"""An archive is forgotten by whoever says so, and while nobody would say again how far it is."""

import pytest
from click.testing import CliRunner

from config.settings.settings import DEFAULT_SHARDS
from config.store import keyspace
from config.telemetry import process_registry
from workers.commands.archive import forget


@pytest.fixture
def town(deploy):
    town = deploy()
    for k in range(3):
        town.client.set(keyspace.archived_key(k), "1-0 1")
    return town


def positions(town):
    return [k for k in range(town.world.settings.shards) if town.client.exists(keyspace.archived_key(k))]


def test_an_archive_that_is_forgotten_was_never_seen(town):
    done = CliRunner().invoke(forget, input="y\n")
    assert (done.exit_code, done.output.splitlines()[-1]) == (
        0,
        f"forgotten, for 3 of {DEFAULT_SHARDS} shards",
    )
    assert positions(town) == []
    again = CliRunner().invoke(forget, ["--yes"])
    assert again.output == f"forgotten, for 0 of {DEFAULT_SHARDS} shards\n"


def test_who_does_not_mean_it_changes_nothing(town):
    assert CliRunner().invoke(forget, input="n\n").exit_code == 1
    assert positions(town) == [0, 1, 2]


def test_nothing_is_forgotten_while_a_process_archives(town, valkey):
    with process_registry.send_heartbeats(valkey.url, "archive") as say:
        say()
        done = CliRunner().invoke(forget, ["--yes"])
    assert (done.exit_code, "would say again how far the archive is: stop it" in done.output) == (1, True)
    assert positions(town) == [0, 1, 2]
