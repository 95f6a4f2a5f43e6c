"""The provider fails: each outcome leads where the table says, and no SMS is lost, doubled or overtaken."""

import json
import signal
from itertools import pairwise
from time import monotonic

import pytest

from config.settings.settings import DEFAULT_SHARDS
from config.store import keyspace
from engine.model.events import OutboundSms, encode_event
from tests.faults.play import Play
from tests.support import clinic
from tests.support.octopush import Faults, Scripted
from tests.support.person import inbound
from tests.support.processes import KILLED_S, Deployment
from tests.support.vonage import KEY, SECRET, FakeVonage
from tests.support.waiting import until
from workers.sending.http_client import TRY_TIMEOUT_S
from workers.store.channel_state import ChannelStore
from workers.store.outboxes import OutboxStore

LATE_S = 1.0
"""How much later than it left an SMS may come to be counted on a busy machine, and another one not."""

OVER_S = 60.0
"""Sooner than this all is through, however busy the machine is; what waits for something is not."""

ANNA = clinic.number(1)


def refuse(code, message="no", status=400):
    return Scripted(status, {"code": code, "message": message})


def parley(deployment, *arguments):
    """What the command prints, and its exit status."""
    ran = deployment.command(*arguments)
    return ran.stdout, ran.returncode


def letters(deployment):
    lines, status = parley(deployment, "dead", "list", "--json")
    assert status == 0
    return [json.loads(line) for line in lines.splitlines()]


@pytest.mark.parametrize(
    "answer",
    [
        refuse(153),
        refuse(500, status=500),
        refuse("busy", status=429),
        Scripted(502),
    ],  # all: test_octopush.py
    ids=lambda answer: f"{answer.status}-{answer.body.get('code', '')}",
)
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


def resting(redis):
    """How many outboxes are at rest: nobody tries their SMS now."""
    return sum((redis.get(name) or b"").startswith(b"0 ") for name in redis.keys("*:outbox-lock:*"))


@pytest.mark.parametrize("answer", [refuse(101, status=401), refuse(104), refuse(105)])
def test_an_account_at_fault_pauses_the_channel_and_keeps_its_sms(
    deployment, play, octopush, own_valkey, answer
):
    octopush.control(Faults(script=[answer]))
    deployment.start()
    play.crowd.post([inbound(clinic.number(place), "START") for place in range(5)])
    redis = own_valkey.client()
    until(lambda: redis.exists(keyspace.pause_key(clinic.CHANNEL)), 30, "the channel is paused")
    assert octopush.count() < 5
    until(lambda: resting(redis) + octopush.count() == 5, 30, "whatever was not sent rests")
    assert "resumed" in parley(deployment, "channel", "resume", clinic.CHANNEL)[0]
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
    assert everyone[-1] - everyone[0] >= (64 - 20) / 20 - LATE_S


@pytest.mark.parametrize("place", ["before_send", "after_connect"])
def test_a_stop_is_obeyed_by_a_delivery_worker_that_was_stalled_before_it_could_send(
    deployment, play, octopush, place
):
    deployment.start(delivery=0)
    stalled = deployment.spawn("delivery", f"stop:{place}")
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


def put(redis, sender, *texts, channel=clinic.CHANNEL, **more):
    """SMS into an outbox, as a commit puts them there."""
    k = keyspace.shard_of(sender, DEFAULT_SHARDS)
    for text in texts:
        identity = f"{sender.removeprefix('+')}{text}"
        sms = OutboundSms(identity, channel, sender, text, **more)
        redis.rpush(keyspace.outbox_key(k, sender), channel.encode() + b"\0" + encode_event(sms))
    redis.zadd(keyspace.outbox_alarms_key(k), {sender: 1})


def got(octopush):
    """What each person got, in order."""
    texts = {}
    for sms in octopush.accepted():
        texts.setdefault(sms.to, []).append(sms.text)
    return texts


def logged(deployment, words):
    return sum(process.log.read_text().count(words) for process in deployment.of("delivery"))


def test_an_outage_costs_a_probe_now_and_then_and_the_backlog_leaves_in_order_once_it_is_over(
    deployment, octopush, own_valkey
):
    """Forty people, two processes: while the provider fails few requests are made, and none of them costs a try; when it
    works again everything leaves soon, once and in order."""
    redis = own_valkey.client()
    octopush.control(Faults(fail_500=1.0))
    deployment.start(web=0, ratelimit=0, conversation=0, delivery=2)
    everyone = [clinic.number(place) for place in range(40)]
    for person in everyone:
        put(redis, person, "a", "b", "c")
    until(lambda: logged(deployment, "channel paused") >= 1, 30, "the circuit is open")
    before = len(octopush.ledger().received)
    until(lambda: len(octopush.ledger().received) >= before + 2, 30, "it was probed")
    octopush.control(Faults())
    over = monotonic()
    until(lambda: octopush.count() == 120, 40, "everything was sent")
    assert monotonic() - over < OVER_S
    assert got(octopush) == {person: ["a", "b", "c"] for person in everyone}
    assert logged(deployment, "channel paused") == 1
    assert logged(deployment, "channel works again") == 1
    assert redis.keys("*:dead") == []
    until(lambda: not redis.keys("*:tries:*"), 10, "failed tries are forgotten")


