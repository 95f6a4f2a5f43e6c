"""The line `run_ratelimit` of the Procfile: a process that turns lanes whose oldest mail is a START."""

from config.store import keyspace
from workers.composition import build_turn_runner
from workers.roles.worker_process import consume_wakeups, hot_reloaded_surveys, open_deployment


def run() -> None:
    deployment = open_deployment("ratelimit")
    with hot_reloaded_surveys(deployment, "ratelimit"):
        consume_wakeups(deployment, keyspace.STARTS_QUEUE, build_turn_runner(deployment).handle_wakeup)
