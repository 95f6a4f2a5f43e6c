"""Plays come to their end, a run is the same run again, and a broken promise is told by the fewest faults that break it.

The search itself is `make simulate`; here it is seen to work. What it has found, and what it must find: test_mutants.py.
"""

import json
import logging

import pytest
import structlog

from engine.providers import SmsNotFound
from tests.simulated.exploring.exhaustion import explore
from tests.simulated.exploring.random_faults import RandomFaults, ScheduledFaults
from tests.simulated.exploring.runs import run_schedule, run_seed, run_with
from tests.simulated.exploring.shrinking import shrink
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.plays import PLAYS
from tests.simulated.plays.play import perform
from tests.simulated.world.faults import Fault, Place, read_schedule, written_schedule


@pytest.fixture(autouse=True)
def silence():
    """No logs: in virtual time there are many."""
    configured = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**configured)


@pytest.mark.parametrize("name", PLAYS)
def test_a_play_without_faults_comes_to_its_end(name):
    run = run_schedule(PLAYS[name], 1, {})
    assert run.seen == ""


@pytest.mark.parametrize("name", ["doubtful", "stopping"])
def test_a_seed_is_the_same_run_again(name):
    traces = [[], []]
    for trace in traces:
        run_seed(PLAYS[name], 4, trace.append)
    assert traces[0] == traces[1]
    assert len(traces[0]) > 50


def test_another_seed_is_another_run():
    assert run_seed(PLAYS["crowd"], 1).described != run_seed(PLAYS["crowd"], 2).described


def test_a_broken_promise_is_told_with_the_fewest_faults_that_break_it(monkeypatch):
    """A provider that gets one SMS twice, whatever the deployment does: once a fault makes it ask."""
    monkeypatch.setattr(
        "tests.simulated.world.simulated_provider.SimulatedProvider.look_up",
        lambda *_: SmsNotFound(),
    )
    play = PLAYS["lone"]
    broken = next(
        run
        for seed in range(60)
        if (run := run_with(play, seed, RandomFaults(f"{seed}", ("unknown_taken", "delay")))).broken
    )
    shortest = shrink(play, broken)
    assert broken.broken == "sent_once"
    assert [fault.kind for fault in shortest.met.values()] == ["unknown_taken"]
    again = run_schedule(play, broken.seed, read_schedule(json.dumps(written_schedule(shortest.met))))
    assert again.seen == shortest.seen


def test_every_single_fault_of_a_call_is_explored():
    explored = explore(PLAYS["lone"], 1, depth=1)
    first = next(explored)
    second = next(explored)
    assert (first.met, len(second.met)) == ({}, 1)


def test_a_play_is_not_at_rest_while_mail_waits():
    """With every conversation worker dead for good, what people wrote is never applied, and that is told."""

    class NobodyWorks(ScheduledFaults):
        def fault_at(self, place, call):
            if place.actor.startswith(("conversation", "ratelimit")) and place.call == 0:
                return Fault("freeze_before", 10**9)
            return super().fault_at(place, call)

    faults = NobodyWorks({})
    faults.end = lambda: None
    with pytest.raises(PromiseBroken):
        perform(PLAYS["lone"], faults, "lone 1")


def test_a_schedule_is_read_as_it_is_written():
    schedule = {Place("web-1/request", 3): Fault("late", 300), Place("clock-1", 0): Fault("die_after")}
    assert read_schedule(json.dumps(written_schedule(schedule))) == schedule
