"""Moments that the product names (`faults.reach`) as calls of whoever gets there, which faults meet as any other.

Most lie beside a call to a server, where they would only be another name of the same moment. Not so those of an event loop: it
goes on from one await to the next in one step, and stands still between two of them only where a place is named.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from config.telemetry import faults
from tests.simulated.world.scheduler import Call, Scheduler

WEIGHT = 4.0


@contextmanager
def named_places_called(scheduler: Scheduler, places: Collection[str]) -> Iterator[None]:
    """Make these places calls of the scheduler, until the block ends."""

    def reach(place: str) -> None:
        if place in places and scheduler.runs_actor:
            scheduler.call(Call(place, lambda fault: None, weight=WEIGHT))

    before = faults.reach
    faults.reach = reach
    try:
        yield
    finally:
        faults.reach = before
