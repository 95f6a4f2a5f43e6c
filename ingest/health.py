"""Is this process alive, can it accept, and what has it counted?"""

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import falcon
import falcon.asgi
from falcon.asgi import Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from config.telemetry import metrics
from config.telemetry.exposition import GaugeReading, MetricsExposition
from engine.surveys.survey_registry import SurveyRegistry
from ingest.intake.mailboxes import AsyncRedisClient
from ingest.intake.spool import EMPTY_STATUS, Spool, SpoolStatus, now_ms
from ingest.webhooks.fast_path import AsgiApp, AsgiReceive, AsgiScope, AsgiSend


class LivenessResource:
    """`GET /healthz`: 200 from a process that serves."""

    async def on_get(self, req: Request, resp: Response) -> None:
        resp.media = {"ok": True}


class ReadinessResource:
    """`GET /readyz`: 200 if a webhook would be accepted and its wake-up rung, else 503; either way what is amiss. With a
    spool it is 200 for as long as that takes events, whatever Redis does, and `spooled` says how many are in it."""

    def __init__(
        self, surveys: SurveyRegistry, lanes: AsyncRedisClient, broker: AsyncRedisClient, spool: Spool | None
    ) -> None:
        self._surveys = surveys
        self._lanes = lanes
        self._broker = broker
        self._spool = spool

    async def on_get(self, req: Request, resp: Response) -> None:
        checks = {
            "redis": await self._lanes.is_reachable(),
            "broker": await self._broker.is_reachable(),
            "surveys": any(True for _ in self._surveys.current_names()),
        }
        spooled: dict[str, int] = {}
        needed = all(checks.values())
        if self._spool is not None:
            checks["spool"] = await asyncio.to_thread(self._spool.has_room)
            spooled["spooled"] = (await asyncio.to_thread(spool_status, self._spool)).events
            needed = checks["spool"] and checks["surveys"]
        resp.media = {"ready": needed, **checks, **spooled}
        resp.status = falcon.HTTP_200 if needed else falcon.HTTP_503


def spool_gauges(spool: Spool | None) -> Iterable[GaugeReading]:
    """How the machine's spool stands, for Prometheus; all zero if there is none."""
    events, size, oldest = spool_status(spool) if spool else EMPTY_STATUS
    yield metrics.SPOOL_EVENTS, (), events
    yield metrics.SPOOL_BYTES, (), size
    yield metrics.SPOOL_LIMIT_BYTES, (), spool.max_bytes if spool else 0
    yield metrics.SPOOL_OLDEST_SECONDS, (), max(0, now_ms() - oldest) / 1000 if oldest else 0


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
    """An ASGI application in front of `behind`: what comes by `port` gets `/metrics`, and nothing else."""

    def __init__(self, port: int, metrics: MetricsResource, behind: AsgiApp) -> None:
        self._port = port
        self._application = behind
        self._metrics: falcon.asgi.App[Request, Response] = falcon.asgi.App()
        self._metrics.add_route("/metrics", metrics)

    async def __call__(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        came_by = scope.get("server")
        application = self._metrics if came_by and came_by[1] == self._port else self._application
        await application(scope, receive, send)
