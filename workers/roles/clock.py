"""The line `clock` of the Procfile: a process that wakes lanes whose alarm is due, releases invitations, and tidies."""

from functools import partial

import structlog

from config.telemetry import process_registry
from config.telemetry.hot_reload import repeatedly
from workers.clock import function_libraries, retention
from workers.clock.alarm_clock import TICK_S, Clock
from workers.clock.invitation_pacer import Campaigns
from workers.roles.worker_process import StopSignal, World, enter_world
from workers.runtime.wakeup_broker import Doorbell
from workers.store import survey_versions

log = structlog.get_logger()

TIDY_S = 3_600.0
"""How often versions of surveys that nobody needs are looked for."""


def run() -> None:
    world = enter_world()
    log.info("running", role="clock")
    with (
        process_registry.enlisted(world.settings.redis_url, "clock"),
        repeatedly(partial(tidy, world), TIDY_S, "tidy"),
        repeatedly(campaigns(world).turn, TICK_S, "campaigns"),
    ):
        Clock(world.lanes, world.settings.shards, Doorbell(world.broker)).run(StopSignal())


def campaigns(world: World) -> Campaigns:
    settings = world.settings
    return Campaigns(
        world.lanes,
        world.broker,
        settings.channels,
        world.surveys,
        Doorbell(world.broker),
        shards=settings.shards,
        keep_events_ms=settings.keep_events_ms,
    )


def tidy(world: World) -> None:
    """Forget what was said in sessions whose time has come, the processes that are gone, and what nothing needs any
    more: versions of surveys, and server-side functions of earlier releases."""
    retention.sweep_hourly(world.lanes, world.settings.shards, world.surveys)
    process_registry.bury(world.lanes)
    for version in survey_versions.forget(world.lanes, world.settings.keep_events_ms):
        log.info("old version of a survey forgotten", version=version)
    function_libraries.forget(world.lanes, [world.lanes, world.broker])
