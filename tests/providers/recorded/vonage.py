"""Vonage's webhooks and replies as they are on the wire, and what they mean."""

import json
from urllib.parse import urlencode

from engine.model.events import DeliveryReceipt, InboundSms, ProviderStop, SmsPart
from engine.providers import (
    ChannelFault,
    NumberUnreachable,
    OptedOutAtProvider,
    OutcomeUnknown,
    RetryLater,
    SendAccepted,
    SendRejected,
    WebhookCall,
)

CHANNEL = "clinic"
PERSON, OURS = "447700900001", "447700900000"
ID = "0A0000000123ABCD1"

SMS = {
    "api-key": "abcd1234", "msisdn": PERSON, "to": OURS, "messageId": ID, "text": "98.6 & rising = bad", "type": "text",
    "keyword": "98.6", "message-timestamp": "2020-01-01 12:00:00",
}  # fmt: skip
"""An inbound SMS: Vonage's OpenAPI description."""

PART = SMS | {"concat": "true", "concat-ref": "93", "concat-total": "3", "concat-part": "2", "text": "ing al"}

RECEIPT = {
    "msisdn": PERSON, "to": OURS, "network-code": "23410", "messageId": ID, "price": "0.03330000", "status": "delivered",
    "scts": "1810251310", "err-code": "0", "api-key": "abcd1234", "client-ref": "a1b2c3x1",
    "message-timestamp": "2018-10-25 12:10:29",
}  # fmt: skip
"""A delivery receipt: Vonage's guide to delivery receipts."""


def get(fields):
    return WebhookCall("GET", urlencode({"token": "t0ken"} | fields).encode(), [], b"", 0.0)


def form(fields):
    return WebhookCall("POST", b"token=t0ken", [], urlencode(fields).encode(), 0.0)


def as_json(fields):
    return WebhookCall("POST", b"token=t0ken", [], json.dumps(fields).encode(), 0.0)


def _sms(text):
    return (PERSON, InboundSms("", CHANNEL, text, originator=OURS))


def _receipt(status, state="", code="", why="", *, permanent=False):
    return (PERSON, DeliveryReceipt("", CHANNEL, ID, status, state, code, why, permanent, "a1b2c3x1"))


WEBHOOKS = [
    ("an SMS by GET", get(SMS), [_sms("98.6 & rising = bad")]),
    ("an SMS as a form", form(SMS), [_sms("98.6 & rising = bad")]),
    ("an SMS as JSON", as_json(SMS), [_sms("98.6 & rising = bad")]),
    ("unicode", as_json(SMS | {"type": "unicode", "text": "été 🌡"}), [_sms("été 🌡")]),
    ("half an emoji", as_json(SMS | {"type": "unicode", "text": "été \ud83c"}), [_sms("été ?")]),
    ("binary", form({k: v for k, v in SMS.items() if k != "text"} | {"type": "binary", "data": "00", "udh": "0"}), [_sms("")]),
    ("a part", get(PART), [(PERSON, SmsPart("", CHANNEL, "ing al", "93", 2, 3, OURS))]),
    ("a part as JSON", as_json(PART), [(PERSON, SmsPart("", CHANNEL, "ing al", "93", 2, 3, OURS))]),
    ("a part of none", form(PART | {"concat-total": "x"}), [_sms("ing al")]),
    ("a part beyond the last", form(PART | {"concat-part": "4"}), [_sms("ing al")]),
    ("delivered", as_json(RECEIPT), [_receipt("delivered", "delivered")]),
    ("delivered, by GET", get(RECEIPT), [_receipt("delivered", "delivered")]),
    ("accepted", form(RECEIPT | {"status": "accepted"}), [_receipt("accepted", "sent")]),
    ("unknown", form(RECEIPT | {"status": "unknown", "err-code": "1"}), [_receipt("unknown", "", "1", "no reason is known")]),
    (
        "no longer in use",
        form(RECEIPT | {"status": "failed", "err-code": "3"}),
        [_receipt("failed", "failed", "3", "this number is no longer in use", permanent=True)],
    ),
    (
        "opted out",
        form(RECEIPT | {"status": "rejected", "err-code": "9"}),
        [_receipt("rejected", "failed", "9", "the person does not want SMS from here"), (PERSON, ProviderStop("", CHANNEL))],
    ),
]  # fmt: skip
"""(name, call, events), the events without their ids."""


def messages(*statuses):
    """A reply with one message of each status."""
    said = [
        {
            "to": PERSON,
            "message-id": f"0C{at}",
            "status": status,
            "remaining-balance": "15.5",
            "message-price": "0.03330000",
        }
        if status == "0"
        else {"to": PERSON, "status": status, "error-text": "no"}
        for at, status in enumerate(statuses)
    ]
    return json.dumps({"message-count": str(len(said)), "messages": said}).encode()


OUTCOMES = [
    (200, messages("0"), SendAccepted("0C0", 15.5, 1, 33_300, "EUR")),
    (200, messages("0", "0", "0"), SendAccepted("0C0", 15.5, 3, 99_900, "EUR")),
    (200, messages("1"), RetryLater("1", "no")),
    (200, messages("1", "1"), RetryLater("1", "no")),
    (200, messages("0", "1"), SendRejected("1", "Vonage took 1 of the SMS's 2 parts: no")),
    (200, messages("9", "0", "0"), SendRejected("9", "Vonage took 2 of the SMS's 3 parts: no")),
    (200, messages("2"), SendRejected("2", "no")),
    (200, messages("3"), SendRejected("3", "no")),
    (200, messages("4"), ChannelFault("4", "no")),
    (200, messages("5"), RetryLater("5", "no")),
    (200, messages("6"), SendRejected("6", "no")),
    (200, messages("7"), NumberUnreachable("7", "no")),
    (200, messages("8"), ChannelFault("8", "no")),
    (200, messages("9"), ChannelFault("9", "no")),
    (200, messages("10"), RetryLater("10", "no")),
    (200, messages("12"), SendRejected("12", "no")),
    (200, messages("15"), SendRejected("15", "no")),
    (200, messages("29"), SendRejected("29", "no")),
    (200, messages("33"), NumberUnreachable("33", "no")),
    (200, messages("101"), OptedOutAtProvider("101", "no")),
    (
        200,
        b'{"message-count": "1", "messages": [{"status": 0, "message-id": "0C0"}]}',
        SendAccepted("0C0", None, 1),
    ),
    (
        200,
        b'{"messages": [{"status": 0, "message-id": "0C0", "message-price": [1]}]}',
        SendAccepted("0C0", None, 1),
    ),
    (200, b'{"messages": [%b]}' % b", ".join([b'{"status": 0}'] * 999), SendAccepted("")),
    (200, messages(), OutcomeUnknown("http 200", "Vonage did not say whether it has the SMS")),
    (200, b"<html>", OutcomeUnknown("http 200", "Vonage did not say whether it has the SMS")),
    (500, b"", OutcomeUnknown("http 500", "Vonage did not say whether it has the SMS")),
    (503, messages("0"), OutcomeUnknown("http 503", "Vonage did not say whether it has the SMS")),
    (302, b"", OutcomeUnknown("http 302", "Vonage did not say whether it has the SMS")),
    (401, b"", ChannelFault("http 401", "Vonage refuses the login")),
    (429, b"", RetryLater("http 429", "Vonage has too much to do")),
    (400, b"", SendRejected("http 400", "Vonage refuses the request")),
]
"""(HTTP status, body, outcome) of a send."""
