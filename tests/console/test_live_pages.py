"""One reading is for all who look, and none is made while nobody does; who comes is told at once how things stand."""

import asyncio
from contextlib import aclosing

import pytest
import redis

from workers.console import live_pages
from workers.console.live_pages import UNREADABLE_EVENT, UPDATE_EVENT, LivePage

VIEWERS = 100


async def signed_in():
    return True


async def signed_out():
    return False


class Readings:
    """What is read: a number that grows. `fails` is raised in its place."""

    def __init__(self):
        self.count = 0
        self.fails = None

    async def read(self):
        self.count += 1
        if self.fails:
            raise self.fails
        return f"reading\n{self.count}"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(live_pages, "TICK_S", 0.01)
    monkeypatch.setattr(live_pages, "SOONEST_S", 0.001)


def played(story):
    return asyncio.run(asyncio.wait_for(story, 60))


async def next_updates(stream, count):
    """The next events that say something, of a stream that stays open."""
    found = []
    async for event in stream:
        if event.event:
            found.append(event)
        if len(found) == count:
            return found
    return found


def test_a_hundred_viewers_cost_what_one_does():
    readings = Readings()

    async def story():
        page = LivePage(readings.read, asyncio.Event())
        streams = [page.watch(signed_in) for _ in range(VIEWERS)]
        seen = await asyncio.gather(*(next_updates(stream, 3) for stream in streams))
        for stream in streams:
            await stream.aclose()
        assert page.viewers == 0
        return seen

    seen = played(story())
    assert all(len(events) == 3 for events in seen)
    assert readings.count < VIEWERS / 10


def test_nothing_is_read_once_nobody_looks():
    readings = Readings()

    async def story():
        page = LivePage(readings.read, asyncio.Event())
        async with aclosing(page.watch(signed_in)) as stream:
            await next_updates(stream, 1)
        while page.is_read:  # noqa: ASYNC110 (its last round)
            await asyncio.sleep(0)

    played(story())
    assert readings.count > 0


def told_to_a_newcomer():
    """The first event of who comes after somebody else was told, and how often had been read by then."""
    readings = Readings()

    async def story():
        page = LivePage(readings.read, asyncio.Event())
        async with aclosing(page.watch(signed_in)) as first, aclosing(page.watch(signed_in)) as second:
            await next_updates(first, 1)
            count = readings.count
            (event,) = await next_updates(second, 1)
            return event, count

    return played(story())


def test_who_comes_later_is_told_at_once_how_things_stand():
    event, count = told_to_a_newcomer()
    assert event.data.startswith(b"reading\ndata: "), "each line of it is a line of the event"
    assert int(event.data.rpartition(b" ")[2]) >= count


def test_who_comes_is_told_at_once_of_what_is_read_from_then_on(monkeypatch):
    """Their page may be newer than what was read last, and the next round is far."""
    monkeypatch.setattr(live_pages, "TICK_S", 3_600)
    event, count = told_to_a_newcomer()
    assert int(event.data.rpartition(b" ")[2]) > count


def test_a_redis_that_is_away_is_told_and_the_page_goes_on():
    readings = Readings()

    async def story():
        page = LivePage(readings.read, asyncio.Event())
        async with aclosing(page.watch(signed_in)) as stream:
            told = await next_updates(stream, 1)
            readings.fails = redis.exceptions.ConnectionError("away")
            while told[-1].event != UNREADABLE_EVENT:
                told += await next_updates(stream, 1)
            readings.fails = None
            return await next_updates(stream, 1)

    assert played(story())[0].event == UPDATE_EVENT


def test_a_stream_ends_with_the_process_and_with_the_session(monkeypatch):
    monkeypatch.setattr(live_pages, "SESSION_CHECK_S", 0.0)
    readings = Readings()

    async def story():
        stopping = asyncio.Event()
        page = LivePage(readings.read, stopping)
        assert [event async for event in page.watch(signed_out)] == []
        async with aclosing(page.watch(signed_in)) as stream:
            await next_updates(stream, 1)
            stopping.set()
            return [event async for event in stream]

    assert played(story()) == []
