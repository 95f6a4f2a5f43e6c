"""Redis is slow, full, frozen or gone for longer than anybody waits: nothing is acknowledged that is not kept, what is under
way finishes if it can, nobody spins, and all goes on by itself."""

import os
from pathlib import Path
from threading import Thread
from time import monotonic

import pytest
import requests

from config.telemetry.process_registry import ROLES
from tests.faults.play import Play
from tests.support import audit, clinic
from tests.support.person import inbound
from tests.support.processes import Deployment
from tests.support.proxies import Proxies
from tests.support.waiting import until

AWAY_S = 12.0
"""Longer than a client's retries, a lease, and the clock's patience."""

BUSY = 0.15
"""The part of one core that a process may use while it can do nothing."""

WITHIN_S = 8
"""How soon a webhook is answered meanwhile: within two seconds, if the machine has nothing else to do."""

LINES_A_S = 3.0
"""Lines that a process may log a second meanwhile."""

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def lanes_proxy(own_valkey):
    with Proxies(own_valkey, broker=False) as proxy:
        yield proxy


@pytest.fixture
def broker_proxy(own_valkey):
    with Proxies(own_valkey, lanes=False) as proxy:
        yield proxy


@pytest.fixture
def deployment(octopush, lanes_proxy, broker_proxy):
    """Its two Redis servers can be taken away one by one; every kind of limit is on, and none is reached."""
    limits = {"sms_per_second": 1000, "sms_per_day": 100_000, "new_sessions_per_minute": 60_000}
    with Deployment(lanes_proxy.url, broker_proxy.broker_url, octopush, limits=limits) as deployment:
        yield deployment


@pytest.fixture
def play(deployment, octopush):
    return Play(deployment, octopush)


def post(deployment, place, text="START"):
    """(status, seconds) of somebody's SMS."""
    begun_s = monotonic()
    answer = requests.post(deployment.webhook, data=inbound(clinic.number(place), text), timeout=60)
    return answer.status_code, monotonic() - begun_s


