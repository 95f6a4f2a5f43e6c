"""Octopush's public API v1, and its webhooks.

Octopush gives an inbound SMS no id: `message_id` is the ticket of the SMS that it answers. So an event's id is a
keyed hash of all that the callback says, and two SMS alike in text within one second, the callback's resolution,
are one. Callbacks are told apart by the date that each kind has. Codes and callbacks: Octopush's documentation of
return codes (legacy, the same numbers in v1) and of callbacks; a `sms-campaign/send` is answered 200 or 201.
"""

import json
import re
from hashlib import blake2b
from typing import Literal, Protocol, assert_never
from urllib.parse import parse_qsl

import msgspec

from engine.events import Inbound, Outbound, ProviderStop, Receipt, Sms
from engine.providers import (
    Accepted,
    ChannelFault,
    Outcome,
    Provider,
    Rejected,
    Request,
    RetryLater,
    Unreadable,
)

ALREADY_SENT = 120
STOP_MENTION_MISSING = 121

OUTCOMES: dict[int, type[RetryLater | ChannelFault]] = {
    101: ChannelFault,  # incorrect login details
    104: ChannelFault,  # out of credit
    105: ChannelFault,  # low balance, the last order awaits validation
    108: ChannelFault,  # login missing
    109: ChannelFault,  # key missing
    113: ChannelFault,  # account not validated
    114: ChannelFault,  # account under investigation for fraud
    125: RetryLater,  # undefined error
    126: RetryLater,  # campaign awaits approval
    127: RetryLater,  # campaign in progress
    128: RetryLater,  # too many attempts
    153: RetryLater,  # route congested
    500: RetryLater,  # impossible to process
    501: RetryLater,  # connection error
}
"""What an error code means, where it is neither success (120) nor the SMS's own fault (every other code)."""

BLACKLISTED = "BLACKLISTED_NUMBER"
"""The receipt's status if Octopush blocked the number after a STOP that it handled."""

_Scalar = str | int | float | bool | None
_SENDER = re.compile(r"[0-9]{3,11}")  # letters are allowed too; a channel has only its number


class _Callback(msgspec.Struct):
    """Every field that a callback may have, of any kind, as JSON or as the legacy form."""

    number: _Scalar = None
    text: _Scalar = None
    sim_card_number: _Scalar = None
    message_id: _Scalar = None
    status: _Scalar = None
    reception_date: _Scalar = None
    answer_date: _Scalar = None
    delivery_date: _Scalar = None
    stop_date: _Scalar = None


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
    sms_ticket: _Scalar = None
    code: _Scalar = None
    message: _Scalar = None


_decode_callback = msgspec.json.Decoder(_Callback).decode
_decode_reply = msgspec.json.Decoder(_Reply).decode
_encode = msgspec.json.Encoder().encode


class Octopush:
    """The codec of one channel: its account, its manner of sending, and the token that keys its events' ids.

    `number` (E.164) becomes the SMS's sender if it has at most 11 digits, as many as Octopush allows; in France,
    `with_replies` puts a short number in its place.
    """

    confirms_stop = False

    def __init__(
        self,
        *,
        url: str,
        login: str,
        key: str,
        number: str,
        token: bytes,
        purpose: Literal["alert", "wholesale"] = "alert",
        with_replies: bool = True,
        simulation_mode: bool = False,
    ) -> None:
        self._url = f"{url}/sms-campaign/send"
        self._headers = {"Content-Type": "application/json", "api-login": login, "api-key": key}
        digits = number.removeprefix("+")
        self._sender = digits if _SENDER.fullmatch(digits) else ""
        self._id_key = blake2b(token, digest_size=32).digest()
        self._purpose = purpose
        self._with_replies = with_replies
        self._simulation_mode = simulation_mode

    def read(self, channel: str, body: bytes) -> list[tuple[str, Inbound]]:
        """The events of a callback: one, and a stop beside a receipt that says the number is blacklisted.

        Raises Unreadable.
        """
        callback = _parse(body)
        sender, text, ticket = _word(callback.number), _word(callback.text), _word(callback.message_id)
        if not sender.strip():
            raise Unreadable("the callback has no number")
        if callback.delivery_date is not None:
            status = _word(callback.status)
            receipt = Receipt(self._id("receipt", channel, sender, ticket, status), channel, ticket, status)
            if status != BLACKLISTED:
                return [(sender, receipt)]
            stop = ProviderStop(self._id("stop", channel, sender, ticket, status), channel)
            return [(sender, receipt), (sender, stop)]
        if callback.stop_date is not None:
            at = _word(callback.stop_date)
            return [(sender, ProviderStop(self._id("stop", channel, sender, text, at), channel, text))]
        received = _word(callback.reception_date) or _word(callback.answer_date)
        if received or callback.text is not None:
            to = _word(callback.sim_card_number)
            event_id = self._id("sms", channel, sender, to, text, received, ticket)
            return [(sender, Sms(event_id, channel, text, reply_to=ticket))]
        raise Unreadable("the callback has neither a text nor a reception_date, delivery_date or stop_date")

    def write(self, sms: Outbound) -> Request:
        """A campaign of one SMS. Its id is the `request_id`, by which Octopush knows a repetition for 24 hours."""
        body = _Send(
            recipients=[_Recipient(sms.to)],
            text=sms.text,
            type="sms_premium",
            purpose=self._purpose,
            request_id=sms.id,
            with_replies=self._with_replies,
            sender=self._sender,
            simulation_mode=self._simulation_mode,
        )
        return Request(self._url, self._headers, _encode(body))

    def outcome(self, status: int, body: bytes) -> Outcome:
        """What the reply to a send means; what cannot be understood is tried again, as the id allows."""
        try:
            reply = _decode_reply(body)
        except (ValueError, RecursionError):
            reply = _Reply()
        code, why = _word(reply.code), _word(reply.message)
        if status in (401, 403):
            return ChannelFault(code or f"http {status}", why or "Octopush refuses the login")
        if status == 429 or status >= 500:
            return RetryLater(code or f"http {status}", why or "Octopush is busy or out of order")
        if 200 <= status < 300 and _word(reply.sms_ticket):
            return Accepted(_word(reply.sms_ticket))
        if not re.fullmatch(r"[0-9]{1,6}", code):
            return RetryLater(f"http {status}", "Octopush's reply is not one that we know")
        if int(code) == ALREADY_SENT:
            return Accepted("")
        return OUTCOMES.get(int(code), Rejected)(code, why)

    def _id(self, *parts: str) -> str:
        return blake2b("\0".join(parts).encode(), digest_size=8, key=self._id_key).hexdigest()


