"""The way of a batch of commands through a cluster, without one: who is asked what, and what becomes of the answers."""

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from config.connections.cluster_routing import MAX_ROUNDS, RoutedBatch, SlotTable, key_of, slot_of_key
from config.connections.cluster_view import take_view
from config.connections.replication import (
    REPLICATED_WITHIN_MS,
    SHORT_WAIT_MS,
    NotReplicatedError,
    Shortfalls,
)

A, B, C = ("a", 1), ("b", 2), ("c", 3)
HALVES = [[0, 8_191, [b"a", 1, b"id"]], [8_192, 16_383, [b"b", 2, b"id"]]]

LOW, *_, HIGH = sorted((f"{{{n}}}:x" for n in range(20)), key=slot_of_key)
"""A key of A's, and one of B's."""

GET_BOTH = [("GET", LOW), ("GET", HIGH)]


@pytest.fixture
def looked_at():
    """Servers that somebody looks at, as too few of their replicas have confirmed."""
    return []


@pytest.fixture
def table(looked_at):
    found = SlotTable(Shortfalls(looked_at.append))
    found.replace(1, HALVES, A)
    return found


def moved(key, to):
    return redis.exceptions.MovedError(f"{slot_of_key(key)} {to[0]}:{to[1]}")


def only(batch):
    (request,) = batch.next_requests()
    return request


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_a_key_lies_where_the_servers_say(key):
    opened = key.find("{")
    closed = key.find("}", opened + 1)
    tag = key[opened + 1 : closed] if opened >= 0 and closed > opened + 1 else key
    assert slot_of_key(key) == slot_of_key(key.encode()) == key_slot(tag.encode())


@pytest.mark.parametrize(
    "command, key",
    [
        (("GET", "a"), "a"),
        (("FCALL", "f", 2, "a", "b", "c"), "a"),
        (("FCALL", "f", 0, "c"), None),
        (("XREAD", "COUNT", 1, "STREAMS", "a", "0"), "a"),
        (("XREAD", b"COUNT", b"1", b"STREAMS", "a", "0"), "a"),
        (("BZMPOP", 1, 1, "a", "MIN"), "a"),
        (("XINFO", "STREAM", "a"), "a"),
        (("XINFO STREAM", "a"), "a"),
        (("TIME",), None),
        (("CONFIG GET", "a"), None),
        (("PING",), None),
    ],
)
def test_the_key_of_a_command(command, key):
    assert key_of(command) == key


def test_each_server_is_asked_once_and_every_command_has_its_answer(table):
    batch = RoutedBatch(table, [("GET", HIGH), ("GET", LOW), ("SET", HIGH, 1)])
    of_b, of_a = batch.next_requests()
    assert (of_b.address, of_b.sent) == (B, [("GET", HIGH), ("SET", HIGH, 1)])
    batch.take(of_a, ["low"])
    batch.take(of_b, ["high", redis.ResponseError("WRONGTYPE")])
    assert batch.next_requests() == []
    assert batch.answers[:2] == ["high", "low"]
    assert isinstance(batch.answers[2], redis.ResponseError)


def test_what_has_moved_is_asked_for_where_it_is_said_to_be(table):
    batch = RoutedBatch(table, GET_BOTH)
    of_a, of_b = batch.next_requests()
    batch.take(of_a, [moved(LOW, C)])
    batch.take(of_b, ["high"])
    assert batch.stale
    again = only(batch)
    assert (again.address, again.sent, table.owner(slot_of_key(LOW))) == (C, [("GET", LOW)], C)
    batch.take(again, ["low"])
    assert (batch.next_requests(), batch.answers) == ([], ["low", "high"])


def test_a_server_that_names_no_other_host_means_its_own(table):
    batch = RoutedBatch(table, [("GET", LOW)])
    batch.take(only(batch), [moved(LOW, ("", 9))])
    assert only(batch).address == ("a", 9)


