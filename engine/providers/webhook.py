"""Signed JSON in, signed JSON out: any gateway can be put in front of Parley, or Parley behind any gateway.

Both sides sign with the channel's secret, and each request carries

    Parley-Timestamp: <seconds since 1970>
    Parley-Signature: v2=<hex of HMAC-SHA256(secret, timestamp + "." + direction + "." + channel + "." + body)>

`direction` is `in` for what the gateway posts to Parley, `out` for what Parley posts to the gateway; `channel` is the
channel's name. So a request is good for one channel and one direction, whatever else has the same secret. The header may
hold several, with commas between them, while a secret is replaced: one must be right. A timestamp of more than five
minutes ago, or ahead, is refused. In a shell, with the secret in $secret, the channel in $channel and the JSON in $body:

    timestamp=$(date +%s)
    signature=$(printf %s "$timestamp.in.$channel.$body" | openssl dgst -sha256 -hmac "$secret" -r | cut -d' ' -f1)
    curl "https://sms.example.org/webhooks/$channel" -d "$body" \\
        -H "Parley-Timestamp: $timestamp" -H "Parley-Signature: v2=$signature"

0.1.0 signed v1=<hex of HMAC-SHA256(secret, timestamp + "." + body)>. A channel with the option `signature = "v1"` signs so,
and accepts both: for a gateway that knows no other, and then no two channels may share a secret.

In: POST one object, or an array of at most 100 that are all taken or, answered 400, all refused:

    {"type": "sms", "id", "from", "to", "text", "reply_to", "handled", "attachments", "received_at"}
    {"type": "part", "id", "from", "to", "text", "reference", "number", "total", "attachments"}
    {"type": "receipt", "id", "to", "status": "sent" | "delivered" | "failed", "ticket", "sms", "code", "why", "permanent",
     "segments", "cost", "currency"}
    {"type": "stop", "id", "from", "text"}

`from`, of a receipt `to`, is the person's number. An SMS that the gateway has taken for a "stop", "help" or "start",
and has answered, says so in `handled`. `reply_to` is the ticket of the SMS that is answered. A receipt names our SMS by its
`ticket`, or by the `id` that we gave it, as `sms`; `permanent`: the number will never get an SMS. `attachments` of an MMS are
[{"media_type", "url"}], of which ten are kept; nothing is fetched. Whatever else is in an object is not read.

`segments` is how many the gateway sent, `cost` what it wants for all of them, as a decimal number or a text such as "0.055",
and `currency` three letters. They may stand in the answer to a send, or in the receipt that says "delivered" or "failed":
in one of them only, as both are added. Attachments, segments and costs in another form are passed over, and the rest is read.

`id` is the gateway's, at most 200 characters, and never used again for another event of that type. It is signed with
the rest and names the event: so a replay within the five minutes changes nothing and a later one is refused, and a
gateway that got no 200 sends the same again, signed anew.

Out: POST {"id", "channel", "from", "to", "text", "session"} to `send_url`, signed in the same way. The gateway must
drop an `id` that it has had within 24 hours, as an SMS is tried again whenever the answer did not come through. It
answers

    2xx, {"ticket", "segments", "cost", "currency"}, each or all of which may be missing
                                    it has the SMS; so too with 409, a repetition
    400, 413, 422, {"code", "why"}  it never will: to the dead letters; with the code "unreachable" the number never gets
                                    SMS and its session ends; with "opted_out" the person has told the gateway to stop
    408, 425, 429, 5xx              try again later
    401, 402, 403, whatever else    the channel pauses, and tries again
"""

import re
from collections.abc import Container, Sequence
from hashlib import sha256
from hmac import compare_digest, digest
from typing import Annotated, Literal, assert_never

import msgspec
from msgspec import Meta

from engine.model.events import (
    Attachment,
    DeliveryReceipt,
    HandledCommand,
    InboundEvent,
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
    ProviderRequest,
    Recourse,
    RetryLater,
    SecretText,
    SendAccepted,
    SendOutcome,
    SendRejected,
    UnreadableWebhookError,
    WebhookCall,
    WebhookResponse,
    bounded_attachments,
    event_id,
    parse_cost_micros,
    parse_currency,
    parse_segments,
)
from engine.providers.surrogates import decode_json

