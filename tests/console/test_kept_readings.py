"""What takes long to count is counted once for all who look, beside the pages; and what fails is told, and tried again."""

import asyncio
from threading import Event

import pytest

from engine.model.errors import ParleyError
from workers.console import kept_readings
from workers.console.kept_readings import KEPT_READINGS, KeptReadings
from workers.console.log_name_search import MAX_WAITING, LogNameSearch, NamedPerson


class Counting:
    """Counts how often it is counted; each time it waits until it may."""

    def __init__(self):
        self.times = 0
        self.may_go = Event()

    def __call__(self):
        self.times += 1
        assert self.may_go.wait(60)
        return self.times


@pytest.fixture
def clock(monkeypatch):
    now = [1_000.0]
    monkeypatch.setattr(kept_readings, "monotonic", lambda: now[0])
    return now


def run(story):
    readings = KeptReadings()
    try:
        asyncio.run(story(readings))
    finally:
        readings.close()


async def settled(readings):
    """Until nothing is being counted."""
    while tasks := [entry.task for entry in readings._entries.values() if entry.task is not None]:
        await asyncio.wait(tasks)


def test_ten_who_look_at_once_have_it_counted_once():
    async def story(readings):
        counting = Counting()
        found = await asyncio.gather(*(readings.look("a", counting) for _ in range(10)))
        assert [each.is_waited_for for each in found] == [True] * 10
        counting.may_go.set()
        await settled(readings)
        assert (await readings.look("a", counting)).what == 1
        assert counting.times == 1

    run(story)


def test_what_is_old_is_shown_and_counted_again_beside(clock):
    async def story(readings):
        counting = Counting()
        counting.may_go.set()
        await readings.look("a", counting)
        await settled(readings)
        clock[0] += kept_readings.FRESH_S
        counting.may_go.clear()
        assert (await readings.look("a", counting)).what == 1, "nobody waits for the new one"
        counting.may_go.set()
        await settled(readings)
        assert (await readings.look("a", counting)).what == 2

    run(story)


def test_what_took_long_is_counted_again_after_twice_as_long(clock):
    async def story(readings):
        def slow():
            clock[0] += 100
            return clock[0]

        await readings.look("a", slow)
        await settled(readings)
        first = (await readings.look("a", slow)).number
        clock[0] += 99
        await readings.look("a", slow)
        await settled(readings)
        assert (await readings.look("a", slow)).number == first
        clock[0] += 1
        await readings.look("a", slow)
        await settled(readings)
        assert readings._entries["a"].reading.number > first

    run(story)


def test_what_lasts_is_counted_once(clock):
    async def story(readings):
        counting = Counting()
        counting.may_go.set()
        await readings.look("a", counting, lasts=True)
        await settled(readings)
        clock[0] += 1e6
        await readings.look("a", counting, lasts=True)
        await settled(readings)
        assert counting.times == 1

    run(story)


def test_what_failed_is_told_and_counted_again(clock):
    async def story(readings):
        def fail():
            raise ParleyError("There is no archive")

        assert (await readings.look("a", fail)).problem == "There is no archive."
        clock[0] += kept_readings.FRESH_S
        await readings.look("a", lambda: 7)
        await settled(readings)
        assert (await readings.look("a", lambda: 7)).what == 7

    run(story)


def test_a_mistake_is_told_without_what_it_says():
    async def story(readings):
        def fail():
            raise ValueError("+33612345678")

        found = await readings.look("a", fail)
        assert found.problem == "This could not be counted; the log says why."

    run(story)


def test_no_more_is_kept_than_so_many():
    async def story(readings):
        for number in range(KEPT_READINGS + 20):
            await readings.look(number, lambda: 1)
            await settled(readings)
        assert len(readings._entries) == KEPT_READINGS
        assert KEPT_READINGS + 19 in readings._entries

    run(story)


def test_what_is_forgotten_is_counted_anew():
    async def story(readings):
        counting = Counting()
        await readings.look("a", counting, lasts=True)
        readings.forget("a")
        counting.may_go.set()
        await settled(readings)
        assert (await readings.look("a", counting, lasts=True)).what == 1, "it was being counted"
        readings.forget("a")
        await readings.look("a", counting, lasts=True)
        await settled(readings)
        assert (await readings.look("a", counting, lasts=True)).what == 2

    run(story)


class Search(LogNameSearch):
    """Finds somebody, once it may."""

    def __init__(self, readings):
        super().__init__(None, readings, lambda: False)
        self.number = "+33600000001"
        self.may_go = Event()

    def find(self, name):
        assert self.may_go.wait(60)
        return NamedPerson(self.number)


def test_whose_a_name_is_is_forgotten_once_it_is_told():
    async def story(readings):
        search = Search(readings)
        search.may_go.set()
        assert (await search.look("0a1b2c3d4e")).what == NamedPerson("+33600000001")
        search.number = None
        assert (await search.look("0a1b2c3d4e")).what == NamedPerson(None), "an erasure was in between"

    run(story)


def test_so_many_searches_wait_and_no_more():
    async def story(readings):
        search = Search(readings)
        names = [f"{each:010x}" for each in range(MAX_WAITING + 1)]
        told = await asyncio.gather(*map(search.look, names))
        assert [bool(each.problem) for each in told] == [False] * MAX_WAITING + [True]
        assert (await search.look(names[0])).is_waited_for, "that one waits already"
        assert "try again in a few minutes" in told[-1].problem
        search.may_go.set()
        await settled(readings)
        assert (await search.look(names[-1])).what is not None

    run(story)
