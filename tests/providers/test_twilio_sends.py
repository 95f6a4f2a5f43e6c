"""What Twilio is asked to send, what its replies mean, and how an SMS is found again."""

import json
from base64 import b64decode
from email.utils import formatdate
from urllib.parse import parse_qsl, urlsplit
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import canonicalize

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from twilio.twiml.messaging_response import MessagingResponse

from engine.model.events import OutboundSms
from engine.providers import (
    NumberUnreachable,
    OptedOutAtProvider,
    OutcomeUnknown,
    ProviderChannel,
    SendAccepted,
    SmsNotFound,
)
from engine.providers.twilio import LOOKUP_PAGE_SIZE, Account, Options, make_provider
from tests.providers.recorded.twilio import CHANNEL, OURS, OUTCOMES, PERSON

URL = "https://sms.example.org/webhooks/clinic"
ACCOUNT = Account(sid="AC" + "5e" * 16, token="12345", url="https://api.twilio.com/")
MESSAGES = f"https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT.sid}/Messages.json"
SERVICE = "MG" + "0a" * 16
ASK = OutboundSms("a1b2c3x1", CHANNEL, PERSON, "What is your name?")
NOW = 1_800_000_000.0


def codec(account=ACCOUNT, number=OURS, **options):
    return make_provider(ProviderChannel(CHANNEL, number, webhook_url=URL), account, Options(**options))


PLAIN = {"To": PERSON, "From": OURS, "Body": ASK.text, "StatusCallback": f"{URL}?sms=a1b2c3x1"}


@pytest.mark.parametrize(
    "twilio, sms, fields",
    [
        (codec(), ASK, PLAIN),
        (codec(), replace(ASK, text="été = 38,5 & 🌡\n+"), PLAIN | {"Body": "été = 38,5 & 🌡\n+"}),
        (codec(), replace(ASK, originator="+33700000099"), PLAIN | {"From": "+33700000099"}),
        (codec(number="+36111"), replace(ASK, to="+38200"), PLAIN | {"From": "36111", "To": "38200"}),
        (
            codec(messaging_service=SERVICE),
            ASK,
            {name: value for name, value in PLAIN.items() if name != "From"}
            | {"MessagingServiceSid": SERVICE},
        ),
        (
            codec(messaging_service=SERVICE),
            replace(ASK, originator="+33700000099"),
            PLAIN | {"MessagingServiceSid": SERVICE, "From": "+33700000099"},
        ),
        (
            codec(validity_s=600, content_retention="discard", address_retention="obfuscate"),
            ASK,
            PLAIN | {"ValidityPeriod": "600", "ContentRetention": "discard", "AddressRetention": "obfuscate"},
        ),
    ],
)
def test_a_send(twilio, sms, fields):
    request = twilio.write_send_request(sms, NOW)
    assert (request.url, request.headers["Content-Type"]) == (MESSAGES, "application/x-www-form-urlencoded")
    assert dict(parse_qsl(request.body.decode(), strict_parsing=True)) == fields


def test_an_api_key_takes_the_tokens_place_in_requests():
    def login(account):
        scheme, _, said = codec(account).write_send_request(ASK, NOW).headers["Authorization"].partition(" ")
        return scheme, b64decode(said).decode()

    assert login(ACCOUNT) == ("Basic", f"{ACCOUNT.sid}:12345")
    assert login(replace(ACCOUNT, key_sid="SK1", key_secret="s")) == ("Basic", "SK1:s")


@pytest.mark.parametrize("status, body, outcome", OUTCOMES)
def test_outcomes(status, body, outcome):
    assert codec().read_send_reply(status, body) == outcome


@given(
    st.integers(100, 599),
    st.binary(max_size=60) | st.text(max_size=20).map(lambda t: json.dumps({"code": t, "sid": t}).encode()),
)
def test_no_reply_raises(status, body):
    codec().read_send_reply(status, body)
    codec().read_lookup_reply(ASK, NOW, status, body, ())


def listed(sid, at=NOW, **more):
    message = {
        "sid": sid, "to": PERSON, "from": OURS, "body": ASK.text, "direction": "outbound-api", "status": "queued",
        "date_created": formatdate(at, usegmt=True), "error_code": None,
    }  # fmt: skip
    return message | more


def found(*messages, known=(), sms=ASK, more=None, twilio=None):
    page = json.dumps({"messages": messages, "next_page_uri": more}).encode()
    return (twilio or codec()).read_lookup_reply(sms, NOW, 200, page, known)


def test_a_look_up_asks_for_all_to_that_number_and_not_by_the_date_sent_which_a_waiting_message_has_not():
    request = codec().write_lookup_request(ASK, NOW)
    asked = dict(parse_qsl(urlsplit(request.url).query))
    assert (request.url.partition("?")[0], request.body) == (MESSAGES, b"")
    assert asked == {"To": PERSON, "From": OURS, "PageSize": str(LOOKUP_PAGE_SIZE)}
    assert "From" not in codec(messaging_service=SERVICE).write_lookup_request(ASK, NOW).url
    assert "%2B33700000099" in codec().write_lookup_request(replace(ASK, originator="+33700000099"), NOW).url


