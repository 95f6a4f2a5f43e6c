"""An operator who pauses endpoints, resumes them, and has them told again. A command that did not end is typed again."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import redis
from sqlalchemy.exc import SQLAlchemyError

from config.store.entry_id import BEGINNING
from tests.simulated.actors.endpoint_tellers import ActorQuestions
from tests.simulated.oracles.told_events import LeaseOracle, Rewind, ToldEventOracle
from tests.simulated.world.scheduler import Process
from tests.simulated.world.simulated_archive import SimulatedArchive
from tests.simulated.world.simulated_world import SimulatedWorld
from workers.hooks.archive_questions import ArchiveBusyError
from workers.hooks.entry_reader import EntryReader
from workers.hooks.hook_store import HookStore
from workers.store.deployment import Deployment

TYPED_AGAIN_US = 2_000_000


class HookOrder(NamedTuple):
    """What is to be done with an endpoint at `at_us`: `pause`, `resume`, or `rewind`, to so many ms ago, or to the beginning."""

    at_us: int
    what: str
    hook: str
    ago_ms: int = 0


class HookOperator:
    """Somebody who types these commands, in the order of their moments."""

    def __init__(
        self,
        world: SimulatedWorld,
        archive: SimulatedArchive,
        told: ToldEventOracle,
        leases: LeaseOracle,
    ) -> None:
        self.left: list[HookOrder] = []
        self._world = world
        self._archive = archive
        self._told = told
        self._leases = leases

    def begin(self, process: Process) -> None:
        process.spawn("", partial(self._work, process))

    def resume_all(self) -> None:
        """Have every endpoint resumed: a failover may have taken back that one was."""
        now_us = self._world.scheduler.now_us
        self.left += [HookOrder(now_us, "resume", hook) for hook in self._world.settings.hooks]
        self._world.scheduler.notify(self)

    def _work(self, process: Process) -> None:
        deployment = self._world.deployment(process)
        store = HookStore(deployment.lanes, "operator")
        while True:
            if not self.left:
                process.scheduler.wait(self)
            order = self.left[0]
            process.scheduler.sleep_us(order.at_us - process.scheduler.now_us)
            try:
                self._command(order, process, deployment, store)()
            except (redis.RedisError, SQLAlchemyError, ArchiveBusyError):
                process.scheduler.sleep_us(TYPED_AGAIN_US)
            else:
                self.left.remove(order)

    def _command(
        self, order: HookOrder, process: Process, deployment: Deployment, store: HookStore
    ) -> Callable[[], object]:
        match order.what:
            case "pause":
                return lambda: store.pause(order.hook, "it moves house", "operator")
            case "resume":
                return lambda: store.resume(order.hook)
            case _:
                return lambda: self._rewind(order, process, deployment, store)

    def _rewind(self, order: HookOrder, process: Process, deployment: Deployment, store: HookStore) -> None:
        """As `parley hooks rewind`, but never forwards."""
        world = self._world
        database = self._archive.database(process)
        reader = EntryReader(deployment.lanes, ActorQuestions(process, deployment, database))
        shards = range(world.settings.shards)
        if order.ago_ms:
            since_ms = world.lanes.now_ms - order.ago_ms
            known = store.load(order.hook, 0).positions
            places = {k: min(reader.find_last_before(k, since_ms), known.get(k, BEGINNING)) for k in shards}
        else:
            places = dict.fromkeys(shards, BEGINNING)
        since_us = world.scheduler.now_us
        self._leases.rewound_us[order.hook] = 1 << 62
        store.rewind(order.hook, places)
        self._leases.rewound_us[order.hook] = world.scheduler.now_us
        self._told.rewinds.append(Rewind(order.hook, places, since_us, world.lanes.model.changes))
