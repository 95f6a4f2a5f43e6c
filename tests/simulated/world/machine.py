"""What a simulated process is told by its machine: the time, and chance, from a seed."""

from math import ceil
from random import Random

from config.host import Host
from tests.simulated.world.scheduler import Process


def simulated_host(process: Process, seed: str) -> Host:
    """Make the host of one life of a process. Its clock is right."""
    scheduler = process.scheduler
    chance = Random(f"{seed} {process.name} {process.lives}")

    def now_s() -> float:
        return scheduler.now_us / 1_000_000

    return Host(
        wall_s=now_s,
        monotonic_s=now_s,
        sleep=lambda seconds: scheduler.sleep_us(
            ceil(seconds * 1_000_000)
        ),  # or a rest until a moment never gets there
        token_hex=lambda size: f"{chance.getrandbits(8 * size):0{2 * size}x}",
        random=chance.random,
    )
