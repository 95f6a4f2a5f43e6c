"""The line `conversation` of the Procfile: a process that turns lanes whose oldest mail is anything but a START."""

from config.store import keyspace
from workers.roles.worker_process import World, enter_world, listen, live_surveys
from workers.runtime.wakeup_broker import Doorbell
from workers.store.channel_state import Channels
from workers.store.lanes import Lanes
from workers.store.optouts import open_list
from workers.turns.turns import Turns

TURN_THREADS = 3
"""While one batch waits for Redis, another is advanced: 3 gave 12,000 turns a second, 2 gave 10,000, 4 no more."""


def run() -> None:
    world = enter_world()
    with live_surveys(world, "conversation"):
        listen(world, keyspace.REPLIES, turns(world).run, threads=TURN_THREADS)


def turns(world: World) -> Turns:
    """The work of both the rate-limit and the conversation worker."""
    settings = world.settings
    optouts = open_list(world.lanes, settings.shards, settings.optout_key)
    return Turns(
        Lanes(world.lanes, settings.shards, settings.keep_events_ms, optouts),
        world.surveys,
        settings.channels,
        Channels(world.lanes, settings.channels),
        Doorbell(world.broker),
        settings.log_key,
    )
