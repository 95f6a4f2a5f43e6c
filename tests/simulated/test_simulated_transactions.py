"""MULTI in the simulation: a replica has all of it or none, and what is watched does not change meanwhile."""

import pytest
from redis.exceptions import WatchError

from tests.simulated.exploring.random_faults import ScheduledFaults
from tests.simulated.world.scheduler import Scheduler
from tests.simulated.world.simulated_redis import SimulatedRedis, SimulatedServer


@pytest.fixture
def server():
    return SimulatedServer(Scheduler(ScheduledFaults({})), "lanes")


def test_a_replica_has_all_of_a_transaction_or_none(server):
    client = SimulatedRedis(server)
    client.set("a", 0)
    with client.pipeline() as pipeline:
        pipeline.set("a", 1)
        pipeline.set("b", 1)
        assert pipeline.execute() == [True, True]
    assert server.model.changes == 2
    server.model.lose_last(1)
    assert (client.get("a"), client.get("b")) == (b"0", None)


def test_a_transaction_is_made_again_if_what_it_watches_has_changed(server):
    client = SimulatedRedis(server)
    looks = []

    def move(pipeline):
        looks.append(client.get("a"))
        if len(looks) == 1:
            client.set("a", 1)
        pipeline.multi()
        pipeline.set("b", len(looks))

    client.transaction(move, "a")
    assert (looks, client.get("b")) == ([None, b"1"], b"2")


def test_what_was_watched_before_a_failover_may_have_changed(server):
    client = SimulatedRedis(server)
    pipeline = client.pipeline()
    pipeline.watch("a")
    server.losses += 1
    pipeline.multi()
    pipeline.set("b", 1)
    with pytest.raises(WatchError):
        pipeline.execute()
