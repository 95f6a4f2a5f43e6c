"""Whoever works on the lanes is known to live, and nobody else is, whatever its release."""

import os
import socket

import msgspec
import pytest
import structlog

from config.store import keyspace, lua_library, redis_client
from config.telemetry import metrics, process_registry
from config.telemetry.process_registry import ProcessHeartbeat, encode_heartbeat
from tests.support.processes import procfile
from tests.support.waiting import free_port, until

HERE = f"@{socket.gethostname()}:{os.getpid()}."


@pytest.fixture
def client(valkey):
    return valkey.client()


def test_a_process_is_known_from_its_first_word_to_its_clean_end(client, valkey):
    before = redis_client.server_time_ms(client)
    with process_registry.send_heartbeats(valkey.url, "delivery"):
        ((name, said),) = until(
            lambda: process_registry.living_processes(client), 5, "it has said so"
        ).items()
        assert name.startswith(f"delivery{HERE}")
        assert (said.role, said.host, said.pid) == ("delivery", socket.gethostname(), os.getpid())
        assert said.library == lua_library.LIBRARY_NAME
        assert said.release == process_registry.package_version() != ""
        assert before - 1_000 <= said.since <= said.at <= redis_client.server_time_ms(client)
    assert process_registry.living_processes(client) == {}


def test_two_processes_of_one_pid_are_two(client, valkey):
    """In containers all have the pid 1, and some share their host's name."""
    with (
        process_registry.send_heartbeats(valkey.url, "clock") as say,
        process_registry.send_heartbeats(valkey.url, "clock") as say_too,
    ):
        say()
        say_too()
        assert process_registry.count_by_role(process_registry.living_processes(client)) == {"clock": 2}


def test_one_that_has_been_silent_for_a_few_turns_lives_no_more(client):
    now = redis_client.server_time_ms(client)
    said = ProcessHeartbeat(now, role="web", library="parley_0")
    process_registry.store_heartbeat(client, "web@here:1.a", said)
    process_registry.store_heartbeat(
        client,
        "web@here:2.b",
        msgspec.structs.replace(said, at=now - process_registry.HEARTBEAT_EXPIRY_MS - 1_000),
    )
    assert list(process_registry.living_processes(client)) == ["web@here:1.a"]
    assert process_registry.last_heard(
        redis_client.run_command(client, process_registry.HEARTBEATS_COMMAND)
    ) == {"web": now}
    assert process_registry.HEARTBEAT_EXPIRY_MS >= 3 * process_registry.HEARTBEAT_INTERVAL_S * 1_000


def test_one_that_said_no_goodbye_is_told_of_for_a_quarter_of_an_hour_and_forgotten(client):
    now = redis_client.server_time_ms(client)
    for name, silent_ms in (
        ("well", 0),
        ("hangs", process_registry.HEARTBEAT_EXPIRY_MS + 1),
        ("hung", process_registry.SILENT_KEPT_MS - 60_000),
        ("long gone", process_registry.SILENT_KEPT_MS + 1),
    ):
        process_registry.store_heartbeat(client, name, ProcessHeartbeat(now - silent_ms, role="web"))
    said = redis_client.run_command(client, process_registry.HEARTBEATS_COMMAND)
    assert list(process_registry.parse_silent(said, now)) == ["hangs", "hung"]
    process_registry.remove_dead_processes(client)
    assert sorted(client.hkeys(keyspace.PROCESSES_KEY)) == [b"hangs", b"hung", b"well"]


def test_one_that_ends_says_goodbye(client, valkey):
    with process_registry.send_heartbeats(valkey.url, "clock") as say:
        say()
    assert client.hlen(keyspace.PROCESSES_KEY) == 0


def test_nobody_lives_on_because_the_clock_was_set_back(client):
    said = ProcessHeartbeat(redis_client.server_time_ms(client) + 3_600_000, role="web", library="parley_0")
    process_registry.store_heartbeat(client, "web@here:1.a", said)
    assert process_registry.living_processes(client) == {}
    process_registry.remove_dead_processes(client)
    assert client.hkeys(keyspace.PROCESSES_KEY) == []


def test_what_a_later_release_says_beside_what_this_one_knows_is_passed_over(client):
    now = redis_client.server_time_ms(client)
    known = msgspec.msgpack.decode(
        encode_heartbeat(ProcessHeartbeat(now, {"clinic": "ab"}, role="web", library="parley_0"))
    )
    client.hset(keyspace.PROCESSES_KEY, "web@here:1.a", msgspec.msgpack.encode([*known, "more", {"yet": 1}]))
    (said,) = process_registry.living_processes(client).values()
    assert said == ProcessHeartbeat(now, {"clinic": "ab"}, role="web", library="parley_0")


def test_what_a_later_release_says_unreadably_is_nobody(client):
    client.hset(keyspace.PROCESSES_KEY, "web@here:1.a", b"\xc1")
    assert process_registry.living_processes(client) == {}


def test_a_redis_that_is_away_stops_nobody():
    with process_registry.send_heartbeats(f"redis://127.0.0.1:{free_port()}/0", "web"):
        pass


def test_what_is_lost_is_said_again(client, valkey, monkeypatch):
    monkeypatch.setattr(process_registry, "HEARTBEAT_INTERVAL_S", 0.01)
    with process_registry.send_heartbeats(valkey.url, "web"):
        until(lambda: process_registry.living_processes(client), 5, "it has said so")
        client.delete(keyspace.PROCESSES_KEY)
        until(lambda: process_registry.living_processes(client), 5, "it has said so again")


def test_what_it_does_a_second_is_told(client, valkey, monkeypatch):
    moments = iter([0.0, 0.0, 0.5, 4.0, 4.5])
    monkeypatch.setattr(process_registry, "monotonic", lambda: next(moments))
    pace = process_registry._WorkRate("delivery")
    metrics.SENDS.labels("clinic", "accepted").inc(8)
    assert [pace.per_s() for _ in range(4)] == [0, 0, 2, 2]


def test_every_line_of_the_procfile_has_its_work():
    assert set(process_registry.WORK_COUNTERS) == set(procfile())


@pytest.mark.parametrize(
    "server, asked, answered, ahead",
    [(10_000, 9_000, 11_000, 0), (10_000, 10_400, 10_500, 400), (10_000, 5_000, 6_000, -4_000), (9_999, 9_999, 9_999, 0)],
)  # fmt: skip
def test_a_clock_differs_by_what_no_slow_answer_explains(server, asked, answered, ahead):
    assert process_registry.ClockComparison().note(server, asked, answered) == ahead
    assert metrics.CLOCK_DIFFERENCE_SECONDS._value.get() == ahead / 1_000


def test_a_clock_that_differs_is_said_once_and_when_it_is_over():
    clock = process_registry.ClockComparison()
    with structlog.testing.capture_logs() as lines:
        for ahead in (0, 999, 1_001, 5_000, -5_000, 1_000, 0, -2_000):
            clock.note(100_000, 100_000 + ahead, 100_000 + ahead)
    assert [(each["log_level"], each.get("ahead_s")) for each in lines] == [
        ("warning", 1.001),
        ("info", None),
        ("warning", -2.0),
    ]
