"""The line `run_clock` of the Procfile: a process that wakes lanes whose alarm is due, releases invitations, and tidies."""

from contextlib import closing
from functools import partial

import structlog

from config.store import redis_client
from config.telemetry import metrics, process_registry
from config.telemetry.exposition import MetricsExposition
from config.telemetry.periodic_task import run_periodically
from config.telemetry.supervision import LoopRounds
from workers.clock import function_libraries, retention, stream_trimming
from workers.clock.alarm_clock import MAX_TICK_S
from workers.composition import build_alarm_clock, build_invitation_pacer
from workers.roles.worker_process import StopSignal, open_deployment, supervised_process
from workers.store import survey_versions
from workers.store.clock_difference import ServerClockJudge
from workers.store.deployment import Deployment

log = structlog.get_logger()

HOUSEKEEPING_INTERVAL_S = 3_600.0
"""How often versions of surveys that nobody needs are looked for."""


def run() -> None:
    deployment = open_deployment("clock")
    pacer = build_invitation_pacer(deployment)
    rounds = LoopRounds()
    log.info("running", role="clock")
    with (
        closing(MetricsExposition(deployment.settings, counted=metrics.REGISTRY.collect)) as exposition,
        supervised_process(deployment.settings, rounds, exposition.registry),
        process_registry.send_heartbeats(deployment.settings.redis_url, "clock"),
        run_periodically(partial(run_housekeeping, deployment), HOUSEKEEPING_INTERVAL_S, "tidy"),
        run_periodically(partial(trim_streams, deployment), stream_trimming.TRIM_INTERVAL_S, "trim"),
        run_periodically(pacer.release_until_done, MAX_TICK_S, "campaigns"),
    ):
        build_alarm_clock(deployment).run(StopSignal(rounds.went_round))


def trim_streams(deployment: Deployment) -> None:
    """Take out of the event streams what is not kept there. Nothing, while the server's clock and this machine's differ,
    which the process's heartbeat says in its log."""
    now = redis_client.server_time_ms(deployment.lanes)
    if not ServerClockJudge(deployment.host).judge(now).hold_deadlines:
        settings = deployment.settings
        stream_trimming.trim_until_done(
            deployment.lanes, settings.shards, now, settings.stream_ms, deployment.host
        )


def run_housekeeping(deployment: Deployment) -> None:
    """Delete what was said in sessions whose time has come, the processes that are gone, and what nothing needs any more:
    versions of surveys, and server-side functions of earlier releases. Nothing, while the server's clock and this machine's
    differ: what is deleted by a wrong time is gone."""
    if ServerClockJudge(deployment.host).judge(redis_client.server_time_ms(deployment.lanes)).hold_deadlines:
        log.warning("nothing is tidied: the clocks of Redis and of this machine differ")
        return
    retention.sweep_hourly(deployment.lanes, deployment.settings.shards, deployment.surveys)
    process_registry.remove_dead_processes(deployment.lanes)
    for version in survey_versions.forget_unused(
        deployment.lanes, deployment.settings.shards, deployment.settings.longest_stream_ms
    ):
        log.info("old version of a survey forgotten", version=version)
    function_libraries.delete_unused_libraries(deployment.lanes, [deployment.lanes, deployment.broker])
