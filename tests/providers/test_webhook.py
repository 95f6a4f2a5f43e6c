"""Signed JSON both ways: what is in, what is out, what is forged, and what a gateway's answers mean."""

import hashlib
import json
import re
import shutil
import subprocess

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.events import (
    Attachment,
    DeliveryReceipt,
    InboundSms,
    OutboundSms,
    ProviderStop,
    SmsPart,
)
from engine.providers import (
    ChannelFault,
    ForgedWebhookError,
    NumberUnreachable,
    OptedOutAtProvider,
    ProviderChannel,
    RetryLater,
    SendAccepted,
    SendRejected,
    UnreadableWebhookError,
    WebhookCall,
    webhook,
)
from engine.providers.webhook import Account, Options, make_provider
from tests.providers.fuzz import fuzz

NOW = 1_700_000_000
SECRET = "a secret of sixteen or more"
URL = "https://gateway.example.org/send?tenant=7"

codec = make_provider(
    ProviderChannel("clinic", "+33700000001"), Account(), Options(send_url=URL, secret=SECRET)
)

old = make_provider(
    ProviderChannel("clinic", "+33700000001"), Account(), Options(send_url=URL, secret=SECRET, signature="v1")
)


def hmac_sha256(key, message):
    """RFC 2104, written out: not the module that the provider uses."""
    key = hashlib.sha256(key).digest() if len(key) > 64 else key
    inner, outer = (bytes(byte ^ pad for byte in key.ljust(64, b"\0")) for pad in (0x36, 0x5C))
    return hashlib.sha256(outer + hashlib.sha256(inner + message).digest()).hexdigest()


def signed(body, at=NOW, secret=SECRET, now=NOW, direction="in", channel="clinic"):
    timestamp = str(at).encode()
    covered = b".".join((timestamp, direction.encode(), channel.encode(), body))
    right = hmac_sha256(secret.encode(), covered).encode()
    headers = [(b"parley-timestamp", timestamp), (b"parley-signature", b"v2=" + right)]
    return WebhookCall("POST", b"", headers, body, now)


def signed_v1(body, at=NOW):
    """As 0.1.0 and its gateways do."""
    right = hmac_sha256(SECRET.encode(), b"%d." % at + body).encode()
    headers = [(b"parley-timestamp", b"%d" % at), (b"parley-signature", b"v1=" + right)]
    return WebhookCall("POST", b"", headers, body, at)


def call(*objects):
    body = json.dumps(list(objects) if len(objects) > 1 else objects[0], ensure_ascii=False).encode()
    return signed(body)


def read(recorded):
    codec.verify_webhook(recorded)
    return codec.read_webhook("clinic", recorded)


SMS = {"type": "sms", "id": "gw-1", "from": "+33612345678", "to": "19601", "text": "Ça va 👍",
       "received_at": "2026-03-01T10:00:00Z", "reply_to": "t-9"}  # fmt: skip
PART = {
    "type": "part",
    "id": "gw-2",
    "from": "33612345678",
    "text": "…",
    "reference": "77",
    "number": 2,
    "total": 3,
}
RECEIPT = {"type": "receipt", "id": "gw-3", "to": "+33612345678", "ticket": "t-9", "status": "delivered"}
FAILED = {"type": "receipt", "id": "gw-4", "to": "+33612345678", "sms": "abc1s2", "status": "failed", "code": "12",
          "why": "unknown number", "permanent": True}  # fmt: skip
STOP = {"type": "stop", "id": "gw-5", "from": "+33612345678", "text": "STOP"}
MMS = {"type": "sms", "id": "gw-7", "from": "+33612345678", "text": "Look",
       "attachments": [{"media_type": "image/png", "url": "https://mm.example.org/1"}, {"url": "https://mm.example.org/2"}]}  # fmt: skip
PAID = RECEIPT | {"segments": 2, "cost": "0.055", "currency": "EUR"}
ATTACHED = (Attachment("image/png", "https://mm.example.org/1"), Attachment("", "https://mm.example.org/2"))
HANDLED = {"type": "sms", "id": "gw-6", "from": "+33612345678", "text": "stop", "handled": "stop"}

