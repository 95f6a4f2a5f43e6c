"""What plays have in common: the processes of a deployment."""

from functools import partial

from config.store import keyspace
from tests.simulated.actors.roles import begin_clock, begin_delivery, begin_turns
from tests.simulated.actors.web import Web
from tests.simulated.world.simulated_world import SimulatedWorld


def add_deployment(world: SimulatedWorld, webs: list[Web]) -> None:
    """Start these webs, and beside each one worker of each kind and a clock."""
    for n, web in enumerate(webs, start=1):
        world.add_process(f"web-{n}", web.begin)
        for role, begin in (
            ("ratelimit", partial(begin_turns, world, keyspace.STARTS_QUEUE)),
            ("conversation", partial(begin_turns, world, keyspace.REPLIES_QUEUE)),
            ("delivery", partial(begin_delivery, world)),
            ("clock", partial(begin_clock, world)),
        ):
            world.add_process(f"{role}-{n}", begin)
