"""What a server that replicas follow says of them, as Valkey does; and what a failover then takes back."""

from contextlib import ExitStack
from random import Random

import click
import msgspec
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from config.connections.replication import REPLICATED_WITHIN_MS, NotReplicatedError
from config.store import redis_client
from tests.simulated.exploring.random_faults import ScheduledFaults
from tests.simulated.plays.conversation import CHANNELS, replicated_files
from tests.simulated.plays.play import load_files
from tests.simulated.server.server_model import Connection, ServerModel
from tests.simulated.world.faults import Fault
from tests.simulated.world.simulated_redis import SimulatedRedis
from tests.simulated.world.simulated_world import SimulatedWorld
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey
from tests.support.waiting import HANG_S, until
from workers.commands.connect import confirm_replicated
from workers.store.replication_check import find_history

CONNECTIONS = 3
COMMANDS = (
    ("SET", "a", 1), ("SET", "a", 1, "NX"), ("GET", "a"), ("DEL", "a"), ("INCR", "n"), ("SPUBLISH", "parley:written", ""),
    ("HSET", "h", "f", 1), ("HDEL", "h", "g"), ("ECHO", "x"),
)  # fmt: skip
"""Some change something, some do not, and some do at times."""


@pytest.fixture(scope="module")
def primary():
    """A server whose replica reaches it by `link`."""
    with ExitStack() as stack:
        valkey = stack.enter_context(Valkey())
        valkey.link = stack.enter_context(Proxy(valkey.url))
        stack.enter_context(Valkey(replicaof=f"127.0.0.1 {valkey.link.port}"))
        yield valkey


class BothServers:
    """The same commands on the same connections, to a Valkey and to the model."""

    def __init__(self, valkey):
        self._valkey = valkey
        self._clients = [valkey.client() for _ in range(CONNECTIONS)]
        self._model = ServerModel(lambda: 0)
        self._model.replicas = 1
        self._connections = [Connection() for _ in range(CONNECTIONS)]
        for client in self._clients:
            client.response_callbacks.clear()
        self.follows = True

    def cut_off(self):
        """Once the replica has all that was done."""
        with self._valkey.client() as client:
            client.set("last", 1)
            assert client.wait(1, round(HANG_S * 1_000)) == 1
        self._valkey.link.swallow()
        self._model.cut_off()
        self.follows = False

    def compare(self, n, command):
        theirs = self._clients[n].execute_command(*command)
        assert self._model.execute(command, self._connections[n]) == theirs, command

    def compare_wait(self, n):
        self.compare(n, ("WAIT", 1, round(HANG_S * 1_000) if self.follows else 10))


@pytest.mark.processes
@pytest.mark.parametrize("seed", range(4))
def test_each_connection_is_told_of_its_own_last_change(primary, seed):
    primary.client().flushall()
    until(lambda: primary.client().info("replication")["connected_slaves"] == 1, HANG_S, "it is followed")
    chance, both = Random(seed), BothServers(primary)
    for step in range(60):
        if step == 20:
            both.cut_off()
        n = chance.randrange(CONNECTIONS)
        both.compare(n, chance.choice(COMMANDS))
        both.compare_wait(chance.choice((n, chance.randrange(CONNECTIONS))))
    primary.link.spit_out()


@pytest.fixture
def world():
    files = load_files(replicated_files)
    return SimulatedWorld(files.settings, files.surveys, CHANNELS, ScheduledFaults({}), "replicas")


def play(world, *actors):
    """Run actors until none can go on."""
    for n, work in enumerate(actors):
        world.outside.spawn(f"actor {n}", work)
    world.scheduler.run_until(world.scheduler.now_us + 60_000_000)
    assert world.scheduler.crashes == []


def lag(world, ms):
    world.lanes.perform([("PING",)], 1, Fault("lag", ms))


def fail_over(world, calls):
    with pytest.raises(RedisConnectionError):
        world.lanes.perform([("PING",)], 1, Fault("fail_over", calls))


def write(world, key, told):
    """Return an actor that writes, and says whether replicas have it."""

    def work():
        begun_us = world.scheduler.now_us
        try:
            redis_client.run_commands(SimulatedRedis(world.lanes, retries=0), [("SET", key, 1)], replicas=1)
            said = "kept"
        except NotReplicatedError:
            said = "lacking"
        except RedisConnectionError:
            said = "unknown"
        told.append((said, (world.scheduler.now_us - begun_us) // 1_000))

    return work


def test_a_failover_takes_back_nothing_that_was_waited_for(world):
    told = []
    play(world, write(world, "kept", told))
    world.lanes.execute([("SET", "lost", 1)])
    fail_over(world, 9)
    assert (told, world.lanes.view.exists("kept"), world.lanes.view.exists("lost")) == (
        [("kept", 0)],
        True,
        False,
    )


def test_whoever_waits_for_replicas_that_are_cut_off_is_told_in_time(world):
    told = []
    lag(world, 30_000)
    play(world, write(world, "lost", told))
    assert told == [("lacking", REPLICATED_WITHIN_MS)]


def test_replicas_that_follow_again_confirm_what_was_written_meanwhile(world):
    told = []
    lag(world, 300)
    play(world, write(world, "kept", told))
    fail_over(world, 9)
    assert (told, world.lanes.view.exists("kept")) == ([("kept", 300)], True)


def test_whoever_waits_while_another_takes_over_knows_nothing(world):
    told = []
    lag(world, 30_000)
    world.scheduler.at(world.scheduler.now_us + 100_000, lambda: fail_over(world, 0))
    play(world, write(world, "lost", told))
    assert (told, world.lanes.view.exists("lost")) == ([("unknown", 100)], False)


def test_a_failover_loses_all_that_replicas_were_cut_off_from_but_what_they_had_before(world):
    world.lanes.execute([("SET", "kept", 1)])
    lag(world, 30_000)
    world.lanes.execute([("SET", f"lost-{n}", 1) for n in range(20)])
    fail_over(world, 0)
    left = [key for key in ("kept", *(f"lost-{n}" for n in range(20))) if world.lanes.view.exists(key)]
    assert left == ["kept"]


def test_a_command_is_not_confirmed_by_who_took_over_meanwhile(world):
    found = world.deployment(world.outside)
    deployment = msgspec.structs.replace(found, history=find_history(found.settings, found.lanes))
    confirm_replicated(deployment)
    world.lanes.model.promote()
    with pytest.raises(click.ClickException, match="failed over"):
        confirm_replicated(deployment)


def test_what_nobody_hears_of_may_be_lost(world):
    written = [("SET", "lost", 1), ("SPUBLISH", "parley:written", ""), ("WAIT", 1, 700)]
    with pytest.raises(RedisConnectionError):
        world.lanes.perform(written, 1, Fault("lose_reply"))
    fail_over(world, 2)
    assert not world.lanes.view.exists("lost")
