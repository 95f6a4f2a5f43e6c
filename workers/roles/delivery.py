"""The line `delivery` of the Procfile: a process that hands queued SMS to providers."""

from contextlib import suppress
from functools import partial

import redis

from config.store import keyspace
from config.store.counts.answer_record import WRITE_INTERVAL_S, write_notes
from config.telemetry import process_registry
from config.telemetry.periodic_task import run_periodically
from config.telemetry.supervision import LoopRounds
from workers.composition import build_answer_notes, build_delivery_runner
from workers.roles.worker_process import consume_wakeups, open_deployment
from workers.sending import bulkhead


def run() -> None:
    deployment = open_deployment("delivery")
    notes = build_answer_notes(deployment)
    rounds = LoopRounds()
    runner = build_delivery_runner(deployment, notes, rounds)
    write = partial(write_notes, deployment.lanes, notes)
    with (
        process_registry.send_heartbeats(deployment.settings.redis_url, "delivery"),
        run_periodically(write, WRITE_INTERVAL_S, "answers"),
    ):
        try:
            consume_wakeups(
                deployment,
                keyspace.OUTBOUND_QUEUE,
                runner.handle_wakeup,
                batch=bulkhead.SLOTS_PER_CHANNEL,
                stopping=runner.stop,
                rounds=rounds,
            )
        finally:
            runner.close()
            with suppress(redis.RedisError):  # they are for people to look at
                write()
