"""An export on its way: no faster than it is taken, ended by who leaves, by the end of the process, and by what fails."""

import asyncio
from threading import Event

import pytest

from config.archive.result_filters import InvalidFilterError
from tests.support.waiting import HANG_S
from workers.console.results import result_stream
from workers.console.results.result_stream import (
    CHUNK_BYTES,
    MOST_CHUNKS,
    ChunkedOutput,
    ExportAbandonedError,
    ExportRequest,
    ExportRunner,
)
from workers.results.written_filters import WrittenFilters

WANTED = ExportRequest(survey="clinic", written=WrittenFilters(), form="csv")


def write_with(monkeypatch, write):
    """Exports are written by `write`, whatever is asked for."""
    monkeypatch.setattr(ExportRunner, "_write", lambda self, wanted, output: write(output))


def run(story):
    async def told():
        stopping = asyncio.Event()
        await story(ExportRunner(None, stopping), stopping)

    asyncio.run(told())


async def settled(runner):
    """Until its threads have nothing more to do."""
    await asyncio.get_running_loop().run_in_executor(None, runner._threads.shutdown)


def test_all_that_is_written_arrives_in_its_order(monkeypatch):
    lines = [b"%d\n" % number * 5_000 for number in range(300)]

    def write(output):
        for line in lines:
            output.write(line)
        output.finish()

    write_with(monkeypatch, write)

    async def story(runner, stopping):
        chunks = [chunk async for chunk in runner.stream(WANTED)]
        assert b"".join(chunks) == b"".join(lines)
        assert len(chunks) > MOST_CHUNKS
        assert not runner._running

    run(story)


def test_what_is_written_waits_for_who_takes_it(monkeypatch):
    written, enough = [], Event()

    def write(output):
        for number in range(100):
            output.write(b"x" * CHUNK_BYTES)
            written.append(number)
            if len(written) == MOST_CHUNKS:
                enough.set()
        output.finish()

    write_with(monkeypatch, write)

    async def story(runner, stopping):
        stream = runner.stream(WANTED)
        await anext(stream)
        assert await asyncio.get_running_loop().run_in_executor(None, enough.wait, HANG_S)
        assert len(written) <= MOST_CHUNKS + 2
        await stream.aclose()
        await settled(runner)
        assert len(written) <= MOST_CHUNKS + 4, "who writes on for nobody is ended"

    run(story)


def test_what_fails_midway_breaks_the_connection_off(monkeypatch):
    def write(output):
        output.write(b"half of it" * CHUNK_BYTES)
        raise InvalidFilterError("the archive is gone")

    write_with(monkeypatch, write)

    async def story(runner, stopping):
        stream = runner.stream(WANTED)
        with pytest.raises(InvalidFilterError):
            [chunk async for chunk in stream]
        assert not runner._running

    run(story)


def test_the_end_of_the_process_ends_it(monkeypatch):
    def write(output):
        while True:
            output.write(b"x" * CHUNK_BYTES)

    write_with(monkeypatch, write)

    async def story(runner, stopping):
        stream = runner.stream(WANTED)
        await anext(stream)
        stopping.set()
        with pytest.raises(ExportAbandonedError):
            [chunk async for chunk in stream]
        await settled(runner)

    run(story)


def test_two_at_once_are_enough(monkeypatch):
    def write(output):
        output.write(b"x" * CHUNK_BYTES)
        output.finish()

    write_with(monkeypatch, write)

    async def story(runner, stopping):
        streams = [runner.stream(WANTED) for _ in range(result_stream.MOST_EXPORTS)]
        for stream in streams:
            await anext(stream)
        assert runner.is_full
        await streams[0].aclose()
        assert not runner.is_full
        await streams[1].aclose()
        await settled(runner)

    run(story)


def test_who_takes_nothing_for_long_is_left(monkeypatch):
    monkeypatch.setattr(result_stream, "LONGEST_STALL_S", 0.01)

    async def story():
        output = ChunkedOutput(asyncio.get_running_loop())

        def write():
            while True:
                output.write(b"x" * CHUNK_BYTES)

        with pytest.raises(ExportAbandonedError):
            await asyncio.get_running_loop().run_in_executor(None, write)

    asyncio.run(story())
