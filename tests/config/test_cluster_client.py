"""A client of a cluster, of real servers: what one that hangs, dies or comes back costs those who ask others."""

import asyncio
import socket
from contextlib import ExitStack
from threading import Thread
from time import monotonic

import pytest
import redis

from config.connections.cluster_client import HELD_UP_S, REFRESH_TIMEOUT_S
from config.store import redis_client
from config.store.function_calls import accept_commands
from tests.support.waiting import until

pytestmark = pytest.mark.processes

KEYS = [f"{{{k}}}:key" for k in range(32)]
MANY = 16
PATIENCE_S = 8 * HELD_UP_S
"""For a machine that is not quiet; less than the timeout of a connection."""


@pytest.fixture
def client(cluster):
    with redis_client.connect(cluster.url) as client:
        yield client


def sets(value=1):
    return [("SET", key, value) for key in KEYS]


def gets():
    return [("GET", key) for key in KEYS]


def test_every_command_is_answered_by_the_server_that_has_its_key(cluster, client):
    redis_client.run_commands(client, sets(7))
    assert redis_client.run_commands(client, gets()) == [b"7"] * len(KEYS)
    assert {node.ask("DBSIZE") for node in cluster.primaries} != {0}
    assert sorted(client.scan_iter("{*}:key")) == sorted(key.encode() for key in KEYS)


def test_an_answer_is_read_as_of_one_server(cluster, client):
    """Also where what is asked says how: with scores, or without values."""
    client.zadd(KEYS[0], {"a": 1, "b": 2})
    client.hset(KEYS[1], "a", "1")
    read = [
        client.zrange(KEYS[0], 0, -1, withscores=True),
        *client.zscan_iter(KEYS[0], score_cast_func=bytes.decode),
        *client.hscan_iter(KEYS[1], no_values=True),
        client.hgetall(KEYS[1]),
        client.get(KEYS[2]),
        client.set(KEYS[2], "1", nx=True),
    ]
    assert read == [[(b"a", 1.0), (b"b", 2.0)], (b"a", "1"), (b"b", "2"), b"a", {b"a": b"1"}, None, True]

    async def read_async():
        async with redis_client.connect_async(cluster.url) as other:
            return await other.zrange(KEYS[0], 0, -1, withscores=True)

    assert asyncio.run(read_async()) == [(b"a", 1.0), (b"b", 2.0)]


def test_one_that_hangs_is_waited_for_once_and_not_long(cluster, client):
    redis_client.run_commands(client, sets())
    owners = [cluster.primary_of(key) for key in KEYS]
    hung = owners[0]
    hung.sigstop()
    theirs = [owner is not hung for owner in owners]
    begun_s = monotonic()
    first = redis_client.try_commands(client, gets())
    second = redis_client.try_commands(client, gets())
    assert monotonic() - begun_s < PATIENCE_S
    for answers in (first, second):
        assert [not isinstance(answer, Exception) for answer in answers] == theirs
    hung.sigcont()
    until(lambda: redis_client.try_commands(client, gets()) == [b"1"] * len(KEYS), 20, "it answers again")


def test_whoever_asks_one_that_hangs_alone_is_not_held_up_either(cluster, client):
    redis_client.run_commands(client, sets())
    hung = cluster.primary_of(KEYS[0])
    hung.sigstop()
    begun_s = monotonic()
    (answer,) = redis_client.try_commands(client, [("GET", KEYS[0])])
    assert monotonic() - begun_s < PATIENCE_S
    assert isinstance(answer, redis.exceptions.TimeoutError)


def test_one_that_hangs_is_found_out_before_anybody_waits_for_it(cluster, client):
    redis_client.run_commands(client, sets())
    hung = cluster.primary_of(KEYS[0])
    hung.sigstop()
    redis_client.look_around(client)
    (answer,) = redis_client.try_commands(client, [("GET", KEYS[0])])
    assert isinstance(answer, redis_client.ServerAwayError), "it was not asked"


def test_that_slots_have_moved_is_found_out_before_anybody_asks_in_vain(cluster, client):
    redis_client.run_commands(client, sets())
    slot = redis.crc.key_slot(b"0")
    here = cluster.primary_of(slot)
    there = next(node for node in cluster.primaries if node is not here)
    cluster.move_slot(slot, there)

    def is_known():
        redis_client.look_around(client)
        return redis_client.address_of(client.server_of("{0}:key")) == there.address

    until(is_known, 20, "its new server is known")
    cluster.move_slot(slot, here)


