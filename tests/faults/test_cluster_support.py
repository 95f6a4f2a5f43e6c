"""The clusters of these tests do what their names say: no claim about Parley."""

from contextlib import ExitStack
from types import FunctionType

import pytest
import redis
from redis.crc import key_slot

from config.store import redis_client
from config.store.redis_client import AWAY_ERRORS
from tests.support.clusters import SLOTS, ValkeyCluster, ValkeyNode
from tests.support.machines import Machines, NoMachinesError
from tests.support.proxies import Proxies
from tests.support.sentinels import ValkeyService
from tests.support.waiting import until

pytestmark = pytest.mark.topologies

KEY = "{a tag}"


@pytest.fixture
def cluster():
    with ValkeyCluster() as cluster:
        yield cluster


def test_a_cluster_is_complete_once_it_is_made(cluster):
    assert len(cluster.primaries) == 3
    assert [len(cluster.replicas_of(each)) for each in cluster.primaries] == [1, 1, 1]
    with cluster.client() as client:
        assert all(client.set(f"{each}", each) for each in range(100))
    assert sum(node.ask("DBSIZE") for node in cluster.primaries) == 100
    assert cluster.client(cluster.broker_url).ping()


def test_parleys_code_is_given_parleys_client(cluster):
    """Not the one of the tests, which hides what goes to one node alone."""
    client = cluster.client()
    for number in range(100):
        client.set(f"{number}", number)

    def ask(client):
        return client.dbsize(), client.pipeline()

    assert ask(client)[0] == 100
    of_parley = FunctionType(ask.__code__, {"__name__": "workers.store.somewhere"})
    with pytest.raises(NotImplementedError):
        of_parley(client)
    count = FunctionType((lambda client: client.dbsize()).__code__, {"__name__": "config.somewhere"})
    assert count(client) < 100


@pytest.mark.parametrize("topology", [ValkeyService, ValkeyCluster])
def test_nobody_gets_by_proxies(topology):
    with topology() as valkey, ExitStack() as stack:
        proxies = stack.enter_context(Proxies(valkey))
        for url in (proxies.url, proxies.broker_url):
            client = stack.enter_context(redis_client.connect(url, 0))
            commands = [("SET", f"{number}", number) for number in range(100)]
            assert all(redis_client.run_commands(client, commands))
            proxies.refuse()
            for command in commands:
                with pytest.raises(AWAY_ERRORS):
                    redis_client.run_command(client, command)
            proxies.admit()
            until(
                lambda client=client: redis_client.try_commands(client, [("PING",)]) == [True],
                10,
                "it is back",
            )
        stack.close()
        assert valkey.client().set("a", 1)


def test_another_takes_the_slots_of_one_that_is_killed_hangs_or_hands_over(cluster):
    cluster.client().set(KEY, "kept")
    for lose, find in (("kill9", "start"), ("sigstop", "sigcont")):
        old = cluster.primary_of(KEY)
        getattr(old, lose)()
        cluster.wait_failed_over(old)
        new = cluster.primary_of(KEY)
        assert new is not old
        assert new.ask("GET", KEY) == b"kept"
        getattr(old, find)()
        cluster.wait_complete()
        assert cluster.replicas_of(new) == [old]
    cluster.fail_over(old)
    assert cluster.primary_of(KEY) is old


def test_a_slot_moves_to_a_node_that_came_later_and_has_no_functions(cluster):
    for node in cluster.primaries:
        node.ask(
            "FUNCTION", "LOAD", "#!lua name=here\nserver.register_function('here', function() return 1 end)"
        )
    first, new = cluster.primary_of(KEY), cluster.add_node()
    for number in range(300):
        cluster.client().set(f"{KEY}{number}", number)
    slot = key_slot(KEY.encode())
    cluster.move_slot(slot, new)
    assert (cluster.primary_of(KEY), new.ask("DBSIZE")) == (new, 300)
    with pytest.raises(redis.exceptions.MovedError):
        first.ask("GET", f"{KEY}7")
    with pytest.raises(redis.ResponseError, match="Function not found"):
        new.ask("FCALL", "here", 1, KEY)
    met = []
    cluster.move_slot_by_keys(slot, first, lambda: met.append((first.ask("DBSIZE"), new.ask("DBSIZE"))))
    assert (cluster.primary_of(KEY), new.ask("DBSIZE")) == (first, 0)
    assert any(ours and theirs for ours, theirs in met)
    assert len(cluster.owners()) == SLOTS


def test_a_node_that_is_cut_off_keeps_its_word_and_is_not_believed():
    try:
        machines = Machines()
    except NoMachinesError as e:
        pytest.skip(f"NO MACHINE IS CUT OFF: {e}")
    with machines, ValkeyCluster(machines=machines.all) as cluster:
        old = cluster.primaries[0]
        (copy,) = cluster.replicas_of(old)
        assert {old.host, copy.host} <= {each.address for each in machines.all}
        assert old.host != copy.host
        here = next(each for each in machines.all if each.address == old.host)
        here.cut_off_from([each for each in machines.all if each is not here])
        cluster.wait_failed_over(old)
        assert old.portrait().slots == copy.portrait().slots
        assert cluster.primary_of(0) is copy
        here.join()
        cluster.wait_complete()
        assert cluster.replicas_of(copy) == [old]


def test_a_server_alone_is_a_cluster_once_it_has_all_slots():
    """So one is made of a server that was none."""
    with ValkeyNode() as node:
        assert not node.is_ok()
        node.ask("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
        until(node.is_ok, 10, "it is a cluster")
