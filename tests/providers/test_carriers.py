"""The fake of three providers (tests/support/carriers.py) speaks as ours understand, and remembers each SMS that it took."""

import pytest
import requests

from engine.model.events import OutboundSms
from engine.providers import (
    OutcomeUnknown,
    ProviderChannel,
    RetryLater,
    SendAccepted,
    SendRejected,
    SmsNotFound,
    octopush,
    twilio,
    vonage,
)
from tests.support import twilio as twilio_account
from tests.support import vonage as vonage_account
from tests.support.carriers import FakeCarriers
from tests.support.octopush import Faults

SMS = OutboundSms("a1b2c3x1", "clinic", "+33600000001", "What is your name?")
PLACE = ProviderChannel(
    "clinic", "+33700000001", token="t", webhook_url="https://sms.example.org/webhooks/clinic"
)
NOW = 1_700_000_000.0


@pytest.fixture
def carriers():
    with FakeCarriers() as carriers:
        yield carriers


def codecs(carriers):
    """Each provider's, by its name."""
    octopush_account = octopush.Account(url=carriers.url, login=carriers.login, key=carriers.key)
    return {
        "octopush": octopush.make_provider(PLACE, octopush_account, octopush.Options()),
        "twilio": twilio.make_provider(
            PLACE,
            twilio.Account(url=carriers.base, sid=twilio_account.SID, token=twilio_account.TOKEN),
            twilio.Options(),
        ),
        "vonage": vonage.make_provider(
            PLACE,
            vonage.Account(url=carriers.base, key=vonage_account.KEY, secret=vonage_account.SECRET),
            vonage.Options(),
        ),
    }


def sent(codec):
    request = codec.write_send_request(SMS, NOW)
    try:
        answer = requests.post(request.url, data=request.body, headers=request.headers, timeout=60)
    except requests.ConnectionError:
        return "cut"
    return codec.read_send_reply(answer.status_code, answer.content)


@pytest.mark.processes
@pytest.mark.parametrize("name, copies", [("octopush", 1), ("twilio", 2), ("vonage", 2)])
def test_an_sms_that_is_sent_twice_comes_twice_where_no_id_is_known_again(carriers, name, copies):
    codec = codecs(carriers)[name]
    assert isinstance(sent(codec), SendAccepted)
    sent(codec)
    got = carriers.accepted()
    assert [(sms.to, sms.text, sms.request_id) for sms in got] == [(SMS.to, SMS.text, SMS.id)] * copies
    assert len({sms.ticket for sms in got}) == copies
    assert carriers.having([SMS.id, "another"]) == {SMS.id}


@pytest.mark.processes
@pytest.mark.parametrize("name", ["octopush", "twilio", "vonage"])
def test_each_misbehaves_by_itself(carriers, name):
    of = codecs(carriers)
    for faults, outcomes in (
        (Faults(reject=1), SendRejected),
        (Faults(congested_153=1.0), RetryLater),
        (Faults(fail_500=1.0), (RetryLater, OutcomeUnknown)),
    ):
        carriers.control(faults, name)
        assert isinstance(sent(of[name]), outcomes)
        assert carriers.count() == 0
    carriers.control(Faults(cut_after_accept=1.0), name)
    assert sent(of[name]) == "cut"
    assert carriers.count() == 1
    for other in of.keys() - {name}:
        assert isinstance(sent(of[other]), SendAccepted)


@pytest.mark.processes
def test_twilio_lists_what_it_has(carriers):
    codec = codecs(carriers)["twilio"]

    def looked_up(known=frozenset()):
        request = codec.write_lookup_request(SMS, NOW)
        answer = requests.get(request.url, headers=request.headers, timeout=60)
        return codec.read_lookup_reply(SMS, NOW, answer.status_code, answer.content, known)

    assert looked_up() == SmsNotFound()
    accepted = sent(codec)
    assert looked_up() == accepted
    assert looked_up({accepted.ticket}) == SmsNotFound()
