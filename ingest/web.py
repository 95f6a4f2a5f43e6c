"""The web application: its routes, and what they need of the world."""

from functools import partial

import falcon
import falcon.asgi
import redis
from falcon.asgi import Request, Response

from config.settings.settings import Settings
from config.store import keyspace
from config.telemetry.exposition import Exposition
from engine.surveys.survey_registry import Surveys
from ingest import api, health
from ingest.intake.mailboxes import Mailboxes, Store
from ingest.intake.spool import open_spool
from ingest.intake.spool_drain import HandOver
from ingest.webhooks import simulated_phone
from ingest.webhooks.channel_endpoint import RETRY_AFTER_S, UNAVAILABLE, Webhooks
from ingest.webhooks.fast_path import FrontDoor
from ingest.webhooks.inline_replies import InPlace


class _Lifespan:
    """What was begun is finished before the process ends."""

    def __init__(
        self, mailboxes: Mailboxes, phones: simulated_phone.Phones, hand_over: HandOver | None
    ) -> None:
        self._mailboxes = mailboxes
        self._phones = phones
        self._hand_over = hand_over

    async def process_startup(self, scope: object, event: object) -> None:
        if self._hand_over:
            self._hand_over.begin()

    async def process_shutdown(self, scope: object, event: object) -> None:
        if self._hand_over:
            await self._hand_over.end()
        await self._mailboxes.close()
        await self._phones.close()


async def _unavailable(
    _req: Request, _resp: Response | None, error: BaseException, _params: dict[str, object]
) -> None:
    raise falcon.HTTPServiceUnavailable(title=UNAVAILABLE, retry_after=RETRY_AFTER_S) from error


def create_app(settings: Settings, surveys: Surveys) -> FrontDoor:
    """The ASGI application. It connects when it is first asked, and outlives a Redis that is away. Raises Mistakes if
    the spool cannot be used."""
    lanes = Store(keyspace.connect_async(settings.redis_url))
    broker = Store(keyspace.connect_async(settings.broker_url))
    spool = open_spool(settings.spool, settings.spool_bytes) if settings.spool else None
    mailboxes = Mailboxes(settings.shards, lanes, broker, spool)
    phones = simulated_phone.Phones(settings.redis_url)
    hand_over = HandOver(spool, mailboxes, lanes) if spool else None
    app = falcon.asgi.App(middleware=[_Lifespan(mailboxes, phones, hand_over)])
    app.add_error_handler(redis.RedisError, _unavailable)
    webhooks = Webhooks(
        settings, surveys, mailboxes, InPlace(settings.shards, settings.keep_events_ms, lanes, mailboxes)
    )
    app.add_route("/webhooks/{channel}", webhooks)
    app.add_route("/healthz", health.Alive())
    app.add_route("/readyz", health.Ready(surveys, lanes, broker, spool))
    metrics = health.Metrics(Exposition(settings, partial(health.standing, spool)))
    app.add_middleware(metrics)
    app.add_route("/metrics", metrics)
    api.mount(app, settings, surveys, lanes, mailboxes)
    if any(channel.provider == "simulator" for channel in settings.channels.values()):
        simulated_phone.mount(app, phones)
    return FrontDoor(app, webhooks)
