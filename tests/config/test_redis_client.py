"""A kept connection is worth nothing once its server is not the primary: the next word goes to whoever is."""

import asyncio
from contextlib import contextmanager
from threading import Thread

import pytest
import redis

from config.store import redis_client
from tests.support.waiting import HANG_S

ANSWERS = [
    b"-READONLY You can't write against a read only replica.\r\n",
    b"-LOADING Redis is loading the dataset in memory\r\n",
    b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
    b"-CLUSTERDOWN The cluster is down\r\n",
]


@contextmanager
def failing_over(answer, demoted=1):
    """The port of a server whose first connections answer all that is asked with `answer`, and later ones with OK; and the
    connections that it had."""
    loop, begun = asyncio.new_event_loop(), []

    async def serve(reader, writer):
        begun.append(writer)
        told = answer if len(begun) <= demoted else b"+OK\r\n"
        while line := await reader.readline():
            words = [await reader.readline() for _ in range(2 * int(line[1:]))]
            writer.write(b"+OK\r\n" if words[1] == b"CLIENT\r\n" else told)
        writer.close()

    async def listen():
        return await asyncio.start_server(serve, "127.0.0.1", 0)

    server = loop.run_until_complete(listen())
    thread = Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1], begun
    finally:
        loop.call_soon_threadsafe(server.close)
        for writer in begun:
            loop.call_soon_threadsafe(writer.transport.abort)
        loop.call_soon_threadsafe(loop.call_later, 0.05, loop.stop)
        thread.join(HANG_S)
        loop.close()


@pytest.fixture(params=[1, 3], ids=["one command", "a pipeline"])
def commands(request):
    return [("SET", "a", "1")] * request.param


@pytest.fixture(params=ANSWERS, ids=lambda answer: answer[1:9].decode())
def server(request):
    with failing_over(request.param) as found:
        yield found


def test_a_thread_asks_again_on_a_new_connection(server, commands):
    port, begun = server
    with redis_client.connect(f"redis://127.0.0.1:{port}/0") as client:
        assert len(redis_client.run_commands(client, commands)) == len(commands)
    assert len(begun) == 2


def test_so_does_asyncio(server, commands):
    port, begun = server

    async def ask():
        client = redis_client.connect_async(f"redis://127.0.0.1:{port}/0")
        answers = await redis_client.run_commands_async(client, commands)
        await client.aclose()
        return answers

    assert len(asyncio.run(ask())) == len(commands)
    assert len(begun) == 2


def test_a_server_that_stays_a_replica_fails_like_one_that_is_away():
    with failing_over(ANSWERS[0], demoted=99) as (port, begun):
        client = redis_client.connect(f"redis://127.0.0.1:{port}/0", retries=1)
        with pytest.raises(redis.exceptions.ConnectionError, match="read only replica"):
            redis_client.run_command(client, ("SET", "a", "1"))
        client.close()
    assert len(begun) == 2
