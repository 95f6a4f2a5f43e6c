"""What is a worker process? It reads the environment alone, reaches both Redis servers, works on one queue until SIGTERM
or SIGINT, and finishes what it holds.

Dramatiq's Worker runs here in the process itself, without its command line's master and pipes: one process to
supervise, and one that is gone when it is killed. Scale by running more of them.
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from time import sleep

import dramatiq
import msgspec
import redis
import structlog
from dramatiq import Worker

from config.settings.settings import Settings, load
from config.store import keyspace
from config.telemetry import process_registry
from config.telemetry.hot_reload import LOOK_S, Watch, repeatedly
from config.telemetry.logs import configure
from engine.proofs.survey_loader import Reread, read_surveys, reread_surveys
from engine.providers.provider_registry import mistakes
from engine.surveys.survey_registry import Surveys
from workers.runtime.durability import warn_of_forgetful
from workers.runtime.wakeup_broker import BATCH, Doorbell
from workers.store import survey_versions

log = structlog.get_logger()

STOP_MS = 8_000
"""How long a worker may take to finish what it holds once it is told to stop."""

END_S = 9.5
"""How long after that it is ended, whatever it does: supervisors kill after 10 s."""

Run = Callable[[str, Sequence[str]], None]


class World(msgspec.Struct, frozen=True):
    """What a worker process needs of the world."""

    settings: Settings
    surveys: Surveys
    lanes: redis.Redis
    broker: redis.Redis


def enter_world() -> World:
    """Read the configuration, reach both Redis servers, and make our functions and surveys known there."""
    settings, surveys = load(os.environ, read_surveys, mistakes)
    settings.require_redis()
    configure(settings)
    world = World(
        settings, surveys, keyspace.connect(settings.redis_url), keyspace.connect(settings.broker_url)
    )
    keyspace.load_functions(world.lanes)
    keyspace.load_functions(world.broker)
    survey_versions.publish(world.lanes, surveys)
    warn_of_forgetful(world.lanes)
    return world


@contextmanager
def live_surveys(world: World, role: str) -> Iterator[None]:
    """Meanwhile, this process is known to live, its surveys are as its folder has them, and `parley surveys` can tell
    that it runs them.

    A version is in Redis before any session can open on it here.
    """
    url = world.settings.redis_url
    with process_registry.enlisted(url, role, lambda: current_versions(world.surveys)) as say:

        def take_up(reread: Reread) -> None:
            survey_versions.put(world.lanes, reread.current)
            world.surveys.replace(reread.current)
            say()

        reread = partial(reread_surveys, running=world.surveys, needed=world.settings.offered)
        watch = Watch(world.settings.surveys, reread, take_up)
        publish = partial(survey_versions.publish, world.lanes, world.surveys)
        with (
            repeatedly(watch.look, LOOK_S, "surveys"),
            repeatedly(publish, survey_versions.PUBLISH_S, "versions"),
        ):
            yield


def current_versions(surveys: Surveys) -> dict[str, str]:
    """What is offered now, by name."""
    return {survey.name: survey.version for survey in filter(None, map(surveys.current, surveys.names()))}


def listen(
    world: World,
    queue: str,
    run: Run,
    threads: int = 1,
    batch: int = BATCH,
    stopping: Callable[[], None] = lambda: None,
) -> None:
    """Work on what is rung on `queue` until told to stop, then finish what was begun; `stopping` is called at once."""
    broker = Doorbell(world.broker, batch)
    dramatiq.actor(broker=broker, actor_name=queue, queue_name=queue)(_door(queue, run))
    worker = Worker(broker, worker_threads=threads)
    stop = StopSignal()
    worker.start()
    log.info("running", role=queue)
    stop.wait()
    stopping()
    worker.stop(timeout=STOP_MS)


def _door(queue: str, run: Run) -> Callable[[list[str]], None]:
    """The actor of `queue`. It never raises: Dramatiq would log the senders, and a wake-up needs no retry."""

    def wake(senders: list[str]) -> None:
        try:
            run(queue, senders)
        except redis.RedisError as e:
            log.warning(
                "Redis failed; the lanes' alarms will ring again",
                error=type(e).__name__,
                senders=len(senders),
            )
        except Exception:
            log.exception("a wake-up failed; the lanes' alarms will ring again", senders=len(senders))

    return wake


class StopSignal:
    """SIGTERM or SIGINT, waited for. Its queues may be put into by a signal handler; an Event's lock could be held by
    the very thread that the handler interrupts. A process that has not ended in time by itself, as Redis hangs, is ended:
    what it holds is as after a kill, and its leases run out."""

    def __init__(self) -> None:
        self._told: SimpleQueue[int] = SimpleQueue()
        self._doomed: SimpleQueue[int] = SimpleQueue()
        Thread(target=self._end, name="end", daemon=True).start()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._tell)

    def _tell(self, number: int, _frame: object) -> None:
        self._told.put(number)
        self._doomed.put(number)

    def _end(self) -> None:
        self._doomed.get()
        sleep(END_S)
        log.warning("not ended in time; the leases of what is held end by themselves", seconds=END_S)
        os._exit(1)

    def wait(self, timeout_s: float | None = None) -> bool:
        """True once the process is told to stop, False if it was not within `timeout_s`."""
        if timeout_s is None:
            # a signal that came while the process was stopped may be another thread's, and wakes only that one
            while not self.wait(LOOK_S):
                pass
            return True
        try:
            self._told.get(timeout=timeout_s)
        except Empty:
            return False
        return True
