"""Parley on a cluster: what each of its primaries takes of a turn, and what the way there costs the client."""

from collections.abc import Callable, Sequence
from statistics import median
from time import monotonic, process_time, sleep
from typing import Any

import msgspec
import redis

from config.settings.settings import DEFAULT_SHARDS
from config.store import function_calls, keyspace, redis_client
from engine.model.events import InboundSms, encode_event
from tests.bench.capacity_side import cpu_us
from tests.bench.parley_side import bare_draft, batches, sent_update
from tests.support import clinic
from tests.support.clusters import ValkeyCluster
from tests.support.octopush import FakeOctopush
from tests.support.processes import Deployment
from tests.support.valkey import Valkey
from workers.store.lanes import LaneStore
from workers.store.optouts import open_opt_out_list
from workers.store.outboxes import OutboxStore

Converse = Callable[[str, int, int], None]
"""Lets so many people, from the number of the first on, talk to their ends at a webhook."""

TURNS = 4
BATCH = 16
"""Commands in a round trip, as of a worker under load."""


IDLE_S = 3.0


class ClusterRun(msgspec.Struct):
    """So many turns through the whole pipeline: seconds, µs of CPU of each primary, and how many each takes in a second in which
    nothing is done."""

    turns: int
    seconds: float
    primaries_us: list[float]
    idle_us: list[float]

    @property
    def carried(self) -> float:
        """Turns a second with which the busiest primary is: the others wait for that one. A turn takes of it what it took more than
        when nothing is done, which it takes besides."""
        return min(
            (1_000_000 - idle) * self.turns / (taken - idle * self.seconds)
            for taken, idle in zip(self.primaries_us, self.idle_us, strict=True)
        )

    @property
    def us_a_turn(self) -> float:
        """Of all primaries together."""
        return sum(self.primaries_us) / self.turns


def run_cluster(octopush: FakeOctopush, primaries: int, people: int, converse: Converse) -> ClusterRun:
    """All of Parley, the lanes on so many primaries without replicas."""
    octopush.reset()
    with (
        ValkeyCluster(primaries, replicas=0) as cluster,
        Deployment(cluster.url, cluster.broker_url, octopush, forked=False) as deployment,
    ):
        webhook = deployment.start().webhook
        converse(webhook, 20, 0)
        idle_s, idle = _measure(cluster, lambda: sleep(IDLE_S))
        seconds, taken = _measure(cluster, lambda: converse(webhook, people, 1_000))
        return ClusterRun(TURNS * people, seconds, taken, [us / idle_s for us in idle])


def _measure(cluster: ValkeyCluster, work: Callable[[], None]) -> tuple[float, list[float]]:
    """How many seconds it took, and µs of CPU of each node."""
    before = [cpu_us(each.pid) for each in cluster.nodes]
    begun_s = monotonic()
    work()
    seconds = monotonic() - begun_s
    return seconds, [cpu_us(each.pid) - us for each, us in zip(cluster.nodes, before, strict=True)]


def busiest_us(primaries: int, people: int, batch: int) -> float:
    """µs of CPU of the busiest primary for a turn, by all that is asked of the lanes' servers for one: accept, claim, commit, lease,
    and what came of the try. So many people go in one round trip, whose lanes are on all primaries."""
    with ValkeyCluster(primaries, replicas=0) as cluster, redis_client.connect(cluster.url) as client:
        redis_client.load_functions(client)
        lanes = LaneStore(client, DEFAULT_SHARDS, open_opt_out_list(client, DEFAULT_SHARDS, ""))
        outboxes = OutboxStore(client, DEFAULT_SHARDS)
        numbers = [clinic.number(each) for each in range(people)]

        def turn_all(turn: int) -> None:
            for batched in batches(numbers, batch):
                _turn(client, lanes, outboxes, batched, turn)

        def go_on() -> None:
            for turn in range(1, TURNS):
                turn_all(turn)

        turn_all(0)
        _, taken = _measure(cluster, go_on)
        return max(taken) / ((TURNS - 1) * people)


def _turn(
    client: redis.Redis, lanes: LaneStore, outboxes: OutboxStore, senders: Sequence[str], turn: int
) -> None:
    events = [
        (each, False, encode_event(InboundSms(f"{turn}{each[1:]}", clinic.CHANNEL, "Ada", start=False)))
        for each in senders
    ]
    redis_client.run_commands(client, function_calls.accept_commands(DEFAULT_SHARDS, events)[0])
    lanes.commit([bare_draft(claim) for claim in lanes.claim(keyspace.REPLIES_QUEUE, senders).claimed])
    leases = outboxes.lease_oldest(senders)
    assert len(leases) == len(senders), "each of them has had a turn, and gets an answer"
    outboxes.apply_updates([sent_update(lease) for lease in leases])


def client_us(rounds: int, repeats: int) -> dict[int, tuple[float, float]]:
    """By the number of primaries, one and three: µs of the client's CPU for a command, by the cluster's client, and by the plain
    one on a server. Taken in turns, BATCH accepted SMS of as many people in a round."""
    with Valkey() as server, ValkeyCluster(1, replicas=0) as one, ValkeyCluster(3, replicas=0) as three:
        plain = redis_client.connect(server.url)
        routed = {count: redis_client.connect(each.url) for count, each in ((1, one), (3, three))}
        for client in (plain, *routed.values()):
            redis_client.load_functions(client)
            _accept(client, 50)
        taken = [
            {0: _accept(plain, rounds)} | {count: _accept(client, rounds) for count, client in routed.items()}
            for _ in range(repeats)
        ]
        for client in (plain, *routed.values()):
            client.close()
    medians = {count: median(each[count] for each in taken) for count in taken[0]}
    return {count: (medians[count], medians[0]) for count in routed}


def _accept(client: redis.Redis, rounds: int) -> float:
    events = [
        (
            clinic.number(each),
            False,
            encode_event(InboundSms(f"{each:016x}", clinic.CHANNEL, "Ada", start=False)),
        )
        for each in range(BATCH)
    ]
    commands: Sequence[Any] = function_calls.accept_commands(DEFAULT_SHARDS, events)[0]
    begun_s = process_time()
    for _ in range(rounds):
        redis_client.run_commands(client, commands)
    return (process_time() - begun_s) * 1_000_000 / (rounds * len(commands))
