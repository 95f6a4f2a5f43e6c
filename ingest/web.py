"""The web application: its routes, and what they need of the world."""

import falcon
import falcon.asgi
import redis
from falcon.asgi import Request, Response

from config import keyspace
from config.settings import Settings
from engine import Surveys
from ingest import api, health, simulator
from ingest.front_door import FrontDoor
from ingest.mailboxes import Mailboxes, Store
from ingest.twiml import InPlace
from ingest.webhooks import RETRY_AFTER_S, Webhooks


class _Lifespan:
    """What was begun is finished before the process ends."""

    def __init__(self, mailboxes: Mailboxes, phones: simulator.Phones) -> None:
        self._mailboxes = mailboxes
        self._phones = phones

    async def process_shutdown(self, scope: object, event: object) -> None:
        await self._mailboxes.close()
        await self._phones.close()


async def _unavailable(
    _req: Request, _resp: Response | None, error: BaseException, _params: dict[str, object]
) -> None:
    raise falcon.HTTPServiceUnavailable(title="Redis does not answer", retry_after=RETRY_AFTER_S) from error


def create_app(settings: Settings, surveys: Surveys) -> FrontDoor:
    """The ASGI application. It connects when it is first asked, and outlives a Redis that is away."""
    lanes = Store(keyspace.connect_async(settings.redis_url))
    broker = Store(keyspace.connect_async(settings.broker_url))
    mailboxes = Mailboxes(settings.shards, lanes, broker)
    phones = simulator.Phones(settings.redis_url)
    app = falcon.asgi.App(middleware=[_Lifespan(mailboxes, phones)])
    app.add_error_handler(redis.RedisError, _unavailable)
    webhooks = Webhooks(
        settings, surveys, mailboxes, InPlace(settings.shards, settings.keep_events_ms, lanes, mailboxes)
    )
    app.add_route("/webhooks/{channel}", webhooks)
    app.add_route("/healthz", health.Alive())
    app.add_route("/readyz", health.Ready(surveys, lanes, broker))
    app.add_route("/metrics", health.Metrics())
    api.mount(app, settings, surveys, lanes, mailboxes)
    if any(channel.provider == "simulator" for channel in settings.channels.values()):
        simulator.mount(app, phones)
    return FrontDoor(app, webhooks)