TIMESTAMP_WINDOW_S = 300
"""How far a timestamp may be from our clock, both ways."""

MOST_EVENTS_PER_POST = 100
MOST_SIGNATURES = 8

_LONGEST_GATEWAY_CODE, _LONGEST_GATEWAY_WHY = 64, 300
_TIMESTAMP_PATTERN = re.compile(rb"[0-9]{1,12}")


class Account(msgspec.Struct, frozen=True):
    """There is none: a channel's secret and URL are its own."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a channel behind a gateway must say."""

    send_url: Annotated[
        str,
        Meta(
            pattern=r"^https?://[^\s/?#@:]+[^\s#@]*\Z",
            description="where the gateway takes SMS to be sent",
            extra={"expected": "http:// or https:// and a host"},
        ),
    ]
    secret: Annotated[
        SecretText,
        Meta(
            min_length=16,
            description="the secret with which both sides sign",
            extra={"expected": "at least 16 characters"},
        ),
    ]
    signature: Annotated[
        Literal["v1", "v2"],
        Meta(description="v2 covers channel and direction; v1, for a gateway that knows no other, does not"),
    ] = "v2"


_GatewayId = Annotated[str, Meta(min_length=1, max_length=200)]
_PhoneNumber = Annotated[str, Meta(min_length=1, max_length=64)]
_PartCount = Annotated[int, Meta(ge=1, le=255)]


class _GatewaySms(msgspec.Struct, tag_field="type", tag="sms"):
    id: _GatewayId
    text: str
    from_: _PhoneNumber = msgspec.field(name="from")
    to: str = ""
    reply_to: str = ""
    handled: HandledCommand = ""
    attachments: msgspec.Raw = msgspec.Raw()


class _GatewayPart(msgspec.Struct, tag_field="type", tag="part"):
    id: _GatewayId
    text: str
    reference: _GatewayId
    number: _PartCount
    total: _PartCount
    from_: _PhoneNumber = msgspec.field(name="from")
    to: str = ""
    attachments: msgspec.Raw = msgspec.Raw()


class _GatewayReceipt(msgspec.Struct, tag_field="type", tag="receipt"):
    id: _GatewayId
    to: _PhoneNumber
    status: Literal["sent", "delivered", "failed"]
    ticket: str = ""
    sms: str = ""
    code: str = ""
    why: str = ""
    permanent: bool = False
    segments: msgspec.Raw = msgspec.Raw()
    cost: msgspec.Raw = msgspec.Raw()
    currency: msgspec.Raw = msgspec.Raw()


class _GatewayStop(msgspec.Struct, tag_field="type", tag="stop"):
    id: _GatewayId
    from_: _PhoneNumber = msgspec.field(name="from")
    text: str = ""


_GatewayEvent = _GatewaySms | _GatewayPart | _GatewayReceipt | _GatewayStop


class _GatewayAttachment(msgspec.Struct):
    media_type: str = ""
    url: str = ""


class _GatewaySend(msgspec.Struct):
    id: str
    channel: str
    from_: str = msgspec.field(name="from")
    to: str
    text: str
    session: str


class _GatewayReply(msgspec.Struct):
    ticket: str | int | None = None
    code: str | int | None = None
    why: str | None = None
    segments: msgspec.Raw = msgspec.Raw()
    cost: msgspec.Raw = msgspec.Raw()
    currency: msgspec.Raw = msgspec.Raw()


_decode_one = msgspec.json.Decoder(_GatewayEvent).decode
_decode_many = msgspec.json.Decoder(
    Annotated[list[_GatewayEvent], Meta(max_length=MOST_EVENTS_PER_POST)]
).decode
_decode_reply = msgspec.json.Decoder(_GatewayReply).decode
_decode_attachments = msgspec.json.Decoder(list[_GatewayAttachment]).decode
_encode_send = msgspec.json.Encoder().encode


