"""The provider fails: each outcome leads where the table says, and no SMS is lost, doubled or overtaken."""

import json
import subprocess
from itertools import pairwise

import pytest

from config import keyspace
from tests.faults.play import Play
from tests.support import clinic
from tests.support.octopush import Faults, Scripted
from tests.support.person import inbound
from tests.support.processes import Deployment
from tests.support.waiting import until

ANNA = clinic.number(1)


def refuse(code, message="no", status=400):
    return Scripted(status, {"code": code, "message": message})


def parley(deployment, *arguments):
    """What the command prints, and its exit status."""
    ran = subprocess.run(
        ["parley", *arguments], env=deployment.environment, capture_output=True, text=True, check=False
    )
    return ran.stdout, ran.returncode


def letters(deployment):
    lines, status = parley(deployment, "dead", "list", "--json")
    assert status == 0
    return [json.loads(line) for line in lines.splitlines()]


@pytest.mark.parametrize(
    "answer",
    [
        refuse(125), refuse(126), refuse(127), refuse(128), refuse(153), refuse(500, status=500), refuse(501),
        refuse("busy", status=429), Scripted(502), Scripted(200), Scripted(404),
    ],
    ids=lambda answer: f"{answer.status}-{answer.body.get('code', '')}",
)  # fmt: skip
def test_what_may_pass_is_tried_again(deployment, play, octopush, answer):
    octopush.control(Faults(script=[answer, answer]))
    deployment.start()
    play.hold([1])
    play.judge()
    assert [received.status for received in octopush.ledger().received[:3]] == [
        answer.status,
        answer.status,
        201,
    ]
    assert len({received.request_id for received in octopush.ledger().received[:3]}) == 1
    assert letters(deployment) == []


def test_an_sms_that_an_earlier_try_brought_there_is_not_sent_again(deployment, play, octopush):
    octopush.control(Faults(cut_after_accept=0.5, seed=4))
    deployment.start()
    play.hold(range(10))
    play.judge()
    assert any(received.code == 120 for received in octopush.ledger().received)
    assert letters(deployment) == []


def test_what_will_never_pass_is_a_dead_letter_with_the_providers_words_and_the_next_sms_goes_on(
    deployment, play, octopush
):
    octopush.control(Faults(script=[refuse(151, "Country not served")]))
    deployment.start()
    play.crowd.post([inbound(ANNA, "START"), inbound(ANNA, "Ada")])
    until(lambda: octopush.accepted(ANNA), 30, "the second question was sent")
    assert [sms.text for sms in octopush.accepted(ANNA)] == [clinic.temperature("Ada")]
    (letter,) = letters(deployment)
    assert (letter["code"], letter["why"], letter["sender"]) == ("151", "Country not served", ANNA)
    assert clinic.NAME in parley(deployment, "dead", "show", letter["id"])[0]
    assert parley(deployment, "dead", "show", "nonsense")[1] == 1
    assert "will not be sent: 151" in parley(deployment, "transcript", ANNA)[0]


@pytest.mark.parametrize("answer", [refuse(101, status=401), refuse(104), refuse(105)])
def test_an_account_at_fault_pauses_the_channel_and_keeps_its_sms(
    deployment, play, octopush, own_valkey, answer
):
    octopush.control(Faults(script=[answer]))
    deployment.start()
    play.crowd.post([inbound(clinic.number(place), "START") for place in range(5)])
    redis = own_valkey.client()
    until(lambda: redis.exists(keyspace.pause(clinic.CHANNEL)), 30, "the channel is paused")
    assert octopush.count() < 5
    redis.delete(keyspace.pause(clinic.CHANNEL))
    for k in range(16):
        for name in redis.keys(f"{{{k}}}:outbox-lock:*"):
            redis.delete(name)
            sender = name.decode().rpartition(":")[2]
            redis.zadd(keyspace.outbox_alarms(k), {sender: 1})
    until(lambda: octopush.count() == 5, 30, "all of them were sent")
    assert letters(deployment) == []


def test_sms_to_one_phone_leave_apart_and_a_channel_keeps_its_rate(own_valkey, octopush):
    limits = {"pause_s": 0.5, "sms_per_second": 20}
    with Deployment(own_valkey.url, own_valkey.broker_url, octopush, limits=limits) as deployment:
        deployment.start(delivery=2)
        play = Play(deployment, octopush)
        play.crowd.post([inbound(ANNA, text) for text in ("START", "Ada", "101.5", "yes")])
        play.crowd.post([inbound(clinic.number(place), "START") for place in range(100, 160)])
        until(lambda: octopush.count() == 64, 60, "64 SMS were sent")
    times = [sms.at_s for sms in octopush.accepted(ANNA)]
    assert [sms.text for sms in octopush.accepted(ANNA)][-1] == clinic.DOCTOR
    assert all(later - earlier >= 0.5 for earlier, later in pairwise(times))
    everyone = [sms.at_s for sms in octopush.accepted()]
    assert everyone[-1] - everyone[0] >= (64 - 20) / 20 - 0.1


def test_a_stop_is_obeyed_by_a_delivery_worker_that_was_stalled_before_it_could_send(
    deployment, play, octopush
):
    deployment.start(delivery=0)
    stalled = deployment.spawn("delivery", "stop:before_send")
    play.crowd.post([inbound(ANNA, "START")])
    stalled.wait_stopped()
    deployment.spawn("delivery")
    play.crowd.post([inbound(ANNA, "STOP")])
    until(lambda: octopush.accepted(ANNA), 60, "the confirmation was sent")
    stalled.sigcont()
    play.hold([2])
    stalled.terminate()
    (confirmation,) = octopush.accepted(ANNA)
    assert "START" in confirmation.text
