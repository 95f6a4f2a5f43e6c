"""Octopush's public API v1, and its webhooks.

Octopush signs nothing: it calls a URL whose query holds the channel's token. It gives an inbound SMS no id:
`message_id` is the ticket of the SMS that it answers. So an event's id is a keyed hash of all that the callback says,
and two SMS alike in text within one second, the callback's resolution, are one. Callbacks are told apart by the date
that each kind has. Codes and callbacks: Octopush's documentation of return codes (legacy, the same numbers in v1) and
of callbacks; a `sms-campaign/send` is answered 200 or 201. That answer says what an SMS costs (`total_cost`, in the
account's unit, as its `residual_credit`); the `unit_price` of some receipts is the same money, and is not read.
"""

import re
from collections.abc import Container
from hashlib import blake2b
from hmac import compare_digest
from typing import Annotated, Literal
from urllib.parse import parse_qsl, quote

import msgspec
from msgspec import Meta

from engine.model.events import DeliveryReceipt, InboundEvent, InboundSms, OutboundSms, ProviderStop, SmsState
from engine.providers import (
    AccountAnswer,
    AccountState,
    BaseUrl,
    ChannelFault,
    ForgedWebhookError,
    HeaderText,
    JsonScalar,
    NumberUnreachable,
    OutcomeUnknown,
    ProviderChannel,
    ProviderRequest,
    Recourse,
    RetryLater,
    SendAccepted,
    SendOutcome,
    SendRejected,
    UnreadableWebhookError,
    UnusableChannelError,
    WebhookCall,
    WebhookResponse,
    event_id,
    parse_cost_micros,
    parse_credit,
    parse_segments,
    scalar_text,
    unread_account_reply,
)
from engine.providers.surrogates import decode_json

ALREADY_SENT_CODE = 120

OUTCOMES_BY_CODE: dict[int, type[RetryLater | ChannelFault | NumberUnreachable]] = {
    101: ChannelFault,  # incorrect login details
    104: ChannelFault,  # out of credit
    105: ChannelFault,  # low balance, the last order awaits validation
    108: ChannelFault,  # login missing
    109: ChannelFault,  # key missing
    113: ChannelFault,  # account not validated
    114: ChannelFault,  # account under investigation for fraud
    117: NumberUnreachable,  # no correct number
    125: RetryLater,  # undefined error
    126: RetryLater,  # campaign awaits approval
    127: RetryLater,  # campaign in progress
    128: RetryLater,  # too many attempts
    150: NumberUnreachable,  # unknown prefix
    153: RetryLater,  # route congested
    500: RetryLater,  # impossible to process
    501: RetryLater,  # connection error
}
"""What an error code means, where it is neither success (120) nor the SMS's own fault (every other code). 106 (bad
sender), 121 and 122 (no STOP mention), 151 and 152 (country not served) are as much the channel's, but do not hold up
its other SMS."""

KNOWN_CODES = frozenset(
    str(code) for code in (*range(100, 134), *range(150, 161), *range(201, 211), *range(300, 309), 500, 501)
)
"""The return codes in its documentation."""

BLACKLISTED_STATUS = "BLACKLISTED_NUMBER"
"""The receipt's status if Octopush blocked the number after a STOP that it handled."""

STATES_BY_STATUS: dict[str, tuple[SmsState, str]] = {
    "ACK": ("sent", ""),
    "PROCESSED": ("sent", ""),
    "TRANSMITTED": ("sent", ""),
    "ISP_SEND": ("sent", ""),
    "DELIVERED": ("delivered", ""),
    "NOT_DELIVERED": ("failed", "the phone did not get it"),
    "NOT_ALLOWED": ("failed", "this route is not allowed"),
    "BAD_DESTINATION": ("failed", "the number does not exist"),
    "INVALID_DESTINATION_ADDRESS": ("failed", "the number does not exist"),
    BLACKLISTED_STATUS: ("failed", "the person has opted out with Octopush"),
    "OUT_OF_DATE": ("failed", "the phone could not be reached in time"),
    "EXPIRED": ("failed", "the phone could not be reached in time"),
    "UNKNOWN_DELIVERY": ("failed", "nobody knows whether the phone got it"),
}
"""What a receipt's status says, and why; any other, such as READ or CLICKED, says nothing new."""

PERMANENT_STATUSES = frozenset(("BAD_DESTINATION", "INVALID_DESTINATION_ADDRESS"))
"""Statuses of numbers that will never get an SMS."""

_MOST_FORM_FIELDS = 100
_SENDER_PATTERN = re.compile(r"[0-9]{3,11}")  # letters are allowed too; a channel has only numbers


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """An account with Octopush, or with what speaks as Octopush does."""

    url: Annotated[BaseUrl, Meta(description="Octopush's API")] = "https://api.octopush.com/v1/public"
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
    sms_low_cost: Annotated[
        bool,
        Meta(description="true: its cheaper quality; where it serves none, it refuses each SMS (code 152)"),
    ] = False
    auto_optimize_text: Annotated[
        bool,
        Meta(description="true: Octopush may rewrite a text so that it takes fewer segments"),
    ] = False


