"""A replica is promoted that has not heard the last of it: which SMS had left is not known there, whatever its provider's
recourse. None is sent twice where it can be asked or knows repeats, and none is given up that cannot have left."""

import json
from types import SimpleNamespace

import pytest
import requests

from config.store import keyspace, stored_values
from config.store.outbox_states import decode_owner
from engine.model.events import SmsSent, decode_outbound
from tests.support import clinic
from tests.support.person import inbound
from tests.support.processes import Deployment
from tests.support.proxy import Proxy
from tests.support.twilio import FakeTwilio
from tests.support.twilio_deployment import SHARDS, TwilioDeployment
from tests.support.valkey import Valkey
from tests.support.vonage import KEY, SECRET, FakeVonage
from tests.support.waiting import until

pytestmark = pytest.mark.one_server("a pair of its own, of which the replica is promoted by hand")

ANNA, BORIS = clinic.number(1), clinic.number(2)


class Pair:
    """A server with a replica; Parley is led to the one, and then to the other."""

    def __init__(self, primary, replica, proxy):
        self.primary, self.replica, self._proxy = primary, replica, proxy
        self.url = proxy.url
        self.broker_url = f"{proxy.url.removesuffix('/0')}/1"
        self.client = primary.client  # as a Valkey has

    def cut(self):
        """What is done from now on is lost. The replica has all that was done before."""
        ours, theirs = self.primary.client(), self.replica.client()
        until(
            lambda: (
                theirs.info("replication").get("master_repl_offset")
                == ours.info("replication")["master_repl_offset"]
            ),
            10,
            "the replica has it",
        )
        theirs.replicaof("NO", "ONE")

    def fail_over(self):
        self.primary.kill9()
        self._proxy.lead_to(self.replica.url)


@pytest.fixture
def pair(own_valkey):
    with (
        Valkey(replicaof=f"127.0.0.1 {own_valkey.port}") as replica,
        Proxy(own_valkey.url) as proxy,
    ):
        link = lambda: replica.client().info("replication").get("master_link_status")  # noqa: E731
        until(lambda: link() == "up", 20, "it replicates")
        yield Pair(own_valkey, replica, proxy)


def outbox_key(person):
    return keyspace.outbox_key(keyspace.shard_of(person, SHARDS), person)


def waits(client, person):
    """Until something waits to be sent to them."""
    until(lambda: client.llen(outbox_key(person)), 30, "it is decided")


# A provider that can be asked


@pytest.fixture
def twilio():
    with FakeTwilio() as twilio:
        yield twilio


@pytest.fixture
def with_twilio(pair, twilio):
    with TwilioDeployment(pair, twilio) as deployment:
        yield deployment


def asked_soon(deployment, pair):
    """The provider is asked: that the try which nobody knows of is over by now is not waited for."""
    deployment.redis = pair.replica.client()
    until(lambda: deployment.resting(ANNA), 30, "it rests, as its try may be under way")
    key = keyspace.server_key(keyspace.shard_of(ANNA, SHARDS))
    server, _, lost_before_ms = deployment.redis.hget(key, "admitted").rpartition(b" ")
    assert int(lost_before_ms) > 0
    deployment.redis.hset(key, "admitted", server + b" 1")
    deployment.hurry(ANNA)


def methods(twilio):
    return [request.method for request in twilio.received]


def sent_records(deployment):
    return [record for record in deployment.records(ANNA) if isinstance(record, SmsSent)]


def test_an_sms_whose_try_is_lost_is_asked_for_and_not_sent_again(with_twilio, twilio, pair):
    with_twilio.start(delivery=0)
    with_twilio.text(ANNA, "START")
    waits(pair.client(), ANNA)
    pair.cut()
    with_twilio.spawn("delivery")
    until(
        lambda: twilio.sent(ANNA) and not pair.client().llen(outbox_key(ANNA)), 30, "it is sent and settled"
    )
    pair.fail_over()
    asked_soon(with_twilio, pair)
    until(lambda: sent_records(with_twilio), 30, "it is found")
    assert methods(twilio) == ["POST", "GET"]
    with_twilio.text(ANNA, "Ada")
    until(lambda: len(sent_records(with_twilio)) == 2, 30, "the next one is sent")
    assert methods(twilio) == ["POST", "GET", "POST"]
    assert twilio.sent(ANNA) == [clinic.NAME, clinic.temperature("Ada")]


def test_an_sms_that_was_never_tried_is_sent_after_it_was_asked_for(with_twilio, twilio, pair):
    with_twilio.start(delivery=0)
    with_twilio.text(ANNA, "START")
    waits(pair.client(), ANNA)
    pair.cut()
    pair.fail_over()
    with_twilio.spawn("delivery")
    asked_soon(with_twilio, pair)
    until(lambda: sent_records(with_twilio), 30, "it is sent")
    assert methods(twilio) == ["GET", "POST"]


