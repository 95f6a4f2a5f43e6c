"""With PARLEY_REPLICAS, what is acknowledged is on so many replicas, and so is what decided an SMS before it leaves: a primary
that was cut off from them takes nothing with it when it is lost."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import requests

from config.archive.archive_schema import has_schema
from config.archive.database import ArchiveDatabase
from config.settings.settings import DEFAULT_SHARDS
from config.store import keyspace, redis_client
from config.store.entry_id import BEGINNING
from config.store.redis_client import NotReplicatedError
from tests.support import clinic
from tests.support.archiving import count_archived
from tests.support.inviting import Api, key_table
from tests.support.person import inbound
from tests.support.processes import Deployment, procfile
from tests.support.proxy import Proxy
from tests.support.twilio import FakeTwilio
from tests.support.twilio_deployment import TwilioDeployment
from tests.support.valkey import Valkey
from tests.support.waiting import HANG_S, until
from workers.hooks.entry_reader import EntryReader

pytestmark = pytest.mark.one_server("a pair of its own, of which the replica is promoted by hand")

ANNA, BORIS = clinic.number(1), clinic.number(2)
SHARDS = DEFAULT_SHARDS


class Pair:
    """A primary and its replica. Parley reaches the primary by `way`, the replica does by `link`."""

    def __init__(self, primary, replica, way, link):
        self.primary, self.replica, self.way, self.link = primary, replica, way, link
        self.url = way.url
        self.broker_url = f"{way.url.removesuffix('/0')}/1"
        self.client = primary.client  # as a Valkey has

    def wait_linked(self):
        until(lambda: _link_status(self.replica) == "up", 20, "it replicates")

    def fail_over(self):
        self.primary.kill9()
        self.replica.client().replicaof("NO", "ONE")
        self.way.lead_to(self.replica.url)


def _link_status(replica):
    return replica.client().info("replication").get("master_link_status")


def following(port):
    return Valkey(replicaof=f"127.0.0.1 {port}")


@pytest.fixture
def pair(own_valkey):
    with Proxy(own_valkey.url) as way, Proxy(own_valkey.url) as link, following(link.port) as replica:
        pair = Pair(own_valkey, replica, way, link)
        pair.wait_linked()
        yield pair


@pytest.fixture
def replicas():
    return 1


@pytest.fixture
def deployment(pair, octopush, replicas):
    environment = {"PARLEY_REPLICAS": str(replicas)}
    with Deployment(pair.url, pair.broker_url, octopush, environment=environment) as deployment:
        yield deployment


def post(deployment, body):
    return requests.post(deployment.webhook, data=body, timeout=HANG_S).status_code


def heard(octopush, person):
    return [sms.text for sms in octopush.accepted() if sms.to == person]


def hears(octopush, person, text):
    until(lambda: text in heard(octopush, person), 30, f"{person} hears {text!r}")


def begin(deployment, octopush):
    assert post(deployment, inbound(ANNA, "START")) == 200
    hears(octopush, ANNA, clinic.NAME)


def name_is_kept(pair):
    k = keyspace.shard_of(ANNA, SHARDS)
    return b"Ada" in pair.replica.client().get(keyspace.lane_key(k, ANNA))


@pytest.mark.parametrize("replicas", [0])
def test_without_it_a_cut_off_primary_takes_with_it_what_it_acknowledged(pair, deployment, octopush):
    deployment.start()
    begin(deployment, octopush)
    pair.link.swallow()
    assert post(deployment, inbound(ANNA, "Ada")) == 200
    hears(octopush, ANNA, clinic.temperature("Ada"))
    pair.fail_over()
    until(lambda: requests.get(f"{deployment.base}/readyz", timeout=HANG_S).ok, 30, "all goes on")
    assert not name_is_kept(pair)


def test_what_a_cut_off_primary_acknowledged_is_on_its_replica(pair, deployment, octopush):
    deployment.start()
    begin(deployment, octopush)
    pair.link.swallow()
    ada = inbound(ANNA, "Ada")
    assert post(deployment, ada) == 503
    assert heard(octopush, ANNA) == [clinic.NAME]
    ready = requests.get(f"{deployment.base}/readyz", timeout=HANG_S)
    assert (ready.status_code, ready.json()["redis"]) == (503, False)
    pair.fail_over()
    with following(pair.replica.port):
        until(lambda: post(deployment, ada) == 200, 30, "the new one has a replica")
        hears(octopush, ANNA, clinic.temperature("Ada"))
        assert heard(octopush, ANNA) == [clinic.NAME, clinic.temperature("Ada")]
        assert name_is_kept(pair)


def test_an_sms_does_not_leave_before_replicas_have_what_decided_it(pair, deployment, octopush):
    """Nor does it wait for the end of the lease once they have: it was put back."""
    deployment.start(delivery=0)
    assert post(deployment, inbound(BORIS, "START")) == 200
    k = keyspace.shard_of(BORIS, SHARDS)
    primary = pair.primary.client()
    until(lambda: primary.llen(keyspace.outbox_key(k, BORIS)), 30, "it is decided")
    pair.link.swallow()
    delivery = deployment.spawn("delivery")
    lock = keyspace.outbox_lock_key(k, BORIS)
    until(lambda: (primary.get(lock) or b"").endswith(b" untried"), 30, "it is put back")
    until(lambda: b"NotReplicatedError" in delivery.log.read_bytes(), 30, "delivery says why")
    assert heard(octopush, BORIS) == []
    pair.link.spit_out()
    hears(octopush, BORIS, clinic.NAME)
    assert heard(octopush, BORIS) == [clinic.NAME]


def test_a_webhooks_answer_says_nothing_that_no_replica_has(pair):
    """What it would have said is asked for at the provider, and then sent."""
    with (
        FakeTwilio() as twilio,
        TwilioDeployment(
            pair, twilio, options='answer = "twiml"', environment={"PARLEY_REPLICAS": "1"}
        ) as deployment,
        ThreadPoolExecutor(1) as pool,
    ):
        deployment.start(web=0)
        web = deployment.spawn("web", "stop:before_entrust")
        deployment.wait_ready()
        answer = pool.submit(deployment.text, ANNA, "START")
        web.wait_stopped()
        pair.link.swallow()
        web.sigcont()
        assert "Message" not in answer.result().text
        assert twilio.sent() == []
        pair.link.spit_out()
        until(lambda: _hurried(deployment) and twilio.sent(), 30, "it is sent")
        assert twilio.sent() == [clinic.NAME]
        assert [message["direction"] for message in twilio.messages] == ["outbound-api"]


def _hurried(deployment):
    if deployment.resting(ANNA):
        deployment.hurry(ANNA)
    return True


def test_neither_an_invitation_nor_its_end_is_acknowledged_that_no_replica_has(pair, deployment):
    config = deployment.folder / "parley.toml"
    config.write_text(config.read_text() + key_table())
    deployment.start(delivery=0, conversation=0, ratelimit=0, clock=0)
    api = Api(deployment.base)
    anna = {"identifier": ANNA, "channel": "clinic", "clientReference": "a"}
    before = api.invite(**anna | {"clientReference": "before"})
    assert before.status_code == 202
    pair.link.swallow()
    assert api.cancel(before.json()["id"]).status_code == 503
    assert api.invite(**anna).status_code == 503
    pair.link.spit_out()
    pair.wait_linked()
    until(lambda: api.invite(**anna).status_code == 200, 30, "it is held, and was")


def test_operators_and_prometheus_are_told_that_replicas_are_missing(pair, deployment):
    deployment.start(**dict.fromkeys(procfile(), 0) | {"web": 1})
    asked = json.loads(deployment.command("status", "--json").stdout)
    assert (asked["lanes"]["replicas"], asked["replicas_wanted"]) == (1, 1)
    checked = deployment.command("check").stdout
    assert "replicas 1: 1 follow the Redis of the lanes" in checked
    assert "if one of them is lost, nothing is acknowledged" in checked
    paused = ("channel", "pause", clinic.CHANNEL, "--why", "a test")
    assert deployment.command(*paused).returncode == 0
    pair.replica.kill9()
    again = deployment.command(*paused)
    assert (again.returncode, again.stdout) == (1, "")
    assert "it is done, but only 0 of 1 replicas have what was written" in again.stderr
    gauges = until(lambda: _without_replicas(deployment), 30, "none follows")
    assert 'parley_redis_replicas{kind="wanted"} 1.0' in gauges
    wrong = json.loads(deployment.command("status", "--json").stdout)["wrong"]
    assert any(each.startswith("0 replicas follow the Redis of the lanes") for each in wrong)


def _without_replicas(deployment):
    gauges = requests.get(f"{deployment.base}/metrics", timeout=HANG_S).text.splitlines()
    return gauges if 'parley_redis_replicas{kind="online"} 0.0' in gauges else None


def test_what_no_replica_has_is_neither_archived_nor_told(pair, deployment, octopush):
    deployment.start(hooks=0)
    begin(deployment, octopush)
    k = keyspace.shard_of(ANNA, SHARDS)
    events, primary = keyspace.events_key(k), pair.primary.client()
    with closing(ArchiveDatabase(f"sqlite:///{deployment.folder}/var/archive.db")) as archive:
        until(lambda: has_schema(archive), 30, "there is an archive")
        moved = lambda: count_archived(archive) == primary.xlen(events)  # noqa: E731
        until(moved, 30, "all is archived")
        pair.link.swallow()
        primary.xadd(events, primary.xrange(events)[0][1])
        (archiver,) = deployment.of("archive")
        until(lambda: b"NotReplicatedError" in archiver.log.read_bytes(), 30, "the archive waits")
        with pytest.raises(NotReplicatedError):
            EntryReader(primary, None, replicas=1).read(k, BEGINNING)
        assert count_archived(archive) == primary.xlen(events) - 1
        pair.link.spit_out()
        until(moved, 30, "it goes on")
    assert len(EntryReader(primary, None, replicas=1).read(k, BEGINNING).entries) == primary.xlen(events)


def test_a_repeated_command_that_finds_its_work_done_waits_for_replicas_too(pair):
    """Its first reply was lost; the second connection writes nothing."""
    primary = pair.primary
    pair.link.swallow()
    primary.client().set("done", 1)
    with redis_client.connect(primary.url) as again, pytest.raises(NotReplicatedError) as told:
        redis_client.run_commands(again, [("SETNX", "done", 1)], replicas=1)
    assert (told.value.answer, str(told.value)) == (False, "0 of 1 replicas have what was written")
