"""Parley on a cluster: a primary dies or hangs and its replica takes over, slots move, nodes come, and every conversation goes on;
those of other nodes as if nothing were."""

from contextlib import contextmanager
from itertools import count, takewhile
from threading import Event, Thread
from time import monotonic

import pytest
import requests
from redis.crc import key_slot

from config.store import keyspace
from tests.faults.play import Play
from tests.support import audit, clinic
from tests.support.clusters import ValkeyCluster
from tests.support.person import inbound
from tests.support.processes import Deployment
from tests.support.waiting import HANG_S, until

pytestmark = pytest.mark.clusters

SHARDS = 16
SLOTS_OF_SHARDS = sorted(key_slot(keyspace.events_key(k).encode()) for k in range(SHARDS))

HELD_UP_END_TO_END_S = 0.5
"""How much longer than usual those wait, but for one in a hundred, whose node is not the one that is lost."""

CONNECTIONS = 128
"""So many that whoever is refused, and says it again, holds up nobody else."""


@pytest.fixture
def cluster():
    with ValkeyCluster() as cluster:
        yield cluster


@contextmanager
def deployed(cluster, octopush, *, replicas=1, **environment):
    environment = {"PARLEY_REPLICAS": str(replicas), "PARLEY_SHARDS": str(SHARDS), **environment}
    with Deployment(cluster.url, cluster.broker_url, octopush, environment=environment) as deployment:
        yield deployment


@pytest.fixture
def deployment(cluster, octopush):
    with deployed(cluster, octopush) as deployment:
        yield deployment


@pytest.fixture
def play(deployment, octopush):
    return Play(deployment, octopush, CONNECTIONS)


@contextmanager
def talking(play, *, every_s=0.1, think_s=0.3):
    """People come as long as this block lasts, and talk to the end."""
    over = Event()
    how = {"deadline_s": 90, "every_s": every_s, "think_s": think_s}
    coming = takewhile(lambda _: not over.is_set(), count())
    talk = Thread(target=lambda: play.crowd.talk(map(play.person, coming), **how), daemon=True)
    talk.start()
    try:
        yield
    finally:
        over.set()
    talk.join()


def owner_of(cluster, person):
    return cluster.primary_of(keyspace.events_key(keyspace.shard_of(person, SHARDS)))


def more_sms(octopush, number):
    sent = octopush.count()
    until(lambda: octopush.count() >= sent + number, 60, f"{number} more SMS are sent")


def settled(cluster, deployment):
    audit.settle(cluster.client(), cluster.client(deployment.environment["PARLEY_BROKER_URL"]))
    assert all(process.alive for process in deployment.processes)


def lags_of(play, homes, *, there):
    """How long people waited for each SMS whose lanes are of these shards, or are not, the shortest first."""
    waited = [each for each in play.people if (keyspace.shard_of(each.number, SHARDS) in homes) is there]
    return sorted(lag for each in waited for lag in each.lags_s)


def percentile(lags_s, share):
    """Of those in order, what so many did not exceed."""
    return lags_s[int(len(lags_s) * share)]


def report_lags(play, what, homes):
    for name, there in ((what, True), ("the others", False)):
        if lags_s := lags_of(play, homes, there=there):
            p99_s, middle_s = percentile(lags_s, 0.99), percentile(lags_s, 0.5)
            print(f"{name}: {lags_s[-1]:.2f} s at most, p99 {p99_s:.2f} s, {middle_s:.3f} s in the middle")
    print(f"of {play.crowd.posts} webhooks {play.crowd.again} were refused")


def judge_others(play, homes, before_s):
    """Whose lanes are not in these shards have waited for nothing that is not theirs, since they had waited `before_s`, which tells
    how long the machine itself takes beside what else it does."""
    since_s = lags_of(play, homes, there=False)
    for lag_s in before_s:
        since_s.remove(lag_s)
    usual_s, longest_s = percentile(before_s, 0.99), percentile(since_s, 0.99)
    print(f"the others' p99 since: {longest_s:.2f} s of {len(since_s)} SMS, {usual_s:.2f} s before")
    assert longest_s - usual_s < HELD_UP_END_TO_END_S


@pytest.mark.parametrize("replicas", [0, 1])
def test_conversations_survive_a_process_of_each_role_that_is_killed(octopush, replicas):
    with (
        ValkeyCluster(replicas=replicas) as cluster,
        deployed(cluster, octopush, replicas=replicas) as deployment,
    ):
        deployment.start()
        play = Play(deployment, octopush, CONNECTIONS)
        with talking(play):
            for process in deployment.processes:
                more_sms(octopush, 10)
                process.kill9()
                process.restart()
        report_lags(play, "each process was killed", range(SHARDS))
        play.judge()
        settled(cluster, deployment)


@pytest.mark.parametrize("lose, find", [("kill9", "start"), ("sigstop", "sigcont")])
def test_conversations_survive_the_loss_of_each_primary(cluster, deployment, octopush, play, lose, find):
    deployment.start()
    with talking(play):
        more_sms(octopush, 20)
        for old in cluster.primaries:
            getattr(old, lose)()
            cluster.wait_failed_over(old)
            more_sms(octopush, 5)
            getattr(old, find)()
            cluster.wait_complete()
    play.judge()
    settled(cluster, deployment)