def test_a_provider_that_fails_every_other_request_keeps_its_channel_open(deployment, octopush, own_valkey):
    octopush.control(Faults(fail_500=0.5, seed=7))
    deployment.start(web=0, ratelimit=0, conversation=0)
    redis = own_valkey.client()
    everyone = [clinic.number(place) for place in range(40)]
    for person in everyone:
        put(redis, person, "a")
    until(lambda: octopush.count() >= 36, 60, "nearly everything was sent")
    assert redis.keys("*:dead") == []


def test_replies_leave_before_a_campaign_and_the_channel_keeps_its_rate(own_valkey, octopush):
    """A backlog of 200 invitations' SMS and of 50 replies, on a channel that was paused until now."""
    rate = 60
    redis = own_valkey.client()
    redis.set(keyspace.SHARDS_KEY, DEFAULT_SHARDS)  # or what is put there would be taken for 0.1.0's
    with Deployment(
        own_valkey.url, own_valkey.broker_url, octopush, limits={"sms_per_second": rate}
    ) as deployment:
        redis.set(
            keyspace.pause_key(clinic.CHANNEL), b'{"by":"operator","why":"test","since":1}', px=86_400_000
        )
        invited = [clinic.number(place) for place in range(40)]
        asking = [clinic.number(place) for place in range(100, 125)]
        for person in invited:
            put(redis, person, "a", "b", "c", "d", "e", unasked=True)
        for person in asking:
            put(redis, person, "a", "b")
        deployment.start(web=0, ratelimit=0, conversation=0, delivery=2)
        until(lambda: waiting(redis) == 65, 30, "everyone has been turned away")
        assert ChannelStore(redis, {}).resume(clinic.CHANNEL).pause.why == "test"
        assert (
            0 < OutboxStore(redis, DEFAULT_SHARDS).bring_forward(clinic.CHANNEL, rate) <= 65
        )  # others look already
        until(lambda: octopush.count() == 250, 60, "everything was sent")
    accepted = octopush.accepted()
    replies = [at for at, sms in enumerate(accepted) if sms.to in asking]
    first_s, last_s = accepted[0].at_s, accepted[-1].at_s
    before_middle = (
        replies[25] - 25
    )  # invitations; how many the last one sees depends on how busy the machine is
    assert before_middle < rate, "with the campaign first it is more than 100"
    assert last_s - first_s >= (250 - rate) / rate - LATE_S
    assert last_s - first_s < OVER_S
    for second in range(int(last_s - first_s)):
        within = [sms for sms in accepted if second <= sms.at_s - first_s < second + 1]
        assert len(within) <= 2 * rate + LATE_S * rate
    texts = got(octopush)
    assert all(texts[person] == ["a", "b", "c", "d", "e"] for person in invited)
    assert all(texts[person] == ["a", "b"] for person in asking)


def waiting(redis):
    """How many senders rest because their channel lets nothing leave."""
    return sum(redis.get(name).endswith(b" untried") for name in redis.keys("*:outbox-lock:*"))


def test_a_provider_that_hangs_holds_up_neither_another_channel_nor_the_end_of_its_process(
    own_valkey, octopush
):
    """Octopush takes requests and answers none; Vonage works. Told to stop, the process ends within 10 s, and what it has
    not begun is free for others at once."""
    with FakeVonage() as vonage:
        account = {
            "PARLEY_VONAGE_URL": vonage.url, "PARLEY_VONAGE_KEY": KEY, "PARLEY_VONAGE_SECRET": SECRET,
            "PARLEY_PUBLIC_URL": "https://sms.example.org",
        }  # fmt: skip
        redis = own_valkey.client()
        octopush.control(Faults(hang=True))
        with Deployment(own_valkey.url, own_valkey.broker_url, octopush, environment=account) as deployment:
            config = deployment.folder / "parley.toml"
            config.write_text(config.read_text() + OTHER)
            deployment.start(web=0, ratelimit=0, conversation=0)
            stuck = [clinic.number(place) for place in range(80)]
            for person in stuck:
                put(redis, person, "a")
            until(lambda: taken(redis) >= 32, 20, "all slots of the hanging one are taken")
            put_s = monotonic()
            put(redis, clinic.number(900), "hello", channel="other")
            until(lambda: vonage.sent, 10, "the other channel's SMS was sent")
            assert monotonic() - put_s < TRY_TIMEOUT_S, "a slot of the hanging one was waited for"
            (process,) = deployment.of("delivery")
            told_s = monotonic()
            process.signal(signal.SIGTERM)
            assert process.wait_dead(15) == 0
            took_s = monotonic() - told_s
            assert took_s < KILLED_S, f"it took {took_s:.1f} s"
            assert taken(redis) == 0
            octopush.control(Faults())
            deployment.spawn("delivery")
            until(lambda: octopush.count() == 80, 40, "everyone got theirs")
            assert got(octopush) == {person: ["a"] for person in stuck}


OTHER = """
[channels.other]
provider = "vonage"
number = "+33700000099"
surveys = ["clinic"]
token_env = "PARLEY_CLINIC_TOKEN"
[channels.other.limits]
sms_per_second = 0
"""


def taken(redis):
    """How many SMS are being tried, by their locks."""
    return sum(not redis.get(name).startswith(b"0 ") for name in redis.keys("*:outbox-lock:*"))