def test_what_is_on_its_way_is_asked_for_at_the_other_end_and_is_not_remembered(table):
    batch = RoutedBatch(table, [("GET", LOW)])
    batch.take(only(batch), [redis.exceptions.AskError(f"{slot_of_key(LOW)} c:3")])
    asking = only(batch)
    assert (asking.address, asking.sent) == (C, [("ASKING",), ("GET", LOW)])
    batch.take(asking, [b"OK", "low"])
    assert (batch.answers, table.owner(slot_of_key(LOW))) == (["low"], A)


def test_what_is_half_moved_is_tried_again_soon_and_not_for_ever(table):
    batch = RoutedBatch(table, [("GET", LOW)])
    rounds = 0
    while requests := batch.next_requests():
        rounds += 1
        batch.take(requests[0], [redis.exceptions.TryAgainError("keys are split")])
        assert batch.pause_s > 0
    assert rounds == MAX_ROUNDS
    assert isinstance(batch.answers[0], redis.exceptions.TryAgainError)


@pytest.mark.parametrize(
    "told", [redis.exceptions.ConnectionError("refused"), redis.exceptions.ClusterDownError("down")]
)
def test_one_that_is_away_changes_nothing_of_another(table, told):
    batch = RoutedBatch(table, GET_BOTH)
    of_a, of_b = batch.next_requests()
    batch.take(of_a, told if isinstance(told, redis.exceptions.ConnectionError) else [told])
    batch.take(of_b, ["high"])
    assert batch.stale, "another may have its slots"
    assert batch.next_requests() == []
    assert batch.answers == [told, "high"]


def test_what_was_of_one_that_is_away_is_asked_of_its_successor(table):
    batch = RoutedBatch(table, [("GET", LOW)])
    batch.take(only(batch), redis.exceptions.ConnectionError("refused"))
    table.replace(2, [[0, 8_191, [b"c", 3]], HALVES[1]], B)
    again = only(batch)
    assert again.address == C
    batch.take(again, ["low"])
    assert batch.answers == ["low"]


def test_what_has_no_key_is_asked_of_another_if_one_is_away(table):
    batch = RoutedBatch(table, [("TIME",)])
    first = only(batch)
    batch.take(first, redis.exceptions.TimeoutError("hangs"))
    second = only(batch)
    assert {first.address, second.address} == {A, B}


def test_slots_of_nobody_are_told(table):
    table.replace(2, [HALVES[1]], B)
    batch = RoutedBatch(table, GET_BOTH)
    batch.take(only(batch), ["high"])
    assert isinstance(batch.answers[0], redis.exceptions.ConnectionError)
    assert (batch.answers[1], table.uncovered()) == ("high", 8_192)


def test_replicas_are_waited_for_at_each_server_and_one_that_lacks_them_is_not_the_others(table):
    batch = RoutedBatch(table, [("SET", LOW, 1), ("SET", HIGH, 1)], replicas=1)
    of_a, of_b = batch.next_requests()
    for request, key in ((of_a, LOW), (of_b, HIGH)):
        write, mark, wait = request.sent
        assert (write[1], mark[0], wait[:2]) == (key, "SET", ("WAIT", 1))
        assert table.owner(slot_of_key(mark[1])) == request.address
    batch.take(of_a, ["OK", 0, 0])
    batch.take(of_b, ["OK", 0, 1])
    assert isinstance(batch.answers[0], NotReplicatedError)
    assert (batch.answers[0].answer, batch.answers[1]) == ("OK", "OK")


def waited_ms(table, *found, answer="OK"):
    """How long each server's replicas may take, of which so many are there."""
    batch = RoutedBatch(table, [("SET", LOW, 1), ("SET", HIGH, 1)], replicas=1)
    requests = batch.next_requests()
    for request, replicas in zip(requests, found, strict=True):
        batch.take(request, [answer, "OK", replicas])
    return [request.sent[-1][2] for request in requests]


