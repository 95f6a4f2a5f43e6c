"""Calls of one function that go out together are one command on one server, and come to what they come to one by one."""

import asyncio

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from config.store import function_calls, keyspace, redis_client
from config.store.function_calls import MAX_JOINED, join_calls, split_answers
from config.store.lua_library import LIBRARY_NAME
from config.store.server_functions import LeasedOutbox, LeaseSms

SHARDS = 16
PEOPLE = [f"+336000000{number:02}" for number in range(40)]

ACCEPT = f"{LIBRARY_NAME}_accept"
CLAIM = f"{LIBRARY_NAME}_claim"
WAKE = f"{LIBRARY_NAME}_wake"


@pytest.fixture
def client(valkey):
    return valkey.client()


def accept_commands(*senders):
    """Commands that accept a reply of each, of whom there is one in each of their shards."""
    commands, _ = function_calls.accept_commands(SHARDS, [(sender, False, b"yes") for sender in senders])
    return commands


def lease_command(sender):
    k = keyspace.shard_of(sender, SHARDS)
    return function_calls.function_call(
        LeaseSms(
            fence=keyspace.fence_key(k), outbox_alarms=keyspace.outbox_alarms_key(k), server=keyspace.server_key(k),
            owner="me", lease_ms=1_000, longest_pause_ms=0, uncertain_rest_ms=0,
            outboxes=[
                LeasedOutbox(
                    mailbox=mailbox(sender), outbox=keyspace.outbox_key(k, sender),
                    outbox_lock=keyspace.outbox_lock_key(k, sender), sender=sender,
                )
            ],
            asked_channels=(),
        )
    )  # fmt: skip


def one_of_each_shard():
    """A person of each shard that has one, by shard."""
    return {keyspace.shard_of(sender, SHARDS): sender for sender in PEOPLE}


def mailbox(sender):
    return keyspace.mailbox_key(keyspace.shard_of(sender, SHARDS), sender)


def ask(client, commands, **more):
    """The answers that a thread gets."""
    return redis_client.try_commands(client, commands, **more)


def ask_by_asyncio(client, commands, **more):
    """Those that asyncio gets."""

    async def answers():
        options = client.connection_pool.connection_kwargs
        url = f"redis://{options['host']}:{options['port']}/{options['db']}"
        other = redis_client.connect_async(url)
        try:
            return await redis_client.try_commands_async(other, commands, **more)
        finally:
            await other.aclose()

    return asyncio.run(answers())


ASKERS = pytest.mark.parametrize("ask", [ask, ask_by_asyncio], ids=["thread", "asyncio"])
ONE_SERVER = pytest.mark.one_server("on a cluster each call has a slot of its own, and none are joined")


def calls_of_functions(client):
    return client.info("commandstats").get("cmdstat_fcall", {"calls": 0})["calls"]


commands = st.one_of(
    st.sampled_from([("TIME",), ("GET", "a"), ("FCALL", WAKE, 1, "bell", "ada")]),
    st.builds(
        lambda name, keys, args: ("FCALL", name, len(keys), *keys, *args),
        st.sampled_from([ACCEPT, CLAIM]), st.lists(st.sampled_from("abc"), max_size=3), st.lists(st.integers(0, 9), max_size=3),
    ),
)  # fmt: skip


def taken_apart(command):
    """The commands of which a joined one was made."""
    name = command[1] if command[0] == "FCALL" else ""
    if not name.startswith(f"{LIBRARY_NAME}_joined_"):
        return [command]
    keys, args = [*command[3 : 3 + command[2]]], [*command[3 + command[2] :]]
    apart = []
    while args:
        key_count, arg_count = args[:2]
        apart.append(
            (
                "FCALL", name.replace("_joined", ""), key_count,
                *keys[:key_count], *args[2 : 2 + arg_count],
            )
        )  # fmt: skip
        keys, args = keys[key_count:], args[2 + arg_count :]
    return apart


@given(st.lists(commands, max_size=20))
def test_joined_or_not_the_same_is_asked_in_the_same_order(commands):
    joined, sizes = join_calls(commands)
    assert [each for command in joined for each in taken_apart(command)] == commands
    assert [len(taken_apart(command)) for command in joined] == sizes


@given(st.lists(st.integers(1, 4), max_size=5))
def test_each_has_its_own_answer(sizes):
    numbers = iter(range(sum(sizes)))
    apart = [[next(numbers) for _ in range(size)] for size in sizes]
    answers = [each[0] if len(each) == 1 else each for each in apart]
    assert split_answers(answers, sizes) == [number for each in apart for number in each]


def test_an_error_is_that_of_all_that_were_joined():
    refused = redis.ResponseError("OOM command not allowed")
    assert split_answers([1, refused, 2], [1, 3, 1]) == [1, refused, refused, refused, 2]


def test_others_have_their_turn_between_commands():
    joined, sizes = join_calls([("FCALL", CLAIM, 1, "a", "b")] * (2 * MAX_JOINED + 1))
    assert sizes == [MAX_JOINED, MAX_JOINED, 1]
    assert joined[-1] == ("FCALL", CLAIM, 1, "a", "b")


