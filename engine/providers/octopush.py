"""Octopush's public API v1, and its webhooks.

Octopush signs nothing: it calls a URL whose query holds the channel's token. It gives an inbound SMS no id:
`message_id` is the ticket of the SMS that it answers. So an event's id is a keyed hash of all that the callback says,
and two SMS alike in text within one second, the callback's resolution, are one. Callbacks are told apart by the date
that each kind has. Codes and callbacks: Octopush's documentation of return codes (legacy, the same numbers in v1) and
of callbacks; a `sms-campaign/send` is answered 200 or 201.
"""

import re
from collections.abc import Container
from hashlib import blake2b
from hmac import compare_digest
from typing import Annotated, Literal
from urllib.parse import parse_qsl, quote

import msgspec
from msgspec import Meta

from engine.model.events import Inbound, Outbound, ProviderStop, Receipt, Sms, SmsState
from engine.providers import (
    Accepted,
    Acknowledgement,
    Call,
    ChannelFault,
    Forged,
    HeaderText,
    Outcome,
    Place,
    Recourse,
    Rejected,
    Request,
    RetryLater,
    Scalar,
    Unknown,
    Unreachable,
    Unreadable,
    Unusable,
    Url,
    amount,
    event_id,
    word,
)
from engine.providers.surrogates import decode

ALREADY_SENT = 120

OUTCOMES: dict[int, type[RetryLater | ChannelFault | Unreachable]] = {
    101: ChannelFault,  # incorrect login details
    104: ChannelFault,  # out of credit
    105: ChannelFault,  # low balance, the last order awaits validation
    108: ChannelFault,  # login missing
    109: ChannelFault,  # key missing
    113: ChannelFault,  # account not validated
    114: ChannelFault,  # account under investigation for fraud
    117: Unreachable,  # no correct number
    125: RetryLater,  # undefined error
    126: RetryLater,  # campaign awaits approval
    127: RetryLater,  # campaign in progress
    128: RetryLater,  # too many attempts
    150: Unreachable,  # unknown prefix
    153: RetryLater,  # route congested
    500: RetryLater,  # impossible to process
    501: RetryLater,  # connection error
}
"""What an error code means, where it is neither success (120) nor the SMS's own fault (every other code). 106 (bad
sender), 121 and 122 (no STOP mention), 151 and 152 (country not served) are as much the channel's, but do not hold up
its other SMS."""

CODES = frozenset(
    str(code) for code in (*range(100, 134), *range(150, 161), *range(201, 211), *range(300, 309), 500, 501)
)
"""The return codes in its documentation."""

BLACKLISTED = "BLACKLISTED_NUMBER"
"""The receipt's status if Octopush blocked the number after a STOP that it handled."""

STATES: dict[str, tuple[SmsState, str]] = {
    "ACK": ("sent", ""),
    "PROCESSED": ("sent", ""),
    "TRANSMITTED": ("sent", ""),
    "ISP_SEND": ("sent", ""),
    "DELIVERED": ("delivered", ""),
    "NOT_DELIVERED": ("failed", "the phone did not get it"),
    "NOT_ALLOWED": ("failed", "this route is not allowed"),
    "BAD_DESTINATION": ("failed", "the number does not exist"),
    "INVALID_DESTINATION_ADDRESS": ("failed", "the number does not exist"),
    BLACKLISTED: ("failed", "the person has opted out with Octopush"),
    "OUT_OF_DATE": ("failed", "the phone could not be reached in time"),
    "EXPIRED": ("failed", "the phone could not be reached in time"),
    "UNKNOWN_DELIVERY": ("failed", "nobody knows whether the phone got it"),
}
"""What a receipt's status says, and why; any other, such as READ or CLICKED, says nothing new."""

PERMANENT = frozenset(("BAD_DESTINATION", "INVALID_DESTINATION_ADDRESS"))
"""Statuses of numbers that will never get an SMS."""