def test_what_one_has_answered_is_read_though_another_was_waited_for_meanwhile(cluster, client):
    """The first answers at once. The second has begun to, and takes long over the rest, as when replicas are lacking. The third has
    answered by then."""
    redis_client.run_commands(client, sets())
    owners = {cluster.primary_of(key): key for key in KEYS}
    (_, first), (slow, second), (late, third) = owners.items()
    bell = second.replace("key", "bell")
    late.sigstop()

    def go_on():
        until(lambda: slow.ask("INFO", "clients")["blocked_clients"], 20, "the second is waited for")
        late.sigcont()

    going_on = Thread(target=go_on)
    going_on.start()
    waits = ("BZMPOP", 4 * HELD_UP_S, 1, bell, "MIN")
    answers = redis_client.try_commands(client, [("GET", first), ("GET", second), waits, ("GET", third)])
    going_on.join()
    assert answers == [b"1", b"1", None, b"1"]


def test_many_that_hang_are_waited_for_together_when_it_is_asked_who_has_what(cluster):
    """Those that the URL names first take what is said, and say nothing."""
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(MANY)]
        seeds = [f"127.0.0.1:{each.getsockname()[1]}" for each in silent]
        url = f"redis+cluster://{','.join([*seeds, cluster.nodes[0].address])}"
        begun_s = monotonic()
        with redis_client.connect(url) as client:
            assert redis_client.run_commands(client, gets()) == [None] * len(KEYS)

        async def get_async():
            async with redis_client.connect_async(url) as other:
                return await redis_client.run_commands_async(other, gets())

        assert asyncio.run(get_async()) == [None] * len(KEYS)
    assert monotonic() - begun_s < MANY * REFRESH_TIMEOUT_S


def test_a_command_that_waits_for_something_is_no_sign_of_a_server_that_hangs(client):
    waits = ("BZMPOP", 2 * HELD_UP_S, 1, KEYS[0], "MIN")
    assert redis_client.run_command(client, waits) is None


def test_under_asyncio_others_are_answered_beside_one_that_hangs(cluster):
    owners = [cluster.primary_of(key) for key in KEYS]

    async def ask():
        client = redis_client.connect_async(cluster.url)
        try:
            await redis_client.run_commands_async(client, sets())
            owners[0].sigstop()
            begun_s = monotonic()
            return await redis_client.try_commands_async(client, gets()), monotonic() - begun_s
        finally:
            await client.aclose()

    answers, took_s = asyncio.run(ask())
    assert took_s < PATIENCE_S
    assert [not isinstance(answer, Exception) for answer in answers] == [
        owner is not owners[0] for owner in owners
    ]


def test_a_server_that_is_started_again_is_found_by_the_connections_that_it_had(cluster, client):
    redis_client.run_commands(client, sets())
    node = cluster.primary_of(KEYS[0])
    node.kill9()
    node.start()
    cluster.wait_complete()
    until(lambda: redis_client.try_commands(client, gets()) == [b"1"] * len(KEYS), 20, "all answer")


def test_functions_are_loaded_on_whichever_server_lacks_them(cluster, client):
    calls, _ = accept_commands(16, [(f"+3360000000{n}", False, b"x") for n in range(10)])
    redis_client.load_functions(client)
    cluster.primaries[1].ask("FUNCTION", "FLUSH")
    assert all(isinstance(answer, list) for answer in redis_client.try_commands(client, calls))
    cluster.primaries[2].ask("FUNCTION", "FLUSH")

    async def ask():
        other = redis_client.connect_async(cluster.url)
        try:
            return await redis_client.run_commands_async(other, calls)
        finally:
            await other.aclose()

    assert all(isinstance(answer, list) for answer in asyncio.run(ask()))


def test_slots_that_move_are_followed(cluster, client):
    redis_client.run_commands(client, sets())
    slot = redis.crc.key_slot(b"0")
    here = cluster.primary_of(slot)
    there = next(node for node in cluster.primaries if node is not here)
    cluster.move_slot(slot, there)
    assert redis_client.run_commands(client, gets()) == [b"1"] * len(KEYS)
    missed = []
    cluster.move_slot_by_keys(
        slot, here, pause=lambda: missed.extend(redis_client.try_commands(client, gets()))
    )
    assert [answer for answer in missed if isinstance(answer, Exception)] == []
    assert redis_client.run_commands(client, gets()) == [b"1"] * len(KEYS)


def test_a_cluster_of_which_nobody_answers_is_named_without_its_password():
    with (
        redis_client.connect("redis+cluster://ada:secret@127.0.0.1:1") as client,
        pytest.raises(redis.exceptions.ConnectionError, match=r"no server of 127\.0\.0\.1:1 answers") as told,
    ):
        redis_client.servers_of(client)
    assert "secret" not in str(told.value)
