"""While Redis is away, `web` acknowledges what is on its machine's disk: nothing of it is lost, nor overtaken."""

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from threading import Event, Thread
from time import monotonic

import pytest
import uvloop

from config.settings.settings import DEFAULT_SHARDS
from config.store import keyspace
from engine.model.events import decode_inbound
from tests.support import clinic
from tests.support.person import Crowd, inbound
from tests.support.processes import Deployment
from tests.support.waiting import PATIENCE, until
from tests.support.wire import Address, Broken, Connection

SHARDS = DEFAULT_SHARDS
PEOPLE = 100
CONNECTIONS = 24
PAUSE_S = 0.05
PHASE = 300
DEADLINE_S = 90

NEW_CONNECTION = 0.2
"""How often one is made, which whatever process is next accepts."""

MANY, SMALL = 2_000, 32
"""Copies: of parts that were handed over, and of writes whose replies were lost."""


class Talkers:
    """People who number their SMS until they are told to stop. Each sends the next once the one before is acknowledged,
    over whatever connection is free, so to any `web` process. `said` is how many each has sent, and `waited_s` when each was
    acknowledged, and after how long."""

    def __init__(self, webhook, people, connections=CONNECTIONS):
        self.said = dict.fromkeys(people, 0)
        self.waited_s = {person: [] for person in people}
        self._connections = connections
        self._address = Address.of(webhook)
        self._chance = random.Random(5)
        self._enough = Event()
        self._thread = Thread(
            target=lambda: uvloop.run(asyncio.wait_for(self._talk(), DEADLINE_S * PATIENCE))
        )

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._enough.set()
        self._thread.join()

    def go_on(self, more=PHASE):
        """Until so many more are acknowledged."""
        before = sum(self.said.values())
        until(lambda: sum(self.said.values()) >= before + more, 30, f"{more} more SMS are acknowledged")

    async def _talk(self):
        free = asyncio.LifoQueue()
        for _ in range(self._connections):
            free.put_nowait(Connection(self._address.host, self._address.port))
        async with asyncio.TaskGroup() as group:
            for person in self.said:
                group.create_task(self._number(free, person))
        while not free.empty():
            free.get_nowait().close()

    async def _number(self, free, person):
        while not self._enough.is_set():
            body = inbound(clinic.number(person), str(self.said[person]))
            begun_s = monotonic()
            await self._acknowledged(free, body)
            self.said[person] += 1
            self.waited_s[person].append((monotonic(), monotonic() - begun_s))
            await asyncio.sleep(self._chance.uniform(0, 2 * PAUSE_S))

    async def _acknowledged(self, free, body):
        while True:
            if await self._post(free, body):
                return
            await asyncio.sleep(PAUSE_S)

    async def _post(self, free, body):
        connection = await free.get()
        try:
            answer = await connection.ask("POST", self._address.target, body)
        except (Broken, OSError):
            return False
        else:
            return answer.status == 200
        finally:
            if self._chance.random() < NEW_CONNECTION:
                connection.close()
            free.put_nowait(connection)


def mail(client, sender):
    """Of each event in a mailbox: its id, its text, and when it was accepted (ms)."""
    entries = client.lrange(keyspace.mailbox_key(keyspace.shard_of(sender, SHARDS), sender), 0, -1)
    events = [(int(entry[1:14]), decode_inbound(entry[14:])) for entry in entries]
    return [(event.id, event.text, at) for at, event in events]


def judge(client, said):
    """Every SMS that was acknowledged is in its mailbox, in order, its copies behind it. How many copies there are."""
    found = 0
    for person, number in said.items():
        got = mail(client, clinic.number(person))
        found += len(got)
        texts = {identity: text for identity, text, _ in got}
        assert list(texts.values()) == [str(n) for n in range(number)], person
    return found - sum(said.values())


def spool_file(deployment):
    return deployment.folder / "spool" / "events"


def handed_over(deployment):
    return spool_file(deployment).stat().st_size == 0


@contextmanager
def spooling_on(valkey, octopush, **environment):
    """A deployment with a spool."""
    with Deployment(valkey.url, valkey.broker_url, octopush, environment=environment) as deployment:
        deployment._environment["PARLEY_SPOOL"] = str(deployment.folder / "spool")
        yield deployment


@pytest.fixture
def spooling(own_valkey, octopush):
    with spooling_on(own_valkey, octopush) as deployment:
        yield deployment


@pytest.mark.one_server(
    "behind Sentinel a replica takes over that may lack the last of it, as PARLEY_REPLICAS is 0"
)
def test_what_two_processes_acknowledge_is_neither_lost_nor_overtaken(own_valkey, spooling):
    """However Redis and they are killed."""
    webs = [spooling.spawn("web"), spooling.spawn("web")]
    spooling.wait_ready()
    spooling.wait_running()
    with spooling.respawning(), Talkers(spooling.webhook, range(PEOPLE)) as talkers:

        def back():
            """Redis is, and all is handed over while they talk."""
            until(lambda: handed_over(spooling), 15, "all is handed over")
            talkers.go_on()

        talkers.go_on()
        own_valkey.kill9()
        talkers.go_on()
        own_valkey.start()
        back()
        own_valkey.sigstop()
        talkers.go_on()
        webs[0].kill9()
        talkers.go_on()
        own_valkey.sigcont()
        back()
        own_valkey.kill9()
        talkers.go_on()
        own_valkey.start()
        webs[1].kill9()
        webs[0].kill9()
        back()
    until(lambda: handed_over(spooling), 15, "the last is handed over")
    assert judge(own_valkey.client(), talkers.said) <= MANY


DEATHS = [
    "before_spool", "after_spool", "before_hand_over", "after_hand_over", "after_move", "before_finish", "after_finish",
]  # fmt: skip


def test_a_process_that_dies_at_any_step_leaves_all_of_it_to_its_successor(own_valkey, octopush):
    """One deployment for each step, all on one Redis. What is handed over twice is a part, and small."""
    with ExitStack() as stack:
        deployments = []
        for death in DEATHS:
            deployment = stack.enter_context(spooling_on(own_valkey, octopush))
            deployment.spawn("web", death)
            deployments.append(deployment)
        for deployment in deployments:
            deployment.wait_ready()
            stack.enter_context(deployment.respawning())
        first_lives = [deployment.processes[0].pid for deployment in deployments]
        own_valkey.stop()
        said = [dict.fromkeys(range(10 * n, 10 * n + 3), 20) for n in range(len(DEATHS))]
        with ThreadPoolExecutor(len(DEATHS)) as pool:
            for deployment, people in zip(deployments, said, strict=True):
                bodies = [
                    inbound(clinic.number(person), str(number)) for number in range(20) for person in people
                ]
                pool.submit(Crowd(deployment.webhook, octopush).post, bodies)
        own_valkey.start()
        for death, deployment, people in zip(DEATHS, deployments, said, strict=True):
            until(lambda deployment=deployment: handed_over(deployment), 15, f"{death}: all is handed over")
            assert judge(own_valkey.client(), people) <= SMALL, death
        lives = [deployment.processes[0].pid for deployment in deployments]
        assert [
            death for death, *pids in zip(DEATHS, first_lives, lives, strict=True) if pids[0] == pids[1]
        ] == []
