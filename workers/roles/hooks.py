"""The line `hooks` of the Procfile: a process that tells the endpoints of parley.toml what happens."""

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from threading import Event

import redis
import structlog
from sqlalchemy.exc import SQLAlchemyError

from config.archive.archive_schema import has_schema
from config.archive.database import ArchiveDatabase
from config.archive.pseudonyms import Pseudonyms, read_pseudonyms
from config.settings.config_errors import ConfigError
from config.store.missing_rights import failure_words
from config.telemetry import process_registry
from config.telemetry.supervision import LoopRounds
from workers.archiving.archive_loop import StopRequest
from workers.archiving.deployment_pairing import is_ours
from workers.hooks.endpoint_client import EndpointClient
from workers.hooks.event_source import EventSource
from workers.hooks.hook_process import POLL_INTERVAL_S, HookProcess
from workers.hooks.hook_store import HookStore
from workers.roles.worker_process import StopSignal, open_deployment, supervised_process
from workers.store.deployment import Deployment

log = structlog.get_logger()

RETRY_INTERVAL_S = 2.0
"""After a failure of Redis or of the archive."""


def run() -> None:
    deployment = open_deployment("hooks")
    rounds = LoopRounds()
    stop = StopSignal(rounds.went_round)
    log.info("running", role="hooks", hooks=len(deployment.settings.hooks))
    ready = Event()
    with (
        supervised_process(deployment.settings, rounds),
        process_registry.send_heartbeats(
            deployment.settings.redis_url, "hooks", is_ready=ready.is_set
        ) as send_heartbeat,
    ):

        def note_ready() -> None:
            """Others count on this process from now on."""
            ready.set()
            with suppress(redis.RedisError):  # it is said soon anyway
                send_heartbeat()

        if not deployment.settings.hooks:
            stop.wait()  # a line of the Procfile stays
            return
        asyncio.run(tell_until_stopped(deployment, stop, note_ready))


async def tell_until_stopped(
    deployment: Deployment, stop: StopSignal, note_ready: Callable[[], None]
) -> None:
    """Tell endpoints until the process is told to stop; `note_ready` is called once it may begin."""
    settings = deployment.settings
    database = ArchiveDatabase(settings.archive_url)
    found = await wait_for_archive(deployment, database, stop)
    if found is None:
        return
    source, pseudonyms = found
    await asyncio.to_thread(note_ready)
    owner = f"{socket.gethostname()}:{os.getpid()}.{deployment.host.token_hex(4)}"
    store = HookStore(deployment.lanes, owner)
    async with EndpointClient(allow_private=settings.hooks_allow_private, host=deployment.host) as client:
        process = HookProcess(
            settings.hooks,
            deployment.lanes,
            settings.shards,
            source,
            store,
            client,
            pseudonyms,
            settings.public_url,
            deployment.host,
        )
        await look_after_endpoints(process, stop)
        await process.stop()


async def look_after_endpoints(process: HookProcess, stop: StopRequest) -> None:
    """Make rounds until the process is told to stop, whatever fails meanwhile."""
    failed = ""
    while not await asyncio.to_thread(stop.wait, RETRY_INTERVAL_S if failed else POLL_INTERVAL_S):
        try:
            await process.run_round()
        except Exception as e:
            if failed != (failed := failure_words(e)):
                trace = None if isinstance(e, redis.RedisError) else e
                log.warning("no endpoint is looked after; it is tried again", error=failed, exc_info=trace)
        else:
            failed = ""


def _event_source(deployment: Deployment, database: ArchiveDatabase) -> EventSource:
    return EventSource(deployment.lanes, database, deployment.host, deployment.settings.replicas)


async def wait_for_archive(
    deployment: Deployment, database: ArchiveDatabase, stop: StopRequest
) -> tuple[EventSource, Pseudonyms | None] | None:
    """What events are made of, once there is an archive, which has the key of the pseudonyms; None if the process is stopped
    meanwhile. Where every endpoint is told numbers, it can do without."""
    can_do_without = all(hook.numbers for hook in deployment.settings.hooks.values())
    has_said = False
    while True:
        try:
            if await asyncio.to_thread(is_ours, deployment.lanes, database):
                pseudonyms = await asyncio.to_thread(read_pseudonyms, database)
                return _event_source(deployment, database), pseudonyms
            if can_do_without and not await asyncio.to_thread(has_schema, database):
                return _event_source(deployment, database), None
            why = "there is none yet, or it is another deployment's"
        except (redis.RedisError, SQLAlchemyError, ConfigError) as e:
            why = failure_words(e)
        if not has_said:
            log.warning("endpoints are told nothing before there is the archive", why=why)
            has_said = True
        if await asyncio.to_thread(stop.wait, RETRY_INTERVAL_S):
            return None
