"""The line `delivery` of the Procfile: a process that hands queued SMS to providers."""

from config.store import keyspace
from config.telemetry import process_registry
from engine.providers.provider_registry import open_provider
from workers.roles.worker_process import WorkerContext, consume_wakeups, open_worker_context
from workers.runtime.wakeup_broker import WakeupBroker
from workers.sending import bulkhead, delivery
from workers.sending.delivery import DeliveryRunner
from workers.sending.http_client import ProviderClient
from workers.store.channel_state import ChannelStore
from workers.store.outboxes import OutboxStore


def run() -> None:
    world = open_worker_context()
    work = build_delivery_runner(world)
    with process_registry.send_heartbeats(world.settings.redis_url, "delivery"):
        try:
            consume_wakeups(
                world,
                keyspace.OUTBOUND_QUEUE,
                work.handle_wakeup,
                batch=bulkhead.SLOTS_PER_CHANNEL,
                stopping=work.stop,
            )
        finally:
            work.close()


def build_delivery_runner(world: WorkerContext) -> DeliveryRunner:
    settings = world.settings
    return DeliveryRunner(
        OutboxStore(world.lanes, settings.shards, settings.keep_events_ms, delivery.OUTBOX_LEASE_MS),
        ChannelStore(world.lanes, settings.channels),
        {
            name: ProviderClient(open_provider(settings.provider_settings(name)), bulkhead.SLOTS_PER_CHANNEL)
            for name in settings.channels
        },
        WakeupBroker(world.broker),
        settings.log_key,
    )