def _parse(body: bytes) -> _Callback:
    """JSON or a form, whatever the content type said."""
    body = body.removeprefix(b"\xef\xbb\xbf").lstrip()
    try:
        return _parse_json(body) if body.startswith(b"{") else _parse_form(body)
    except (ValueError, RecursionError) as e:
        raise Unreadable("the body is neither a JSON object nor a form") from e


def _parse_json(body: bytes) -> _Callback:
    """An SMS cut in the middle of an emoji holds half of a surrogate pair, which is read as `?`."""
    try:
        return _decode_callback(body)
    except msgspec.DecodeError:
        return _decode_callback(json.dumps(json.loads(body), ensure_ascii=False).encode("utf-8", "replace"))


def _parse_form(body: bytes) -> _Callback:
    fields = body.decode("ascii")
    try:
        pairs = parse_qsl(
            fields, keep_blank_values=True, encoding="utf-8", errors="strict", max_num_fields=100
        )
    except UnicodeDecodeError:
        pairs = parse_qsl(
            fields, keep_blank_values=True, encoding="cp1252", errors="replace", max_num_fields=100
        )
    return msgspec.convert(dict(pairs), _Callback)


def _word(value: _Scalar) -> str:
    """A field's value as text; numbers may come as numbers, and what is missing is empty."""
    match value:
        case str():
            return value
        case None | bool():
            return ""
        case int():
            return str(value)
        case float():
            return str(int(value)) if value.is_integer() else str(value)
        case _:
            assert_never(value)


class _Account(Protocol):
    @property
    def url(self) -> str: ...
    @property
    def login(self) -> str: ...
    @property
    def key(self) -> str: ...


class _Accounts(Protocol):
    @property
    def octopush(self) -> _Account: ...
    @property
    def simulator(self) -> _Account: ...


class _Channel(Protocol):
    @property
    def provider(self) -> Literal["octopush", "simulator"]: ...
    @property
    def number(self) -> str: ...
    @property
    def token(self) -> str: ...
    @property
    def purpose(self) -> Literal["alert", "wholesale"]: ...
    @property
    def with_replies(self) -> bool: ...
    @property
    def simulation_mode(self) -> bool: ...


def account_of(channel: _Channel, accounts: _Accounts) -> _Account:
    """Where a channel's SMS are sent. The simulator speaks as Octopush does, so that a trial runs what production runs."""
    match channel.provider:
        case "octopush":
            return accounts.octopush
        case "simulator":
            return accounts.simulator
        case _:
            assert_never(channel.provider)


def provider_for(channel: _Channel, accounts: _Accounts) -> Provider:
    """The provider of a channel."""
    account = account_of(channel, accounts)
    return Octopush(
        url=account.url,
        login=account.login,
        key=account.key,
        number=channel.number,
        token=channel.token.encode(),
        purpose=channel.purpose,
        with_replies=channel.with_replies,
        simulation_mode=channel.simulation_mode,
    )
