"""Runs a worker process: it reads the environment alone, reaches both Redis servers, works on one queue until SIGTERM
or SIGINT, and finishes what it holds.

Dramatiq's Worker runs here in the process itself, without its command line's master and pipes: one process to
supervise, and one that is gone when it is killed. Scale by running more of them.
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from time import sleep

import dramatiq
import redis
import structlog
from dramatiq import Worker
from prometheus_client import CollectorRegistry

from config.connections.cluster_view import LOOK_AROUND_INTERVAL_S
from config.settings.durability import require_durability
from config.settings.server_mode import require_server_mode
from config.settings.settings import Settings
from config.settings.shard_count import settle_shards
from config.settings.startup_check import load_settings_and_surveys
from config.store import redis_client
from config.store.missing_rights import failure_words
from config.telemetry import metrics, process_registry
from config.telemetry.hot_reload import RELOAD_INTERVAL_S, SurveyReloader
from config.telemetry.logs import configure_logging
from config.telemetry.periodic_task import run_periodically
from config.telemetry.supervision import LoopRounds, supervised
from config.telemetry.zero_counters import begin_at_zero
from engine.proofs.survey_loader import ReloadResult
from engine.surveys.survey_registry import SurveyRegistry
from workers.runtime.wakeup_broker import wakeup_batch
from workers.store import survey_versions
from workers.store.deployment import Deployment

log = structlog.get_logger()

WORKER_STOP_TIMEOUT_MS = 8_000
"""How long a worker may take to finish what it holds once it is told to stop."""

FORCED_EXIT_S = 9.5
"""Seconds from the signal until the process is ended by force. Supervisors kill after 10 s."""

WakeupHandler = Callable[[str, Sequence[str]], None]


def open_deployment(role: str) -> Deployment:
    """Read the configuration, begin to count what a process of `role` counts, reach both Redis servers, and make our functions and surveys known there. Raises ConfigError
    if that of the lanes is not as the settings say."""
    settings, surveys = load_settings_and_surveys()
    settings.require_redis()
    configure_logging(settings)
    begin_at_zero(role, settings)
    lanes = redis_client.connect(settings.redis_url)
    require_server_mode(lanes)
    require_durability(lanes, settings.durability)
    deployment = Deployment(
        settle_shards(lanes, settings), lanes, redis_client.connect(settings.broker_url), surveys
    )
    redis_client.load_functions(deployment.lanes)
    redis_client.load_functions(deployment.broker)
    survey_versions.publish_current(deployment.lanes, surveys)
    return deployment


@contextmanager
def keep_surveys_current(deployment: Deployment) -> Iterator[None]:
    """Keep this process's surveys as its folder has them, until the block ends. For who opens no session: nothing is stored."""

    def apply_reload(result: ReloadResult) -> None:
        deployment.surveys.replace_current(result.current)

    settings = deployment.settings
    reloader = SurveyReloader(settings.surveys, deployment.surveys, settings.offered_surveys, apply_reload)
    with run_periodically(reloader.check_folder, RELOAD_INTERVAL_S, "surveys"):
        yield


@contextmanager
def hot_reloaded_surveys(deployment: Deployment, role: str) -> Iterator[None]:
    """Send this process's heartbeats with the versions that it runs, and keep its surveys as its folder has them,
    until the block ends.

    A version is in Redis before any session can open on it here.
    """
    url = deployment.settings.redis_url
    with process_registry.send_heartbeats(url, role, lambda: current_versions(deployment.surveys)) as say:

        def apply_reload(result: ReloadResult) -> None:
            survey_versions.store_versions(deployment.lanes, result.current)
            deployment.surveys.replace_current(result.current)
            say()

        settings = deployment.settings
        reloader = SurveyReloader(
            settings.surveys, deployment.surveys, settings.offered_surveys, apply_reload
        )
        publish = partial(survey_versions.publish_current, deployment.lanes, deployment.surveys)
        with (
            run_periodically(reloader.check_folder, RELOAD_INTERVAL_S, "surveys"),
            run_periodically(publish, survey_versions.VERSION_PUBLISH_INTERVAL_S, "versions"),
        ):
            yield


