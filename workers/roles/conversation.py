"""The line `run_conversation` of the Procfile: a process that turns lanes whose oldest mail is anything but a START."""

from config.store import keyspace
from workers.roles.worker_process import (
    WorkerContext,
    consume_wakeups,
    hot_reloaded_surveys,
    open_worker_context,
)
from workers.runtime.wakeup_broker import WakeupBroker
from workers.store.channel_state import ChannelStore
from workers.store.lanes import LaneStore
from workers.store.optouts import open_opt_out_list
from workers.turns.turns import TurnRunner

TURN_THREADS = 3
"""While one batch waits for Redis, another is advanced: 3 gave 12,000 turns a second, 2 gave 10,000, 4 no more."""


def run() -> None:
    world = open_worker_context()
    with hot_reloaded_surveys(world, "conversation"):
        consume_wakeups(
            world, keyspace.REPLIES_QUEUE, build_turn_runner(world).handle_wakeup, threads=TURN_THREADS
        )


def build_turn_runner(world: WorkerContext) -> TurnRunner:
    """The work of both the rate-limit and the conversation worker."""
    settings = world.settings
    optouts = open_opt_out_list(world.lanes, settings.shards, settings.optout_key)
    return TurnRunner(
        LaneStore(world.lanes, settings.shards, settings.keep_events_ms, optouts),
        world.surveys,
        settings.channels,
        ChannelStore(world.lanes, settings.channels),
        WakeupBroker(world.broker),
        settings.log_key,
    )
