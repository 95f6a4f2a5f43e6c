"""What a server is after a failover: as it was before what it has lost, and of another name."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from config.store.lua_library import LIBRARY_NAME, LIBRARY_SOURCE
from tests.simulated.comparison.call_samples import CallSamples
from tests.simulated.comparison.command_samples import CommandSamples
from tests.simulated.server.server_model import CALLS_REMEMBERED, ServerModel
from tests.support.example_counts import examples

START_US = 1_792_000_000_000_000

COUNTER = """#!lua name=counter
local calls = 0
redis.register_function('count_call', function() calls = calls + 1 return calls end)
"""


class Server(ServerModel):
    """A model whose clock the test holds."""

    def __init__(self, seed=0):
        self.now_us = START_US
        super().__init__(lambda: self.now_us, seed)

    def try_command(self, command):
        try:
            return self.execute(command)
        except (ResponseError, NotImplementedError) as e:
            return str(e)


def info(server):
    return server.execute(("INFO", "server")), server.execute(("INFO", "replication"))


@settings(max_examples=examples(50))
@given(seed=st.integers(0, 2**32))
def test_what_is_lost_was_never_done(seed):
    chance, server = Random(seed), Server()
    server.execute(("FUNCTION LOAD", LIBRARY_SOURCE))
    commands, calls = CommandSamples(chance, START_US // 1000), CallSamples(chance, START_US // 1000)
    before = [(server.changes, server.dump())]
    for _ in range(60):
        drawn = chance.choice((commands.command, calls.call, calls.damage))()
        calls.learn(server.try_command(drawn))
        if server.changes > before[-1][0]:
            before.append((server.changes, server.dump()))
        else:
            assert server.dump() == before[-1][1], drawn
    assert [changes for changes, _ in before] == [*range(1, len(before) + 1)]
    lost = chance.randint(0, len(before) - 1)
    assert server.lose_last(lost) == lost
    assert server.dump() == before[len(before) - 1 - lost][1]


def test_libraries_are_lost_too():
    server = Server()
    server.execute(("FUNCTION LOAD", LIBRARY_SOURCE))
    assert server.execute(("FCALL", f"{LIBRARY_NAME}_wake", 1, "bell", "ada")) == 1
    assert server.lose_last(2) == 2
    with pytest.raises(ResponseError, match="Function not found"):
        server.execute(("FCALL", f"{LIBRARY_NAME}_wake", 1, "bell", "ada"))
    assert (server.dump(), server.execute(("FUNCTION LIST",))) == ({}, [])


def test_no_more_is_lost_than_is_remembered():
    server = Server()
    for n in range(CALLS_REMEMBERED + 5):
        server.execute(("RPUSH", "list", n))
    assert server.lose_last(1000) == CALLS_REMEMBERED
    assert server.execute(("LRANGE", "list", 0, -1)) == [b"0", b"1", b"2", b"3", b"4"]
    assert server.lose_last(1) == 0


def test_what_is_refused_or_changes_nothing_is_nothing_to_lose():
    server = Server()
    server.execute(("SET", "a", "1"))
    for command in (
        ("LPUSH", "a", "x"),
        ("GET", "a"),
        ("DEL", "b"),
        ("ZADD", "z", "XX", 1, "m"),
        ("SET", "a", "2", "NX"),
    ):
        server.try_command(command)
    server.is_full = True
    assert server.try_command(("SET", "a", "2")) == "command not allowed when used memory > 'maxmemory'."
    assert (server.changes, server.lose_last(5), server.dump()) == (1, 1, {})


@pytest.mark.parametrize("how", ["promote", "restart"])
def test_another_process_has_another_name_and_remembers_nothing_in_lua(how):
    server = Server()
    server.execute(("FUNCTION LOAD", COUNTER))
    server.execute(("SET", "a", "b", "PX", 5))
    assert [server.execute(("FCALL", "count_call", 0)) for _ in range(2)] == [1, 2]
    known = server.run_id, server.replid
    getattr(server, how)()
    assert server.execute(("FCALL", "count_call", 0)) == 1
    assert server.run_id != known[0]
    assert server.replid != known[1]
    assert server.replid2 == (known[1] if how == "promote" else "0" * 40)
    assert f"run_id:{server.run_id}".encode() in info(server)[0]
    assert f"master_replid2:{server.replid2}".encode() in info(server)[1]
    assert server.dump() == {b"a": (b"b", START_US // 1000 + 5)}


def test_servers_share_nothing_but_the_text_of_their_functions():
    servers = [Server(), Server()]
    for server in servers:
        server.execute(("FUNCTION LOAD", COUNTER))
    assert [server.execute(("FCALL", "count_call", 0)) for server in servers * 2] == [1, 1, 2, 2]


def test_a_seed_says_what_servers_are_called():
    names = []
    for seed in (1, 1, 2):
        server = Server(seed)
        server.promote()
        names.append((server.run_id, server.replid, server.replid2))
    assert names[0] == names[1] != names[2]
    assert len({name for names_ in names[1:] for name in names_}) == 6


@settings(max_examples=examples(50))
@given(seed=st.integers(0, 2**32))
def test_a_scan_answers_all_that_stay_whatever_comes_and_goes(seed):
    chance, server = Random(seed), Server()
    stay = {b"stays-%d" % n for n in range(chance.randint(0, 40))}
    for key in stay:
        server.execute(("SET", key, ""))
    cursor, seen = b"0", []
    while True:
        cursor, keys = server.execute(("SCAN", cursor, "COUNT", chance.randint(1, 5)))
        seen += keys
        if cursor == b"0":
            break
        for _ in range(3):
            key = f"comes-{chance.randint(0, 9)}"
            server.execute(chance.choice([("SET", key, ""), ("DEL", key)]))
    assert stay <= {*seen}
    assert sorted(key for key in seen if key in stay) == sorted(stay)


def test_commands_of_one_moment_are_answered_one_by_one():
    server = Server()
    answers = server.execute_many([("SET", "a", "x"), ("INCR", "a"), ("TIME",), ("GET", "a")])
    assert answers[0] == b"OK"
    assert isinstance(answers[1], ResponseError)
    assert answers[2:] == [[b"1792000000", b"0"], b"x"]
    assert server.changes == 1


def test_what_has_ended_does_not_come_back_when_the_clock_is_set_back():
    server = Server()
    server.execute(("SET", "a", "b", "PX", 5))
    server.now_us += 6_000
    assert (server.dump(), server.keys()) == ({}, [])
    assert server.execute(("EXISTS", "a")) == 0
    server.now_us -= 60_000
    assert server.execute(("EXISTS", "a")) == 0


@pytest.mark.parametrize(
    "command",
    [("EVAL", "return 1", 0), ("SUBSCRIBE", "x"), ("XINFO", "GROUPS", "x"), ("CONFIG", "SET", "a", "b")],
)
def test_what_the_model_does_not_know_it_says(command):
    with pytest.raises(NotImplementedError):
        Server().execute(command)


def test_what_the_model_does_not_know_a_function_cannot_catch():
    server = Server()
    server.execute(
        (
            "FUNCTION LOAD",
            "#!lua name=odd\nredis.register_function('odd', function() return pcall(redis.call, 'SUBSCRIBE', 'x') end)",
        )
    )
    with pytest.raises(NotImplementedError, match="SUBSCRIBE"):
        server.execute(("FCALL", "odd", 0))