def used_s(process):
    """Processor time that it has taken."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def saves(server, status):
    """Have it write a snapshot, with this outcome."""
    redis = server.client()
    redis.bgsave()
    until(lambda: redis.info("persistence")["rdb_last_bgsave_status"] == status, 10, f"the save is {status}")


def lines(process):
    return process.log.read_bytes().count(b"\n")


@pytest.mark.parametrize("gone", ["both", "broker"])
def test_nobody_spins_while_redis_is_gone_and_all_goes_on_when_it_is_back(
    deployment, play, octopush, own_valkey, lanes_proxy, broker_proxy, gone
):
    proxies = [broker_proxy] if gone == "broker" else [lanes_proxy, broker_proxy]
    deployment.start()
    talk = Thread(target=play.hold, args=(range(20),), kwargs={"deadline_s": 90, "every_s": 0.05})
    talk.start()
    until(lambda: octopush.count() > 10, 30, "they talk")
    for proxy in proxies:
        proxy.refuse()
    begun_s = monotonic()
    before = {process: (used_s(process), lines(process)) for process in deployment.processes}
    statuses = []
    while monotonic() - begun_s < AWAY_S:
        status, took_s = post(deployment, 1_000)
        statuses.append(status)
        assert took_s < WITHIN_S
        waited_s = 0.5 * len(statuses)
        until(lambda waited_s=waited_s: monotonic() - begun_s > waited_s, 5, "a little later")
    assert set(statuses) == ({200} if gone == "broker" else {503})
    away_s = monotonic() - begun_s
    for process, (was_s, was_lines) in before.items():
        assert process.alive, f"{process.name} ended"
        assert used_s(process) - was_s < BUSY * away_s, f"{process.name} spins"
        assert lines(process) - was_lines < LINES_A_S * away_s, f"{process.name} talks too much"
    assert requests.get(f"{deployment.base}/readyz", timeout=60).status_code == 503
    assert requests.get(f"{deployment.base}/healthz", timeout=60).status_code == 200
    for proxy in proxies:
        proxy.admit()
    talk.join()
    assert octopush.accepted(clinic.number(1_000)) == [] or gone == "broker"
    if gone == "broker":
        until(lambda: octopush.accepted(clinic.number(1_000)), 30, "whoever wrote meanwhile is answered")
    play.hold(range(20, 23))
    audit.settle(own_valkey.client(), own_valkey.client(own_valkey.broker_url))


def test_a_full_redis_takes_no_more_in_and_what_is_under_way_is_finished(
    deployment, play, octopush, own_valkey
):
    """Workers that are started meanwhile help: whoever empties must not need room."""
    redis = own_valkey.client()
    deployment.start()
    play.hold([0])
    for process in deployment.of("conversation"):
        process.sigstop()
    people = range(10, 40)
    for place in people:
        assert post(deployment, place)[0] == 200
    until(lambda: octopush.count() == 4 + len(people), 30, "they are asked")
    for place in people:
        assert post(deployment, place, "Ada")[0] == 200
    redis.config_set("maxmemory", 1)
    assert {post(deployment, 1_000 + place)[0] for place in range(5)} == {503}
    for process in deployment.processes:
        if process.name != "web":
            process.kill9()
            process.restart()
    until(lambda: octopush.count() == 4 + 2 * len(people), 30, "everybody who had been heard is answered")
    assert post(deployment, 2_000)[0] == 503
    redis.config_set("maxmemory", 0)
    play.hold(range(3_000, 3_003))
    audit.settle(redis, own_valkey.client(own_valkey.broker_url))


def test_a_redis_that_cannot_write_its_disk_is_waited_for(deployment, play, octopush, own_valkey):
    """It answers MISCONF to all that writes, until it can."""
    servers = own_valkey.primaries
    deployment.start()
    play.hold([0])
    for server in servers:
        server.client().config_set("save", "3600 1")
        in_the_way = server.folder / "dump.rdb"
        in_the_way.mkdir()
        (in_the_way / "x").touch()
        saves(server, "err")
    assert post(deployment, 1)[0] == 503
    for server in servers:
        (server.folder / "dump.rdb" / "x").unlink()
        (server.folder / "dump.rdb").rmdir()
        saves(server, "ok")
    play.hold([1, 2])
    play.judge()


def test_a_slow_redis_slows_and_breaks_nothing(deployment, play, lanes_proxy, broker_proxy):
    for proxy in (lanes_proxy, broker_proxy):
        proxy.delay(0.1)
    deployment.start()
    play.hold(range(10))
    play.judge()


def test_a_redis_that_hangs_for_longer_than_clients_wait_is_waited_for(deployment, play, own_valkey):
    deployment.start()
    talk = Thread(target=play.hold, args=(range(10),), kwargs={"every_s": 0.1})
    talk.start()
    until(lambda: play.crowd.posts > 10, 30, "they talk")
    own_valkey.sigstop()
    froze_s = monotonic()
    assert post(deployment, 1_000)[0] == 503
    until(lambda: monotonic() - froze_s > 6, 10, "6 s have passed")
    own_valkey.sigcont()
    talk.join()
    assert all(process.alive for process in deployment.processes)


@pytest.mark.parametrize("role", [role for role in ROLES if role != "web"])
def test_a_worker_that_starts_while_redis_is_away_says_so_in_a_sentence(own_valkey, octopush, role):
    """And ends, as whoever supervises it starts it again. `web` waits for it."""
    with Deployment(own_valkey.url, own_valkey.broker_url, octopush) as deployment:
        own_valkey.kill9()
        process = deployment.spawn(role)
        until(lambda: not process.alive, 20, "it ends")
        assert "a Redis does not answer" in process.log.read_text()
        assert "Traceback" not in process.log.read_text()
        own_valkey.start()
        process.start()
        deployment.wait_running()
