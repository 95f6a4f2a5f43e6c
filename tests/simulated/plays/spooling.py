"""Redis is away again and again, people text all the while, and two `web` processes of one machine spool what they hear."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from unittest import mock

from config.store import keyspace
from ingest.intake import spool, spool_drain
from tests.simulated.actors.people import Habits, People, Person
from tests.simulated.actors.roles import begin_clock, begin_delivery, begin_turns
from tests.simulated.actors.web import Carriers, SpoolDisk, Web
from tests.simulated.oracles.spooled import SpoolOracle
from tests.simulated.plays.conversation import ANSWERS, CHANNELS, deployment_files
from tests.simulated.plays.play import EndingFaults, Stage, load_files
from tests.simulated.world.simulated_disk import SimulatedDisk

TEXTS = ("Ada", "36", "hm", "STOP", "START")

HABITS = Habits(restarts=0.1)


class SpoolPlay:
    """Three people, two `web` processes, and one worker of each kind."""

    name = "spool"
    storm_s = 60
    left_out = ()
    kinds = ()

    def begin(self, fault_source: EndingFaults, seed: str) -> Stage:
        senders = [f"+3361200000{n}" for n in range(3)]
        stage = Stage(load_files(deployment_files), dict(CHANNELS), senders, fault_source, seed)
        world = stage.world
        disk = SimulatedDisk(world.scheduler)
        spool_disk = SpoolDisk(disk, world.chance.choice((1 << 20, 1 << 20, 1_500)))
        stage.unfinished.append(lambda: spool_disk.has_events)
        webs = [Web(world, spool_disk=spool_disk) for _ in range(2)]
        stage.around += [disk.mounted(spool), small_parts(), *map(closing, webs)]
        disk.processes += [world.add_process(f"web-{n}", web.begin) for n, web in enumerate(webs, start=1)]
        for role, begin in (
            ("ratelimit", partial(begin_turns, world, keyspace.STARTS_QUEUE)),
            ("conversation", partial(begin_turns, world, keyspace.REPLIES_QUEUE)),
            ("delivery", partial(begin_delivery, world)),
            ("clock", partial(begin_clock, world)),
        ):
            world.add_process(role, begin)
        carriers = Carriers(world, webs)
        people = [
            Person(world, carriers, sender, channel, ANSWERS, HABITS)
            for sender, channel in zip(senders, CHANNELS, strict=True)
        ]
        People(world, people)
        stage.judges.append(
            SpoolOracle(world, stage.watcher, senders, spool_disk, fault_source.met.values()).judge
        )
        self._begin_outages(stage)
        for person in people:
            person.say_later("START", world.chance.random())
            for _ in range(world.chance.randrange(6)):
                person.say_later(world.chance.choice(TEXTS), 3 + world.chance.random() * 30)
        return stage

    @staticmethod
    def _begin_outages(stage: Stage) -> None:
        world = stage.world
        for _ in range(world.chance.randrange(1, 4)):
            at_us = world.scheduler.now_us + round(world.chance.random() * 30_000_000)
            ms = world.chance.choice((800, 5_000, 20_000))
            world.scheduler.at(at_us, partial(world.lanes.be_away, ms))


@contextmanager
def small_parts() -> Iterator[None]:
    """Let parts that are handed over be of one to four events, so that a few events are several parts; and let who waits for
    the file look seldom, as a look costs as much as any step."""
    with (
        mock.patch.multiple(spool_drain, FIRST_PART_EVENTS=1, LARGEST_PART_EVENTS=4),
        mock.patch.object(spool, "LOCK_POLL_S", 0.05),
    ):
        yield


SPOOLING = SpoolPlay()
