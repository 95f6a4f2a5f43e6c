"""Octopush's callbacks, as its documentation, its French page, and its legacy API write them."""

import json
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.model.events import DeliveryReceipt, InboundSms, OutboundSms, ProviderStop
from engine.providers import (
    ChannelFault,
    ForgedWebhookError,
    NumberUnreachable,
    OutcomeUnknown,
    ProviderChannel,
    RetryLater,
    SendAccepted,
    SendRejected,
    UnreadableWebhookError,
    UnusableChannelError,
    WebhookCall,
)
from engine.providers.octopush import OUTCOMES_BY_CODE, STATES_BY_STATUS, Account, Options, make_provider
from tests.providers.fuzz import fuzz

URL = "https://api.octopush.com/v1/public"
NOW = 1_700_000_000.0


def octopush(number="+33700000001", token="t", url=URL, originators=(), **options):
    account = Account(login="me@example.com", key="k3y", url=url)
    return make_provider(ProviderChannel("clinic", number, token, originators), account, Options(**options))


codec = octopush()


def call(body, query=b"token=t"):
    return WebhookCall("POST", query, [(b"content-type", b"application/json")], body, NOW)


def read(body, channel="clinic"):
    return codec.read_webhook(channel, call(body))


def read_one(body):
    ((sender, event),) = read(body)
    return sender, event


INBOUND = (
    b'{"message_id":"sms_5fa275dbf21dc","number":"+44600000000","text":"some reply","sim_card_number":"12345",'
    b'"reception_date":"2020-11-04 11:11:45"}'
)
RECEIPT = (
    b'{"channel":"sms","message_id":"sms_1","list_name":"..","number":"+33600000000","status":"DELIVERED",'
    b'"unit_price":0.5,"delivery_date":"2025-01-22 11:46:06","meta_data":{}}'
)
STOP = b'{"message_id":"sms_1","number":"+33600000000","text":"stop","stop_date":"2020-11-04 11:11:45"}'
LEGACY = urlencode(json.loads(INBOUND)).encode()
RECORDED = [call(body) for body in (INBOUND, RECEIPT, STOP, LEGACY)]


@pytest.mark.parametrize(
    "body, sender, text, ticket",
    [
        (INBOUND, "+44600000000", "some reply", "sms_5fa275dbf21dc"),
        (INBOUND.replace(b"reception", b"answer"), "+44600000000", "some reply", "sms_5fa275dbf21dc"),
        (b"\xef\xbb\xbf\n " + INBOUND, "+44600000000", "some reply", "sms_5fa275dbf21dc"),
        (b'{"number":33612345678,"text":98.6,"reception_date":"x"}', "33612345678", "98.6", ""),
        (b'{"number":"+336","text":null,"reception_date":"x"}', "+336", "", ""),
        (b'{"number":"+336","text":"hi"}', "+336", "hi", ""),
        (b'{"number":"+336","text":"ok \\ud83d","reception_date":"x"}', "+336", "ok ?", ""),
        (b"number=0033612345678&text=%C3%A9t%C3%A9+ok&reception_date=2014-01-01+10%3A00%3A00", "0033612345678", "été ok", ""),
        (b"number=0033612345678&text=%E9t%E9&reception_date=x", "0033612345678", "été", ""),
        (b"number=0033612345678&text=&answer_date=x", "0033612345678", "", ""),
    ],
)  # fmt: skip
def test_inbound(body, sender, text, ticket):
    found, event = read_one(body)
    assert found == sender
    assert event == InboundSms(
        event.id, "clinic", text, reply_to=ticket, originator="12345" if ticket else ""
    )
    assert len(event.id) == 16
    assert int(event.id, 16) >= 0


def test_a_receipt_and_a_stop_are_told_apart_by_their_dates():
    sender, receipt = read_one(RECEIPT)
    assert sender == "+33600000000"
    assert receipt == DeliveryReceipt(receipt.id, "clinic", "sms_1", "DELIVERED", "delivered")
    sender, stop = read_one(STOP)
    assert (sender, stop) == ("+33600000000", ProviderStop(stop.id, "clinic", "stop"))


def test_a_receipt_that_says_blacklisted_is_a_stop_too():
    (_, receipt), (_, stop) = read(RECEIPT.replace(b"DELIVERED", b"BLACKLISTED_NUMBER"))
    assert isinstance(receipt, DeliveryReceipt)
    assert isinstance(stop, ProviderStop)
    assert receipt.id != stop.id


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"null", b"hello", b"\xff", b'{"number":"+336"}', b"a=1", INBOUND[:-1]]
)
def test_what_is_no_callback_is_unreadable(body):
    with pytest.raises(UnreadableWebhookError):
        read(body)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
