"""The line `delivery` of the Procfile: a process that hands queued SMS to providers."""

from config.store import keyspace
from config.telemetry import process_registry
from workers.roles.composition import build_delivery_runner
from workers.roles.worker_process import consume_wakeups, open_deployment
from workers.sending import bulkhead


def run() -> None:
    deployment = open_deployment("delivery")
    runner = build_delivery_runner(deployment)
    with process_registry.send_heartbeats(deployment.settings.redis_url, "delivery"):
        try:
            consume_wakeups(
                deployment,
                keyspace.OUTBOUND_QUEUE,
                runner.handle_wakeup,
                batch=bulkhead.SLOTS_PER_CHANNEL,
                stopping=runner.stop,
            )
        finally:
            runner.close()
