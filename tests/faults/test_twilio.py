"""Twilio, from its signed webhook to its status callback, with real processes. It knows no repeats: what it may have
is looked up, and each SMS is created once."""

import pytest

from engine.model.events import ReceiptRecorded, SmsSent
from tests.support import clinic
from tests.support.twilio import Break, Cut, FakeTwilio, Refuse
from tests.support.twilio_deployment import PATH, PUBLIC, TwilioDeployment
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


def settled(deployment, count=1):
    """Until so many SMS have left the outbox as sent."""
    until(lambda: len(of(deployment, SmsSent)) == count, 30, f"{count} SMS are settled")
    assert deployment.waiting(ANNA) == 0


def of(deployment, kind):
    return [record for record in deployment.records(ANNA) if isinstance(record, kind)]


def test_a_conversation_and_what_became_of_its_sms(deployment, twilio):
    deployment.start()
    assert deployment.text(ANNA, "START").text == "<Response/>"
    until(lambda: twilio.sent(ANNA) == [clinic.NAME], 30, "the first question was created")
    deployment.text(ANNA, "Ada")
    settled(deployment, 2)
    assert twilio.sent(ANNA) == [clinic.NAME, clinic.temperature("Ada")]
    message = twilio.messages[0]
    for status in ("delivered", "sent", "delivered"):
        assert twilio.tell(message, status, public=deployment.base).status_code == 200
    (first, _), receipts = of(deployment, SmsSent), lambda: of(deployment, ReceiptRecorded)
    until(receipts, 30, "the receipt was applied")
    assert first.ticket == message["sid"]
    assert message["status_callback"] == f"{PUBLIC}{PATH}?sms={first.id}"
    assert (receipts()[0].state, receipts()[0].sms) == ("delivered", first.id)


def test_whoever_cannot_sign_is_not_heard(deployment, twilio):
    deployment.start(delivery=0)
    fields = twilio.inbound(ANNA, clinic.NUMBER, "START")
    assert twilio.post(deployment.base + PATH, fields, "https://other.example.org" + PATH).status_code == 403
    assert twilio.post(deployment.base + PATH, fields, PUBLIC + PATH).status_code == 200


@pytest.mark.parametrize("behaviour", [Cut(), Break()], ids=["cut", "500"])
def test_a_message_whose_creation_was_not_confirmed_is_found_and_not_created_again(
    deployment, twilio, behaviour
):
    twilio.script.append(behaviour)
    deployment.start()
    deployment.text(ANNA, "START")
    until(lambda: twilio.sent(ANNA), 30, "the message was created")
    until(lambda: deployment.resting(ANNA), 30, "its fate is unknown")
    deployment.hurry(ANNA)
    settled(deployment)
    assert twilio.sent(ANNA) == [clinic.NAME]
    assert [request.method for request in twilio.received] == ["POST", "GET"]
    assert of(deployment, SmsSent)[0].ticket == twilio.messages[0]["sid"]


def test_a_message_that_was_not_created_after_all_is_created_once_its_absence_is_certain(deployment, twilio):
    twilio.script.append(Cut(created=False))
    twilio.listing += [Refuse(20429, 429), Break(body=b"")]
    deployment.start()
    deployment.text(ANNA, "START")
    for looks in (0, 1, 2):
        until(
            lambda looks=looks: gets(twilio) == looks and deployment.resting(ANNA), 30, "its fate is unknown"
        )
        assert twilio.sent(ANNA) == []
        deployment.hurry(ANNA)
    settled(deployment)
    assert twilio.sent(ANNA) == [clinic.NAME]
    assert [request.method for request in twilio.received] == ["POST", "GET", "GET", "GET", "POST"]


def gets(twilio):
    return sum(request.method == "GET" for request in twilio.received)


def test_a_person_who_unsubscribed_with_twilio_is_sent_nothing_more(deployment, twilio):
    twilio.script.append(Refuse(21610))
    deployment.start()
    deployment.text(ANNA, "START")
    until(lambda: twilio.received, 30, "it was tried")
    until(lambda: deployment.opted_out(ANNA), 30, "the opt-out was applied")
    deployment.text(ANNA, "Ada")
    assert twilio.sent(ANNA) == []