@pytest.mark.parametrize("lose", ["kill9", "sigstop"])
def test_whose_lanes_are_elsewhere_does_not_notice_the_loss_of_a_primary(
    cluster, deployment, octopush, play, lose
):
    """But for what their channel has there, without which none of its SMS leave: here that is on another node."""
    deployment.start()
    home_of_channel = cluster.primary_of(keyspace.pause_key(clinic.CHANNEL))
    lost = next(node for node in cluster.primaries if node is not home_of_channel)
    homes = {k for k in range(SHARDS) if cluster.primary_of(keyspace.events_key(k)) is lost}
    with talking(play):
        more_sms(octopush, 200)
        before_s = lags_of(play, homes, there=False)
        begun_s = monotonic()
        getattr(lost, lose)()
        cluster.wait_failed_over(lost)
        took_s = monotonic() - begun_s
        more_sms(octopush, 120)
        (lost.start if lose == "kill9" else lost.sigcont)()
    report_lags(play, f"{lose}, another in its place after {took_s:.1f} s", homes)
    play.judge()
    settled(cluster, deployment)
    judge_others(play, homes, before_s)


def test_whose_lanes_are_elsewhere_does_not_wait_for_replicas_that_a_primary_lacks(
    cluster, deployment, octopush, play
):
    """Nor each time that it is found out that they are still lacking."""
    deployment.start()
    home_of_channel = cluster.primary_of(keyspace.pause_key(clinic.CHANNEL))
    alone = next(node for node in cluster.primaries if node is not home_of_channel)
    homes = {k for k in range(SHARDS) if cluster.primary_of(keyspace.events_key(k)) is alone}
    (replica,) = cluster.replicas_of(alone)
    with talking(play):
        more_sms(octopush, 200)
        before_s = lags_of(play, homes, there=False)
        replica.kill9()
        more_sms(octopush, 200)
        replica.start()
    report_lags(play, "a primary whose replica is lost", homes)
    play.judge()
    settled(cluster, deployment)
    judge_others(play, homes, before_s)


@pytest.mark.parametrize("way", ["at once", "by keys"])
def test_conversations_go_on_while_every_slot_moves(cluster, deployment, octopush, play, way):
    deployment.start()
    move = cluster.move_slot if way == "at once" else cluster.move_slot_by_keys
    with talking(play):
        more_sms(octopush, 20)
        primaries = cluster.primaries
        for slot in SLOTS_OF_SHARDS:
            place = primaries.index(cluster.primary_of(slot))
            move(slot, primaries[(place + 1) % len(primaries)])
    report_lags(play, f"slots moved {way}", range(SHARDS))
    play.judge()
    settled(cluster, deployment)


def test_a_node_that_comes_later_is_given_the_functions(cluster, octopush, play, deployment):
    deployment.start()
    with talking(play):
        more_sms(octopush, 20)
        new, copy = cluster.add_node(), cluster.add_node()
        cluster.replicate(copy, new)
        assert new.ask("FUNCTION", "LIST") == []
        for slot in SLOTS_OF_SHARDS[::2]:
            cluster.move_slot(slot, new)
        more_sms(octopush, 20)
    assert new.ask("FUNCTION", "LIST")
    play.judge()
    settled(cluster, deployment)


def test_a_node_that_is_away_when_parley_starts_is_missed_by_its_lanes_alone(cluster, octopush):
    """Without a replica, nobody takes its place. It is not the one that has what every process reads as it starts, nor their
    channel; and it was there at the first start of all, which looks at what lies on each."""
    needed = (keyspace.SHARDS_KEY, keyspace.SURVEYS_KEY, keyspace.pause_key(clinic.CHANNEL))
    with ValkeyCluster(replicas=0) as bare, deployed(bare, octopush, replicas=0) as deployment:
        lost = next(node for node in bare.primaries if node not in map(bare.primary_of, needed))
        here, there = (
            next(clinic.number(n) for n in range(99) if (owner_of(bare, clinic.number(n)) is lost) is away)
            for away in (False, True)
        )
        deployment.start()
        while deployment.processes:
            deployment.processes.pop().terminate()
        lost.kill9()
        deployment.start(web=0)
        deployment.spawn("web")
        until(lambda: _post(deployment, inbound(here, "START")) == 200, 30, "it is taken")
        until(lambda: [sms.text for sms in octopush.accepted(here)] == [clinic.NAME], 30, "and answered")
        start = inbound(there, "START")
        assert _post(deployment, start) == 503
        lost.start()
        until(lambda: _post(deployment, start) == 200, 30, "it is taken once its node is back")
        until(lambda: [sms.text for sms in octopush.accepted(there)] == [clinic.NAME], 30, "and answered")
        settled(bare, deployment)


def test_a_broker_on_a_cluster_is_missed_and_found_again(cluster, octopush):
    with ValkeyCluster(replicas=0) as bells:
        environment = {"PARLEY_BROKER_URL": bells.url}
        with deployed(cluster, octopush, **environment) as deployment:
            deployment.start()
            play = Play(deployment, octopush)
            with talking(play):
                more_sms(octopush, 20)
                bells.kill9()
                taken = play.crowd.posts
                until(lambda: play.crowd.posts >= taken + 10, 60, "people text on")
                bells.start()
                more_sms(octopush, 20)
            assert not play.crowd.again, "what they text is taken, though nobody is woken"
            play.judge()
            settled(cluster, deployment)


def _post(deployment, body):
    try:
        return requests.post(deployment.webhook, data=body, timeout=HANG_S).status_code
    except requests.ConnectionError:
        return 0  # it is starting