IN = [
    (SMS, "+33612345678", InboundSms("", "clinic", "Ça va 👍", reply_to="t-9", originator="19601")),
    (PART, "33612345678", SmsPart("", "clinic", "…", "77", 2, 3)),
    (RECEIPT, "+33612345678", DeliveryReceipt("", "clinic", "t-9", "delivered", "delivered")),
    (FAILED, "+33612345678", DeliveryReceipt("", "clinic", "", "failed", "failed", "12", "unknown number", True, "abc1s2")),
    (STOP, "+33612345678", ProviderStop("", "clinic", "STOP")),
    (HANDLED, "+33612345678", InboundSms("", "clinic", "stop", handled="stop")),
    (MMS, "+33612345678", InboundSms("", "clinic", "Look", attachments=ATTACHED)),
    (PART | {"attachments": MMS["attachments"]}, "33612345678", SmsPart("", "clinic", "…", "77", 2, 3, attachments=ATTACHED)),
    (PAID, "+33612345678", DeliveryReceipt("", "clinic", "t-9", "delivered", "delivered", segments=2, cost_micros=55_000, currency="EUR")),
    (RECEIPT | {"cost": 0, "currency": "EUR"}, "+33612345678", DeliveryReceipt("", "clinic", "t-9", "delivered", "delivered")),
    (RECEIPT | {"permanent": True}, "+33612345678", DeliveryReceipt("", "clinic", "t-9", "delivered", "delivered")),
    (SMS | {"text": "", "from": "Orange", "more": {"x": [1]}}, "Orange", InboundSms("", "clinic", "", reply_to="t-9", originator="19601")),
]  # fmt: skip
RECORDED = [
    call(SMS),
    call(PART),
    call(RECEIPT),
    call(FAILED),
    call(STOP),
    call(HANDLED, SMS, RECEIPT),
    call(MMS, PAID),
]


@pytest.mark.parametrize("written, sender, event", IN)
def test_in(written, sender, event):
    ((found, read_event),) = read(call(written))
    assert found == sender
    assert msgspec.structs.replace(read_event, id="") == event
    assert re.fullmatch("[0-9a-f]{16}", read_event.id)


def test_an_array_is_read_in_its_order_and_as_a_whole_or_not_at_all():
    events = read(call(SMS, STOP, RECEIPT))
    assert [type(event) for _, event in events] == [InboundSms, ProviderStop, DeliveryReceipt]
    with pytest.raises(UnreadableWebhookError, match=r"id.*\$\[1\]"):
        read(call(SMS, {"type": "stop", "from": "+336"}, RECEIPT))
    assert len(read(call(*[SMS] * 100))) == 100
    with pytest.raises(UnreadableWebhookError, match="length <= 100"):
        read(call(*[SMS] * 101))


@pytest.mark.parametrize(
    "body, why",
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 60_000, "not JSON"),
        (b"3", "expected `object`"),
        (b"{}", "missing required field `type`"),
        (b'{"type": "call", "id": "1", "from": "+336"}', "call"),
        (b'{"type": "sms", "id": "", "from": "+336", "text": "x"}', "length >= 1"),
        (b'{"type": "sms", "id": 7, "from": "+336", "text": "x"}', "expected `str`, got `int`"),
        (b'{"type": "sms", "id": "1", "from": "+336"}', "missing required field `text`"),
        (b'{"type": "sms", "id": "1", "text": "x"}', "missing required field `from`"),
        (b'{"type": "part", "id": "1", "from": "+336", "text": "x", "reference": "r", "number": 3, "total": 2}', "part 3 of 2"),
        (b'{"type": "receipt", "id": "1", "to": "+336", "status": "sent"}', "neither a ticket nor sms"),
        (b'{"type": "receipt", "id": "1", "to": "+336", "status": "gone", "ticket": "t"}', "gone"),
    ],
)  # fmt: skip
def test_what_is_none_of_the_forms_is_unreadable(body, why):
    with pytest.raises(UnreadableWebhookError) as raised:
        read(signed(body))
    assert why in str(raised.value)


