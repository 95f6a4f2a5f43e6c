"""One run of a play, and what it came to."""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from tests.simulated.exploring.random_faults import RandomFaults, ScheduledFaults
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.plays.play import Play, perform
from tests.simulated.world.faults import Fault, Place, Schedule


class RunResult(msgspec.Struct, frozen=True):
    """A run: the faults that it met, and `broken`, the promise that did not hold; empty if all did. `seen` says how."""

    play: str
    seed: int
    met: Mapping[Place, Fault]
    described: Sequence[str]
    broken: str = ""
    seen: str = ""


Trace = Callable[[str], None]
"""Takes a line for each call of a run."""


def run_seed(play: Play, seed: int, trace: Trace | None = None) -> RunResult:
    """Run a play with the faults that are drawn from its seed."""
    return run_with(play, seed, RandomFaults(f"{play.name} {seed}", play.kinds, play.left_out), trace)


def run_schedule(play: Play, seed: int, schedule: Schedule, trace: Trace | None = None) -> RunResult:
    """Run a play with these faults, and no others."""
    return run_with(play, seed, ScheduledFaults(schedule), trace)


def run_with(
    play: Play, seed: int, fault_source: RandomFaults | ScheduledFaults, trace: Trace | None = None
) -> RunResult:
    """Run a play with faults of any source."""
    broken = seen = ""
    try:
        perform(play, fault_source, f"{play.name} {seed}", trace)
    except PromiseBroken as e:
        broken, seen = e.promise, str(e)
    return RunResult(play.name, seed, fault_source.met, fault_source.described, broken, seen)
