"""A Redis that answers, but takes no writes or lets nobody in, is told of as that: `/readyz` is not ready, and what is answered says
what is the matter."""

import json
import socket
from contextlib import contextmanager

import pytest
import requests
from click.testing import CliRunner

from config.connections.redis_failures import failure_kind
from config.store import keyspace, redis_client
from tests.ingest.test_web import post, sms
from tests.support.valkey import Valkey
from tests.support.waiting import HANG_S, until
from workers.commands.status import status

pytestmark = pytest.mark.processes


@contextmanager
def full(server):
    server.client().config_set("maxmemory", 1)
    yield
    server.client().config_set("maxmemory", 0)


@contextmanager
def replica_of_another(server):
    with Valkey() as other:
        server.client().execute_command("REPLICAOF", "127.0.0.1", other.port)
        yield
        server.client().execute_command("REPLICAOF", "NO", "ONE")


@contextmanager
def without_its_replicas(server):
    server.client().config_set("min-replicas-to-write", 1)
    yield
    server.client().config_set("min-replicas-to-write", 0)


@contextmanager
def unable_to_save(server):
    """What it would save goes by a name that a folder has."""
    client = server.client()
    in_the_way = server.folder / "dump.rdb"
    in_the_way.unlink(missing_ok=True)
    in_the_way.mkdir()
    client.config_set("save", "3600 1")
    client.bgsave()
    until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", 30, "it cannot save")
    yield
    in_the_way.rmdir()
    client.config_set("save", "")


HOW = {
    full: "Redis is full",
    replica_of_another: "Redis takes no writes",
    without_its_replicas: "Redis takes no writes",
    unable_to_save: "Redis takes no writes",
}


@pytest.mark.parametrize("how", HOW)
def test_a_redis_that_takes_no_writes_is_not_ready_and_says_why(web, own_valkey, valkey, how):
    """And is ready again by itself. Nothing is left of how it was looked at."""
    base = web(PARLEY_REDIS_URL=own_valkey.url, PARLEY_BROKER_URL=valkey.broker_url)
    assert post(base, sms("before")).status_code == 200
    assert ready(base).status_code == 200
    with how(own_valkey):
        found = ready(base)
        told = found.json()
        assert (found.status_code, told["ready"], told["redis"], told["broker"]) == (503, False, False, True)
        assert told["redis_why"] == HOW[how]
        refused = post(base, sms("while it takes none"))
        assert (refused.status_code, refused.json()["title"]) == (503, HOW[how])
    until(lambda: ready(base).status_code == 200, 30, "it is ready again")
    assert not own_valkey.client().keys(keyspace.session_key(0, "").replace("{0}", "{*}"))


def test_a_broker_that_is_full_takes_wake_ups_and_one_that_takes_no_writes_does_not(web, own_valkey, valkey):
    base = web(PARLEY_REDIS_URL=valkey.url, PARLEY_BROKER_URL=own_valkey.broker_url)
    with full(own_valkey):
        assert ready(base).status_code == 200
    with replica_of_another(own_valkey):
        told = ready(base).json()
        assert (told["ready"], told["broker_why"]) == (False, "Redis takes no writes")


def test_a_spool_that_cannot_help_says_what_is_the_matter_with_redis(web, own_valkey, tmp_path):
    base = web(PARLEY_REDIS_URL=own_valkey.url, PARLEY_SPOOL=str(tmp_path / "spool"), PARLEY_SPOOL_MB="1")
    with full(own_valkey):
        while (reply := post(base, sms("x" * 60_000))).status_code == 200:
            pass
    assert (reply.status_code, reply.json()["title"]) == (503, "Redis is full")
    assert reply.json()["description"].startswith("the spool is full")


def ready(base):
    return requests.get(f"{base}/readyz", timeout=HANG_S)


def wrong_password(server):
    server.client().config_set("requirepass", "secret")
    return server.url.replace("//", "//:wrong@")


def no_password(server):
    server.client().config_set("requirepass", "secret")
    return server.url


def few_rights(server):
    server.client().execute_command("ACL", "SETUSER", "guest", "on", ">guest", "~nothing", "+ping")
    return server.url.replace("//", "//guest:guest@")


def protected_mode(server):
    """It has no password, and lets in whoever is on its machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            address = probe.getsockname()[0]
        except OSError:
            pytest.skip("this machine has no address but its own")
    server.client().config_set("bind", f"127.0.0.1 {address}")
    server.client().config_set("protected-mode", "yes")
    return server.url.replace("127.0.0.1", address)


@pytest.mark.parametrize("how", [wrong_password, no_password, few_rights, protected_mode])
def test_status_says_that_it_is_refused(monkeypatch, how):
    with Valkey() as server:
        url = how(server)
        monkeypatch.setenv("PARLEY_REDIS_URL", url)
        monkeypatch.setenv("PARLEY_BROKER_URL", url)
        monkeypatch.setenv("PARLEY_CONFIG", "config/parley.toml")
        asked = CliRunner().invoke(status, ["--json"])
        told = json.loads(asked.stdout.splitlines()[-1])
        assert asked.exit_code == 1
        assert told["wrong"][0].startswith("the Redis of the lanes refuses us ("), told["wrong"]
        assert not any("does not answer" in each for each in told["wrong"][:2])
        assert told["lanes"]["is_refusing"]


def test_a_server_that_is_away_refuses_nobody():
    with pytest.raises(Exception) as away:
        redis_client.run_command(redis_client.connect("redis://127.0.0.1:1/0", 0, 1.0), ("PING",))
    assert failure_kind(away.value) == "silent"
