"""A server that may lose what it acknowledges is no server for a start, unless the operator says that it may."""

import pytest
import redis

from config.settings.config_errors import ConfigError
from config.settings.durability import DURABILITY_SETTINGS, durability_gaps, require_durability

FORGETFUL = {"appendonly": "no", "appendfsync": "everysec", "maxmemory-policy": "allkeys-lru"}


def problems_of(client, wanted="strict"):
    with pytest.raises(ConfigError) as refusal:
        require_durability(client, wanted)
    return refusal.value.problems


@pytest.fixture
def changed(valkey):
    """A function that gives `valkey` a setting until the test ends."""
    client = valkey.client()
    yield client.config_set
    for name, value in DURABILITY_SETTINGS.items():
        client.config_set(name, value)


@pytest.fixture
def silent(valkey):
    """A client whose server does not show its settings."""
    client = valkey.client()
    client.acl_setuser("silent", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-config"])
    with redis.Redis(port=valkey.port, username="silent", password="any", protocol=2) as asking:
        yield asking
    client.acl_deluser("silent")


def test_what_production_is_set_to_is_enough(valkey):
    for wanted in ("strict", "relaxed", "managed"):
        require_durability(valkey.client(), wanted)


@pytest.mark.parametrize("name", FORGETFUL)
def test_each_setting_that_forgets_is_refused_with_what_to_do(valkey, changed, name):
    changed(name, FORGETFUL[name])
    (problem,) = problems_of(valkey.client())
    assert f"{name} is {FORGETFUL[name]!r}; CONFIG SET {name} {DURABILITY_SETTINGS[name]}" in problem
    assert "PARLEY_DURABILITY=relaxed" in problem


@pytest.mark.parametrize("wanted", ["relaxed", "managed"])
def test_what_may_be_lost_is_allowed_on_the_operators_word(valkey, changed, wanted):
    changed("appendfsync", "everysec")
    assert durability_gaps(valkey.client()) == {"appendfsync": "everysec"}
    require_durability(valkey.client(), wanted)


def test_a_server_that_does_not_show_its_settings_is_believed_on_the_operators_word_alone(silent):
    (problem,) = problems_of(silent)
    assert "does not show its settings" in problem
    assert "PARLEY_DURABILITY=managed" in problem
    require_durability(silent, "managed")
    require_durability(silent, "relaxed")
