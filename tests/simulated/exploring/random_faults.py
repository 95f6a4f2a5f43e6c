"""Draws faults from a seed, each run with kinds and a rate of its own: a run that draws from all kinds has too many of each to
come far."""

from collections.abc import Collection
from random import Random

from tests.simulated.world import faults
from tests.simulated.world.faults import Fault, Place, Schedule
from tests.simulated.world.scheduler import Call

RATES = (0.005, 0.015, 0.05, 0.1)
"""How many calls meet a fault."""

KIND_CHANCE = 0.5
"""How likely a kind of fault is among those of a run."""

MAX_FAULTS = 12

_KINDS = sorted(
    {
        fault.kind
        for menu in (
            faults.ANY_CALL,
            faults.NETWORK,
            faults.SERVER,
            faults.PROVIDER,
            faults.FAILOVER,
            faults.CLOCK,
            faults.DISK,
            faults.ARCHIVE_BEGIN,
            faults.ARCHIVE_COMMIT,
            faults.ENDPOINT,
        )
        for fault in menu
    }
)


class RandomFaults:
    """Faults of one run: of these kinds, or of some that are drawn, but none that is left out. `met` are those that were drawn, and `described` what they
    met."""

    def __init__(self, seed: str, kinds: Collection[str] = (), left_out: Collection[str] = ()) -> None:
        self._chance = Random(f"faults {seed}")
        self._rate = self._chance.choice(RATES)
        drawn = {kind for kind in _KINDS if self._chance.random() < KIND_CHANCE} | {"repeat"}
        self._kinds = set(kinds or drawn).difference(left_out)
        self.has_ended = False
        self.met = dict[Place, Fault]()
        self.described: list[str] = []

    def fault_at(self, place: Place, call: Call) -> Fault | None:
        if self.has_ended or len(self.met) >= MAX_FAULTS or self._chance.random() >= self._rate * call.weight:
            return None
        outside = place.actor.startswith("world/")
        general = () if outside else faults.ANY_CALL
        menu = [
            fault
            for some in ((general, call.menu) if self._chance.random() < 0.5 else (call.menu, general))
            if some
            for fault in some
            if fault.kind in self._kinds
        ]
        if not menu:
            return None
        fault = self._chance.choice(menu)
        self.met[place] = fault
        self.described.append(faults.describe(place, call.what, fault))
        return fault

    def end(self) -> None:
        self.has_ended = True


class ScheduledFaults:
    """The faults of a schedule, as they are met."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self.has_ended = False
        self.met = dict[Place, Fault]()
        self.described: list[str] = []

    def fault_at(self, place: Place, call: Call) -> Fault | None:
        fault = None if self.has_ended else self._schedule.get(place)
        if fault is not None:
            self.met[place] = fault
            self.described.append(faults.describe(place, call.what, fault))
        return fault

    def end(self) -> None:
        self.has_ended = True