names = st.sampled_from(
    [
        "number",
        "text",
        "reception_date",
        "answer_date",
        "stop_date",
        "delivery_date",
        "status",
        "message_id",
        "x",
    ]
)
callbacks = st.dictionaries(names, scalars | st.lists(scalars) | st.dictionaries(names, scalars))


@given(st.binary() | callbacks.map(lambda c: json.dumps(c).encode()) | st.text().map(str.encode))
@example(b'{"number":"\\ud800","text":"x"}')
@example(b'{"number":1' + b"0" * 5000 + b',"text":"x"}')
@example(b'{"x":' + b"[" * 60_000)
@example(b"&".join([b"a=1"] * 200))
def test_no_body_raises_anything_but_unreadable(body):
    try:
        events = read(body)
    except UnreadableWebhookError:
        return
    assert events
    assert all(sender.strip() and len(event.id) == 16 for sender, event in events)


@given(
    st.dictionaries(st.sampled_from(["number", "text", "reception_date", "message_id"]), st.text(min_size=1))
)
def test_json_and_form_say_the_same(fields):
    form = urlencode(fields).encode()
    if dict(parse_qsl(form.decode())) != fields:
        return
    try:
        expected = read(json.dumps(fields).encode())
    except UnreadableWebhookError:
        return
    assert read(form) == expected


def test_an_id_is_the_same_for_the_same_sms_only():
    def id_of(body, channel="clinic", token="t"):
        return octopush(token=token).read_webhook(channel, call(body))[0][1].id

    assert id_of(INBOUND) == id_of(INBOUND)
    different = {
        id_of(INBOUND),
        id_of(INBOUND, channel="other"),
        id_of(INBOUND, token="x" * 100),
        id_of(INBOUND.replace(b"some", b"any")),
        id_of(INBOUND.replace(b":45", b":46")),
        id_of(INBOUND.replace(b"12345", b"54321")),
        id_of(STOP),
        id_of(RECEIPT),
        id_of(RECEIPT.replace(b"DELIVERED", b"ACK")),
    }
    assert len(different) == 9


def test_a_send_is_one_recipient_with_the_ids_request_id():
    request = codec.write_send_request(OutboundSms("abc1s2", "clinic", "+33612345678", "Ça va ?", "s"), NOW)
    assert request.url == f"{URL}/sms-campaign/send"
    assert request.headers == {
        "Content-Type": "application/json",
        "api-login": "me@example.com",
        "api-key": "k3y",
    }
    assert json.loads(request.body) == {
        "recipients": [{"phone_number": "+33612345678"}],
        "text": "Ça va ?",
        "type": "sms_premium",
        "purpose": "alert",
        "sender": "33700000001",
        "with_replies": True,
        "request_id": "abc1s2",
    }


def test_simulation_and_a_number_too_long_for_a_sender():
    simulating = octopush(number="+3370000000123", simulation_mode=True)
    body = json.loads(simulating.write_send_request(OutboundSms("a", "clinic", "+336", "x"), NOW).body)
    assert body["simulation_mode"] is True
    assert "sender" not in body


@pytest.mark.parametrize(
    "status, body, outcome",
    [
        (
            201,
            {"sms_ticket": "sms_1", "number_of_contacts": 1, "residual_credit": 94.9},
            SendAccepted("sms_1", 94.9),
        ),
        (
            201,
            {
                "sms_ticket": "sms_1",
                "number_of_sms_needed": 2,
                "residual_credit": 94.995,
                "total_cost": 5.00502839,
            },
            SendAccepted("sms_1", 94.995, 2, 5_005_028),
        ),
        (
            200,
            {"sms_ticket": "sms_1", "number_of_sms_needed": "2", "total_cost": "0.055"},
            SendAccepted("sms_1", None, 2, 55_000),
        ),
        (
            201,
            {"sms_ticket": "sms_1", "number_of_sms_needed": [2], "total_cost": {"EUR": 1}},
            SendAccepted("sms_1"),
        ),
        (
            201,
            {"sms_ticket": "sms_1", "number_of_sms_needed": 10**9, "total_cost": -5},
            SendAccepted("sms_1"),
        ),
        (201, {"sms_ticket": "sms_1", "total_cost": 10**400}, SendAccepted("sms_1")),
        (201, {"sms_ticket": "sms_1", "residual_credit": ["a lot"]}, SendAccepted("sms_1")),
        (201, {"sms_ticket": "sms_1", "residual_credit": "nan"}, SendAccepted("sms_1")),
        (201, {"sms_ticket": "sms_1", "residual_credit": 10**400}, SendAccepted("sms_1")),
        (200, {"sms_ticket": "sms_1"}, SendAccepted("sms_1")),
        (400, {"code": 120, "message": "m"}, SendAccepted("")),
        (400, {"code": "120", "message": "m"}, SendAccepted("")),
        (400, {"code": 121, "message": "STOP mention"}, SendRejected("121", "STOP mention")),
        (400, {"code": 117}, NumberUnreachable("117", "")),
        (400, {"code": 150, "message": "m"}, NumberUnreachable("150", "m")),
        (400, {"code": 151, "message": "m"}, SendRejected("151", "m")),
        (500, {"code": 500, "message": "m"}, OutcomeUnknown("500", "m")),
        (201, {}, OutcomeUnknown("http 201", "Octopush's reply is not one that we know")),
        (400, {"code": "104", "message": "credit"}, ChannelFault("104", "credit")),
        (400, {"code": 101, "message": "login"}, ChannelFault("101", "login")),
        (400, {"code": 153, "message": "busy"}, RetryLater("153", "busy")),
    ],
)
def test_outcomes(status, body, outcome):
    assert codec.read_send_reply(status, json.dumps(body).encode()) == outcome