@pytest.mark.parametrize(
    "odd", [None, 7, "x", [], {}, [None], ["x"], [{"url": 7}], [[]], "9" * 400, -1, [{"url": "\ud83d"}]]
)
def test_what_a_gateway_calls_so_and_means_otherwise_is_passed_over(odd):
    """0.1.0 did not read these fields, whatever was in them."""
    body = json.dumps(
        [SMS | {"attachments": odd}, RECEIPT | {"segments": odd, "cost": odd, "currency": odd}]
    ).encode()
    (_, sms), (_, receipt) = read(signed(body))
    assert sms.text == SMS["text"]
    assert all(each.url == "?" for each in sms.attachments)
    if odd != 7:
        assert (receipt.segments, receipt.cost_micros, receipt.currency) == (0, 0, "")
    reply = json.dumps({"ticket": "t", "segments": odd, "cost": odd, "currency": odd}).replace("\\ud83d", "")
    assert codec.read_send_reply(200, reply.encode()).ticket == "t"


def test_half_an_emoji_is_a_question_mark():
    ((_, event),) = read(signed(b'{"type":"sms","id":"1","from":"+336","text":"ok \\ud83d"}'))
    assert event.text == "ok ?"


def test_an_events_id_is_its_gateways_id_on_this_channel():
    def id_of(channel="clinic", **fields):
        return codec.read_webhook(channel, call(SMS | fields))[0][1].id

    assert id_of() == id_of(text="other", to="", reply_to="")
    assert (
        len(
            {
                id_of(),
                id_of(id="gw-2"),
                id_of(channel="other"),
                codec.read_webhook("clinic", call(STOP | {"id": "gw-1"}))[0][1].id,
            }
        )
        == 4
    )


def test_a_vector():
    """Computed by `printf %s '1700000000.in.clinic.{}' | openssl dgst -sha256 -hmac 'a secret of sixteen or more'`."""
    vector = b"v2=bbf104f2839380637939569576296a6d9fde2d65d6580bfefee6789029c57add"
    headers = [(b"parley-timestamp", b"1700000000"), (b"parley-signature", vector)]
    codec.verify_webhook(WebhookCall("POST", b"", headers, b"{}", NOW))
    assert webhook.sign_body(SECRET.encode(), b"1700000000", "in", "clinic", b"{}").encode() == vector


def test_a_vector_of_the_first_version():
    """Computed by `printf %s '1700000000.{}' | openssl dgst -sha256 -hmac 'a secret of sixteen or more'`."""
    vector = b"v1=be8d935f59549ff92d35b0d08f66280fd7c7894c071284b87cf4a8e4f432a69d"
    headers = [(b"parley-timestamp", b"1700000000"), (b"parley-signature", vector)]
    old.verify_webhook(WebhookCall("POST", b"", headers, b"{}", NOW))
    assert webhook.sign_body_v1(SECRET.encode(), b"1700000000", b"{}").encode() == vector


@given(st.binary(max_size=200), st.text(min_size=16, max_size=100), st.integers(0, 2**33))
def test_an_independent_computation_agrees(body, secret, at):
    other = make_provider(ProviderChannel("clinic", "+337"), Account(), Options(send_url=URL, secret=secret))
    other.verify_webhook(signed(body, at, secret, now=at))


def with_headers(*headers, now=NOW):
    return msgspec.structs.replace(RECORDED[0], headers=list(headers), now=now)


TIMESTAMP, SIGNATURE = RECORDED[0].headers


