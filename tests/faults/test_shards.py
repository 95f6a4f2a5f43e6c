"""Processes with another number of shards than the lanes are divided into meet nobody: they do not start."""

import pytest
import requests

from config.store import keyspace
from config.telemetry.process_registry import ROLES
from tests.support import clinic
from tests.support.person import inbound
from tests.support.processes import Deployment
from tests.support.waiting import until

SENTENCE = (
    "PARLEY_SHARDS is 8: the lanes in this Redis are divided into 16; set it to 16, or leave it unset (only "
    "`parley reshard` divides them anew)"
)


def ended(process):
    """Its exit status, and what it wrote."""
    return process.wait_dead(), process.log.read_text()


def test_whoever_opted_out_is_not_texted_by_processes_with_another_number(
    deployment, play, octopush, own_valkey
):
    own_valkey.client().set(keyspace.SHARDS_KEY, 16)
    deployment.start()
    people = [clinic.number(place) for place in range(4)]
    play.crowd.post(inbound(number, text) for number in people for text in ("START", "STOP"))
    until(lambda: count_opt_outs(own_valkey) == 4, 20, "they have opted out")
    for process in deployment.processes:
        process.terminate()
    deployment.processes.clear()
    for name in ROLES:
        status, said = ended(deployment.spawn(name, PARLEY_SHARDS="8"))
        assert (status, SENTENCE in said) == (2, True), said
    deployment.processes.clear()
    deployment.start()


def count_opt_outs(server):
    return sum(server.client().hlen(keyspace.optouts_key(k)) for k in range(16))


@pytest.mark.parametrize("command", ["status", "optout list", "lane +33600000000", "metrics --once"])
def test_a_command_with_another_number_says_so_and_does_nothing(own_valkey, octopush, command):
    own_valkey.client().set(keyspace.SHARDS_KEY, 16)
    with Deployment(own_valkey.url, own_valkey.broker_url, octopush) as deployment:
        done = deployment.command(*command.split(), PARLEY_SHARDS="8")
    assert (done.returncode, done.stderr) == (2, SENTENCE + "\n")


@pytest.fixture
def away(request, own_valkey, octopush, tmp_path):
    """A deployment with a spool, whose Redis is away, and knows another number of shards."""
    own_valkey.client().set(keyspace.SHARDS_KEY, getattr(request, "param", 16))
    own_valkey.kill9()
    spool = {"PARLEY_SPOOL": str(tmp_path / "spool")}
    with Deployment(own_valkey.url, own_valkey.broker_url, octopush, environment=spool) as deployment:
        yield deployment


def begin(deployment, **environment):
    """A `web` that has spooled one SMS."""
    web = deployment.spawn("web", **environment)
    deployment.wait_ready()
    assert requests.post(deployment.webhook, data=inbound(clinic.number(1), "START"), timeout=10).ok
    return web


def test_web_starts_without_redis_and_ends_once_it_is_another_than_meant(away, own_valkey):
    web = begin(away, PARLEY_SHARDS="8")
    own_valkey.start()
    status, said = ended(web)
    assert (status, SENTENCE in said) == (2, True), said
    assert not any(b"mail" in name for name in own_valkey.client().scan_iter())
    web.restart()
    assert ended(web)[0] == 2
    again = away.spawn("web")
    until(lambda: mail(own_valkey, 16), 20, "what it had spooled is handed over")
    assert again.alive


@pytest.mark.parametrize("away", [64], indirect=True)
def test_web_that_was_told_no_number_begins_anew_with_the_stored_one(away, own_valkey):
    web = begin(away)
    own_valkey.start()
    status, said = ended(web)
    assert (status, "beginning anew" in said) == (1, True), said
    web.restart()
    until(lambda: mail(own_valkey, 64), 20, "what it had spooled is handed over")
    assert web.alive


def mail(server, shards):
    number = clinic.number(1)
    return server.client().llen(keyspace.mailbox_key(keyspace.shard_of(number, shards), number))