def current_versions(surveys: SurveyRegistry) -> dict[str, str]:
    """Return the versions of the current surveys, by name."""
    return {
        survey.name: survey.version for survey in filter(None, map(surveys.current, surveys.current_names()))
    }


def consume_wakeups(
    deployment: Deployment,
    queue: str,
    run: WakeupHandler,
    threads: int = 1,
    batch: int | None = None,
    stopping: Callable[[], None] = lambda: None,
    rounds: LoopRounds | None = None,
) -> None:
    """Work on the wake-ups of `queue` until told to stop, then finish what was begun; `stopping` is called at
    once. Of no more than `batch` senders at once, if that is said. `rounds` has loops that must go round beside it."""
    rounds = rounds or LoopRounds()
    broker = deployment.wakeup_broker(batch or wakeup_batch(deployment.lanes), rounds.went_round)
    dramatiq.actor(broker=broker, actor_name=queue, queue_name=queue)(_wakeup_actor(queue, run))
    worker = Worker(broker, worker_threads=threads)
    stop = StopSignal()
    worker.start()
    log.info("running", role=queue)
    with supervised_process(deployment.settings, rounds), _servers_watched(deployment):
        stop.wait()
        stopping()
        worker.stop(timeout=WORKER_STOP_TIMEOUT_MS)


@contextmanager
def _servers_watched(deployment: Deployment) -> Iterator[None]:
    """Find out about servers of a cluster that hang until the block ends, at no lane's expense."""
    with ExitStack() as stack:
        for client in (deployment.lanes, deployment.broker):
            if redis_client.is_cluster(client):
                look = partial(redis_client.look_around, client)
                stack.enter_context(run_periodically(look, LOOK_AROUND_INTERVAL_S, "look"))
        yield


def supervised_process(
    settings: Settings, rounds: LoopRounds, registry: CollectorRegistry = metrics.REGISTRY
) -> AbstractContextManager[None]:
    """Tell supervisors how this process does until the block ends, and on PARLEY_METRICS_PORT what it has counted."""
    return supervised(rounds, settings.host, settings.metrics_port, registry)


def _wakeup_actor(queue: str, run: WakeupHandler) -> Callable[[list[str]], None]:
    """The actor of `queue`. It never raises: Dramatiq would log the senders, and a wake-up needs no retry."""

    def handle_wakeup(senders: list[str]) -> None:
        try:
            run(queue, senders)
        except redis.RedisError as e:
            log.warning(
                "Redis failed; the lanes' alarms will ring again",
                error=failure_words(e),
                senders=len(senders),
            )
        except Exception:
            log.exception("a wake-up failed; the lanes' alarms will ring again", senders=len(senders))

    return handle_wakeup


class StopSignal:
    """Wait for SIGTERM or SIGINT. `went_round` is called whenever a loop asks. A SimpleQueue, not an Event: a signal handler may interrupt the very thread that
    holds an Event's lock. A process that has not ended FORCED_EXIT_S after the signal (Redis hangs, say) exits with status
    1; its leases run out, as after a kill."""

    def __init__(self, went_round: Callable[[], None] = lambda: None) -> None:
        self._went_round = went_round
        self._stop_requests: SimpleQueue[int] = SimpleQueue()
        self._exit_requests: SimpleQueue[int] = SimpleQueue()
        Thread(target=self._exit_when_overdue, name="end", daemon=True).start()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: object) -> None:
        self._stop_requests.put(number)
        self._exit_requests.put(number)

    def _exit_when_overdue(self) -> None:
        self._exit_requests.get()
        sleep(FORCED_EXIT_S)
        log.warning("not ended in time; the leases of what is held end by themselves", seconds=FORCED_EXIT_S)
        os._exit(1)

    def wait(self, timeout_s: float | None = None) -> bool:
        """True once the process is told to stop, False if it was not within `timeout_s`."""
        self._went_round()
        if timeout_s is None:
            # a signal that came while the process was stopped may be another thread's, and wakes only that one
            while not self.wait(RELOAD_INTERVAL_S):
                pass
            return True
        try:
            self._stop_requests.get(timeout=timeout_s)
        except Empty:
            return False
        return True