def make_provider(
    place: ProviderChannel,
    account: Account,  # noqa: ARG001 (a gateway has none)
    options: Options,
) -> "WebhookGateway":
    """The codec of a channel behind a gateway."""
    return WebhookGateway(place, options)


def sign_body(
    secret: bytes, timestamp: bytes, direction: Literal["in", "out"], channel: str, body: bytes
) -> str:
    """What goes into Parley-Signature. No channel's name has a dot, so that no two requests sign alike."""
    signed = b".".join((timestamp, direction.encode(), channel.encode(), body))
    return "v2=" + digest(secret, signed, sha256).hex()


def sign_body_v1(secret: bytes, timestamp: bytes, body: bytes) -> str:
    """What 0.1.0 put there."""
    return "v1=" + digest(secret, timestamp + b"." + body, sha256).hex()


class WebhookGateway:
    """The codec of one channel."""

    recourse: Recourse = "repeat"
    known_codes: Container[str] = frozenset(("unreachable", "opted_out"))
    replies_inline = False
    settings_warnings = ()
    required_mention = ""
    webhook_response = WebhookResponse()

    def __init__(self, place: ProviderChannel, options: Options) -> None:
        self.url = options.send_url
        self._channel = place.channel
        self._number = place.number
        self._secret = options.secret.encode()
        self._knows_v1 = options.signature == "v1"

    def verify_webhook(self, call: WebhookCall) -> None:
        """Raises ForgedWebhookError unless the call is signed, and now."""
        timestamp, signatures = call.header(b"parley-timestamp"), call.header(b"parley-signature")
        if timestamp is None or signatures is None:
            raise ForgedWebhookError("expected the headers Parley-Timestamp and Parley-Signature")
        if not _TIMESTAMP_PATTERN.fullmatch(timestamp):
            raise ForgedWebhookError("Parley-Timestamp: expected seconds since 1970")
        right = [sign_body(self._secret, timestamp, "in", self._channel, call.body).encode()]
        if self._knows_v1:
            right.append(sign_body_v1(self._secret, timestamp, call.body).encode())
        given = signatures.split(b",", MOST_SIGNATURES - 1)
        if not any(compare_digest(ours, each.strip()) for ours in right for each in given):
            raise ForgedWebhookError(_wrong_signature_sentence(given, self._channel))
        if abs(call.now - int(timestamp)) > TIMESTAMP_WINDOW_S:
            raise ForgedWebhookError(
                f"Parley-Timestamp: more than {TIMESTAMP_WINDOW_S} s from our clock, "
                f"which says {int(call.now)}"
            )

    def read_webhook(self, channel: str, call: WebhookCall) -> list[tuple[str, InboundEvent]]:
        """The events in the body's objects, in their order. Raises UnreadableWebhookError, and then reads none."""
        return [_inbound_event(channel, event) for event in _decode_events(call.body)]

    def write_send_request(self, sms: OutboundSms, now: float) -> ProviderRequest:
        """The SMS as signed JSON."""
        sender = sms.originator or self._number
        body = _encode_send(_GatewaySend(sms.id, sms.channel, sender, sms.to, sms.text, sms.session))
        timestamp = str(int(now))
        headers = {
            "Content-Type": "application/json",
            "Parley-Timestamp": timestamp,
            "Parley-Signature": self._sign_send(timestamp.encode(), body),
        }
        return ProviderRequest(self.url, headers, body)

    def _sign_send(self, timestamp: bytes, body: bytes) -> str:
        if self._knows_v1:
            return sign_body_v1(self._secret, timestamp, body)
        return sign_body(self._secret, timestamp, "out", self._channel, body)

    def read_send_reply(self, status: int, body: bytes) -> SendOutcome:
        """What the gateway's reply means: see the module."""
        try:
            reply = _decode_reply(body)
        except (ValueError, RecursionError):
            reply = _GatewayReply()
        code = str(reply.code or f"http {status}")[:_LONGEST_GATEWAY_CODE]
        why = (reply.why or "")[:_LONGEST_GATEWAY_WHY]
        match status:
            case 409:
                return SendAccepted("")
            case _ if 200 <= status < 300:
                ticket = "" if reply.ticket is None else str(reply.ticket)
                return SendAccepted(ticket, None, *_segments_and_cost(reply))
            case 400 | 413 | 422:
                return _rejection_outcome(code, why or "the gateway refuses the SMS")
            case 408 | 425 | 429:
                return RetryLater(code, why or "the gateway is busy")
            case _ if status >= 500:
                return RetryLater(code, why or "the gateway is out of order")
            case _:
                return ChannelFault(code, why or "the gateway refuses us: are send_url and the secret right?")


