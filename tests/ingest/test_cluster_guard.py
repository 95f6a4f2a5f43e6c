"""`web` begins on a cluster of which a server is away, if it can be sure of the number of shards."""

import asyncio

import pytest

from config.settings.settings import load_settings
from config.store import keyspace
from ingest.intake.mailboxes import RedisUnavailableError
from ingest.intake.server_guard import MIN_AGREEING_KEYS, ServerGuard, check_lanes_server

pytestmark = pytest.mark.processes

SHARDS = 16


def settings_of(cluster, **more):
    return load_settings(
        {
            "PARLEY_REDIS_URL": cluster.url,
            "PARLEY_BROKER_URL": cluster.broker_url,
            "PARLEY_SHARDS": str(SHARDS),
            **more,
        }
    )


def admit(settings):
    ends = []
    asyncio.run(ServerGuard(settings, ends.append).admit())
    assert ends == []


def fill(cluster, keys):
    client = cluster.client()
    for number in range(keys):
        sender = f"+336{number:08}"
        client.set(keyspace.lane_key(keyspace.shard_of(sender, SHARDS), sender), "x")


def test_a_server_that_is_away_keeps_nobody_from_beginning(cluster):
    check_lanes_server(settings_of(cluster))
    keeper = cluster.primary_of(keyspace.SHARDS_KEY)
    next(node for node in cluster.primaries if node is not keeper).sigstop()
    admit(settings_of(cluster))


def test_if_it_is_the_one_that_has_the_number_of_shards_the_others_keys_tell(cluster):
    check_lanes_server(settings_of(cluster))
    fill(cluster, 4 * MIN_AGREEING_KEYS)
    cluster.primary_of(keyspace.SHARDS_KEY).sigstop()
    admit(settings_of(cluster))
    for wrong in (2 * SHARDS, SHARDS // 2):
        with pytest.raises(RedisUnavailableError):
            admit(settings_of(cluster, PARLEY_SHARDS=str(wrong)))


def test_and_if_they_do_not_nothing_is_written(cluster):
    check_lanes_server(settings_of(cluster))
    fill(cluster, MIN_AGREEING_KEYS // 2)
    cluster.primary_of(keyspace.SHARDS_KEY).sigstop()
    with pytest.raises(RedisUnavailableError):
        admit(settings_of(cluster))
