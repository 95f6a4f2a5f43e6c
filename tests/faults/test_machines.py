"""Three machines, each with a server of the lanes and a Sentinel, the primary on the first, which is cut off: from its peers alone,
while Parley still reaches it, or with the workers on it from all the world. What is asked of replicas is kept word for word."""

import subprocess
from contextlib import contextmanager
from time import monotonic

import pytest
import redis

from config.settings.settings import DEFAULT_SHARDS
from config.store import keyspace, redis_client
from tests.faults.play import Play
from tests.faults.spread_deployment import (
    LONG_MS,
    WORKERS,
    heard,
    hears,
    post,
    report_lags,
    spawn_on,
    start_here,
    talking,
)
from tests.support import audit, clinic
from tests.support.machines import NAMESPACES, Machines
from tests.support.octopush import FakeOctopush, Faults
from tests.support.person import inbound
from tests.support.processes import Deployment
from tests.support.sentinels import DOWN_AFTER_MS, ValkeyService, is_primary
from tests.support.valkey import Valkey
from tests.support.waiting import HANG_S, until

pytestmark = pytest.mark.topologies

ANNA, BORIS = clinic.number(101), clinic.number(102)
SHARDS = DEFAULT_SHARDS


@pytest.fixture
def octopush(machines):
    with FakeOctopush(host=machines.address) as octopush:
        yield octopush


@pytest.fixture
def service(machines):
    with ValkeyService(replicas=2, machines=machines.all) as service:
        yield service


@contextmanager
def deployed(service, octopush, *, replicas=1, host="127.0.0.1"):
    environment = {"PARLEY_REPLICAS": str(replicas)}
    with Deployment(
        service.url, service.broker_url, octopush, environment=environment, host=host
    ) as deployment:
        yield deployment


def isolate_primary(machines, service):
    """Cut the first machine off from the two others, who have another primary then. Parley reaches all three."""
    old = service.primary
    first, *others = machines.all
    assert old.host == first.address
    first.cut_off_from(others)
    service.wait_failed_over(old)
    assert is_primary(old)
    return old


def join_again(machines, old):
    machines.all[0].join()
    until(lambda: not is_primary(old), 30, "the former primary follows the new one")


def lane(server, person):
    return server.client().get(keyspace.lane_key(keyspace.shard_of(person, SHARDS), person))


def test_without_replicas_asked_for_a_primary_that_is_cut_off_loses_what_it_acknowledged(
    machines, service, octopush
):
    with deployed(service, octopush, replicas=0) as deployment:
        start_here(deployment)
        assert post(deployment, inbound(ANNA, "START")) == 200
        hears(octopush, ANNA, clinic.NAME)
        service.be_patient(LONG_MS)
        old = service.primary
        first, *others = machines.all
        first.cut_off_from(others)
        assert post(deployment, inbound(ANNA, "Ada")) == 200
        hears(octopush, ANNA, clinic.temperature("Ada"))
        assert b"Ada" in lane(old, ANNA)
        service.be_patient(DOWN_AFTER_MS)
        service.wait_failed_over(old)
        join_again(machines, old)
        assert b"Ada" not in lane(service.primary, ANNA)


def test_with_replicas_asked_for_conversations_survive_a_primary_that_is_cut_off(machines, service, octopush):
    """They go on with the other one, while it is cut off."""
    with deployed(service, octopush) as deployment:
        start_here(deployment)
        play = Play(deployment, octopush)
        with talking(play, range(60)):
            until(lambda: octopush.count() >= 20, 60, "20 SMS were sent")
            old = isolate_primary(machines, service)
        assert is_primary(old)
        report_lags(play, "a primary cut off from its peers")
        join_again(machines, old)
        play.judge()
        audit.settle(service.client(), service.client(service.broker_url))


def test_conversations_survive_a_machine_that_is_cut_off_with_its_primary_and_workers(
    machines, service, octopush
):
    """What its workers hold is free when their leases end, and when it is back, nothing is late."""
    first, second, _ = machines.all
    with deployed(service, octopush, host=second.address) as deployment:
        spawn_on(first, deployment, *WORKERS)
        spawn_on(second, deployment, "web", "ratelimit", "conversation", "clock")
        deployment.wait_ready()
        deployment.wait_running()
        octopush.control(Faults(hang=True))
        assert post(deployment, inbound(ANNA, "START")) == 200
        until(lambda: octopush.ledger().received, 30, "the first machine is about to send it")
        octopush.control(Faults())
        others = spawn_on(second, deployment, "delivery")
        deployment.wait_running()
        play = Play(deployment, octopush)
        with talking(play, range(40)):
            until(lambda: octopush.count() >= 20, 60, "20 SMS were sent")
            old = service.primary
            assert old.host == first.address
            first.cut_off()
            service.wait_failed_over(old)
            hears(octopush, ANNA, clinic.NAME)
        report_lags(play, "a machine cut off, with a primary and workers")
        before = octopush.ledger().received
        assert [sms.status for sms in before if sms.to == ANNA] == [0, 201]
        join_again(machines, old)
        for process in (*deployment.of("ratelimit")[1:], *deployment.of("conversation")[1:], *others):
            process.kill9()
        with talking(play, range(40, 60)):
            pass
        late = {sms.to for sms in octopush.ledger().received[len(before) :]} & {sms.to for sms in before}
        assert not late
        play.judge(besides={ANNA: [clinic.NAME]})
        audit.settle(service.client(), service.client(service.broker_url))


