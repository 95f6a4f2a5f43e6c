"""Is this process alive, can it accept, and what has it counted?"""

import falcon
from falcon.asgi import Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from config import metrics
from engine import Surveys
from ingest.mailboxes import Store


class Alive:
    """`GET /healthz`: 200 from a process that serves."""

    async def on_get(self, req: Request, resp: Response) -> None:
        resp.media = {"ok": True}


class Ready:
    """`GET /readyz`: 200 if a webhook would be accepted and its wake-up rung, else 503; either way what is amiss."""

    def __init__(self, surveys: Surveys, lanes: Store, broker: Store) -> None:
        self._surveys = surveys
        self._lanes = lanes
        self._broker = broker

    async def on_get(self, req: Request, resp: Response) -> None:
        checks = {
            "redis": await self._lanes.answers(),
            "broker": await self._broker.answers(),
            "surveys": any(True for _ in self._surveys.names()),
        }
        resp.media = {"ready": all(checks.values()), **checks}
        resp.status = falcon.HTTP_200 if all(checks.values()) else falcon.HTTP_503


class Metrics:
    """`GET /metrics`, for Prometheus: of this process, or of all on this machine."""

    async def on_get(self, req: Request, resp: Response) -> None:
        resp.data = metrics.exposition()
        resp.content_type = CONTENT_TYPE_LATEST
