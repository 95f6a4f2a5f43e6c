"""Replies in a webhook's answer: there if the lane was quick, by the API if not, never both, and never lost."""

from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from xml.etree import ElementTree as ET

import pytest
import requests

from config.store import keyspace
from engine.model.events import SmsSent
from ingest.webhooks import inline_replies
from tests.support import clinic
from tests.support.twilio import ANSWER_S, FakeTwilio
from tests.support.twilio_deployment import TwilioDeployment
from tests.support.waiting import until

ANNA = clinic.number(1)
NOTHING = "<Response/>"


@pytest.fixture
def twilio():
    with FakeTwilio() as twilio:
        yield twilio


@pytest.fixture
def deployment(own_valkey, twilio):
    with TwilioDeployment(own_valkey, twilio, options='answer = "twiml"') as deployment:
        yield deployment


def said(answer):
    """The texts in an answer."""
    return [message.text for message in ET.fromstring(answer)]


def directions(twilio):
    return [message["direction"] for message in twilio.messages]


def settle(deployment, count):
    """Let delivery look at once at what was entrusted; until so many SMS are known to be sent."""

    def sent():
        if deployment.resting(ANNA):
            deployment.hurry(ANNA)
        return sum(isinstance(record, SmsSent) for record in deployment.records(ANNA)) == count

    until(sent, 30, f"{count} SMS are settled")
    assert deployment.waiting(ANNA) == 0


def posts(twilio):
    return [request.fields["Body"] for request in twilio.received if request.method == "POST"]


def test_replies_are_in_the_answer_and_are_found_with_the_provider_later(deployment, twilio):
    deployment.start()
    assert said(deployment.text(ANNA, "START").text) == [clinic.NAME]
    settle(deployment, 1)
    assert said(deployment.text(ANNA, "Ada").text) == [clinic.temperature("Ada")]
    settle(deployment, 2)
    assert (posts(twilio), directions(twilio)) == ([], ["outbound-reply"] * 2)
    assert [record.ticket for record in deployment.records(ANNA) if isinstance(record, SmsSent)] == [
        message["sid"] for message in twilio.messages
    ]
    (first, _) = twilio.messages
    assert twilio.tell(first, "delivered", public=deployment.base).status_code == 200


def test_whoever_writes_again_soon_is_answered_in_place_once_twilio_has_told_of_the_answer(
    deployment, twilio
):
    """Nobody waits for the moment at which Twilio would be asked, and it never is."""
    deployment.start()
    for text, reply in (("START", clinic.NAME), ("Ada", clinic.temperature("Ada"))):
        assert said(deployment.text(ANNA, text).text) == [reply]
        assert twilio.tell(twilio.messages[-1], "sent", public=deployment.base).status_code == 200
        assert (deployment.waiting(ANNA), deployment.resting(ANNA)) == (0, False)
    assert [record.ticket for record in deployment.records(ANNA) if isinstance(record, SmsSent)] == [
        message["sid"] for message in twilio.messages
    ]
    assert {request.method for request in twilio.received} == set()


def test_what_was_decided_meanwhile_leaves_once_twilio_has_told_of_the_answer(deployment, twilio):
    deployment.start()
    assert said(deployment.text(ANNA, "START").text) == [clinic.NAME]
    assert deployment.text(ANNA, "Ada").text == NOTHING
    until(lambda: deployment.waiting(ANNA) == 2, 30, "the next question waits")
    begun = monotonic()
    twilio.tell(twilio.messages[0], "sent", public=deployment.base)
    until(lambda: len(twilio.messages) == 2, 30, "the next question is sent")
    assert monotonic() - begun < inline_replies.ANSWER_LOOKUP_DELAY_MS / 2000
    assert (twilio.sent(), directions(twilio)) == (
        [clinic.NAME, clinic.temperature("Ada")], ["outbound-reply", "outbound-api"],
    )  # fmt: skip


def test_an_answer_that_failed_is_left_to_whoever_asks(deployment, twilio):
    deployment.start()
    deployment.text(ANNA, "START")
    twilio.tell(twilio.messages[0], "failed", "30003", public=deployment.base)
    assert deployment.waiting(ANNA) == 1


def test_an_answer_that_got_lost_is_sent_once(deployment, twilio):
    deployment.start()
    assert said(deployment.lost(ANNA, "START")) == [clinic.NAME]
    settle(deployment, 1)
    assert (twilio.sent(), directions(twilio)) == ([clinic.NAME], ["outbound-api"])


def test_a_webhook_that_is_repeated_is_answered_with_nothing_more(deployment, twilio):
    deployment.start()
    sid = "SM" + "1" * 32
    assert said(deployment.text(ANNA, "START", sid).text) == [clinic.NAME]
    assert deployment.text(ANNA, "START", sid).text == NOTHING
    settle(deployment, 1)
    assert deployment.text(ANNA, "START", sid).text == NOTHING
    assert not deployment.reserved(ANNA)
    assert twilio.sent() == [clinic.NAME]


