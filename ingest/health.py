"""Is this process alive, can it accept, and what has it counted?"""

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import falcon
import falcon.asgi
from falcon.asgi import Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from config.connections.redis_failures import FailureKind, failure_kind
from config.host import THIS_HOST, Host
from config.store import keyspace
from config.store.function_calls import Command
from config.store.redis_client import NotReplicatedError
from config.telemetry import metrics
from config.telemetry.exposition import GaugeReading, MetricsExposition
from engine.surveys.survey_registry import SurveyRegistry
from ingest.intake.mailboxes import AsyncRedisClient, Probe, RedisUnavailableError
from ingest.intake.spool import EMPTY_STATUS, Spool, SpoolStatus
from ingest.webhooks.fast_path import AsgiApp, AsgiReceive, AsgiScope, AsgiSend


class LivenessResource:
    """`GET /healthz`: 200 from a process that serves."""

    async def on_get(self, req: Request, resp: Response) -> None:
        resp.media = {"ok": True}


class ReadinessResource:
    """`GET /readyz`: 200 if a webhook would be accepted and its wake-up rung, else 503; either way what is amiss: a server that
    is full, or takes no writes, is no better than one that is away. With a
    spool it is 200 for as long as that takes events, whatever Redis does, and `spooled` says how many are in it.

    Law: what every `web` sees at once does not make every one unready, as long as there are people whom they serve. Of a
    cluster, one server that takes writes is enough, and `away` says which are not there."""

    def __init__(
        self,
        surveys: SurveyRegistry,
        lanes: AsyncRedisClient,
        broker: AsyncRedisClient,
        spool: Spool | None,
        shards: int,
    ) -> None:
        self._surveys = surveys
        self._lanes = lanes
        self._broker = broker
        self._spool = spool
        self._lanes_keys = [keyspace.session_key(k, _NOBODY) for k in range(shards)]
        self._broker_keys = [keyspace.wakeup_queue_key(queue) for queue in keyspace.QUEUES]

    async def on_get(self, req: Request, resp: Response) -> None:
        redis, broker = await asyncio.gather(
            _look_at(self._lanes, self._lanes_keys, _acceptance_probe),
            _look_at(self._broker, self._broker_keys, _wakeup_probe),
        )
        has_surveys = any(True for _ in self._surveys.current_names())
        more: dict[str, object] = {}
        needed = redis.takes_some and broker.takes_some and has_surveys
        if self._spool is not None:
            has_room = await asyncio.to_thread(self._spool.has_room)
            spooled = (await asyncio.to_thread(spool_status, self._spool)).events
            more = {"spool": has_room, "spooled": spooled}
            needed = has_room and has_surveys
        for name, found in (("away", redis.away), ("broker_away", broker.away)):
            if found:
                more[name] = found
        for name, why in (("redis_why", redis.why), ("broker_why", broker.why)):
            if why:
                more[name] = why
        checks = {"redis": redis.takes_all, "broker": broker.takes_all, "surveys": has_surveys}
        resp.media = {"ready": needed, **checks, **more}
        resp.status = falcon.HTTP_200 if needed else falcon.HTTP_503


class _Reach(NamedTuple):
    """Whether writes are taken, by every server and by any; of a cluster, which are `away`, a sentence each. `why` one server takes
    none, if it says so: `Redis is full`."""

    takes_all: bool
    takes_some: bool
    away: Sequence[str] = ()
    why: str = ""


_NOBODY = ""
"""The id of a session that nobody has, so that its key is never there."""


def _acceptance_probe(key: str) -> Command:
    """What is refused wherever an event would be, as for want of memory; and changes nothing, since there is no such key."""
    return ("SET", key, "", "XX")


def _wakeup_probe(key: str) -> Command:
    """What is refused wherever a wake-up would be; these are taken by a server that is full."""
    return ("ZREM", key, _NOBODY)


async def _look_at(client: AsyncRedisClient, keys: Sequence[str], probe: Probe) -> _Reach:
    if not client.is_cluster:
        failure = await client.find_failure(probe(keys[0]))
        why = failure.title if failure is not None and failure_kind(failure) != "silent" else ""
        return _Reach(failure is None, failure is None, why=why)
    silent = await client.find_silent(keys, probe)
    away = {f"slots {client.slots_beside(key)} {_ailment(e)}" for key, e in silent.items()}
    return _Reach(not silent, len(silent) < len(keys), sorted(away))


def _ailment(error: RedisUnavailableError) -> str:
    if isinstance(error.__cause__, NotReplicatedError):
        return "have too few replicas"
    return _AILMENTS[failure_kind(error)]


_AILMENTS: dict[FailureKind, str] = {
    "silent": "have no server",
    "full": "have a server that is full",
    "read_only": "have a server that takes no writes",
    "refused": "have a server that refuses us",
}


def spool_gauges(spool: Spool | None, host: Host = THIS_HOST) -> Iterable[GaugeReading]:
    """How the machine's spool stands, for Prometheus; all zero if there is none."""
    events, size, oldest = spool_status(spool) if spool else EMPTY_STATUS
    yield metrics.SPOOL_EVENTS, (), events
    yield metrics.SPOOL_BYTES, (), size
    yield metrics.SPOOL_LIMIT_BYTES, (), spool.max_bytes if spool else 0
    yield metrics.SPOOL_OLDEST_SECONDS, (), max(0, host.wall_ms() - oldest) / 1000 if oldest else 0


def spool_status(spool: Spool) -> SpoolStatus:
    """Return the status of the spool; EMPTY_STATUS while its disk cannot be read."""
    try:
        return spool.read_status()
    except OSError:
        return EMPTY_STATUS


_READER_THREADS = 4
"""Those who ask at once for metrics get one reading; more than these wait."""


class MetricsResource:
    """`GET /metrics`, for Prometheus: of this process, or of all on this machine, and of what lies in Redis. It is read
    by threads, and webhooks do not wait for it."""

    def __init__(self, exposition: MetricsExposition) -> None:
        self._exposition = exposition
        self._reader = ThreadPoolExecutor(_READER_THREADS, "metrics")

    async def process_shutdown(self, scope: object, event: object) -> None:
        self._reader.shutdown(wait=False)
        self._exposition.close()

    async def on_get(self, req: Request, resp: Response) -> None:
        loop = asyncio.get_running_loop()
        resp.data = await loop.run_in_executor(self._reader, self._exposition.text)
        resp.content_type = CONTENT_TYPE_LATEST


class MetricsPort:
    """An ASGI application in front of `behind`: what comes by `port` gets `/metrics` and `/healthz`, and nothing else."""

    def __init__(self, port: int, metrics: MetricsResource, behind: AsgiApp) -> None:
        self._port = port
        self._application = behind
        self._metrics: falcon.asgi.App[Request, Response] = falcon.asgi.App()
        self._metrics.add_route("/metrics", metrics)
        self._metrics.add_route("/healthz", LivenessResource())

    async def __call__(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        came_by = scope.get("server")
        application = self._metrics if came_by and came_by[1] == self._port else self._application
        await application(scope, receive, send)