def test_of_two_primaries_the_one_that_is_cut_off_acknowledges_nothing_and_is_left_by_all(
    machines, service, octopush
):
    """By whoever gets an error from it, and by whoever never would, as it asks for no replicas."""
    with deployed(service, octopush) as deployment:
        start_here(deployment)
        assert post(deployment, inbound(ANNA, "START")) == 200
        hears(octopush, ANNA, clinic.NAME)
        (delivery,) = deployment.of("delivery")
        delivery.sigstop()
        assert post(deployment, inbound(BORIS, "START")) == 200
        outbox = keyspace.outbox_key(keyspace.shard_of(BORIS, SHARDS), BORIS)
        until(lambda: all(each.client().llen(outbox) for each in service.servers), 30, "it is decided")
        old = isolate_primary(machines, service)
        delivery.sigcont()
        with pytest.raises(redis_client.NotReplicatedError):
            redis_client.run_commands(old.client(), [("SET", "shards", SHARDS)], replicas=1)
        ada = inbound(ANNA, "Ada")
        until(lambda: post(deployment, ada) == 200, 30, "the other one takes it")
        hears(octopush, ANNA, clinic.temperature("Ada"))
        hears(octopush, BORIS, clinic.NAME)
        until(lambda: not parley_clients(old), 30, "nobody is with it any more")
        with redis_client.connect(service.url, retries=0) as late:  # the Sentinel beside it comes first
            found = (service.primary.host, service.primary.port)
            until(lambda: late.ping() and late.connection_pool.master_address == found, 30, "so is who comes")
        assert is_primary(old)
        assert is_primary(service.primary)
        join_again(machines, old)
        warm = inbound(ANNA, "101.5")
        until(lambda: post(deployment, warm) == 200, 30, "all are with the one primary")
        hears(octopush, ANNA, clinic.FEVER)
        assert heard(octopush, ANNA) == [clinic.NAME, clinic.temperature("Ada"), clinic.FEVER]
        assert heard(octopush, BORIS) == [clinic.NAME]


def parley_clients(server):
    """What processes of Parley were last asked of a server, of those that are connected to it."""
    asked = [each["cmd"] for each in server.client().client_list()]
    return [cmd for cmd in asked if cmd.startswith(("fcall", "bzmpop", "zmpop"))]


def test_a_connection_to_a_machine_that_is_gone_is_left_long_before_its_timeout(machines, service):
    """Its kernel says nothing any more, as that of a server that only hangs does."""
    with redis_client.connect(service.url, retries=0, timeout_s=HANG_S) as client:
        assert client.ping()
        machines.all[0].cut_off()
        begun_s = monotonic()
        with pytest.raises(redis.RedisError):
            client.ping()
        assert monotonic() - begun_s < HANG_S
        service.wait_failed_over(service.servers[0])
        assert client.ping()


def test_machines_hear_each_other_unless_they_are_cut_off(machines):
    first, second, third = machines.all
    with Valkey(machine=first) as server:

        def hear_it():
            asked = ("timeout", "1", "bash", "-c", f"exec 3<>/dev/tcp/{server.host}/{server.port}")
            return [
                subprocess.run(each.command(*asked), capture_output=True, check=False).returncode == 0
                for each in machines.all
            ]

        assert hear_it() == [True, True, True]
        first.cut_off_from([second])
        assert hear_it() == [True, False, True]
        assert server.client().ping()
        first.join()
        assert hear_it() == [True, True, True]
        first.cut_off()
        assert hear_it() == [True, False, False]
        first.join()
        third.cut_off()
        assert hear_it() == [True, True, False]


def test_machines_leave_nothing_behind_whatever_fails(machines, monkeypatch):
    others = Machines()
    names = others.names
    assert not {*names} & {*machines.names}
    running = subprocess.Popen(others.all[0].command("sleep", "600"))
    others.all[1].cut_off()
    with pytest.raises(ZeroDivisionError), others:
        raise ZeroDivisionError
    assert running.wait(HANG_S) < 0
    assert not _left_of(names)
    made = []
    monkeypatch.setattr(Machines, "_add", lambda self, place: made.extend(self.names) or 1 / place)
    with pytest.raises(ZeroDivisionError):
        Machines()
    assert made
    assert not _left_of(made)


def _left_of(names):
    """What is still there of machines with these names."""
    links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
    return [name for name in names if (NAMESPACES / name).exists() or name in links]