def _segments_and_cost(said: _GatewayReply | _GatewayReceipt) -> tuple[int, int, str]:
    cost_micros = parse_cost_micros(bytes(said.cost))
    currency = parse_currency(bytes(said.currency)) if cost_micros else ""
    return parse_segments(bytes(said.segments)), cost_micros, currency


def _attachments(written: msgspec.Raw) -> tuple[Attachment, ...]:
    """What came with an MMS; nothing, if a gateway calls something else so."""
    if not bytes(written):
        return ()
    try:
        found = decode_json(_decode_attachments, bytes(written))
    except (ValueError, RecursionError):
        return ()
    return bounded_attachments((each.media_type, each.url) for each in found)


def _wrong_signature_sentence(given: Sequence[bytes], channel: str) -> str:
    sentence = (
        f"Parley-Signature: none of them is right for this timestamp, coming in on {channel}, and this body"
    )
    if not any(each.strip().startswith(b"v2=") for each in given):
        sentence += '; v1= is accepted only where the channel says signature = "v1"'
    return sentence


def _rejection_outcome(code: str, why: str) -> SendOutcome:
    match code:
        case "unreachable":
            return NumberUnreachable(code, why)
        case "opted_out":
            return OptedOutAtProvider(code, why)
        case _:
            return SendRejected(code, why)


def _decode_events(body: bytes) -> list[_GatewayEvent]:
    try:
        return decode_json(_decode_one_or_many, body)
    except msgspec.ValidationError as e:
        raise UnreadableWebhookError(f"{str(e)[:1].lower()}{str(e)[1:]}") from e
    except (ValueError, RecursionError) as e:
        raise UnreadableWebhookError("the body is not JSON") from e


def _decode_one_or_many(body: bytes) -> list[_GatewayEvent]:
    return _decode_many(body) if body.lstrip().startswith(b"[") else [_decode_one(body)]


def _inbound_event(channel: str, event: _GatewayEvent) -> tuple[str, InboundEvent]:
    """The event and whose it is. Raises UnreadableWebhookError for what no type can say."""
    match event:
        case _GatewaySms():
            id_, handled = event_id("sms", channel, event.id), event.handled
            sms = InboundSms(
                id_,
                channel,
                event.text,
                False,
                event.reply_to,
                handled,
                event.to,
                attachments=_attachments(event.attachments),
            )
            return event.from_, sms
        case _GatewayPart():
            if event.number > event.total:
                raise UnreadableWebhookError(
                    f"part {event.number} of {event.total}: expected no more than there are"
                )
            id_ = event_id("part", channel, event.id)
            part = SmsPart(
                id_,
                channel,
                event.text,
                event.reference,
                event.number,
                event.total,
                event.to,
                _attachments(event.attachments),
            )
            return event.from_, part
        case _GatewayReceipt():
            if not event.ticket and not event.sms:
                raise UnreadableWebhookError("a receipt has neither a ticket nor sms, the id of our SMS")
            failed = event.status == "failed"
            segments, cost_micros, currency = _segments_and_cost(event)
            receipt = DeliveryReceipt(
                event_id("receipt", channel, event.id),
                channel,
                event.ticket,
                event.status,
                event.status,
                code=event.code[:_LONGEST_GATEWAY_CODE],
                why=event.why[:_LONGEST_GATEWAY_WHY],
                permanent=event.permanent and failed,
                sms=event.sms,
                segments=segments,
                cost_micros=cost_micros,
                currency=currency,
            )
            return event.to, receipt
        case _GatewayStop():
            return event.from_, ProviderStop(event_id("stop", channel, event.id), channel, event.text)
        case _:
            assert_never(event)
