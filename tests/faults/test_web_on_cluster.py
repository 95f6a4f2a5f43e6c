"""One server of three is away: whose shards are on the others notice nothing, and whose are on it lose nothing."""

import math
from contextlib import contextmanager
from time import monotonic

import pytest
import requests

from config.settings.settings import DEFAULT_SHARDS
from config.store import keyspace
from tests.faults.test_spool import PEOPLE, Talkers, handed_over, judge, spooling_on
from tests.support import clinic
from tests.support.processes import Deployment
from tests.support.waiting import until

pytestmark = pytest.mark.topologies

SHARDS = DEFAULT_SHARDS
UNNOTICED_S = 0.5

AWAY = {"dead": ("kill9", "start"), "hung": ("sigstop", "sigcont")}


def people_of(cluster, node):
    """Whose shards are on it."""
    owners = [cluster.primary_of(keyspace.lane_alarms_key(k)) for k in range(SHARDS)]
    return {
        person for person in range(PEOPLE) if owners[keyspace.shard_of(clinic.number(person), SHARDS)] is node
    }


@contextmanager
def away(node, how):
    lose, find = AWAY[how]
    getattr(node, lose)()
    try:
        yield
    finally:
        getattr(node, find)()


def p99(waits):
    return sorted(waits)[math.ceil(0.99 * len(waits)) - 1]


def waited(talkers, people, since_s):
    """How long acknowledgements took that came since then."""
    return [took for person in people for at, took in talkers.waited_s[person] if at - took >= since_s]


@pytest.mark.parametrize("how", AWAY)
def test_others_notice_nothing_and_what_is_spooled_is_handed_over_once_and_in_order(cluster, octopush, how):
    node = cluster.primaries[1]
    its = people_of(cluster, node)
    others = set(range(PEOPLE)) - its
    assert 10 < len(its) < PEOPLE - 10
    with spooling_on(cluster, octopush) as deployment:
        deployment.spawn("web"), deployment.spawn("web")
        deployment.wait_ready()
        with Talkers(deployment.webhook, range(PEOPLE), connections=PEOPLE) as talkers:
            talkers.go_on(2_000)
            before = p99(waited(talkers, others, 0))
            with away(node, how):
                since_s = monotonic()
                talkers.go_on(6_000)
                assert p99(waited(talkers, others, since_s)) < max(UNNOTICED_S, 4 * before)
                assert not handed_over(deployment), "and it is not waited for"
                heard = [len(waited(talkers, [person], since_s)) for person in its]
                assert min(heard) > 3, "whose server is away is acknowledged too"
            until(lambda: handed_over(deployment), 30, "all is handed over while they talk")
            talkers.go_on(1_000)
        until(lambda: handed_over(deployment), 15, "the last is handed over")
        judge(cluster.client(), talkers.said)


@pytest.mark.parametrize("how", AWAY)
def test_without_a_spool_only_those_are_refused_whose_server_is_away(cluster, octopush, how):
    node = cluster.primaries[1]
    its = people_of(cluster, node)
    others = set(range(PEOPLE)) - its
    with Deployment(cluster.url, cluster.broker_url, octopush) as deployment:
        deployment.spawn("web")
        deployment.wait_ready()
        with Talkers(deployment.webhook, range(PEOPLE), connections=PEOPLE) as talkers:
            talkers.go_on(2_000)
            before = p99(waited(talkers, others, 0))
            with away(node, how):
                since_s = monotonic()
                talkers.go_on(3_000)
                until_s = monotonic()
                ready = requests.get(f"{deployment.base}/readyz", timeout=60)
            until(
                lambda: all(talkers.waited_s[person][-1][0] > until_s for person in its),
                30,
                "it goes on by itself",
            )
        assert p99(waited(talkers, others, since_s)) < max(UNNOTICED_S, 4 * before)
        answered = [
            at for person in its for at, took in talkers.waited_s[person] if since_s + 0.5 < at < until_s
        ]
        assert answered == []
        judge(cluster.client(), talkers.said)
        assert (ready.status_code, ready.json()["redis"]) == (200, False)
        slots = sorted(slot for slot, owner in cluster.owners().items() if owner is node)
        assert ready.json()["away"] == [f"slots {slots[0]}-{slots[-1]} have no server"]
