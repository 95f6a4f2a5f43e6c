"""The line `run_ratelimit` of the Procfile: a process that turns lanes whose oldest mail is a START."""

from config.store import keyspace
from workers.roles.conversation import build_turn_runner
from workers.roles.worker_process import consume_wakeups, hot_reloaded_surveys, open_worker_context


def run() -> None:
    world = open_worker_context()
    with hot_reloaded_surveys(world, "ratelimit"):
        consume_wakeups(world, keyspace.STARTS_QUEUE, build_turn_runner(world).handle_wakeup)