_MOST_FIELDS = 100
_SENDER = re.compile(r"[0-9]{3,11}")  # letters are allowed too; a channel has only numbers


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """An account with Octopush, or with what speaks as Octopush does."""

    url: Annotated[Url, Meta(description="Octopush's API")] = "https://api.octopush.com/v1/public"
    login: Annotated[HeaderText, Meta(description="its api-login; a channel with Octopush needs it")]
    key: Annotated[HeaderText, Meta(description="its api-key; a channel with Octopush needs it")]


class Options(msgspec.Struct, frozen=True):
    """How a channel with Octopush sends."""

    purpose: Annotated[
        Literal["alert", "wholesale"],
        Meta(description="alert for what people asked for; wholesale for advertising"),
    ] = "alert"
    with_replies: Annotated[
        bool, Meta(description="let people answer: in France, the SMS come from a short number")
    ] = True
    simulation_mode: Annotated[bool, Meta(description="true: Octopush checks, and sends nothing")] = False


class _Callback(msgspec.Struct):
    """Every field that a callback may have, of any kind, as JSON or as the legacy form."""

    number: Scalar = None
    text: Scalar = None
    sim_card_number: Scalar = None
    message_id: Scalar = None
    status: Scalar = None
    reception_date: Scalar = None
    answer_date: Scalar = None
    delivery_date: Scalar = None
    stop_date: Scalar = None


class _Recipient(msgspec.Struct):
    phone_number: str


class _Send(msgspec.Struct, omit_defaults=True):
    recipients: list[_Recipient]
    text: str
    type: str
    purpose: str
    request_id: str
    with_replies: bool
    sender: str = ""
    simulation_mode: bool = False


class _Reply(msgspec.Struct):
    sms_ticket: Scalar = None
    residual_credit: msgspec.Raw = msgspec.Raw()
    code: Scalar = None
    message: Scalar = None


_decode_callback = msgspec.json.Decoder(_Callback).decode
_decode_reply = msgspec.json.Decoder(_Reply).decode
_encode = msgspec.json.Encoder().encode


def provider(place: Place, account: Account, options: Options) -> "Octopush":
    """Octopush's codec of a channel. Raises Unusable."""
    problems = []
    if not place.token:
        problems.append(
            "token_env is missing: expected the name of a variable with the token that Octopush's callbacks carry"
        )
    problems += [
        f"originators has {each!r}: expected at most 11 digits, as Octopush allows no more"
        for each in place.originators
        if not _sender(each)
    ]
    if problems:
        raise Unusable(*problems)
    return Octopush(place, account, options)


def _sender(number: str) -> str:
    """The digits of a number, if Octopush takes so many."""
    digits = number.removeprefix("+")
    return digits if _SENDER.fullmatch(digits) else ""


