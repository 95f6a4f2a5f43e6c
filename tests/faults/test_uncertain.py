"""kill -9 of a delivery worker whose provider knows no repeats: each SMS is created once, wherever it died."""

from time import monotonic

import pytest

from config.store import keyspace
from engine.model.events import SmsSent
from tests.support import clinic
from tests.support.stepped_clock import NO_COMPILER, SteppedClock
from tests.support.twilio import Cut, FakeTwilio
from tests.support.twilio_deployment import SHARDS, TwilioDeployment
from tests.support.valkey import Valkey
from tests.support.waiting import until
from workers.sending.http_client import CONNECT_TIMEOUT_S

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
    [
        ("after_take", 1), ("before_send", 1), ("after_connect", 1), ("after_write", 1), ("after_send", 1),
        ("before_settle", 1), ("after_settle", 0),
    ],
)  # fmt: skip
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


def posted(twilio):
    return [request.fields["Body"] for request in twilio.received if request.method == "POST"]


def wake(process, frozen_s):
    """Once it has stood still for longer than a connection may take."""
    until(lambda: monotonic() - frozen_s > CONNECT_TIMEOUT_S, 10, "its moment is over")
    process.sigcont()


@pytest.mark.parametrize("place", ["before_send", "after_connect"])
def test_a_worker_that_wakes_after_its_lease_sends_nothing(deployment, twilio, place):
    """It stood still between taking the SMS and the first byte; meanwhile another has asked, and sent it."""
    deployment.start(delivery=0)
    frozen = deployment.spawn("delivery", f"stop:{place}")
    deployment.text(ANNA, "START")
    frozen.wait_stopped()
    frozen_s = monotonic()
    end_lease(deployment)
    other = deployment.spawn("delivery")
    until(lambda: tickets(deployment), 30, "the other has sent it")
    other.terminate()
    wake(frozen, frozen_s)
    deployment.text(ANNA, "Ada")
    until(lambda: len(tickets(deployment)) == 2, 30, "the one that woke goes on")
    assert posted(twilio) == twilio.sent(ANNA) == [clinic.NAME, clinic.temperature("Ada")]
    assert [request.method for request in twilio.received] == ["GET", "POST", "POST"]


def test_a_worker_that_wakes_after_a_stop_does_not_send_what_that_has_withdrawn(deployment, twilio):
    deployment.start(delivery=0)
    frozen = deployment.spawn("delivery", "stop:after_connect")
    deployment.text(ANNA, "START")
    frozen.wait_stopped()
    frozen_s = monotonic()
    deployment.text(ANNA, "STOP")
    until(lambda: deployment.opted_out(ANNA), 30, "the STOP holds")
    wake(frozen, frozen_s)
    name = keyspace.outbox_lock_key(keyspace.shard_of(ANNA, SHARDS), ANNA)
    until(lambda: not deployment.redis.exists(name), 30, "the try has come to its end")
    assert posted(twilio) == []


def test_a_worker_that_stood_still_until_it_had_written_is_asked_about(deployment, twilio):
    """Its look was before: the provider has the SMS, which another finds there."""
    deployment.start(delivery=0)
    frozen = deployment.spawn("delivery", "stop:after_write")
    deployment.text(ANNA, "START")
    frozen.wait_stopped()
    end_lease(deployment)
    other = deployment.spawn("delivery")
    until(lambda: tickets(deployment), 30, "the other has found it")
    other.terminate()
    frozen.sigcont()
    deployment.text(ANNA, "Ada")
    until(lambda: len(tickets(deployment)) == 2, 30, "the one that woke goes on")
    assert posted(twilio) == [clinic.NAME, clinic.temperature("Ada")]


@pytest.fixture
def clock():
    try:
        with SteppedClock() as clock:
            yield clock
    except FileNotFoundError:
        pytest.skip(NO_COMPILER)


@pytest.mark.parametrize("then, later", [(3_600, 3_600), (-3_600, -3_600), (3_600, 0), (0, 3_600)])
def test_an_sms_is_created_once_though_the_servers_clock_is_an_hour_off(clock, twilio, then, later):
    """Twilio dates what it lists by a clock of its own. `then` is how far the server's is off at the first try, `later` at
    the look."""
    with Valkey(clock) as valkey, TwilioDeployment(valkey, twilio) as deployment:
        clock.step_to(then)
        twilio.script.append(Cut())
        deployment.start()
        deployment.text(ANNA, "START")
        until(lambda: deployment.resting(ANNA), 30, "its fate is unknown")
        clock.step_to(later)
        end_lease(deployment)
        until(lambda: tickets(deployment), 30, "it is settled")
        assert twilio.sent(ANNA) == [clinic.NAME]
