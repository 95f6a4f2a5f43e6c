"""Items that arrive while a write is in flight share the next one."""

import asyncio

import pytest

from ingest.intake.batches import WriteBatcher


class Writer:
    """Writes that end when they are told to, one after another."""

    def __init__(self, most=512):
        self.writes = []
        self.gates = []
        self.batches = WriteBatcher(self.write, most)

    async def write(self, items):
        self.writes.append(list(items))
        gate = asyncio.get_running_loop().create_future()
        self.gates.append(gate)
        await gate


async def turns(n=5):
    for _ in range(n):
        await asyncio.sleep(0)


def test_alone_an_item_is_written_at_once():
    async def run():
        writer = Writer()
        put = writer.batches.submit("a")
        await turns()
        assert writer.writes == [["a"]]
        assert not put.done()
        writer.gates[0].set_result(None)
        await put

    asyncio.run(run())


def test_what_gathers_during_a_write_shares_the_next_up_to_the_most():
    async def run():
        writer = Writer(most=3)
        puts = [writer.batches.submit(0)]
        await turns()
        puts += [writer.batches.submit(n) for n in range(1, 6)]
        for gate in range(3):
            await turns()
            writer.gates[gate].set_result(None)
        await asyncio.gather(*puts)
        await writer.batches.wait_drained()
        assert writer.writes == [[0], [1, 2, 3], [4, 5]]

    asyncio.run(run())


def test_a_failed_write_fails_all_that_wait_and_the_next_item_begins_anew():
    async def run():
        writer = Writer(most=1)
        puts = [writer.batches.submit(n) for n in range(3)]
        await turns()
        writer.gates[0].set_exception(OSError("gone"))
        for put in puts:
            with pytest.raises(OSError, match="gone"):
                await put
        again = writer.batches.submit(9)
        await turns()
        writer.gates[1].set_result(None)
        await again
        assert writer.writes == [[0], [9]]

    asyncio.run(run())


def test_a_request_that_went_away_disturbs_nobody():
    async def run():
        writer = Writer()
        gone, stays = writer.batches.submit("gone"), writer.batches.submit("stays")
        await turns()
        gone.cancel()
        writer.gates[0].set_result(None)
        await stays
        assert writer.writes == [["gone", "stays"]]

    asyncio.run(run())