@pytest.mark.parametrize(
    "message",
    [
        listed("SM1"),
        listed("SM1", direction="outbound-reply"),
        listed("SM1", at=NOW - 290),
        listed("SM1", status="delivered"),
        listed("SM1", date_created=formatdate(NOW).replace("+0000", "-0000")),
        listed("SM1", status="undelivered", error_code=30003),
        listed("SM1", body=f" {ASK.text}\r\n"),
    ],
)
def test_an_sms_is_found_by_its_text(message):
    assert found(listed("SM2", body="Another?"), message) == SendAccepted("SM1")


@pytest.mark.parametrize(
    "message",
    [
        listed("SM1", at=NOW - 310),
        listed("SM1", direction="inbound"),
        listed("SM1", body="What is your age?"),
        listed("SM1", body=None),
        listed("SM1", to="+33600000000"),
        listed("SM0"),
    ],
)
def test_older_ones_other_ones_and_those_of_other_sms_are_not_it(message):
    assert found(message, known={"SM0"}) == SmsNotFound()


def test_one_that_is_found_says_what_it_cost():
    paid = listed("SM1", num_segments="2", price="-0.01500", price_unit="USD")
    assert found(paid) == SendAccepted("SM1", None, 2, 15_000, "USD")
    for odd in (None, "", "free", ["x"], "1e9", True):
        assert found(listed("SM1", num_segments=odd, price=odd, price_unit=odd)) == SendAccepted("SM1")


def test_of_two_alike_the_older_one_is_taken_first():
    later, earlier = listed("SM2", at=NOW + 60), listed("SM1", at=NOW + 1)
    assert found(later, earlier) == SendAccepted("SM1")
    assert found(later, earlier, known={"SM1"}) == SendAccepted("SM2")
    assert found(later, earlier, known={"SM1", "SM2"}) == SmsNotFound()


@pytest.mark.parametrize(
    "text, stored",
    [
        ("It\u2019s \u201cfine\u201d\u2026", 'It\'s "fine"...'),
        ("a\u00a0b", "a b"),
        ("ﬁne", "fine"),
        ("a\x07b", "ab"),
    ],
)
def test_what_smart_encoding_and_xml_change_is_still_the_same_text(text, stored):
    assert found(listed("SM1", body=stored), sms=replace(ASK, text=text)) == SendAccepted("SM1")


def test_a_message_that_failed_for_good_says_so():
    assert found(listed("SM1", status="undelivered", error_code=30005)) == NumberUnreachable(
        "30005", "this number is unknown"
    )
    assert isinstance(found(listed("SM1", status="failed", error_code=21610)), OptedOutAtProvider)


def test_a_list_that_does_not_reach_back_far_enough_is_no_proof():
    crowd = [listed(f"SM{i}", body="x") for i in range(3)]
    assert isinstance(found(*crowd, more="/next"), OutcomeUnknown)
    assert found(*crowd, listed("SMold", at=NOW - 1000), more="/next") == SmsNotFound()


@pytest.mark.parametrize(
    "status, body",
    [(500, b""), (401, b"{}"), (429, b"{}"), (200, b"{}"), (200, b"<"), (200, b'{"messages": [{}]}')],
)
def test_a_look_up_that_failed_says_nothing(status, body):
    assert isinstance(codec().read_lookup_reply(ASK, NOW, status, body, ()), OutcomeUnknown)


def test_what_twilio_does_not_keep_cannot_be_looked_up():
    assert codec().recourse == "look_up"
    assert codec(content_retention="discard").recourse == "none"
    assert codec(address_retention="obfuscate").recourse == "none"


def twiml(*texts):
    """What the `twilio` package would answer."""
    response = MessagingResponse()
    for text in texts:
        response.message(text, to=PERSON, from_=OURS, status_callback=f"{URL}?sms={ASK.id}")
    return canonicalize(str(response))


xml_texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cn")), min_size=1)


@given(st.lists(xml_texts | st.sampled_from(["<Message/>", "]]>", "a & b", "\"'\t\n", "&#13;"]), max_size=3))
def test_replies_in_an_answer_are_the_twiml_that_twilios_package_makes(texts):
    answer = codec().write_inline_replies([replace(ASK, text=text) for text in texts])
    assert (answer.status, answer.content_type) == (200, "text/xml")
    assert canonicalize(answer.body.decode()) == twiml(*texts)


@given(st.text(st.characters(codec="utf-8")))
def test_whatever_a_text_holds_the_answer_is_xml_and_what_is_sent_is_found_again(text):
    document = ET.fromstring(codec().write_inline_replies([replace(ASK, text=text)]).body)
    body = document[0].text or ""
    if codec().fits_inline(replace(ASK, text=text)):
        assert found(listed("SM1", body=body), sms=replace(ASK, text=text)) == SendAccepted("SM1")


def test_what_an_answer_cannot_hold_goes_by_the_api():
    assert codec().fits_inline(replace(ASK, text="x" * 1600))
    assert not codec().fits_inline(replace(ASK, text="x" * 1601))
    assert not codec().fits_inline(replace(ASK, text=" \0\n"))


def test_nothing_to_say_is_an_empty_response():
    assert codec().webhook_response.body == b"<Response/>"
    assert canonicalize(codec().write_inline_replies([]).body.decode()) == canonicalize(
        str(MessagingResponse())
    )