def test_where_replicas_were_lacking_they_are_waited_for_as_long_only_once_they_are_seen_to_confirm(
    table, looked_at
):
    assert waited_ms(table, 0, 1) == [REPLICATED_WITHIN_MS, REPLICATED_WITHIN_MS]
    assert waited_ms(table, 0, 1) == waited_ms(table, 0, 1) == [SHORT_WAIT_MS, REPLICATED_WITHIN_MS]
    assert looked_at == [A], "by one who looks"
    mark, wait = table.shortfalls.looking_commands(A)
    assert (table.owner(slot_of_key(mark[1])), wait) == (A, ("WAIT", 1, REPLICATED_WITHIN_MS))
    table.shortfalls.forget(A)
    assert waited_ms(table, 0, 1) == [REPLICATED_WITHIN_MS, REPLICATED_WITHIN_MS], "they may only be slow"
    assert waited_ms(table, 1, 1) == [SHORT_WAIT_MS, REPLICATED_WITHIN_MS]
    assert waited_ms(table, 1, 1) == [REPLICATED_WITHIN_MS, REPLICATED_WITHIN_MS]


def test_replicas_are_lacking_whatever_is_answered_to_the_commands(table, looked_at):
    waited_ms(table, 0, 1, answer=redis.ResponseError("UNKNOWNSERVER"))
    assert looked_at == [A]
    waited_ms(table, 1, redis.ResponseError("WAIT cannot be used with replica"))
    assert looked_at == [A], "who refuses says nothing"


def test_a_batch_that_one_server_has_held_up_is_held_up_by_no_replicas_too(table):
    batch = RoutedBatch(table, [("SET", LOW, 1)], replicas=1)
    batch.take(only(batch), redis.exceptions.TimeoutError("hangs"))
    table.replace(2, [[0, 16_383, [b"c", 3]]], C)
    again = only(batch)
    assert (again.address, again.sent[-1]) == (C, ("WAIT", 1, SHORT_WAIT_MS))


def test_replicas_of_the_other_end_are_waited_for_too(table):
    batch = RoutedBatch(table, [("SET", LOW, 1)], replicas=1)
    batch.take(only(batch), [redis.exceptions.AskError(f"{slot_of_key(LOW)} c:3"), "OK", 1])
    asking = only(batch)
    assert [word for word, *_ in asking.sent] == ["ASKING", "SET", "ASKING", "SET", "WAIT"]
    batch.take(asking, [b"OK", "low", b"OK", b"OK", 0])
    assert isinstance(batch.answers[0], NotReplicatedError)


def test_a_wait_that_fails_does_not_hide_that_the_slot_has_moved(table):
    batch = RoutedBatch(table, [("SET", LOW, 1)], replicas=1)
    batch.take(
        only(batch), [moved(LOW, C), moved(LOW, C), redis.ResponseError("WAIT cannot be used with replica")]
    )
    assert only(batch).address == C


def test_a_moment_is_of_one_slot(table):
    same = LOW.replace(":x", ":y")
    batch = RoutedBatch(table, [("INCR", LOW), ("GET", HIGH), ("INCR", same)], transaction=True)
    of_a, of_b = batch.next_requests()
    assert of_a.sent == [("MULTI",), ("INCR", LOW), ("INCR", same), ("EXEC",)]
    batch.take(of_a, [b"OK", b"QUEUED", b"QUEUED", [1, 2]])
    batch.take(of_b, [b"OK", moved(HIGH, C), redis.exceptions.ExecAbortError("discarded")])
    again = only(batch)
    assert again.address == C
    batch.take(again, [b"OK", b"QUEUED", ["high"]])
    assert batch.answers == [1, "high", 2]


@pytest.mark.parametrize("state, epoch, believed", [("ok", 5, True), ("ok", 4, False), ("fail", 9, False)])
def test_one_that_is_cut_off_or_behind_is_not_believed(table, state, epoch, believed):
    table.replace(5, HALVES, A)
    told = [f"cluster_state:{state}\r\ncluster_current_epoch:{epoch}\r\n".encode(), [[0, 16_383, [b"c", 3]]]]
    assert take_view(table, C, told) is believed
    assert table.primaries() == ([C] if believed else [A, B])
