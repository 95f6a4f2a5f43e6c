"""Twilio's webhooks and replies as they are on the wire, and what they mean."""

import json
from hashlib import sha256
from urllib.parse import urlencode

from engine.model.events import Attachment, DeliveryReceipt, InboundSms, ProviderStop
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
PERSON, OURS = "+33612345678", "+33700000001"
SID = "SM" + "1f" * 16

SMS = {
    "ToCountry": "FR", "ToState": "", "SmsMessageSid": SID, "NumMedia": "0", "ToCity": "", "FromZip": "", "SmsSid": SID,
    "FromState": "", "SmsStatus": "received", "FromCity": "", "Body": "98.6 & rising = bad", "FromCountry": "FR",
    "To": OURS, "ToZip": "", "NumSegments": "1", "MessageSid": SID, "AccountSid": "AC" + "5e" * 16, "From": PERSON,
    "ApiVersion": "2010-04-01",
}  # fmt: skip
"""An inbound SMS: Twilio's guide to webhook requests."""

MMS = SMS | {
    "Body": "Look", "NumMedia": "2", "NumSegments": "2", "MediaUrl0": "https://api.twilio.com/2010-04-01/Accounts/AC/Messages/MM/Media/ME0",
    "MediaContentType0": "image/jpeg", "MediaUrl1": "https://api.twilio.com/2010-04-01/Accounts/AC/Messages/MM/Media/ME1",
    "MediaContentType1": "text/vcard",
}  # fmt: skip
ATTACHED = (
    Attachment("image/jpeg", "https://api.twilio.com/2010-04-01/Accounts/AC/Messages/MM/Media/ME0"),
    Attachment("text/vcard", "https://api.twilio.com/2010-04-01/Accounts/AC/Messages/MM/Media/ME1"),
)
MANY = SMS | {"Body": "Look", "NumMedia": "99"} | {f"MediaUrl{n}": f"https://x/{n}" for n in range(99)}
"""Inbound MMS: the same guide."""

STATUS = {
    "SmsSid": SID, "SmsStatus": "delivered", "MessageStatus": "delivered", "To": PERSON, "MessageSid": SID,
    "AccountSid": "AC" + "5e" * 16, "From": OURS, "ApiVersion": "2010-04-01",
}  # fmt: skip
"""A status callback: Twilio's guide to tracking outbound messages."""


def form(fields, query=b""):
    headers = [(b"content-type", b"application/x-www-form-urlencoded; charset=UTF-8")]
    return WebhookCall("POST", query, headers, urlencode(fields).encode(), 0.0)


def get(fields):
    return WebhookCall("GET", urlencode(fields).encode(), [], b"", 0.0)


def as_json(fields):
    body = json.dumps(fields).encode()
    return WebhookCall("POST", b"bodySHA256=" + sha256(body).hexdigest().encode(), [], body, 0.0)


def _sms(text, handled="", *attachments):
    return (PERSON, InboundSms("", CHANNEL, text, handled=handled, originator=OURS, attachments=attachments))


def _receipt(status, state="", code="", why="", *, permanent=False, sms=""):
    return (PERSON, DeliveryReceipt("", CHANNEL, SID, status, state, code, why, permanent, sms))


WEBHOOKS = [
    ("an SMS", form(SMS), [_sms("98.6 & rising = bad")]),
    ("an SMS by GET", get(SMS), [_sms("98.6 & rising = bad")]),
    ("accents and an emoji", form(SMS | {"Body": "été 🌡\n38,5"}), [_sms("été 🌡\n38,5")]),
    ("a picture without words", form(SMS | {"Body": "", "NumMedia": "1", "MediaUrl0": "https://x"}), [_sms("", "", Attachment("", "https://x"))]),
    ("a picture and a card", form(MMS), [_sms("Look", "", *ATTACHED)]),
    ("a picture and a card, by GET", get(MMS), [_sms("Look", "", *ATTACHED)]),
    ("a picture and a card, as JSON", as_json(MMS), [_sms("Look", "", *ATTACHED)]),
    ("pictures that are only counted", form(SMS | {"Body": "Look", "NumMedia": "3"}), [_sms("Look")]),
    ("more than there can be", form(MANY), [_sms("Look", "", *(Attachment("", f"https://x/{n}") for n in range(10)))]),
    ("only old names", form({"SmsSid": SID, "From": PERSON, "To": OURS, "Body": "hi"}), [_sms("hi")]),
    ("a stop word", form(SMS | {"Body": " stop\n"}), [_sms(" stop\n", "stop")]),
    ("a stop word with more", form(SMS | {"Body": "STOP PLEASE"}), [_sms("STOP PLEASE")]),
    ("a help word", form(SMS | {"Body": "Info"}), [_sms("Info", "help")]),
    ("Advanced Opt-Out: a stop", form(SMS | {"Body": "Arrêt", "OptOutType": "STOP"}), [_sms("Arrêt", "stop")]),
    ("Advanced Opt-Out: help", form(SMS | {"Body": "Aide", "OptOutType": "HELP"}), [_sms("Aide", "help")]),
    ("Advanced Opt-Out: a start", form(SMS | {"Body": "Retour", "OptOutType": "START"}), [_sms("Retour", "start")]),
    ("a default word: a start", form(SMS | {"Body": " unstop "}), [_sms(" unstop ", "start")]),
    ("delivered", form(STATUS, b"sms=a1b2x1"), [_receipt("delivered", "delivered", sms="a1b2x1")]),
    ("delivered, by GET", get({"sms": "a1b2x1"} | STATUS), [_receipt("delivered", "delivered", sms="a1b2x1")]),
    ("queued", form(STATUS | {"MessageStatus": "queued", "SmsStatus": "queued"}), [_receipt("queued")]),
    ("sent", form(STATUS | {"MessageStatus": "sent"}), [_receipt("sent", "sent")]),
    ("read", form(STATUS | {"MessageStatus": "read"}), [_receipt("read", "delivered")]),
    (
        "out of reach",
        form(STATUS | {"MessageStatus": "undelivered", "ErrorCode": "30003"}),
        [_receipt("undelivered", "failed", "30003", "the phone is switched off or out of reach")],
    ),
    (
        "no such number",
        form(STATUS | {"MessageStatus": "undelivered", "ErrorCode": "30005", "ErrorMessage": "Unknown handset"}),
        [_receipt("undelivered", "failed", "30005", "Unknown handset", permanent=True)],
    ),
    (
        "opted out",
        form(STATUS | {"MessageStatus": "failed", "ErrorCode": "21610"}),
        [
            _receipt("failed", "failed", "21610", "the person has opted out with Twilio"),
            (PERSON, ProviderStop("", CHANNEL)),
        ],
    ),
]  # fmt: skip
"""(name, call, events), the events without their ids."""