class _OctopushCallback(msgspec.Struct):
    """Every field that a callback may have, of any kind, as JSON or as the legacy form."""

    number: JsonScalar = None
    text: JsonScalar = None
    sim_card_number: JsonScalar = None
    message_id: JsonScalar = None
    status: JsonScalar = None
    reception_date: JsonScalar = None
    answer_date: JsonScalar = None
    delivery_date: JsonScalar = None
    stop_date: JsonScalar = None


class _OctopushRecipient(msgspec.Struct):
    phone_number: str


class _OctopushSend(msgspec.Struct, omit_defaults=True):
    recipients: list[_OctopushRecipient]
    text: str
    type: str
    purpose: str
    request_id: str
    with_replies: bool
    sender: str = ""
    simulation_mode: bool = False
    auto_optimize_text: bool = False  # never sent as false: Octopush's pages disagree on what that means


class _OctopushReply(msgspec.Struct):
    sms_ticket: JsonScalar = None
    residual_credit: msgspec.Raw = msgspec.Raw()
    number_of_sms_needed: msgspec.Raw = msgspec.Raw()
    total_cost: msgspec.Raw = msgspec.Raw()
    code: JsonScalar = None
    message: JsonScalar = None


class _OctopushBalance(msgspec.Struct):
    amount: msgspec.Raw = msgspec.Raw()
    unit: JsonScalar = None
    code: JsonScalar = None
    message: JsonScalar = None


_decode_callback = msgspec.json.Decoder(_OctopushCallback).decode
_decode_reply = msgspec.json.Decoder(_OctopushReply).decode
_decode_balance = msgspec.json.Decoder(_OctopushBalance).decode
_encode_send = msgspec.json.Encoder().encode


def make_provider(place: ProviderChannel, account: Account, options: Options) -> "Octopush":
    """Octopush's codec of a channel. Raises UnusableChannelError."""
    problems = []
    if not place.token:
        problems.append(
            "token_env is missing: expected the name of a variable "
            "with the token that Octopush's callbacks carry"
        )
    problems += [
        f"originators has {each!r}: expected at most 11 digits, as Octopush allows no more"
        for each in place.originators
        if not _sender_digits(each)
    ]
    if problems:
        raise UnusableChannelError(*problems)
    return Octopush(place, account, options)


def _sender_digits(number: str) -> str:
    """The digits of a number, if Octopush takes so many."""
    digits = number.removeprefix("+")
    return digits if _SENDER_PATTERN.fullmatch(digits) else ""


