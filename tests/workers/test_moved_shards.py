"""A shard that a cluster moves to another server has lost nothing there, whatever that server has been through; one whose server
was lost may have, as tests/workers/test_failovers.py has it."""

import pytest

from config.connections.cluster_routing import slot_of_key
from config.store import keyspace, redis_client, stored_values
from engine.model.events import OutboundSms, decode_outbound, encode_event
from tests.support.clusters import NODE_TIMEOUT_MS, ValkeyCluster
from tests.support.waiting import HANG_S, until
from workers.store.outboxes import OutboxStore

ANNA, OTHERS = "+33600000001", "+33600000009"
SHARDS = 1


@pytest.fixture(scope="module")
def cluster():
    """Whose servers write a second later, so that one that is lost, or starts again, may have lost something."""
    with ValkeyCluster(primaries=2, appendfsync="everysec") as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with redis_client.connect(cluster.url) as client:
        redis_client.load_functions(client)
        yield client
        cluster.empty()


@pytest.fixture
def outboxes(client):
    return OutboxStore(client, SHARDS)


def queue(client):
    """An SMS waits that was decided long ago, on a shard that is worked on."""
    OutboxStore(client, SHARDS).lease_oldest([OTHERS])
    sms = OutboundSms("00000000000000aax0", "c", ANNA, "text", "00000000000000aa", decided=1)
    client.rpush(keyspace.outbox_key(0, ANNA), stored_values.outbox_entry("c", encode_event(sms)))
    client.zadd(keyspace.outbox_alarms_key(0), {ANNA: 1})


def is_uncertain(outboxes):
    (lease,) = outboxes.lease_oldest([ANNA])
    return decode_outbound(lease.sms_bytes).uncertain


def move_shard(cluster):
    here = cluster.primary_of(keyspace.server_key(0))
    there = next(node for node in cluster.primaries if node is not here)
    cluster.move_slot(slot_of_key(keyspace.server_key(0)), there)


def test_what_was_moved_has_lost_nothing_wherever_to(cluster, client, outboxes):
    queue(client)
    move_shard(cluster)
    assert not is_uncertain(outboxes)


def test_what_was_moved_to_a_server_that_was_promoted_once_has_lost_nothing(cluster, client, outboxes):
    queue(client)
    target = next(
        node for node in cluster.primaries if node is not cluster.primary_of(keyspace.server_key(0))
    )
    cluster.fail_over(cluster.replicas_of(target)[0])
    move_shard(cluster)
    assert not is_uncertain(outboxes)


def test_what_a_replica_took_over_may_have_lost_its_tail(cluster, client, outboxes):
    queue(client)
    cluster.fail_over(cluster.replicas_of(cluster.primary_of(keyspace.server_key(0)))[0])
    assert is_uncertain(outboxes)


def test_what_a_replica_took_over_from_one_that_is_there_still_may_have_lost_its_tail(
    cluster, client, outboxes
):
    """By an operator's word, and before it has heard that the former follows it, which does not answer."""
    queue(client)
    former = cluster.primary_of(keyspace.server_key(0))
    replica, other = (
        cluster.replicas_of(former)[0],
        next(each for each in cluster.primaries if each is not former),
    )
    cluster.be_patient(60_000)
    former.sigstop()
    try:
        replica.ask("CLUSTER", "FAILOVER", "TAKEOVER")
        until(lambda: other.portraits()[replica.id].slots, HANG_S, "who has taken over is known")
        assert replica.portraits()[former.id].flags == {"master"}
        assert is_uncertain(outboxes)
    finally:
        former.sigcont()
        cluster.be_patient(NODE_TIMEOUT_MS)
    cluster.wait_complete()
