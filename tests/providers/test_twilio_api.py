"""Our requests, and the fake that the other tests trust, against what Twilio publishes of its API, and its own client."""

import json
from pathlib import Path

import pytest
import requests

from engine.model.events import OutboundSms
from engine.providers import (
    ChannelFault,
    OptedOutAtProvider,
    OutcomeUnknown,
    ProviderChannel,
    SendAccepted,
    SmsNotFound,
)
from engine.providers.twilio import Account, Options, make_provider
from tests.support.twilio import SID, TOKEN, Break, FakeTwilio, Refuse

DESCRIPTION = Path(__file__).with_name("recorded") / "twilio_messages_openapi.json"
PERSON, OURS = "+33612345678", "+33700000001"
WEBHOOK = "https://sms.example.org/webhooks/clinic"
ASK = OutboundSms("a1b2c3x1", "clinic", PERSON, "Température (°F) ?")


@pytest.fixture
def fake():
    with FakeTwilio() as fake:
        yield fake


def codec(fake, token=TOKEN, **options):
    return make_provider(
        ProviderChannel("clinic", OURS, webhook_url=WEBHOOK),
        Account(url=fake.url, sid=SID, token=token),
        Options(**options),
    )


def make(wanted):
    """Make a request of ours. The request as it was made, and the reply."""
    method = "POST" if wanted.body else "GET"
    prepared = requests.Request(method, wanted.url, wanted.headers, data=wanted.body or None).prepare()
    with requests.Session() as session:
        return prepared, session.send(prepared, timeout=60)


@pytest.fixture
def described(fake):
    """A function that makes a request and holds it, and the reply, against the description."""
    from openapi_core import OpenAPI  # noqa: PLC0415 (takes a second, and who runs other tests collects this file too)
    from openapi_core.contrib.requests import (  # noqa: PLC0415
        RequestsOpenAPIRequest,
        RequestsOpenAPIResponse,
    )

    document = json.loads(DESCRIPTION.read_text())
    document["servers"] = [{"url": fake.url}]
    description = OpenAPI.from_dict(document)

    def check(wanted):
        prepared, reply = make(wanted)
        request = RequestsOpenAPIRequest(prepared)
        description.validate_request(request)
        description.validate_response(request, RequestsOpenAPIResponse(reply))
        return reply

    return check


@pytest.mark.parametrize(
    "options",
    [{}, {"messaging_service": "MG" + "0a" * 16}, {"validity_s": 600, "content_retention": "discard", "address_retention": "obfuscate"}],
)  # fmt: skip
def test_a_send_and_a_look_up_are_as_described_and_so_are_the_fakes_replies(fake, described, options):
    twilio = codec(fake, **options)
    reply = described(twilio.write_send_request(ASK, 0))
    (message,) = fake.messages
    segments = int(message["num_segments"])
    accepted = SendAccepted(message["sid"], None, segments)
    assert twilio.read_send_reply(reply.status_code, reply.content) == accepted
    listed = described(twilio.write_lookup_request(ASK, 0))
    assert twilio.read_lookup_reply(ASK, 0, listed.status_code, listed.content, ()) == accepted
    assert (
        twilio.read_lookup_reply(ASK, 0, listed.status_code, listed.content, {message["sid"]})
        == SmsNotFound()
    )


def test_the_examples_in_the_description_are_read(fake):
    operations = json.loads(DESCRIPTION.read_text())["paths"][
        "/2010-04-01/Accounts/{AccountSid}/Messages.json"
    ]
    created = operations["post"]["responses"]["201"]["content"]["application/json"]["examples"]
    pages = operations["get"]["responses"]["200"]["content"]["application/json"]["examples"]
    assert created
    assert pages
    for example in created.values():
        message = example["value"]
        assert codec(fake).read_send_reply(201, json.dumps(message).encode()) == SendAccepted(
            message["sid"], None, int(message["num_segments"])
        )
    for example in pages.values():
        outcome = codec(fake).read_lookup_reply(ASK, 0, 200, json.dumps(example["value"]).encode(), ())
        assert outcome == SmsNotFound() or isinstance(outcome, OutcomeUnknown)


@pytest.mark.parametrize("problem", [False, True])
def test_errors_of_either_shape_mean_the_same(fake, problem):
    fake.script += [Refuse(21610, problem=problem), Break()]
    _, reply = make(codec(fake).write_send_request(ASK, 0))
    assert isinstance(codec(fake).read_send_reply(reply.status_code, reply.content), OptedOutAtProvider)
    assert not fake.messages
    _, reply = make(codec(fake).write_send_request(ASK, 0))
    assert isinstance(codec(fake).read_send_reply(reply.status_code, reply.content), OutcomeUnknown)
    assert fake.sent() == [ASK.text]
    _, reply = make(codec(fake, token="wrong").write_send_request(ASK, 0))
    assert isinstance(codec(fake).read_send_reply(reply.status_code, reply.content), ChannelFault)


@pytest.fixture
def client(fake):
    """Twilio's own, whose requests to api.twilio.com go to the fake."""
    from twilio.http.http_client import TwilioHttpClient  # noqa: PLC0415 (as above)
    from twilio.rest import Client  # noqa: PLC0415

    class Here(TwilioHttpClient):
        def request(self, method, url, *arguments, **more):
            return super().request(
                method, url.replace("https://api.twilio.com", fake.url), *arguments, **more
            )

    return Client(SID, TOKEN, http_client=Here())


def test_twilios_own_client_and_ours_see_the_same_messages(fake, client):
    from twilio.base.exceptions import TwilioRestException  # noqa: PLC0415 (as above)

    theirs = client.messages.create(
        to=PERSON, from_=OURS, body=ASK.text, status_callback=f"{WEBHOOK}?sms={ASK.id}"
    )
    make(codec(fake).write_send_request(ASK, 0))
    one, other = fake.received
    assert one.fields == other.fields
    assert [message.body for message in client.messages.list(to=PERSON, from_=OURS)] == [ASK.text] * 2
    _, listed = make(codec(fake).write_lookup_request(ASK, 0))
    accepted = SendAccepted(theirs.sid, None, int(theirs.num_segments))
    assert codec(fake).read_lookup_reply(ASK, 0, 200, listed.content, ()) == accepted
    fake.script.append(Refuse(21211))
    with pytest.raises(TwilioRestException) as caught:
        client.messages.create(to="1", from_=OURS, body="x")
    assert caught.value.code == 21211