def test_an_sms_that_is_decided_again_is_asked_for(with_twilio, twilio, pair):
    """The mail is there still, and the turn, its SMS and the try are lost."""
    with_twilio.start(ratelimit=0)
    with_twilio.text(ANNA, "START")
    pair.cut()
    with_twilio.spawn("ratelimit")
    until(lambda: twilio.sent(ANNA), 30, "it is decided and sent")
    pair.fail_over()
    asked_soon(with_twilio, pair)
    until(lambda: sent_records(with_twilio), 30, "it is found")
    assert methods(twilio) == ["POST", "GET"]
    assert twilio.sent(ANNA) == [clinic.NAME]


# A provider that cannot be asked, and drops no repeats


@pytest.fixture
def vonage():
    with FakeVonage() as vonage:
        yield vonage


def vonage_deployment(server, vonage, **variables):
    nobody = SimpleNamespace(url="http://127.0.0.1:9", login="x", key="x")
    account = {"PARLEY_VONAGE_URL": vonage.url, "PARLEY_VONAGE_KEY": KEY, "PARLEY_VONAGE_SECRET": SECRET}
    deployment = Deployment(
        server.url,
        server.broker_url,
        nobody,
        environment=account | {"PARLEY_PUBLIC_URL": "https://sms.example.org"} | variables,
    )
    config = deployment.folder / "parley.toml"
    config.write_text(config.read_text().replace('"octopush"', '"vonage"'))
    return deployment


@pytest.fixture
def with_vonage(pair, vonage):
    with vonage_deployment(pair, vonage) as deployment:
        yield deployment


def hear(deployment, person, text, identity):
    said = {
        "msisdn": person.removeprefix("+"),
        "to": clinic.NUMBER.removeprefix("+"),
        "messageId": identity,
        "text": text,
        "type": "text",
    }
    assert requests.get(deployment.webhook, said, timeout=60).status_code == 200


def parley(deployment, *words):
    run = deployment.command(*words)
    run.check_returncode()
    return run.stdout


def uncertain_letters(deployment):
    found = [json.loads(line) for line in parley(deployment, "dead", "list", "--json").splitlines()]
    return [(letter["reason"], letter["sender"]) for letter in found]


def got(vonage, person):
    return [sms["text"] for sms in vonage.received if sms["to"] == person.removeprefix("+")]


def test_an_sms_whose_try_is_lost_is_an_operators_where_nobody_can_be_asked(with_vonage, vonage, pair):
    with_vonage.start(delivery=0)
    hear(with_vonage, ANNA, "START", "01")
    waits(pair.client(), ANNA)
    pair.cut()
    with_vonage.spawn("delivery")
    until(lambda: got(vonage, ANNA), 30, "it is sent")
    pair.fail_over()
    until(lambda: uncertain_letters(with_vonage) == [("uncertain", ANNA)], 30, "an operator has it")
    hear(with_vonage, BORIS, "START", "02")
    hear(with_vonage, ANNA, "Ada", "03")
    until(lambda: got(vonage, BORIS) and len(got(vonage, ANNA)) == 2, 30, "what came later is answered")
    assert got(vonage, ANNA) == [clinic.NAME, clinic.temperature("Ada")]
    assert got(vonage, BORIS) == [clinic.NAME]
    assert uncertain_letters(with_vonage) == [("uncertain", ANNA)]


def test_what_a_paused_channel_holds_is_sent_after_a_failover_as_ever(with_vonage, vonage, pair):
    people = [clinic.number(place) for place in range(20)]
    with_vonage.start()
    parley(with_vonage, "channel", "pause", clinic.CHANNEL, "--why", "maintenance")
    for place, person in enumerate(people):
        hear(with_vonage, person, "START", f"{place:02}")
    for person in people:
        waits(pair.client(), person)
    pair.cut()
    pair.fail_over()
    redis = pair.replica.client()
    until(lambda: noted(redis, people), 30, "the clock has noted that the server is another")
    look_at(redis, people)
    parley(with_vonage, "channel", "resume", clinic.CHANNEL)
    until(lambda: all(got(vonage, person) for person in people), 60, "all are sent")
    assert [got(vonage, person) for person in people] == [[clinic.NAME]] * len(people)
    assert uncertain_letters(with_vonage) == []


def look_at(redis, people):
    """Have them looked at now, though they rest."""
    for person in people:
        redis.zadd(keyspace.outbox_alarms_key(keyspace.shard_of(person, SHARDS)), {person: 1})
    until(lambda: looked_at(redis, people), 30, "they are looked at")


def looked_at(client, people):
    """Whether each of their shards has been looked at since the failover."""
    shards = {keyspace.shard_of(person, SHARDS) for person in people}
    admitted = [client.hget(keyspace.server_key(k), "admitted") or b" 0" for k in shards]
    return not any(each.endswith(b" 0") for each in admitted)