@pytest.mark.parametrize(
    "forged",
    [
        with_headers(),
        with_headers(TIMESTAMP),
        with_headers(SIGNATURE),
        with_headers((b"parley-timestamp", b"1700000001"), SIGNATURE),
        with_headers((b"parley-timestamp", b"-1"), SIGNATURE),
        with_headers((b"parley-timestamp", b"1700000000.0"), SIGNATURE),
        with_headers((b"parley-timestamp", "١٧".encode()), SIGNATURE),
        with_headers((b"parley-timestamp", b"9" * 5_000), SIGNATURE),
        with_headers(TIMESTAMP, (b"parley-signature", b"")),
        with_headers(TIMESTAMP, (b"parley-signature", b"v2=")),
        with_headers(TIMESTAMP, (b"parley-signature", SIGNATURE[1][3:])),
        with_headers(TIMESTAMP, (b"parley-signature", SIGNATURE[1][:-1])),
        with_headers(TIMESTAMP, (b"parley-signature", SIGNATURE[1].upper())),
        with_headers(TIMESTAMP, (b"parley-signature", b"v1" + SIGNATURE[1][2:])),
        with_headers(TIMESTAMP, (b"parley-signature", b"v3" + SIGNATURE[1][2:])),
        with_headers(TIMESTAMP, (b"parley-signature", b"v2=\xff\xfe")),
        with_headers(TIMESTAMP, (b"parley-signature", b"v2=00," * 5_000 + SIGNATURE[1])),
        msgspec.structs.replace(RECORDED[0], body=RECORDED[0].body + b" "),
        signed(RECORDED[0].body, secret=SECRET + "!"),
        signed(RECORDED[0].body, channel="other"),
        signed(RECORDED[0].body, direction="out"),
    ],
)
def test_a_wrong_or_missing_signature_is_forged(forged):
    for each in (codec, old):
        with pytest.raises(ForgedWebhookError):
            each.verify_webhook(forged)


def test_what_is_signed_for_one_channel_is_forged_on_another_with_the_same_secret():
    other = make_provider(
        ProviderChannel("other", "+33700000002"), Account(), Options(send_url=URL, secret=SECRET)
    )
    codec.verify_webhook(call(SMS))
    with pytest.raises(ForgedWebhookError, match="coming in on other"):
        other.verify_webhook(call(SMS))


def test_the_first_version_is_accepted_only_where_the_channel_says_so():
    with pytest.raises(ForgedWebhookError, match="signature = "):
        codec.verify_webhook(signed_v1(b"{}"))
    old.verify_webhook(signed_v1(b"{}"))
    old.verify_webhook(signed(b"{}"))
    sent = old.write_send_request(OUT[0][0], NOW)
    assert sent.headers["Parley-Signature"].encode() == signed_v1(sent.body).headers[1][1]


@pytest.mark.parametrize("late_s", [0, 300, -300])
def test_within_five_minutes_both_ways_it_is_taken(late_s):
    codec.verify_webhook(signed(b"{}", now=NOW + late_s))


@pytest.mark.parametrize("late_s", [301, -301, 10**9])
def test_before_and_after_it_is_refused(late_s):
    with pytest.raises(ForgedWebhookError, match="more than 300 s"):
        codec.verify_webhook(signed(b"{}", now=NOW + late_s))


def test_one_right_signature_of_several_is_enough():
    replaced = signed(RECORDED[0].body, secret="the secret before this one").headers[1][1]
    codec.verify_webhook(with_headers(TIMESTAMP, (b"parley-signature", replaced + b", " + SIGNATURE[1])))
    both = signed_v1(RECORDED[0].body).headers[1][1] + b"," + SIGNATURE[1]
    for each in (codec, old):
        each.verify_webhook(with_headers(TIMESTAMP, (b"parley-signature", both)))


def test_a_replay_is_the_same_event_while_it_is_accepted_and_then_it_is_refused():
    recorded = call(SMS)
    assert read(recorded) == read(msgspec.structs.replace(recorded, now=NOW + 299.0))
    with pytest.raises(ForgedWebhookError):
        read(msgspec.structs.replace(recorded, now=NOW + 400.0))


OUT = [
    (
        OutboundSms("abc1s2", "clinic", "+33612345678", "Ça va ?", "s1"),
        {"id": "abc1s2", "channel": "clinic", "from": "+33700000001", "to": "+33612345678", "text": "Ça va ?", "session": "s1"},
    ),
    (
        OutboundSms("a", "clinic", "+336", "x", originator="19601"),
        {"id": "a", "channel": "clinic", "from": "19601", "to": "+336", "text": "x", "session": ""},
    ),
]  # fmt: skip


@pytest.mark.parametrize("sms, body", OUT)
def test_out(sms, body):
    request = codec.write_send_request(sms, NOW + 0.9)
    assert (request.url, json.loads(request.body)) == (URL, body)
    assert request.headers == {
        "Content-Type": "application/json",
        "Parley-Timestamp": str(NOW),
        "Parley-Signature": signed(request.body, direction="out").headers[1][1].decode(),
    }


