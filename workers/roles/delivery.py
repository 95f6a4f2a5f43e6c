"""The line `delivery` of the Procfile: a process that hands queued SMS to providers."""

from config.store import keyspace
from config.telemetry import process_registry
from engine.providers.provider_registry import open_provider
from workers.roles.worker_process import World, enter_world, listen
from workers.runtime.wakeup_broker import Doorbell
from workers.sending import bulkhead, delivery
from workers.sending.delivery import Delivery
from workers.sending.http_client import Wire
from workers.store.channel_state import Channels
from workers.store.outboxes import Outboxes


def run() -> None:
    world = enter_world()
    work = deliveries(world)
    with process_registry.enlisted(world.settings.redis_url, "delivery"):
        try:
            listen(world, keyspace.OUTBOUND, work.run, batch=bulkhead.SLOTS, stopping=work.stop)
        finally:
            work.close()


def deliveries(world: World) -> Delivery:
    settings = world.settings
    return Delivery(
        Outboxes(world.lanes, settings.shards, settings.keep_events_ms, delivery.LEASE_MS),
        Channels(world.lanes, settings.channels),
        {
            name: Wire(open_provider(channel, settings), bulkhead.SLOTS)
            for name, channel in settings.channels.items()
        },
        Doorbell(world.broker),
        settings.log_key,
    )
