"""Every fault at every call of a play; every two of the kinds that kill and lose; and of a shorter play every three."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import NamedTuple

from tests.simulated.exploring.random_faults import ScheduledFaults
from tests.simulated.exploring.runs import RunResult, run_with
from tests.simulated.plays import PLAYS
from tests.simulated.plays.play import Play
from tests.simulated.world import faults
from tests.simulated.world.faults import Fault, Place, Schedule
from tests.simulated.world.scheduler import Call

DEEP_KINDS = ("die_before", "die_after", "lose_reply")
"""Faults of which two and more are tried together."""


class MetCall(NamedTuple):
    """A call that was made in a run, and the faults that could have met it."""

    place: Place
    menu: Sequence[Fault]


class _RecordingFaults(ScheduledFaults):
    """Notes every call that is made."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(schedule)
        self.calls: list[MetCall] = []

    def fault_at(self, place: Place, call: Call) -> Fault | None:
        if not self.has_ended:
            general = () if place.actor.startswith("world/") else faults.ANY_CALL
            self.calls.append(MetCall(place, (*general, *dict.fromkeys(call.menu))))
        return super().fault_at(place, call)


def explore(play: Play, seed: int, depth: int, jobs: int = 1) -> Iterator[RunResult]:
    """Yield the runs with up to `depth` faults, made by so many processes: one of any kind, or several of DEEP_KINDS, each at a
    call after the one before."""
    source = _RecordingFaults({})
    yield run_with(play, seed, source)
    firsts = [{call.place: fault} for call in source.calls for fault in call.menu]
    if jobs == 1:
        for schedule in firsts:
            yield from _extend(play, seed, schedule, depth)
        return
    with ProcessPoolExecutor(jobs, get_context("fork")) as pool:
        explore_from = partial(_explore_named, play.name, seed, depth)
        for runs in pool.map(explore_from, firsts, chunksize=8):
            yield from runs


def _explore_named(name: str, seed: int, depth: int, schedule: Schedule) -> list[RunResult]:
    return list(_extend(PLAYS[name], seed, schedule, depth))


def _extend(play: Play, seed: int, schedule: Schedule, depth: int) -> Iterator[RunResult]:
    """Yield the run with these faults, and those with more."""
    source = _RecordingFaults(schedule)
    yield run_with(play, seed, source)
    if len(schedule) == depth or any(fault.kind not in DEEP_KINDS for fault in schedule.values()):
        return
    places = [each.place for each in source.calls]
    last = next(reversed(schedule))
    begin = places.index(last) + 1 if last in places else 0
    for call in source.calls[begin:]:
        for kind in DEEP_KINDS:
            if any(fault.kind == kind for fault in call.menu):
                yield from _extend(play, seed, {**schedule, call.place: Fault(kind)}, depth)