class Octopush:
    """The codec of one channel: its account, its manner of sending, and the token that keys its events' ids.

    The channel's number becomes an SMS's sender if Octopush takes so many digits; in France, `with_replies` puts a
    short number in its place.
    """

    recourse: Recourse = "repeat"
    known_codes: Container[str] = KNOWN_CODES
    replies_inline = False
    settings_warnings = ()
    webhook_response = WebhookResponse()

    def __init__(self, place: ProviderChannel, account: Account, options: Options) -> None:
        self.url = account.url.rstrip("/")
        self._send_url = f"{self.url}/sms-campaign/send"
        self._headers = {
            "Content-Type": "application/json",
            "api-login": account.login,
            "api-key": account.key,
        }
        self._sender = _sender_digits(place.number)
        self._token = place.token.encode()
        self._query = b"token=" + quote(place.token).encode()
        self._id_key = blake2b(self._token, digest_size=32).digest()
        self._options = options
        self.required_mention = "STOP" if options.purpose == "wholesale" else ""

    def verify_webhook(self, call: WebhookCall) -> None:
        """Octopush calls the URL that it was given, so its token is first looked for as we write it."""
        if not compare_digest(call.query, self._query) and not compare_digest(
            _query_token(call), self._token
        ):
            raise ForgedWebhookError("wrong token")

    def read_webhook(self, channel: str, call: WebhookCall) -> list[tuple[str, InboundEvent]]:
        """The events of a callback: one, and a stop beside a receipt that says the number is blacklisted.

        Raises UnreadableWebhookError.
        """
        callback = _parse_callback(call.body)
        sender, text, ticket = (
            scalar_text(callback.number),
            scalar_text(callback.text),
            scalar_text(callback.message_id),
        )
        if not sender.strip():
            raise UnreadableWebhookError("the callback has no number")
        if callback.delivery_date is not None:
            return self._receipt_events(channel, sender, ticket, scalar_text(callback.status))
        if callback.stop_date is not None:
            at = scalar_text(callback.stop_date)
            return [(sender, ProviderStop(self._event_id("stop", channel, sender, text, at), channel, text))]
        received = scalar_text(callback.reception_date) or scalar_text(callback.answer_date)
        if received or callback.text is not None:
            to = scalar_text(callback.sim_card_number)
            id_ = self._event_id("sms", channel, sender, to, text, received, ticket)
            return [(sender, InboundSms(id_, channel, text, reply_to=ticket, originator=to))]
        raise UnreadableWebhookError(
            "the callback has neither a text nor a reception_date, delivery_date or stop_date"
        )

    def _receipt_events(
        self, channel: str, sender: str, ticket: str, status: str
    ) -> list[tuple[str, InboundEvent]]:
        known = status.upper()
        state, why = STATES_BY_STATUS.get(known, ("", ""))
        failed = state == "failed"
        receipt = DeliveryReceipt(
            self._event_id("receipt", channel, sender, ticket, status),
            channel,
            ticket,
            status,
            state,
            code=status if failed else "",
            why=why,
            permanent=known in PERMANENT_STATUSES,
        )
        if known != BLACKLISTED_STATUS:
            return [(sender, receipt)]
        stop = ProviderStop(self._event_id("stop", channel, sender, ticket, status), channel)
        return [(sender, receipt), (sender, stop)]

    def write_send_request(self, sms: OutboundSms, now: float) -> ProviderRequest:
        """A campaign of one SMS. Its id is the `request_id`, by which Octopush knows a repetition for 24 hours."""
        body = _OctopushSend(
            recipients=[_OctopushRecipient(sms.to)],
            text=sms.text,
            type="sms_low_cost" if self._options.sms_low_cost else "sms_premium",
            purpose=self._options.purpose,
            request_id=sms.id,
            with_replies=self._options.with_replies,
            sender=_sender_digits(sms.originator) or self._sender,
            simulation_mode=self._options.simulation_mode,
            auto_optimize_text=self._options.auto_optimize_text,
        )
        return ProviderRequest(self._send_url, self._headers, _encode_send(body))

    def read_send_reply(self, status: int, body: bytes) -> SendOutcome:
        """What the reply to a send means; what cannot be understood is unknown."""
        try:
            reply = _decode_reply(body)
        except (ValueError, RecursionError):
            reply = _OctopushReply()
        code, why = scalar_text(reply.code), scalar_text(reply.message)
        if status in (401, 403):
            return ChannelFault(code or f"http {status}", why or "Octopush refuses the login")
        if status == 429:
            return RetryLater(code or "http 429", why or "Octopush is busy")
        if status >= 500:
            return OutcomeUnknown(code or f"http {status}", why or "Octopush is out of order")
        if 200 <= status < 300 and scalar_text(reply.sms_ticket):
            return SendAccepted(
                scalar_text(reply.sms_ticket),
                parse_credit(bytes(reply.residual_credit)),
                parse_segments(bytes(reply.number_of_sms_needed)),
                parse_cost_micros(bytes(reply.total_cost)),
            )
        if not re.fullmatch(r"[0-9]{1,6}", code):
            return OutcomeUnknown(f"http {status}", "Octopush's reply is not one that we know")
        if int(code) == ALREADY_SENT_CODE:
            return SendAccepted("")
        return OUTCOMES_BY_CODE.get(int(code), SendRejected)(code, why)

    def write_account_request(self) -> ProviderRequest:
        return ProviderRequest(f"{self.url}/wallet/check-balance", self._headers)

    def read_account_reply(self, status: int, body: bytes) -> AccountAnswer:
        """The credit, as `wallet/check-balance` says it: `{"amount": 12.54, "unit": "euros"}`."""
        try:
            reply = _decode_balance(body)
        except (ValueError, RecursionError):
            return unread_account_reply(status, "Octopush")
        code = scalar_text(reply.code)
        if code.isdigit() and OUTCOMES_BY_CODE.get(int(code)) is ChannelFault:
            return ChannelFault(code, scalar_text(reply.message))
        credit = parse_credit(bytes(reply.amount)) if status == 200 else None
        if credit is None:
            return unread_account_reply(status, "Octopush")
        return AccountState(credit, scalar_text(reply.unit))

    def _event_id(self, *parts: str) -> str:
        return event_id(*parts, key=self._id_key)


def _query_token(call: WebhookCall) -> bytes:
    """The query's token, however it is written."""
    try:
        fields = parse_qsl(
            call.query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_FORM_FIELDS
        )
    except ValueError:
        return b""
    return dict(fields).get("token", "").encode("utf-8", "replace")


def _parse_callback(body: bytes) -> _OctopushCallback:
    """JSON or a form, whatever the content type said."""
    body = body.removeprefix(b"\xef\xbb\xbf").lstrip()
    try:
        return decode_json(_decode_callback, body) if body.startswith(b"{") else _parse_form(body)
    except (ValueError, RecursionError) as e:
        raise UnreadableWebhookError("the body is neither a JSON object nor a form") from e


def _parse_form(body: bytes) -> _OctopushCallback:
    fields = body.decode("ascii")
    try:
        pairs = parse_qsl(
            fields,
            keep_blank_values=True,
            encoding="utf-8",
            errors="strict",
            max_num_fields=_MOST_FORM_FIELDS,
        )
    except UnicodeDecodeError:
        pairs = parse_qsl(
            fields,
            keep_blank_values=True,
            encoding="cp1252",
            errors="replace",
            max_num_fields=_MOST_FORM_FIELDS,
        )
    return msgspec.convert(dict(pairs), _OctopushCallback)