def test_what_we_send_cannot_be_sent_back_to_us():
    request = codec.write_send_request(OUT[0][0], NOW)
    headers = [(name.lower().encode(), value.encode()) for name, value in request.headers.items()]
    played_back = WebhookCall("POST", b"", headers, request.body, NOW)
    with pytest.raises(ForgedWebhookError, match="none of them is right"):
        codec.verify_webhook(played_back)
    with pytest.raises(UnreadableWebhookError, match="type"):
        codec.read_webhook("clinic", played_back)


@pytest.mark.parametrize(
    "status, body, outcome",
    [
        (200, b'{"ticket": "t-9"}', SendAccepted("t-9")),
        (202, b'{"ticket": 7, "more": []}', SendAccepted("7")),
        (
            200,
            b'{"ticket": "t", "segments": 3, "cost": 0.1665, "currency": "EUR"}',
            SendAccepted("t", None, 3, 166_500, "EUR"),
        ),
        (200, b'{"cost": "0.05"}', SendAccepted("", None, 0, 50_000)),
        (204, b"", SendAccepted("")),
        (200, b"OK", SendAccepted("")),
        (409, b"", SendAccepted("")),
        (400, b'{"code": "too_long", "why": "w"}', SendRejected("too_long", "w")),
        (422, b'{"code": 7}', SendRejected("7", "the gateway refuses the SMS")),
        (413, b"", SendRejected("http 413", "the gateway refuses the SMS")),
        (400, b'{"code": "unreachable", "why": "w"}', NumberUnreachable("unreachable", "w")),
        (422, b'{"code": "opted_out", "why": "w"}', OptedOutAtProvider("opted_out", "w")),
        (500, b'{"code": "unreachable", "why": "w"}', RetryLater("unreachable", "w")),
        (503, b"", RetryLater("http 503", "the gateway is out of order")),
        (429, b"[" * 9_999, RetryLater("http 429", "the gateway is busy")),
        (401, b'{"why": "w"}', ChannelFault("http 401", "w")),
        (402, b'{"code": "credit", "why": "w"}', ChannelFault("credit", "w")),
        (403, b"", ChannelFault("http 403", "the gateway refuses us: are send_url and the secret right?")),
        (404, b"", ChannelFault("http 404", "the gateway refuses us: are send_url and the secret right?")),
        (302, b"", ChannelFault("http 302", "the gateway refuses us: are send_url and the secret right?")),
        (400, b'{"code": "%b", "why": "%b"}' % (b"c" * 99, b"w" * 999), SendRejected("c" * 64, "w" * 300)),
    ],
)  # fmt: skip
def test_outcomes(status, body, outcome):
    assert codec.read_send_reply(status, body) == outcome


@given(st.integers(100, 599), st.binary())
def test_no_reply_raises(status, body):
    codec.read_send_reply(status, body)


@pytest.mark.skipif(not shutil.which("openssl"), reason="the shell's way to sign needs openssl")
@pytest.mark.processes
def test_the_shell_lines_of_the_docstring_sign():
    lines = re.findall(r"^    (timestamp=.*|signature=.*)$", webhook.__doc__, re.MULTILINE)
    assert len(lines) == 2
    script = "\n".join([*lines, 'printf %s "$timestamp $signature"'])
    body = RECORDED[0].body
    environ = {
        "PATH": "/usr/bin:/bin:/usr/local/bin",
        "secret": SECRET,
        "channel": "clinic",
        "body": body.decode(),
    }
    printed = subprocess.run(["sh", "-c", script], env=environ, capture_output=True, check=True).stdout
    timestamp, right = printed.split()
    headers = [(b"parley-timestamp", timestamp), (b"parley-signature", b"v2=" + right)]
    codec.verify_webhook(WebhookCall("POST", b"", headers, body, float(timestamp)))


def resigned(recorded):
    return msgspec.structs.replace(recorded, headers=signed(recorded.body).headers)


def test_webhooks_at_random_are_events_or_refused():
    fuzz(codec, "clinic", RECORDED, resigned)