def test_what_has_its_turn_later_is_not_uncertain_after_a_failover(pair, vonage):
    """SMS that have booked a permit of the channel's rate for later than the failover cannot have left before."""
    people = [clinic.number(place) for place in range(8)]
    with vonage_deployment(pair, vonage) as deployment:
        config = deployment.folder / "parley.toml"
        config.write_text(config.read_text().replace("sms_per_second = 0", "sms_per_second = 0.02"))
        deployment.start()
        for place, person in enumerate(people):
            hear(deployment, person, "START", f"{place:02}")
        until(
            lambda: len(booked(pair.client(), people)) == len(people) - 1, 30, "all but one have their turns"
        )
        pair.cut()
        pair.fail_over()
        redis = pair.replica.client()
        until(lambda: noted(redis, people), 30, "the clock has noted that the server is another")
        later = booked(redis, people)[-3:]
        look_at(redis, [person for _, person in later])
        entries = [redis.lindex(outbox_key(person), 0) for _, person in later]
        assert not any(decode_outbound(stored_values.outbox_sms(entry)).uncertain for entry in entries)
        assert not {person for _, person in uncertain_letters(deployment)} & {person for _, person in later}


def noted(redis, people):
    """Whether a process has called the new server for each of their shards."""
    keys = [keyspace.server_key(keyspace.shard_of(person, SHARDS)) for person in people]
    return all(
        redis.hget(key, "came_ms") or looked_at(redis, [person])
        for key, person in zip(keys, people, strict=True)
    )


def booked(redis, people):
    """(ms, person) of those who have booked a permit, in the order of their permits."""
    found = []
    for person in people:
        value = redis.get(keyspace.outbox_lock_key(keyspace.shard_of(person, SHARDS), person))
        lock = value and stored_values.parse_lock(value)
        if lock and decode_owner(lock.fence, lock.owner).state == "booked":
            found.append((lock.until, person))
    return sorted(found)


# The same server, started again


def test_a_server_that_was_started_again_with_all_that_it_had_changes_nothing(own_valkey, vonage):
    with vonage_deployment(own_valkey, vonage) as deployment:
        deployment.start(delivery=0)
        for place in range(10):
            hear(deployment, clinic.number(place), "START", f"{place:02}")
        for place in range(10):
            waits(own_valkey.client(), clinic.number(place))
        own_valkey.kill9()
        own_valkey.start()
        deployment.spawn("delivery")
        until(lambda: len(vonage.received) == 10, 30, "all are sent")
        assert uncertain_letters(deployment) == []


def test_a_server_that_lost_its_tail_is_as_one_that_was_promoted(vonage):
    relaxed = {"PARLEY_DURABILITY": "relaxed"}
    with (
        Valkey(appendfsync="everysec") as server,
        vonage_deployment(server, vonage, **relaxed) as deployment,
    ):
        deployment.start(delivery=0)
        hear(deployment, ANNA, "START", "01")
        waits(server.client(), ANNA)
        until(lambda: not server.client().info("persistence")["aof_pending_bio_fsync"], 10, "it is on disk")
        server.kill9()
        server.start()
        deployment.spawn("delivery")
        until(lambda: uncertain_letters(deployment) == [("uncertain", ANNA)], 30, "an operator has it")
        hear(deployment, BORIS, "START", "02")
        until(lambda: got(vonage, BORIS), 30, "what came later is answered")
        assert got(vonage, ANNA) == []


def test_a_disk_that_is_put_back_is_noticed_by_the_worker_that_knows_better(own_valkey, vonage):
    with vonage_deployment(own_valkey, vonage) as deployment:
        deployment.start(delivery=0)
        hear(deployment, ANNA, "START", "01")
        waits(own_valkey.client(), ANNA)
        (file,) = (own_valkey.folder / "appendonlydir").glob("*.incr.aof")
        before = file.stat().st_size
        deployment.spawn("delivery")
        until(lambda: got(vonage, ANNA), 30, "it is sent")
        own_valkey.kill9()
        with file.open("r+b") as aof:
            aof.truncate(before)
        own_valkey.start()
        until(lambda: uncertain_letters(deployment) == [("uncertain", ANNA)], 30, "an operator has it")
        assert len(got(vonage, ANNA)) == 1


# A provider that knows repeats


def test_an_sms_whose_try_is_lost_is_sent_again_under_its_id_where_repeats_are_known(pair, octopush):
    with Deployment(pair.url, pair.broker_url, octopush) as deployment:
        deployment.start(delivery=0)
        body = inbound(ANNA, "START")
        assert requests.post(deployment.webhook, data=body, timeout=60).status_code == 200
        waits(pair.client(), ANNA)
        pair.cut()
        deployment.spawn("delivery")
        until(lambda: octopush.count() == 1, 30, "it is sent")
        until(lambda: not pair.client().llen(outbox_key(ANNA)), 30, "it is settled")
        pair.fail_over()
        until(lambda: not pair.replica.client().llen(outbox_key(ANNA)), 30, "it is settled again")
        first, again = octopush.ledger().received
        assert first.request_id == again.request_id
        assert len(octopush.accepted(ANNA)) == 1
