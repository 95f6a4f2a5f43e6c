"""The line `hooks` of the Procfile as a simulated process, whose endpoints are simulated too."""

from collections.abc import Callable
from typing import Any

from config.archive.database import ArchiveDatabase
from config.store import keyspace
from tests.simulated.actors.quiet_waiting import QuietWait
from tests.simulated.world.scheduler import Process, Scheduler
from tests.simulated.world.simulated_archive import SimulatedArchive
from tests.simulated.world.simulated_endpoint import SimulatedEndpoint, SimulatedEndpointClient
from tests.simulated.world.simulated_loop import SimulatedLoop
from tests.simulated.world.simulated_world import SimulatedWorld
from workers.hooks.archive_questions import ANSWER_LIMIT_S, ArchiveBusyError, ArchiveQuestions
from workers.hooks.entry_reader import EntryReader
from workers.hooks.event_source import EventSource
from workers.hooks.hook_process import HookProcess
from workers.hooks.hook_store import HookStore
from workers.roles.hooks import look_after_endpoints, wait_for_archive
from workers.store.deployment import Deployment

UNTOLD_WAIT_S = 30.0
"""How long a process may wait, at the most, whose endpoints have not been told everything."""


class EndpointTellers:
    """All processes of `hooks`, and the endpoints. `began` is called whenever one of them begins a request."""

    def __init__(
        self, world: SimulatedWorld, archive: SimulatedArchive, began: Callable[[str, Process], None]
    ) -> None:
        self.endpoints = {name: SimulatedEndpoint(world.scheduler, name) for name in world.settings.hooks}
        self._world = world
        self._archive = archive
        self._began = began

    def begin(self, process: Process) -> None:
        """Be `hooks`."""
        world = self._world
        loop = SimulatedLoop(process)
        stop = QuietWait(process, world.lanes, self._news, self._may_rest, UNTOLD_WAIT_S)
        loop.create_task(self._tell(process, world.deployment(process), stop))
        process.spawn("", loop.run_forever)

    def is_all_told(self) -> bool:
        """Whether each endpoint is where the streams are."""
        return all(map(self._is_told, self.endpoints))

    def _may_rest(self) -> bool:
        view = self._world.lanes.view
        return all(
            view.exists(keyspace.hook_pause_key(name)) or self._is_told(name) for name in self.endpoints
        )

    def _is_told(self, name: str) -> bool:
        view = self._world.lanes.view
        positions = view.fields(keyspace.hook_positions_key(name))
        for k in range(self._world.settings.shards):
            last = view.last_entry(keyspace.events_key(k)) or (0, 0)
            if positions.get(b"%d" % k, b"0-0") != b"%d-%d" % last:
                return False
        return True

    def _news(self) -> object:
        view, settings = self._world.lanes.view, self._world.settings
        return (
            [view.last_entry(keyspace.events_key(k)) for k in range(settings.shards)],
            [
                (view.string(keyspace.hook_pause_key(name)), view.fields(keyspace.hook_positions_key(name)))
                for name in settings.hooks
            ],
        )

    async def _tell(self, process: Process, deployment: Deployment, stop: QuietWait) -> None:
        database = self._archive.database(process)
        found = await wait_for_archive(deployment, database, stop)
        assert found is not None
        source = _SimulatedSource(process, deployment, database)
        client: Any = SimulatedEndpointClient(self.endpoints, process, self._began)
        settings = deployment.settings
        hooks = HookProcess(
            settings.hooks,
            deployment.lanes,
            settings.shards,
            source,
            HookStore(deployment.lanes, owner_name(process)),
            client,
            found[1],
            settings.public_url,
            deployment.host,
        )
        await look_after_endpoints(hooks, stop)


def owner_name(process: Process) -> str:
    """What a life of a process is called in leases."""
    return f"{process.name}.{process.lives}"


class _SimulatedSource(EventSource):
    """An EventSource whose threads are actors."""

    def __init__(self, process: Process, deployment: Deployment, database: ArchiveDatabase) -> None:
        super().__init__(deployment.lanes, None, deployment.host)
        self._archive = ActorQuestions(process, deployment, database)
        self._reader = EntryReader(deployment.lanes, self._archive)
        self._reading: Any = _ActorLocks(process.scheduler)


class ActorQuestions(ArchiveQuestions):
    """Questions in actors of their own."""

    def __init__(self, process: Process, deployment: Deployment, database: ArchiveDatabase) -> None:
        super().__init__(deployment.lanes, database, deployment.host)
        self._process = process

    def _run(self, read: Callable[[], Any]) -> Any:
        if not self._places.acquire(blocking=False):
            raise ArchiveBusyError
        answers: list[tuple[Any, Exception | None]] = []

        def run() -> None:
            try:
                answers.append((read(), None))
            except Exception as e:  # noqa: BLE001 (whoever waits gets it)
                answers.append((None, e))
            self._places.release()
            self._process.scheduler.notify(answers)

        self._process.spawn("archive", run)
        self._process.scheduler.wait(answers, round(ANSWER_LIMIT_S * 1_000_000))
        if not answers:
            raise ArchiveBusyError
        answer, error = answers[0]
        if error is not None:
            raise error
        return answer


class _ActorLock:
    """A lock that an actor waits for, instead of its thread."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._is_held = False

    def acquire(self, timeout: float) -> bool:
        if self._is_held:
            self._scheduler.wait(self, round(timeout * 1_000_000))
        if self._is_held:
            return False
        self._is_held = True
        return True

    def release(self) -> None:
        self._is_held = False
        self._scheduler.notify(self)


class _ActorLocks(dict[int, Any]):
    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._scheduler = scheduler

    def setdefault(self, k: int, default: object = None) -> Any:
        return super().setdefault(k, _ActorLock(self._scheduler))
