"""The line `run_conversation` of the Procfile: a process that turns lanes whose oldest mail is anything but a START."""

from config.store import keyspace
from workers.composition import build_turn_runner
from workers.roles.worker_process import consume_wakeups, hot_reloaded_surveys, open_deployment

TURN_THREADS = 3
"""While one batch waits for Redis, another is advanced: 3 gave 12,000 turns a second, 2 gave 10,000, 4 no more."""


def run() -> None:
    deployment = open_deployment("conversation")
    with hot_reloaded_surveys(deployment, "conversation"):
        runner = build_turn_runner(deployment)
        consume_wakeups(deployment, keyspace.REPLIES_QUEUE, runner.handle_wakeup, threads=TURN_THREADS)
