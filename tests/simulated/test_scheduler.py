"""Actors run in virtual time, and faults meet the calls that a schedule says."""

import asyncio

import pytest

from tests.simulated.exploring.random_faults import ScheduledFaults
from tests.simulated.world.faults import Fault, Place
from tests.simulated.world.scheduler import CALL_US, START_US, AnswerLater, Call, Process, Scheduler
from tests.simulated.world.simulated_loop import SimulatedLoop

SECOND_US = 1_000_000


class Diary:
    """A scheduler whose processes write down what they do and when, in ms since the beginning."""

    def __init__(self, **schedule):
        places = {Place(*key.rsplit("__", 1)): fault for key, fault in schedule.items()}
        self.scheduler = Scheduler(
            ScheduledFaults({Place(actor, int(call)): fault for (actor, call), fault in places.items()})
        )
        self.lines = []

    def call(self, what):
        return self.scheduler.call(Call(what, lambda fault: self.note(what)))

    def note(self, what):
        self.lines.append((what, (self.scheduler.now_us - START_US) // 1_000))

    def process(self, name, *calls):
        def run():
            for each in calls:
                self.call(each)

        process = Process(self.scheduler, name, lambda process: process.spawn("", run))
        process.start()
        return process

    def run(self, seconds=300):
        self.scheduler.run_until(START_US + seconds * SECOND_US)
        self.scheduler.close()
        return [what for what, _ in self.lines]


def test_actors_take_turns_call_by_call():
    diary = Diary()
    diary.process("a", "a0", "a1")
    diary.process("b", "b0", "b1")
    assert diary.run() == ["a0", "b0", "a1", "b1"]


def test_a_delayed_call_lets_others_go_first():
    diary = Diary(a__0=Fault("delay", 2))
    diary.process("a", "a0")
    diary.process("b", "b0", "b1", "b2")
    assert diary.run() == ["b0", "b1", "a0", "b2"]


@pytest.mark.parametrize(
    "kind, expected",
    [("die_before", ["a0", "a0", "a1"]), ("die_after", ["a0", "a1", "a0", "a1"])],
)
def test_a_process_that_dies_begins_again(kind, expected):
    diary = Diary(a__1=Fault(kind))
    diary.process("a", "a0", "a1")
    assert diary.run() == expected


@pytest.mark.parametrize("kind, when_a", [("freeze_before", [0, 7_000]), ("freeze_after", [0, 0])])
def test_a_frozen_process_goes_on_where_it_was(kind, when_a):
    diary = Diary(a__1=Fault(kind, 7_000))
    diary.process("a", "a0", "a1", "a2")
    diary.run()
    assert [at for _, at in diary.lines[:2]] == when_a
    assert diary.lines[2] == ("a2", 7_000)


def test_all_actors_of_a_process_die_with_it():
    diary = Diary(p_one__1=Fault("die_after"))

    def begin(process):
        process.spawn("", lambda: [diary.call(f"one {n}") for n in range(2)])
        diary.scheduler.at(START_US + 10 * SECOND_US, lambda: None)
        if process.lives == 1:
            process.spawn("other", lambda: (diary.scheduler.sleep_us(SECOND_US // 2), diary.call("never")))

    process = Process(diary.scheduler, "p_one", begin)
    process.start()
    assert diary.run() == ["one 0", "one 1", "one 0", "one 1"]


def test_an_answer_may_come_later_than_it_was_made():
    diary = Diary()
    found = []

    def answer(fault):
        raise AnswerLater(3 * SECOND_US, "late")

    def run():
        found.append((diary.scheduler.call(Call("x", answer)), diary.scheduler.now_us - START_US))

    Process(diary.scheduler, "p", lambda process: process.spawn("", run)).start()
    diary.run()
    assert found == [("late", 3 * SECOND_US + CALL_US)]


def test_a_wait_ends_when_it_is_notified_or_its_time_is_over():
    diary = Diary()

    def wait():
        diary.scheduler.wait("token", 5 * SECOND_US)
        diary.note("woken")
        diary.scheduler.wait("token", 5 * SECOND_US)
        diary.note("alone")

    def wake():
        diary.scheduler.sleep_us(2 * SECOND_US)
        diary.scheduler.notify("token")

    process = Process(
        diary.scheduler, "p", lambda process: (process.spawn("", wait), process.spawn("w", wake))
    )
    process.start()
    diary.run()
    assert diary.lines == [("woken", 2_000), ("alone", 7_000)]


def test_an_event_loop_runs_in_virtual_time_beside_threads():
    diary = Diary()

    def begin(process):
        loop = SimulatedLoop(process)

        async def work():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2):
                    await asyncio.sleep(60)
            diary.note("timed out")
            await asyncio.to_thread(diary.scheduler.sleep_us, 3 * SECOND_US)
            diary.note("thread")

        loop.create_task(work())
        process.spawn("", loop.run_forever)

    Process(diary.scheduler, "p", begin).start()
    diary.process("other", "call")
    diary.run()
    assert diary.lines == [("call", 0), ("timed out", 2_000), ("thread", 5_000)]


def test_what_is_due_at_this_very_moment_is_done():
    diary = Diary()

    def begin(process):
        loop = SimulatedLoop(process)
        loop.call_at(loop.time(), diary.note, "now")
        process.spawn("", loop.run_forever)

    Process(diary.scheduler, "p", begin).start()
    diary.scheduler.at(START_US, lambda: None)
    assert diary.run() == ["now"]


def test_what_an_actor_raises_is_a_finding():
    diary = Diary()
    Process(diary.scheduler, "p", lambda process: process.spawn("", lambda: 1 / 0)).start()
    diary.run()
    assert "ZeroDivisionError" in diary.scheduler.crashes[0]