@pytest.mark.parametrize(
    "status, kind", [(401, ChannelFault), (403, ChannelFault), (429, RetryLater), (502, OutcomeUnknown)]
)
def test_some_statuses_need_no_body(status, kind):
    assert isinstance(codec.read_send_reply(status, b"<html>"), kind)


@pytest.mark.parametrize("code", OUTCOMES_BY_CODE)
def test_the_table_decides(code):
    assert isinstance(codec.read_send_reply(400, b'{"code":"%d"}' % code), OUTCOMES_BY_CODE[code])


@given(st.integers(200, 599), st.binary() | callbacks.map(lambda c: json.dumps(c).encode()))
def test_no_reply_raises_and_only_a_ticket_is_success(status, body):
    assert not isinstance(codec.read_send_reply(status, body), SendAccepted)


@pytest.mark.parametrize(
    "status, state, permanent",
    [
        ("ACK", "sent", False),
        ("PROCESSED", "sent", False),
        ("TRANSMITTED", "sent", False),
        ("ISP_SEND", "sent", False),
        ("DELIVERED", "delivered", False),
        ("delivered", "delivered", False),
        ("NOT_DELIVERED", "failed", False),
        ("NOT_ALLOWED", "failed", False),
        ("BAD_DESTINATION", "failed", True),
        ("INVALID_DESTINATION_ADDRESS", "failed", True),
        ("OUT_OF_DATE", "failed", False),
        ("EXPIRED", "failed", False),
        ("UNKNOWN_DELIVERY", "failed", False),
        ("BLACKLISTED_NUMBER", "failed", False),
        ("READ", "", False),
        ("UNDEFINED", "", False),
        ("", "", False),
    ],
)
def test_a_receipts_status_is_one_of_ours_with_a_reason_where_it_failed(status, state, permanent):
    receipt = read(RECEIPT.replace(b"DELIVERED", status.encode()))[0][1]
    assert (receipt.status, receipt.state, receipt.permanent) == (status, state, permanent)
    assert bool(receipt.why) == bool(receipt.code) == (state == "failed")


def test_every_status_in_the_table_is_in_the_test_above():
    (parametrize,) = test_a_receipts_status_is_one_of_ours_with_a_reason_where_it_failed.pytestmark
    assert set(STATES_BY_STATUS) <= {status for status, _, _ in parametrize.args[1]}


@pytest.mark.parametrize(
    "query, token",
    [
        (b"token=t", "t"),
        (b"a=1&token=t&b=", "t"),
        (b"token=%C3%9F%E2%80%A8", "\u00df\u2028"),
        (b"token=a%2Bb%20c", "a+b c"),
        (b"token=a%2bb+c", "a+b c"),
    ],
)
def test_a_callback_with_the_token_is_octopushs(query, token):
    octopush(token=token).verify_webhook(call(INBOUND, query))


@pytest.mark.parametrize(
    "query",
    [b"", b"token", b"token=", b"token=T", b"token=tt", b"Token=t", b"token=%ff", b"\xff\xfe", b"&".join([b"a=1"] * 200)],
)  # fmt: skip
def test_a_callback_without_it_is_forged(query):
    with pytest.raises(ForgedWebhookError):
        codec.verify_webhook(call(INBOUND, query))


def test_a_channel_needs_a_token_and_originators_that_octopush_takes():
    with pytest.raises(UnusableChannelError) as raised:
        octopush(token="", originators=("+33700000002", "19601234567890"))
    assert len(raised.value.problems) == 2
    assert "token_env is missing" in raised.value.problems[0]
    assert "'19601234567890'" in raised.value.problems[1]


def test_an_sms_comes_from_its_sessions_originator():
    sms = OutboundSms("a", "clinic", "+336", "x", originator="+33700000002")
    assert json.loads(codec.write_send_request(sms, NOW).body)["sender"] == "33700000002"


def test_callbacks_at_random_are_events_or_refused():
    fuzz(codec, "clinic", RECORDED)
