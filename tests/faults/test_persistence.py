"""Redis comes back with less than it had: an append-only file that was cut off, or a replica that had not heard the last of it.

What was acknowledged in the lost moment is lost: that is why appendfsync is always, and what a failover costs. But nothing
breaks, nobody gets an SMS twice that had been decided before, and whoever writes again is answered.
"""

import re
from threading import Thread

import pytest

from config.store import keyspace
from config.telemetry.process_registry import ROLES
from tests.support import clinic
from tests.support.person import inbound
from tests.support.processes import Deployment
from tests.support.proxies import Proxies
from tests.support.valkey import Valkey
from tests.support.waiting import until


@pytest.fixture
def proxy(own_valkey):
    with Proxies(own_valkey) as proxy:
        yield proxy


@pytest.fixture
def deployment(octopush, proxy):
    with Deployment(proxy.url, proxy.broker_url, octopush) as deployment:
        yield deployment


def twice(octopush, before):
    """Texts that somebody got twice, and the first time as one of the first `before` SMS of all."""
    accepted = octopush.accepted()
    early = {(sms.to, sms.text) for sms in accepted[:before]}
    return [sms for sms in accepted[before:] if (sms.to, sms.text) in early]


@pytest.mark.parametrize("fsync", ["always", "everysec"])
def test_an_append_only_file_whose_end_is_torn_is_gone_on_with(deployment, play, octopush, own_valkey, fsync):
    deployment.start()
    lanes = own_valkey.client()
    # else its id may be what is lost, and `archive` ends: everysec may lose the last seconds
    until(lambda: lanes.exists(keyspace.DEPLOYMENT_KEY), 20, "the archive and Redis are one deployment")
    lanes.config_set("appendfsync", fsync)
    play.hold(range(10))
    primaries = own_valkey.primaries
    own_valkey.kill9()
    for server in primaries:
        (file,) = (server.folder / "appendonlydir").glob("*.incr.aof")
        with file.open("r+b") as aof:
            aof.truncate(file.stat().st_size - 7)  # in the middle of a command
    own_valkey.start()
    play.hold(range(10, 20))
    play.judge()
    assert all(process.alive for process in deployment.processes)


@pytest.mark.one_server("a pair of its own, of which the replica is promoted by hand")
def test_a_failover_that_loses_the_last_moment_breaks_nothing(deployment, play, octopush, own_valkey, proxy):
    with Valkey(replicaof=f"127.0.0.1 {own_valkey.port}") as replica:
        copy = replica.client()
        until(lambda: copy.info("replication").get("master_link_status") == "up", 20, "it replicates")
        deployment.start()
        play.hold(range(5))
        people = range(100, 110)
        play.crowd.post(inbound(clinic.number(place), "START") for place in people)
        until(lambda: octopush.count() == 30, 30, "they are asked")
        until(lambda: copy.dbsize() == own_valkey.client().dbsize(), 10, "the replica has it")
        kept = octopush.count()
        copy.replicaof("NO", "ONE")
        lost = Thread(
            target=play.crowd.post, args=([inbound(clinic.number(place), "Ada") for place in people],)
        )
        lost.start()
        lost.join()
        until(lambda: octopush.count() == 40, 30, "their answers are answered, and lost")
        own_valkey.kill9()
        proxy.lead_to(replica.url)
        play.crowd.post(inbound(clinic.number(place), text) for place in people for text in ("Ada", "85"))
        for place in people:
            number = clinic.number(place)
            until(
                lambda number=number: octopush.accepted(number)[-1].text == clinic.HEALTHY,
                60,
                f"{number} is through",
            )
        play.hold(range(200, 205))
        assert twice(octopush, kept) == []
        assert all(process.alive for process in deployment.processes)


@pytest.mark.one_server("a pair of its own, of which the replica is promoted by hand")
def test_processes_leave_a_server_that_has_become_a_replica(deployment, play, octopush, own_valkey, proxy):
    """Its connections stay open, and it answers READONLY on them for ever; new ones lead to the new primary."""
    with Valkey(replicaof=f"127.0.0.1 {own_valkey.port}") as new:
        copy = new.client()
        until(lambda: copy.info("replication").get("master_link_status") == "up", 20, "it replicates")
        deployment.start()
        play.hold(range(5))
        old = own_valkey.client()
        until(lambda: copy.dbsize() == old.dbsize(), 10, "the replica has all")
        copy.replicaof("NO", "ONE")
        proxy.lead_to(new.url, cut=False)
        old.replicaof("127.0.0.1", str(new.port))
        play.hold(range(5, 15))
        play.judge()
        assert all(process.alive for process in deployment.processes)


@pytest.mark.parametrize("role", ROLES)
def test_nothing_starts_on_a_server_that_may_lose_what_it_acknowledges(own_valkey, octopush, role):
    own_valkey.client().config_set("appendfsync", "everysec")
    with Deployment(own_valkey.url, own_valkey.broker_url, octopush) as deployment:
        refused = deployment.spawn(role)
        assert refused.wait_dead() == 2
        why = r"may lose what it acknowledged: appendfsync (at [\d.:]+ )?is 'everysec'"
        assert re.search(why, refused.log.read_text())
        allowed = deployment.spawn(role, PARLEY_DURABILITY="relaxed")
        until(lambda: b"running" in allowed.log.read_bytes(), 20, f"{role} runs")
        assert "Redis may lose what was acknowledged" in allowed.log.read_text()