@ONE_SERVER
@ASKERS
def test_calls_for_several_shards_are_one_command(client, ask):
    senders = [*one_of_each_shard().values()]
    assert len(senders) > 10
    redis_client.load_functions(client)
    before = calls_of_functions(client)
    assert ask(client, accept_commands(*senders)) == [[2]] * len(senders)
    assert calls_of_functions(client) == before + 1
    assert all(client.llen(mailbox(sender)) == 1 for sender in senders)


@ONE_SERVER
@ASKERS
def test_what_is_asked_between_them_has_its_own_answer(client, ask):
    first, second, third, *_ = one_of_each_shard().values()
    commands = [("GET", "a"), *accept_commands(first, second), ("STRLEN", "a"), *accept_commands(third)]
    assert ask(client, commands) == [None, [2], [2], 0, [2]]


@ONE_SERVER
@ASKERS
def test_one_that_fails_fails_alone(client, ask):
    """Its mailbox is no list."""
    senders = [*one_of_each_shard().values()]
    damaged = senders[3]
    client.set(mailbox(damaged), "no list")
    answers = ask(client, accept_commands(*senders))
    assert [isinstance(each, redis.ResponseError) for each in answers] == [
        at == 3 for at in range(len(senders))
    ]
    (alone,) = ask(client, accept_commands(damaged))
    assert str(answers[3]).split(" script: ")[0] == str(alone).split(" script: ")[0]
    assert all(client.llen(mailbox(sender)) == 1 for sender in senders if sender != damaged)


@ONE_SERVER
@ASKERS
def test_one_whose_shard_nobody_may_work_on_is_refused_alone(client, ask):
    senders = [*one_of_each_shard().values()]
    strange = senders[3]
    client.hset(keyspace.server_key(keyspace.shard_of(strange, SHARDS)), "admitted", "00 00 0")
    answers = ask(client, [lease_command(sender) for sender in senders])
    assert [str(each).startswith("UNKNOWNSERVER") for each in answers] == [
        each == strange for each in senders
    ]


@ONE_SERVER
def test_in_a_transaction_too_they_are_one_command_and_leave_the_database(client, valkey):
    """Though they have rung in another one."""
    senders = [*one_of_each_shard().values()]
    commands, _ = function_calls.accept_commands(
        SHARDS, [(each, False, b"yes") for each in senders], bells_database=1
    )
    *accepted, found = redis_client.run_commands(client, [*commands, ("GET", "a")], transaction=True)
    assert (accepted, found) == ([[0]] * len(senders), None)
    assert all(client.llen(mailbox(sender)) == 1 for sender in senders)
    assert valkey.client(valkey.broker_url).zcard(keyspace.wakeup_queue_key("replies")) == len(senders)


@ONE_SERVER
def test_each_rings_where_it_is_told_to_and_nobody_is_told_to_wake_whom_it_has_rung_for(client, valkey):
    first, second, *_ = one_of_each_shard().values()
    quiet, _ = function_calls.accept_commands(SHARDS, [(first, False, b"yes")])
    rings, _ = function_calls.accept_commands(SHARDS, [(second, False, b"yes")], bells_database=1)
    assert redis_client.run_commands(client, [*quiet, *rings]) == [[2], [0]]
    bell = valkey.client(valkey.broker_url).zrange(keyspace.wakeup_queue_key("replies"), 0, -1)
    assert bell == [second.encode()]


@ONE_SERVER
@ASKERS
def test_all_are_refused_by_a_server_that_is_full(client, ask):
    senders = [*one_of_each_shard().values()]
    client.config_set("maxmemory", 1)
    try:
        answers = ask(client, accept_commands(*senders))
    finally:
        client.config_set("maxmemory", 0)
    assert all(isinstance(each, redis.exceptions.OutOfMemoryError) for each in answers)
    assert len(answers) == len(senders)
    assert not any(client.exists(mailbox(sender)) for sender in senders)


@ONE_SERVER
@ASKERS
def test_a_server_without_the_functions_is_given_them(client, ask):
    senders = [*one_of_each_shard().values()]
    client.function_flush()
    assert ask(client, accept_commands(*senders)) == [[2]] * len(senders)


@ONE_SERVER
@ASKERS
def test_what_no_replica_has_is_said_of_each(client, ask):
    """There is none; all are done."""
    first, second, *_ = one_of_each_shard().values()
    answers = ask(client, accept_commands(first, second), replicas=1)
    assert [(type(each), each.answer, each.found) for each in answers] == [
        (redis_client.NotReplicatedError, [2], 0)
    ] * 2


@ONE_SERVER
def test_a_user_without_rights_is_told_of_each_call(client):
    first, second, *_ = one_of_each_shard().values()
    client.acl_setuser("narrow", enabled=True, nopass=True, keys=["bell:*"], commands=["+@all"])
    options = client.connection_pool.connection_kwargs
    narrow = redis.Redis(options["host"], options["port"], username="narrow", password="x")
    try:
        answers = redis_client.try_commands(narrow, accept_commands(first, second))
    finally:
        client.acl_deluser("narrow")
        narrow.close()
    assert [str(each).count(" in accept: ") for each in answers] == [1, 1]