def error(code, message="no", status=400):
    return b'{"code": %d, "message": "%s", "more_info": "https://www.twilio.com/docs/errors/%d", "status": %d}' % (
        code, message.encode(), code, status,
    )  # fmt: skip


PROBLEM = b'{"type":"https://www.twilio.com/docs/errors/21610","title":"Unsubscribed","status":400,"code":21610,"detail":"x"}'

OUTCOMES = [
    (201, b'{"sid": "SM1", "status": "queued", "error_code": null}', SendAccepted("SM1")),
    (200, b'{"sid": "SM1"}', SendAccepted("SM1")),
    (
        201,
        b'{"sid": "SM1", "num_segments": "2", "price": null, "price_unit": "USD"}',
        SendAccepted("SM1", None, 2),
    ),
    (201, b'{"sid": "SM1", "num_segments": "0", "price": null, "price_unit": null}', SendAccepted("SM1")),
    (
        201,
        b'{"sid": "SM1", "num_segments": 1, "price": "-0.00750", "price_unit": "USD"}',
        SendAccepted("SM1", None, 1, 7_500, "USD"),
    ),
    (
        201,
        b'{"sid": "SM1", "price": -7.5e-3, "price_unit": "usd"}',
        SendAccepted("SM1", None, 0, 7_500, "USD"),
    ),
    (201, b'{"sid": "SM1", "num_segments": [], "price": "--1", "price_unit": {}}', SendAccepted("SM1")),
    (201, b"{}", OutcomeUnknown("http 201", "Twilio's reply has no sid")),
    (400, error(21610), OptedOutAtProvider("21610", "no")),
    (400, PROBLEM, OptedOutAtProvider("21610", "x")),
    (400, error(21211), NumberUnreachable("21211", "no")),
    (400, error(21614), NumberUnreachable("21614", "no")),
    (400, error(21612), NumberUnreachable("21612", "no")),
    (400, error(21611), RetryLater("21611", "no")),
    (429, error(20429, status=429), RetryLater("20429", "no")),
    (429, b"", RetryLater("http 429", "Twilio has too much to do")),
    (503, error(20429, status=503), RetryLater("20429", "no")),
    (503, b"", OutcomeUnknown("http 503", "Twilio did not say whether it has the SMS")),
    (500, error(20500, status=500), OutcomeUnknown("20500", "no")),
    (500, error(21611, status=500), OutcomeUnknown("21611", "no")),
    (502, b"<html>", OutcomeUnknown("http 502", "Twilio did not say whether it has the SMS")),
    (302, b"", OutcomeUnknown("http 302", "Twilio did not say whether it has the SMS")),
    (401, error(20003, "Authenticate", 401), ChannelFault("20003", "Authenticate")),
    (401, b"", ChannelFault("http 401", "Twilio does not know the account, or its login")),
    (404, error(20404, status=404), ChannelFault("20404", "no")),
    (400, error(21212), ChannelFault("21212", "no")),
    (400, error(21408), SendRejected("21408", "no")),
    (400, error(21602), SendRejected("21602", "no")),
    (400, error(21606), SendRejected("21606", "no")),
    (400, error(21608), SendRejected("21608", "no")),
    (400, error(21617), SendRejected("21617", "no")),
    (400, b'{"code": 1' + b"0" * 5000 + b"}", SendRejected("http 400", "Twilio refuses the SMS")),
    (418, b"[]", SendRejected("http 418", "Twilio refuses the SMS")),
]
"""(HTTP status, body, outcome) of a message's creation."""
