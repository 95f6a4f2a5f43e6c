"""SIGTERM: every process ends within ten seconds with status 0, and what it held is finished, or handed back to others at
once. There is no clock in most of these, so what is not handed back is never taken up again."""

import signal
from threading import Thread
from time import monotonic

import pytest
import requests

from config.store.keyspace import REPLIES_QUEUE, STARTS_QUEUE, sender_of_key, wakeup_queue_key
from tests.faults.play import Play
from tests.support import audit, clinic
from tests.support.inviting import Api, key_table
from tests.support.octopush import Faults
from tests.support.person import inbound
from tests.support.processes import KILLED_S, Deployment
from tests.support.proxies import Proxies
from tests.support.waiting import until

QUEUE_OF = {"ratelimit": STARTS_QUEUE, "conversation": REPLIES_QUEUE}


def end(process):
    """As a supervisor does."""
    told_s = monotonic()
    process.signal(signal.SIGTERM)
    process.sigcont()
    assert process.wait_dead() == 0
    assert monotonic() - told_s < KILLED_S


def test_web_answers_the_requests_that_it_has(own_valkey, octopush):
    with (
        Proxies(own_valkey, broker=False) as proxy,
        Deployment(proxy.url, proxy.broker_url, octopush) as deployment,
    ):
        deployment.start()
        (web,) = deployment.of("web")
        proxy.delay(0.2)  # a server of a cluster has 0.3 s to let somebody in
        statuses = []

        def say(place):
            body = inbound(clinic.number(place), "START")
            statuses.append(requests.post(deployment.webhook, data=body, timeout=60).status_code)

        threads = [Thread(target=say, args=(place,)) for place in range(20)]
        for thread in threads:
            thread.start()
        redis = own_valkey.client()
        until(lambda: redis.keys("*:mail:*") or octopush.count(), 10, "the first is in its mailbox")
        end(web)
        for thread in threads:
            thread.join()
        assert statuses == [200] * 20
        proxy.delay(0)
        until(lambda: octopush.count() == 20, 30, "all of them are answered")


@pytest.mark.parametrize("role, text", [("ratelimit", "START"), ("conversation", "Ada")])
def test_a_worker_hands_back_the_wake_ups_that_it_has_not_begun(deployment, octopush, own_valkey, role, text):
    """It holds one batch and has fetched others when it is told. On a busy machine the batch's leases may run out before,
    and then it is the clock's; the others are nobody's but the worker's, and ring again by the time it has ended."""
    people = [clinic.number(place) for place in range(400)]
    deployment.start(clock=0, **{role: 0})
    crowd = Play(deployment, octopush).crowd
    if role == "conversation":
        crowd.post(inbound(number, "START") for number in people)
        until(lambda: octopush.count() == len(people), 30, "everybody is asked")
    before = octopush.count()
    held = deployment.spawn(role, "stop:before_commit")
    deployment.wait_running()
    crowd.post(inbound(number, text) for number in people)
    held.wait_stopped()
    redis, bells = own_valkey.client(), own_valkey.client(own_valkey.broker_url)
    begun = {sender_of_key(key.decode()) for key in redis.scan_iter("*:lock:*")}
    assert 0 < len(begun) < len(people)
    end(held)
    waiting = {sender_of_key(key.decode()) for key in redis.scan_iter("*:mail:*")}
    rung = {sender.decode() for sender in bells.zrange(wakeup_queue_key(QUEUE_OF[role]), 0, -1)}
    assert waiting - begun <= rung
    deployment.spawn(role)
    deployment.spawn("clock")
    until(lambda: octopush.count() == before + len(people), 20, "everybody is answered")
    audit.settle(redis, bells)


def test_a_delivery_worker_finishes_its_tries_and_hands_back_the_rest(deployment, octopush, own_valkey):
    people = [clinic.number(place) for place in range(200)]
    octopush.control(Faults(delay_ms=(1_500, 2_500)))
    deployment.start(clock=0, delivery=0)
    held = deployment.spawn("delivery")
    deployment.wait_running()
    Play(deployment, octopush).crowd.post(inbound(number, "START") for number in people)
    until(lambda: octopush.count() > 0, 20, "it is sending")
    end(held)
    octopush.control(Faults())
    deployment.spawn("delivery")
    until(lambda: octopush.count() == len(people), 20, "all were sent")
    assert sorted(sms.to for sms in octopush.accepted()) == people
    assert len({sms.request_id for sms in octopush.ledger().received}) == len(octopush.ledger().received)
    audit.settle(own_valkey.client(), own_valkey.client(own_valkey.broker_url))


def test_a_clock_in_the_middle_of_a_campaign_leaves_it_to_others(own_valkey, octopush):
    people = [clinic.number(12_000_000 + place) for place in range(60)]
    with Deployment(
        own_valkey.url, own_valkey.broker_url, octopush, limits={"sms_per_second": 40}
    ) as deployment:
        config = deployment.folder / "parley.toml"
        config.write_text(config.read_text() + key_table())
        deployment.start()
        api = Api(deployment.base)
        api.invite_all({"identifier": number, "channel": clinic.CHANNEL} for number in people)
        until(lambda: octopush.count() > 5, 30, "the campaign has begun")
        (clock,) = deployment.of("clock")
        end(clock)
        assert octopush.count() < len(people)
        clock.restart()
        until(lambda: octopush.count() == len(people), 30, "everybody is asked")
        assert sorted(sms.to for sms in octopush.accepted()) == people


def test_processes_whose_redis_hangs_end_all_the_same(deployment, own_valkey):
    deployment.start()
    own_valkey.sigstop()
    begun_s = monotonic()
    for process in deployment.processes:
        process.signal(signal.SIGTERM)
    for process in deployment.processes:
        process.wait_dead()
    assert monotonic() - begun_s < KILLED_S
    own_valkey.sigcont()
