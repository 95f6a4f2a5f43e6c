"""The line `run_clock` of the Procfile: a process that wakes lanes whose alarm is due, releases invitations, and tidies."""

from functools import partial

import structlog

from config.telemetry import process_registry
from config.telemetry.periodic_task import run_periodically
from workers.clock import function_libraries, retention
from workers.clock.alarm_clock import MAX_TICK_S, AlarmClock
from workers.clock.invitation_pacer import InvitationPacer
from workers.roles.worker_process import StopSignal, WorkerContext, open_worker_context
from workers.runtime.wakeup_broker import WakeupBroker
from workers.store import survey_versions

log = structlog.get_logger()

HOUSEKEEPING_INTERVAL_S = 3_600.0
"""How often versions of surveys that nobody needs are looked for."""


def run() -> None:
    world = open_worker_context()
    log.info("running", role="clock")
    with (
        process_registry.send_heartbeats(world.settings.redis_url, "clock"),
        run_periodically(partial(run_housekeeping, world), HOUSEKEEPING_INTERVAL_S, "tidy"),
        run_periodically(build_invitation_pacer(world).release_until_done, MAX_TICK_S, "campaigns"),
    ):
        AlarmClock(world.lanes, world.settings.shards, WakeupBroker(world.broker)).run(StopSignal())


def build_invitation_pacer(world: WorkerContext) -> InvitationPacer:
    settings = world.settings
    return InvitationPacer(
        world.lanes,
        world.broker,
        settings.channels,
        world.surveys,
        WakeupBroker(world.broker),
        shards=settings.shards,
        keep_events_ms=settings.keep_events_ms,
    )


def run_housekeeping(world: WorkerContext) -> None:
    """Forget what was said in sessions whose time has come, the processes that are gone, and what nothing needs any
    more: versions of surveys, and server-side functions of earlier releases."""
    retention.sweep_hourly(world.lanes, world.settings.shards, world.surveys)
    process_registry.remove_dead_processes(world.lanes)
    for version in survey_versions.forget_unused(world.lanes, world.settings.keep_events_ms):
        log.info("old version of a survey forgotten", version=version)
    function_libraries.delete_unused_libraries(world.lanes, [world.lanes, world.broker])