def test_a_lane_that_takes_too_long_answers_by_the_api(deployment, twilio):
    deployment.start(ratelimit=0)
    begun = monotonic()
    assert deployment.text(ANNA, "START").text == NOTHING
    assert inline_replies.LANE_WAIT_S <= monotonic() - begun < ANSWER_S
    assert twilio.sent() == []
    deployment.spawn("ratelimit")
    settle(deployment, 1)
    assert (twilio.sent(), directions(twilio)) == ([clinic.NAME], ["outbound-api"])


def test_a_lane_that_takes_a_while_is_waited_for(deployment, twilio):
    deployment.start()
    (ratelimit,) = deployment.of("ratelimit")
    ratelimit.sigstop()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(deployment.text, ANNA, "START")
        until(lambda: deployment.mail(ANNA), 30, "the SMS is in the mailbox")
        assert deployment.reserved(ANNA)
        ratelimit.sigcont()
        assert said(answer.result().text) == [clinic.NAME]


TWO = """
survey: clinic
start: [START]
cooldown: 0s
steps:
  - {id: hello, say: "Hello! 1 < 2 & 3"}
  - {id: name, ask: "Who are you?", answer: {type: text}}
  - {id: bye, say: "Bye.", next: end}
"""


@pytest.mark.parametrize("arrives", [True, False])
def test_several_replies_are_one_answer_and_each_is_looked_up(own_valkey, twilio, tmp_path, arrives):
    (tmp_path / "clinic.yaml").write_text(TWO)
    with TwilioDeployment(own_valkey, twilio, options='answer = "twiml"', surveys=tmp_path) as deployment:
        deployment.start()
        say = deployment.lost if not arrives else lambda *what: deployment.text(*what).text
        texts = ["Hello! 1 < 2 & 3", "Who are you?"]
        assert said(say(ANNA, "START")) == texts
        assert deployment.waiting(ANNA) == 2
        settle(deployment, 2)
    assert twilio.sent() == texts
    assert directions(twilio) == ["outbound-reply" if arrives else "outbound-api"] * 2


def test_two_webhooks_at_once_have_one_answer_for_each_reply(deployment, twilio):
    deployment.start()
    for round_ in range(5):
        person = clinic.number(100 + round_)
        sid = f"SM{round_:032}"
        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(deployment.text, person, "START", sid) for _ in range(4)]
        texts = [text for answer in answers for text in said(answer.result().text)]
        until(lambda person=person: twilio.sent(person), 30, "the question was sent")
        assert texts in ([clinic.NAME], [])
        assert twilio.sent(person) == [clinic.NAME]


@pytest.mark.parametrize(
    "fault", ["after_reserve", "after_accept", "before_entrust", "after_entrust", "before_answer"]
)
def test_a_web_process_that_dies_before_it_answers_loses_and_doubles_nothing(deployment, twilio, fault):
    deployment.start(web=0)
    web = deployment.spawn("web", fault)
    deployment.wait_ready()
    sid = "SM" + "2" * 32
    with pytest.raises(requests.ConnectionError):
        deployment.text(ANNA, "START", sid)
    web.wait_dead()
    web.restart()
    deployment.wait_ready()
    deployment.text(ANNA, "START", sid)  # as Twilio's fallback does
    settle(deployment, 1)
    assert twilio.sent() == [clinic.NAME]


def test_a_stop_takes_the_entrusted_reply_with_it(deployment, twilio):
    deployment.start()
    deployment.lost(ANNA, "START")
    assert deployment.text(ANNA, "STOP").text == NOTHING  # Twilio confirms it itself
    until(lambda: deployment.waiting(ANNA) == 0, 30, "it is withdrawn")
    until(lambda: deployment.opted_out(ANNA), 30, "the stop was applied")
    assert twilio.sent() == []


def test_a_paused_channel_answers_nothing(deployment, twilio):
    deployment.start()
    deployment.redis.set(keyspace.pause_key(clinic.CHANNEL), "no credit")
    assert deployment.text(ANNA, "START").text == NOTHING
    assert twilio.sent() == []
    assert not deployment.reserved(ANNA)
    deployment.redis.delete(keyspace.pause_key(clinic.CHANNEL))
    deployment.hurry(ANNA)
    settle(deployment, 1)
    assert directions(twilio) == ["outbound-api"]


def test_a_channel_at_its_rate_leaves_replies_to_delivery(own_valkey, twilio):
    with TwilioDeployment(
        own_valkey, twilio, options='answer = "twiml"', limits={"sms_per_second": 1}
    ) as deployment:
        deployment.start()
        people = [clinic.number(place) for place in range(200, 206)]
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda person: deployment.text(person, "START"), people))
        until(lambda: len(twilio.messages) == 6, 30, "all are sent")
        assert "outbound-api" in directions(twilio)
        assert all(twilio.sent(person) == [clinic.NAME] for person in people)
