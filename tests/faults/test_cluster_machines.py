"""A cluster on three machines, a primary and replicas of both others on each, of which the first is cut off: from its peers alone,
while Parley still reaches it, or with the workers on it from all the world. What is asked of replicas is kept word for word."""

from contextlib import contextmanager
from itertools import count

import pytest
from redis.crc import key_slot

from config.settings.settings import DEFAULT_SHARDS
from config.store import keyspace
from tests.faults.play import Play
from tests.faults.spread_deployment import (
    LONG_MS,
    WORKERS,
    hears,
    post,
    report_lags,
    spawn_on,
    start_here,
    talking,
)
from tests.support import audit, clinic
from tests.support.clusters import NODE_TIMEOUT_MS, ValkeyCluster
from tests.support.octopush import FakeOctopush, Faults
from tests.support.person import inbound
from tests.support.processes import Deployment
from tests.support.waiting import until

pytestmark = pytest.mark.topologies

SHARDS = DEFAULT_SHARDS


@pytest.fixture
def octopush(machines):
    with FakeOctopush(host=machines.address) as octopush:
        yield octopush


@pytest.fixture
def cluster(machines):
    """Its replicas take the place of a primary however long they have not heard of it: a busy machine is slow."""
    settings = {"cluster_replica_validity_factor": "0"}
    with ValkeyCluster(replicas=2, machines=machines.all, **settings) as cluster:
        yield cluster


@contextmanager
def deployed(cluster, octopush, *, replicas=1, host="127.0.0.1"):
    environment = {"PARLEY_REPLICAS": str(replicas), "PARLEY_SHARDS": str(SHARDS)}
    with Deployment(
        cluster.url, cluster.broker_url, octopush, environment=environment, host=host
    ) as deployment:
        yield deployment


def primary_on(cluster, machine):
    (primary,) = (each for each in cluster.primaries if each.host == machine.address)
    return primary


def lane_key(person):
    return keyspace.lane_key(keyspace.shard_of(person, SHARDS), person)


def someone_on(cluster, node, beginning=101):
    """The first person from this number on whose lane is there."""
    owners = cluster.owners()
    people = map(clinic.number, count(beginning))
    return next(person for person in people if owners[key_slot(lane_key(person).encode())] is node)


def test_without_replicas_asked_for_a_primary_that_is_cut_off_loses_what_it_acknowledged(
    machines, cluster, octopush
):
    first, *others = machines.all
    with deployed(cluster, octopush, replicas=0) as deployment:
        start_here(deployment)
        old = primary_on(cluster, first)
        anna = someone_on(cluster, old)
        assert post(deployment, inbound(anna, "START")) == 200
        hears(octopush, anna, clinic.NAME)
        cluster.be_patient(LONG_MS)
        first.cut_off_from(others)
        assert post(deployment, inbound(anna, "Ada")) == 200
        hears(octopush, anna, clinic.temperature("Ada"))
        assert b"Ada" in old.ask("GET", lane_key(anna))
        cluster.be_patient(NODE_TIMEOUT_MS)
        cluster.wait_failed_over(old)
        first.join()
        cluster.wait_complete()
        assert b"Ada" not in cluster.primary_of(lane_key(anna)).ask("GET", lane_key(anna))


def test_with_replicas_asked_for_conversations_survive_a_primary_that_is_cut_off(machines, cluster, octopush):
    """They go on with another one, while it is cut off, and believes that it has its slots."""
    first, *others = machines.all
    with deployed(cluster, octopush) as deployment:
        start_here(deployment)
        play = Play(deployment, octopush, connections=64)
        with talking(play, range(60)):
            until(lambda: octopush.count() >= 20, 60, "20 SMS were sent")
            old = primary_on(cluster, first)
            first.cut_off_from(others)
            cluster.wait_failed_over(old)
        assert old.portrait().slots
        report_lags(play, "a primary of a cluster cut off from its peers")
        first.join()
        cluster.wait_complete()
        play.judge()
        audit.settle(cluster.client(), cluster.client(cluster.broker_url))


def test_conversations_survive_a_machine_that_is_cut_off_with_its_primary_its_workers_and_web(
    machines, cluster, octopush
):
    """What its workers hold is free when their leases end, and when it is back, nothing is late, and it goes on alone."""
    first, second, _ = machines.all
    old = primary_on(cluster, first)
    anna, boris = (someone_on(cluster, old, beginning) for beginning in (101, 201))
    with deployed(cluster, octopush, host=second.address) as deployment:
        spawn_on(first, deployment, "web", *WORKERS)
        others = spawn_on(second, deployment, "web", "ratelimit", "conversation", "clock")
        deployment.wait_ready()
        deployment.wait_running()
        octopush.control(Faults(hang=True))
        assert post(deployment, inbound(anna, "START"), first.address) == 200
        until(lambda: octopush.ledger().received, 30, "the first machine is about to send it")
        octopush.control(Faults())
        others += spawn_on(second, deployment, "delivery")
        deployment.wait_running()
        play = Play(deployment, octopush, connections=64)
        with talking(play, range(40)):
            until(lambda: octopush.count() >= 20, 60, "20 SMS were sent")
            first.cut_off()
            cluster.wait_failed_over(old)
            hears(octopush, anna, clinic.NAME)
        report_lags(play, "a machine cut off, with a primary of a cluster, workers and web")
        before = octopush.ledger().received
        assert [sms.status for sms in before if sms.to == anna] == [0, 201]
        first.join()
        cluster.wait_complete()
        for process in others:
            process.kill9()
        until(lambda: post(deployment, inbound(boris, "START"), first.address) == 200, 30, "its web is back")
        hears(octopush, boris, clinic.NAME)
        late = {sms.to for sms in octopush.ledger().received[len(before) :]} & {sms.to for sms in before}
        assert not late
        play.judge(besides={anna: [clinic.NAME], boris: [clinic.NAME]})
        audit.settle(cluster.client(), cluster.client(cluster.broker_url))