class Octopush:
    """The codec of one channel: its account, its manner of sending, and the token that keys its events' ids.

    The channel's number becomes an SMS's sender if Octopush takes so many digits; in France, `with_replies` puts a
    short number in its place.
    """

    recourse: Recourse = "repeat"
    codes: Container[str] = CODES
    answers_in_place = False
    acknowledgement = Acknowledgement()

    def __init__(self, place: Place, account: Account, options: Options) -> None:
        self.url = account.url.rstrip("/")
        self._send_url = f"{self.url}/sms-campaign/send"
        self._headers = {
            "Content-Type": "application/json",
            "api-login": account.login,
            "api-key": account.key,
        }
        self._sender = _sender(place.number)
        self._token = place.token.encode()
        self._query = b"token=" + quote(place.token).encode()
        self._id_key = blake2b(self._token, digest_size=32).digest()
        self._options = options

    def verify(self, call: Call) -> None:
        """Octopush calls the URL that it was given, so its token is first looked for as we write it."""
        if not compare_digest(call.query, self._query) and not compare_digest(_token(call), self._token):
            raise Forged("wrong token")

    def read(self, channel: str, call: Call) -> list[tuple[str, Inbound]]:
        """The events of a callback: one, and a stop beside a receipt that says the number is blacklisted.

        Raises Unreadable.
        """
        callback = _parse(call.body)
        sender, text, ticket = word(callback.number), word(callback.text), word(callback.message_id)
        if not sender.strip():
            raise Unreadable("the callback has no number")
        if callback.delivery_date is not None:
            return self._receipt(channel, sender, ticket, word(callback.status))
        if callback.stop_date is not None:
            at = word(callback.stop_date)
            return [(sender, ProviderStop(self._id("stop", channel, sender, text, at), channel, text))]
        received = word(callback.reception_date) or word(callback.answer_date)
        if received or callback.text is not None:
            to = word(callback.sim_card_number)
            id_ = self._id("sms", channel, sender, to, text, received, ticket)
            return [(sender, Sms(id_, channel, text, reply_to=ticket, originator=to))]
        raise Unreadable("the callback has neither a text nor a reception_date, delivery_date or stop_date")

    def _receipt(self, channel: str, sender: str, ticket: str, status: str) -> list[tuple[str, Inbound]]:
        known = status.upper()
        state, why = STATES.get(known, ("", ""))
        failed = state == "failed"
        receipt = Receipt(
            self._id("receipt", channel, sender, ticket, status),
            channel,
            ticket,
            status,
            state,
            code=status if failed else "",
            why=why,
            permanent=known in PERMANENT,
        )
        if known != BLACKLISTED:
            return [(sender, receipt)]
        stop = ProviderStop(self._id("stop", channel, sender, ticket, status), channel)
        return [(sender, receipt), (sender, stop)]

    def write(self, sms: Outbound, now: float) -> Request:
        """A campaign of one SMS. Its id is the `request_id`, by which Octopush knows a repetition for 24 hours."""
        body = _Send(
            recipients=[_Recipient(sms.to)],
            text=sms.text,
            type="sms_premium",
            purpose=self._options.purpose,
            request_id=sms.id,
            with_replies=self._options.with_replies,
            sender=_sender(sms.originator) or self._sender,
            simulation_mode=self._options.simulation_mode,
        )
        return Request(self._send_url, self._headers, _encode(body))

    def outcome(self, status: int, body: bytes) -> Outcome:
        """What the reply to a send means; what cannot be understood is unknown."""
        try:
            reply = _decode_reply(body)
        except (ValueError, RecursionError):
            reply = _Reply()
        code, why = word(reply.code), word(reply.message)
        if status in (401, 403):
            return ChannelFault(code or f"http {status}", why or "Octopush refuses the login")
        if status == 429:
            return RetryLater(code or "http 429", why or "Octopush is busy")
        if status >= 500:
            return Unknown(code or f"http {status}", why or "Octopush is out of order")
        if 200 <= status < 300 and word(reply.sms_ticket):
            return Accepted(word(reply.sms_ticket), amount(bytes(reply.residual_credit)))
        if not re.fullmatch(r"[0-9]{1,6}", code):
            return Unknown(f"http {status}", "Octopush's reply is not one that we know")
        if int(code) == ALREADY_SENT:
            return Accepted("")
        return OUTCOMES.get(int(code), Rejected)(code, why)

    def _id(self, *parts: str) -> str:
        return event_id(*parts, key=self._id_key)


def _token(call: Call) -> bytes:
    """The query's token, however it is written."""
    try:
        fields = parse_qsl(call.query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        return b""
    return dict(fields).get("token", "").encode("utf-8", "replace")


def _parse(body: bytes) -> _Callback:
    """JSON or a form, whatever the content type said."""
    body = body.removeprefix(b"\xef\xbb\xbf").lstrip()
    try:
        return decode(_decode_callback, body) if body.startswith(b"{") else _parse_form(body)
    except (ValueError, RecursionError) as e:
        raise Unreadable("the body is neither a JSON object nor a form") from e


def _parse_form(body: bytes) -> _Callback:
    fields = body.decode("ascii")
    try:
        pairs = parse_qsl(
            fields, keep_blank_values=True, encoding="utf-8", errors="strict", max_num_fields=_MOST_FIELDS
        )
    except UnicodeDecodeError:
        pairs = parse_qsl(
            fields, keep_blank_values=True, encoding="cp1252", errors="replace", max_num_fields=_MOST_FIELDS
        )
    return msgspec.convert(dict(pairs), _Callback)
