"""The line `ratelimit` of the Procfile: a process that turns lanes whose oldest mail is a START."""

from config.store import keyspace
from workers.roles.conversation import turns
from workers.roles.worker_process import enter_world, listen, live_surveys


def run() -> None:
    world = enter_world()
    with live_surveys(world, "ratelimit"):
        listen(world, keyspace.STARTS, turns(world).run)
