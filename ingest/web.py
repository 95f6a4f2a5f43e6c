"""The web application: its routes, and what they need of the world."""

from functools import partial

import falcon
import falcon.asgi
import redis
from falcon.asgi import Request, Response

from config.connections.redis_failures import failure_clause
from config.host import THIS_HOST, Host
from config.settings.settings import Settings
from config.store import redis_client
from config.store.counts.answer_record import AnswerNotes
from config.telemetry.exposition import MetricsExposition
from engine.surveys.survey_registry import SurveyRegistry
from ingest import api, health
from ingest.api.archive_reader import ArchiveReader
from ingest.front_page import FrontPageResource
from ingest.intake.mailboxes import AsyncRedisClient, MailboxWriter
from ingest.intake.server_guard import ServerGuard
from ingest.intake.spool import open_spool
from ingest.intake.spool_drain import SpoolDrain
from ingest.webhooks import simulated_phone
from ingest.webhooks.channel_endpoint import RETRY_AFTER_S, WebhooksResource
from ingest.webhooks.fast_path import AsgiApp, WebhookFastPath
from ingest.webhooks.inline_replies import InlineReplies
from ingest.webhooks.webhook_notes import WebhookNotes


class _Lifespan:
    """Starts what runs beside requests, and finishes what was begun before the process ends."""

    def __init__(
        self,
        mailboxes: MailboxWriter,
        phones: simulated_phone.SimulatedPhones,
        archive: ArchiveReader,
        hand_over: SpoolDrain | None,
        notes: WebhookNotes,
    ) -> None:
        self._mailboxes = mailboxes
        self._archive = archive
        self._phones = phones
        self._spool_drain = hand_over
        self._notes = notes

    async def process_startup(self, scope: object, event: object) -> None:
        self._notes.start()
        if self._spool_drain:
            self._spool_drain.start()

    async def process_shutdown(self, scope: object, event: object) -> None:
        if self._spool_drain:
            await self._spool_drain.stop()
        await self._notes.stop()
        await self._mailboxes.close()
        await self._phones.close()
        self._archive.close()


async def _redis_unavailable(
    _req: Request, _resp: Response | None, error: BaseException, _params: dict[str, object]
) -> None:
    title = f"Redis {failure_clause(error)}"
    raise falcon.HTTPServiceUnavailable(title=title, retry_after=RETRY_AFTER_S) from error


def create_app(settings: Settings, surveys: SurveyRegistry, host: Host = THIS_HOST) -> AsgiApp:
    """The ASGI application. It connects when it is first asked, and outlives a Redis or an archive that is away. Raises
    ConfigError if the spool or the archive's URL cannot be used."""
    lanes = AsyncRedisClient(
        redis_client.connect_async(settings.redis_url), ServerGuard(settings).admit, settings.replicas
    )
    broker = AsyncRedisClient(redis_client.connect_async(settings.broker_url))
    marked_shards = settings.shards if lanes.is_cluster else 0
    spool = open_spool(settings.spool, settings.spool_bytes, host, marked_shards) if settings.spool else None
    mailboxes = MailboxWriter(settings.shards, lanes, broker, spool, host, settings.bells_database)
    phones = simulated_phone.SimulatedPhones(settings.redis_url)
    archive = ArchiveReader(settings.archive_url)
    hand_over = SpoolDrain(spool, mailboxes, lanes, host) if spool else None
    answers = AnswerNotes({name: channel.timezone for name, channel in settings.channels.items()})
    notes = WebhookNotes(lanes, answers, host)
    app = falcon.asgi.App(middleware=[_Lifespan(mailboxes, phones, archive, hand_over, notes)])
    app.add_error_handler(redis.RedisError, _redis_unavailable)
    webhooks = WebhooksResource(
        settings,
        surveys,
        mailboxes,
        InlineReplies(settings.shards, lanes, mailboxes, answers, host=host),
        notes,
        host,
    )
    app.add_route("/webhooks/{channel}", webhooks)
    app.add_route("/", FrontPageResource(settings))
    app.add_route("/healthz", health.LivenessResource())
    app.add_route("/readyz", health.ReadinessResource(surveys, lanes, broker, spool, settings.shards))
    metrics = health.MetricsResource(MetricsExposition(settings, partial(health.spool_gauges, spool, host)))
    app.add_middleware(metrics)
    api.add_routes(app, settings, surveys, lanes, mailboxes, archive, host)
    if settings.only_simulated:
        simulated_phone.add_routes(app, phones, host=host)
    fast_path = WebhookFastPath(app, webhooks, host)
    if settings.metrics_port:
        return health.MetricsPort(settings.metrics_port, metrics, fast_path)
    app.add_route("/metrics", metrics)
    return fast_path
