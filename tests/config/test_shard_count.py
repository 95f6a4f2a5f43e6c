"""The number of shards is the one by which the lanes lie in Redis, or nothing starts."""

from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from config.settings.config_errors import ConfigError
from config.settings.settings import load_settings
from config.settings.shard_count import division_mark, find_shards, read_division, settle_shards
from config.store import keyspace
from config.telemetry.redis_stats import StatsReader

CONFIG = Path(__file__).parents[2] / "config" / "parley.toml"
SENDERS = [f"+336{at:08}" for at in range(40)]


def settings(valkey, **variables):
    return load_settings(
        {
            "PARLEY_CONFIG": str(CONFIG),
            "PARLEY_REDIS_URL": valkey.url,
            "PARLEY_BROKER_URL": valkey.broker_url,
            **variables,
        }
    )


def settled(valkey, shards=""):
    return settle_shards(valkey.client(), settings(valkey, PARLEY_SHARDS=shards)).shards


def leave_lanes(valkey, shards, kind=keyspace.lane_key):
    """As 0.1.0 would have left them: a number is nowhere."""
    client = valkey.client()
    for sender in SENDERS:
        client.set(kind(keyspace.shard_of(sender, shards), sender), b"1 0 ")


def refused(valkey, shards):
    with pytest.raises(ConfigError) as refusal:
        settled(valkey, shards)
    (problem,) = refusal.value.problems
    assert "+336" not in problem
    return problem


def test_the_first_start_stores_the_number_and_those_without_one_find_it(valkey):
    assert settled(valkey, "8") == 8
    assert settled(valkey) == 8
    assert settled(valkey, "8") == 8
    assert valkey.client().get(keyspace.SHARDS_KEY) == b"8"


def test_another_number_is_refused_with_what_is_there_and_what_to_do(valkey):
    assert settled(valkey) == 256
    assert refused(valkey, "8") == (
        "PARLEY_SHARDS is 8: the lanes in this Redis are divided into 256; set it to 256, or leave it unset (only "
        "`parley reshard` divides them anew)"
    )


@pytest.mark.parametrize("kind", [keyspace.lane_key, keyspace.mailbox_key, keyspace.outbox_lock_key])
@pytest.mark.parametrize("there, shards", [(16, "8"), (16, "32"), (16, "15"), (4, "16"), (1, "2")])
def test_a_number_that_was_never_stored_is_told_by_how_keys_lie(valkey, there, shards, kind):
    leave_lanes(valkey, there, kind)
    assert f"PARLEY_SHARDS is {shards}: the lanes in this Redis are not divided into {shards}" in refused(
        valkey, shards
    )
    assert not valkey.client().exists(keyspace.SHARDS_KEY)
    assert settled(valkey, str(there)) == there


def test_lanes_of_the_first_release_are_in_16_unless_they_lie_otherwise(valkey):
    leave_lanes(valkey, 16)
    assert settled(valkey) == 16
    valkey.client().flushall()
    leave_lanes(valkey, 64)
    assert "PARLEY_SHARDS is not set: the lanes in this Redis are not divided into 16" in refused(valkey, "")
    assert settled(valkey, "64") == 64


def test_opt_outs_alone_tell_of_a_number_that_is_too_small(valkey):
    for k in range(16):
        valkey.client().hset(keyspace.optouts_key(k), "a-hash", "{}")
    assert "as what lies in shard" in refused(valkey, "8")
    assert settled(valkey) == 16


def test_keys_of_no_shard_tell_nothing(valkey):
    client = valkey.client()
    for name in ("{channel:77}:flow", "{key:12}:requests-per-minute", "{surveys}:used", "x{99}:lane:1"):
        client.set(name, "")
    assert settled(valkey, "8") == 8


def test_of_many_who_start_at_once_with_other_numbers_one_is_right(valkey):
    def start(shards):
        try:
            return settled(valkey, shards)
        except ConfigError:
            return None

    for at in range(5):
        valkey.client().flushall()
        with ThreadPoolExecutor(8) as many:
            found = list(many.map(start, ["8", "16", "", "32"] * 4))
        stored = int(valkey.client().get(keyspace.SHARDS_KEY))
        assert set(found) - {None} == {stored}, at


def test_whoever_only_looks_compares_and_stores_nothing(valkey):
    client = valkey.client()
    assert find_shards(client, settings(valkey, PARLEY_SHARDS="8")).shards == 8
    leave_lanes(valkey, 4)
    with pytest.raises(ConfigError, match="not divided into 8"):
        find_shards(client, settings(valkey, PARLEY_SHARDS="8"))
    assert not client.exists(keyspace.SHARDS_KEY)
    assert settled(valkey, "4") == 4
    assert find_shards(client, settings(valkey)).shards == 4
    with pytest.raises(ConfigError, match="divided into 4; set it to 4"):
        find_shards(client, settings(valkey, PARLEY_SHARDS="8"))


def test_a_number_that_was_lost_with_all_else_is_new(valkey):
    assert settled(valkey, "8") == 8
    valkey.client().flushall()
    assert settled(valkey, "32") == 32


@pytest.mark.parametrize("stored", ["", "x", "0", "99999999", "-1"])
def test_what_is_no_number_is_never_taken_for_one(valkey, stored):
    valkey.client().set(keyspace.SHARDS_KEY, stored)
    assert f"the key shards in the Redis of the lanes is {stored.encode()!r}" in refused(valkey, "16")


def test_few_keys_are_looked_at_of_many(valkey, monkeypatch):
    leave_lanes(valkey, 16)
    client = valkey.client()
    at = count()
    with client.pipeline() as filling:
        for _ in range(30_000):
            filling.set(f"{{3}}:session:{next(at)}", "")
        filling.execute()
    client.config_resetstat()
    assert settled(valkey) == 16
    assert client.info("commandstats")["cmdstat_scan"]["calls"] < 10


@pytest.mark.parametrize("shards", ["", "16", "256"])
def test_while_they_are_divided_anew_nothing_starts_with_any_number(valkey, shards):
    mark = division_mark(16, 256)
    valkey.client().set(keyspace.SHARDS_KEY, mark)
    assert refused(valkey, shards) == (
        "the lanes in this Redis are being divided anew, from 16 shards into 256, and that is not done: run "
        "`parley reshard --to 256` until it says that it is done"
    )
    assert not mark.isdigit(), "no release takes it for a number"
    assert read_division(valkey.client(), settings(valkey, PARLEY_SHARDS=shards)) == (16, 256)


def test_what_is_read_for_operators_is_of_the_stored_shards_or_of_none(valkey):
    settled(valkey, "4")
    reader = StatsReader(settings(valkey))
    assert len(reader.read().shards) == 4
    reader.close()
    other = StatsReader(settings(valkey, PARLEY_SHARDS="8"))
    assert "divided into 4" in other.read().lanes.why
    other.close()
