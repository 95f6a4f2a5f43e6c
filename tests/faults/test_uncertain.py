"""kill -9 of a delivery worker whose provider knows no repeats: each SMS is created once, wherever it died."""

import pytest

from config.store import keyspace
from engine.model.events import SmsSent
from tests.support import clinic
from tests.support.twilio import Cut, FakeTwilio
from tests.support.twilio_deployment import SHARDS, TwilioDeployment
from tests.support.waiting import until

ANNA = clinic.number(1)


@pytest.fixture
def twilio():
    with FakeTwilio() as twilio:
        yield twilio


@pytest.fixture
def deployment(own_valkey, twilio):
    with TwilioDeployment(own_valkey, twilio) as deployment:
        yield deployment


def end_lease(deployment):
    """Let the lease of the worker that died, or the rest after its try, be over now."""
    k = keyspace.shard_of(ANNA, SHARDS)
    name = keyspace.outbox_lock_key(k, ANNA)
    if lock := deployment.redis.get(name):
        fence, _, rest = lock.split(b" ", 2)
        deployment.redis.set(name, b" ".join((fence, b"1", rest)), keepttl=True)
    deployment.redis.zadd(keyspace.outbox_alarms_key(k), {ANNA: 1})


def tickets(deployment):
    return [record.ticket for record in deployment.records(ANNA) if isinstance(record, SmsSent)]


@pytest.mark.parametrize(
    "fault, asked",
    [("after_take", 1), ("before_send", 1), ("after_send", 1), ("before_settle", 1), ("after_settle", 0)],
)
def test_an_sms_whose_worker_dies_is_created_once(deployment, twilio, fault, asked):
    deployment.start(delivery=0)
    worker = deployment.spawn("delivery", fault)
    deployment.text(ANNA, "START")
    worker.wait_dead()
    end_lease(deployment)
    worker.restart()
    until(lambda: tickets(deployment), 30, "it is settled")
    deployment.text(ANNA, "Ada")
    until(lambda: len(tickets(deployment)) == 2, 30, "the next one is too")
    assert twilio.sent(ANNA) == [clinic.NAME, clinic.temperature("Ada")]
    assert tickets(deployment) == [message["sid"] for message in twilio.messages]
    assert [request.method for request in twilio.received].count("GET") == asked


@pytest.mark.parametrize("created", [True, False])
def test_a_worker_that_dies_while_it_looks_up_leaves_that_to_the_next(deployment, twilio, created):
    twilio.script.append(Cut(created=created))
    deployment.start(delivery=0)
    worker = deployment.spawn("delivery", "after_look_up")
    deployment.text(ANNA, "START")
    until(lambda: deployment.resting(ANNA), 30, "its fate is unknown")
    end_lease(deployment)
    worker.wait_dead()
    end_lease(deployment)
    worker.restart()
    until(lambda: tickets(deployment), 30, "it is settled")
    assert twilio.sent(ANNA) == [clinic.NAME]
