"""Vonage's SMS API (once Nexmo): its webhooks, by GET, form or JSON, and `sms/json`.

The parts of a long SMS arrive one by one, in any order, and become Part events; the engine puts them together. Vonage
sends what is not answered 200 or 204 again for 24 hours, with the same messageId. It signs webhooks only where that
was asked for; then `signature_secret` is set, every webhook must be signed and fresh. Else it must know the channel's
token. A send has no id that Vonage would know again, and the SMS API lists nothing: an SMS whose fate is unknown is
sent at most once, and is an operator's to look up (dead letters, "uncertain").

Vonage splits a long text into messages with a status each. If it took some of them and not others, the SMS is refused
as a whole: sent again, its beginning would arrive twice. What an SMS costs is the sum of the messages' prices (in euros),
as it is accepted. Receipts have a `price` too, of one message each; only the first of an SMS's brings something new, so it is
not read.

Sources: Vonage's guides to inbound SMS, delivery receipts, signing messages and troubleshooting; its OpenAPI
description of the SMS API; the package vonage-http-client 1.5. Assumption: a retry carries a new timestamp and
signature; if it does not, `fresh_s` may be raised to a day, since a repeated messageId changes nothing.

What Vonage signs is &name=value for each parameter, with & and = in values made _, and names as they are. So a name with
either in it could stand for several parameters, and is refused; Vonage's own have none. That a text's & = and _ sign alike
is Vonage's, and cannot be told apart.
"""

import hashlib
import hmac
import re
from base64 import b64encode
from collections.abc import Container, Mapping, Sequence
from hmac import compare_digest
from typing import Annotated, Literal
from urllib.parse import parse_qsl, quote

import msgspec
from msgspec import Meta

from engine.model.events import (
    DeliveryReceipt,
    InboundEvent,
    InboundSms,
    OutboundSms,
    ProviderStop,
    SmsPart,
    SmsState,
)
from engine.model.segments import is_gsm
from engine.providers import (
    AccountAnswer,
    AccountState,
    BaseUrl,
    ChannelFault,
    ForgedWebhookError,
    NumberUnreachable,
    OptedOutAtProvider,
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
    our_sms_id,
    parse_cost_micros,
    parse_credit,
    parse_segments,
    unread_account_reply,
)
from engine.providers.surrogates import decode_json

ACCEPTED_STATUS = "0"

OUTCOMES_BY_CODE: dict[str, type[RetryLater | ChannelFault | NumberUnreachable | OptedOutAtProvider]] = {
    "1": RetryLater,  # throttled
    "4": ChannelFault,  # invalid credentials
    "5": RetryLater,  # internal error
    "7": NumberUnreachable,  # number barred
    "8": ChannelFault,  # account barred
    "9": ChannelFault,  # no credit
    "10": RetryLater,  # too many connections
    "11": ChannelFault,  # account not enabled for HTTP
    "13": RetryLater,  # communication failed, not submitted
    "14": ChannelFault,  # invalid signature
    "23": ChannelFault,  # invalid callback URL: PARLEY_PUBLIC_URL
    "32": ChannelFault,  # both signature and secret
    "33": NumberUnreachable,  # number deactivated
    "34": NumberUnreachable,  # invalid recipient
    "101": OptedOutAtProvider,  # the person left a US short code's campaign
}
"""What a message's status means, where it is neither success (0) nor the SMS's own fault (every other code, such as 2
and 3: a parameter, 6: unknown prefix, 12: too long, 15: this sender may not be used there, 22: network code, 29: an
account on trial may only text its own numbers)."""

KNOWN_CODES = frozenset((*OUTCOMES_BY_CODE, "2", "3", "6", "12", "15", "22", "29"))
"""The statuses in its documentation."""

STATES_BY_STATUS: dict[str, SmsState] = {
    "accepted": "sent",
    "buffered": "sent",
    "delivered": "delivered",
    "expired": "failed",
    "failed": "failed",
    "rejected": "failed",
    "deleted": "failed",
    "undeliverable": "failed",
}
"""What a receipt's status says; `unknown` says nothing."""

OPTED_OUT_CODE = "9"
"""The receipt's err-code if the person asked not to get these SMS."""

PERMANENT_CODES = frozenset(("3", "4", "12", "14"))
"""Err-codes of numbers that get no SMS, now or later."""

WHYS_BY_CODE = {
    "1": "no reason is known",
    "2": "the phone is switched off or out of reach",
    "3": "this number is no longer in use",
    "4": "the person's network bars SMS to this number",
    "5": "the number is being moved between networks",
    "6": "a carrier's spam filter stopped it",
    "7": "the phone was busy",
    "8": "the network failed",
    "9": "the person does not want SMS from here",
    "10": "something is wrong with the SMS",
    "11": "Vonage has no route to this number",
    "12": "there is no way to this number",
    "13": "the person is too young for it",
    "14": "the person's carrier blocks SMS to this number",
    "15": "the person's prepaid credit is used up",
    "99": "the route failed",
}

PRICE_CURRENCY = "EUR"
"""Vonage's prices and balances are in euros."""

MOST_PARTS_OF_ONE_SMS = 255
MOST_WEBHOOK_PARAMETERS = 100

_TIMESTAMP_PATTERN = re.compile(r"[0-9]{1,12}")
_PART_NUMBER = re.compile(r"[0-9]{1,3}")
_SIGNED_VALUE_ESCAPES = str.maketrans("&=", "__")
_SEPARATOR_PATTERN = re.compile("[&=]")


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """An account with Vonage, or with what speaks as Vonage does."""

    url: Annotated[BaseUrl, Meta(description="Vonage's SMS API")] = "https://rest.nexmo.com"
    key: Annotated[str, Meta(min_length=1, description="the account's API key")]
    secret: Annotated[str, Meta(min_length=1, description="the account's API secret")]
    signature_secret: Annotated[
        str, Meta(description="the secret of signed webhooks; if it is set, every webhook must be signed")
    ] = ""
    signature_method: Annotated[
        Literal["md5hash", "md5", "sha1", "sha256", "sha512"],
        Meta(description="how webhooks are signed: md5hash, or an HMAC with one of the others"),
    ] = "md5hash"


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a channel with Vonage may say in parley.toml."""

    fresh_s: Annotated[
        int,
        Meta(
            ge=1, le=86_400, description="seconds by which a signed webhook's timestamp may differ from now"
        ),
    ] = 300


class _VonageMessage(msgspec.Struct, rename="kebab"):
    status: str | int = ""
    message_id: str = ""
    error_text: str = ""
    remaining_balance: msgspec.Raw = msgspec.Raw()
    message_price: msgspec.Raw = msgspec.Raw()


class _VonageBalance(msgspec.Struct):
    value: msgspec.Raw = msgspec.Raw()


class _VonageReply(msgspec.Struct):
    messages: list[_VonageMessage] = []


class _VonageSend(msgspec.Struct, rename={"client_ref": "client-ref"}, omit_defaults=True):
    api_key: str
    api_secret: str
    to: str
    text: str
    client_ref: str
    sender: str = msgspec.field(name="from")
    type: str = "text"
    callback: str = ""


_encode_send = msgspec.json.Encoder().encode
_decode_reply = msgspec.json.Decoder(_VonageReply).decode
_decode_balance = msgspec.json.Decoder(_VonageBalance).decode
_decode_fields = msgspec.json.Decoder(dict[str, object]).decode


LONGEST_CALLBACK = 100
"""Characters of `callback` in the SMS API's reference."""


def _callback_warnings(callback: str) -> tuple[str, ...]:
    """The URL is not shown: the token may stand in it."""
    if len(callback) <= LONGEST_CALLBACK:
        return ()
    found = f"the URL that Vonage is to call has {len(callback)} characters, and it takes {LONGEST_CALLBACK}"
    return (
        f"{found}: shorten PARLEY_PUBLIC_URL or the channel's name, or sign webhooks: then it has no token",
    )


class Vonage:
    """The codec of one channel."""

    recourse: Recourse = "none"
    known_codes: Container[str] = KNOWN_CODES
    replies_inline = False
    required_mention = ""
    webhook_response = WebhookResponse()

    def __init__(self, place: ProviderChannel, account: Account, options: Options) -> None:
        self.url = account.url.rstrip("/")
        self._send_url = f"{self.url}/sms/json"
        self._key = str(
            account.key
        )  # settings' secrets are strings of their own, which msgspec does not write
        self._secret = str(account.secret)
        self._number = place.number
        self._token = place.token.encode()
        self._signature_secret = account.signature_secret.encode()
        self._method = account.signature_method
        self._fresh_s = options.fresh_s
        token = "" if account.signature_secret else f"?token={quote(place.token, safe='')}"
        self._callback = place.webhook_url and place.webhook_url + token
        self.settings_warnings = _callback_warnings(self._callback)

    def write_account_request(self) -> ProviderRequest:
        login = b64encode(f"{self._key}:{self._secret}".encode()).decode()
        return ProviderRequest(f"{self.url}/account/get-balance", {"Authorization": f"Basic {login}"})

    def read_account_reply(self, status: int, body: bytes) -> AccountAnswer:
        """The balance: `{"value": 10.28, "autoReload": false}`."""
        try:
            reply = _decode_balance(body)
        except (ValueError, RecursionError):
            return unread_account_reply(status, "Vonage")
        credit = parse_credit(bytes(reply.value)) if status == 200 else None
        return unread_account_reply(status, "Vonage") if credit is None else AccountState(credit, "EUR")

    def verify_webhook(self, call: WebhookCall) -> None:
        """Raises ForgedWebhookError unless `call` is signed and fresh or, where nothing is signed, knows the token."""
        try:
            fields = _webhook_fields(call) if self._signature_secret else _parse_form(call.query)
        except UnreadableWebhookError as e:
            raise ForgedWebhookError(str(e)) from e
        if self._signature_secret:
            self._verify_signature(fields, call.now)
        elif not compare_digest(fields.get("token", "").encode(), self._token):
            raise ForgedWebhookError("the channel's token is missing in the URL, or wrong")

    def read_webhook(self, channel: str, call: WebhookCall) -> list[tuple[str, InboundEvent]]:
        """An SMS, a part of one, or a receipt, with a stop beside it if that is the reason. Raises UnreadableWebhookError."""
        fields = _webhook_fields(call)
        message, person = fields.get("messageId", ""), fields.get("msisdn", "")
        if not message or not person.strip():
            raise UnreadableWebhookError(
                "the webhook has no messageId or no msisdn: is it one of Vonage's SMS API?"
            )
        if "status" in fields and "text" not in fields:
            return _receipt_events(channel, message, person, fields)
        return [(person, _sms_event(channel, message, fields))]

    def write_send_request(self, sms: OutboundSms, now: float) -> ProviderRequest:
        """A request to send. `client-ref` comes back with each receipt, whichever message of a long SMS it is for."""
        body = _VonageSend(
            api_key=self._key,
            api_secret=self._secret,
            sender=(sms.originator or self._number).removeprefix("+"),
            to=sms.to.removeprefix("+"),
            text=sms.text,
            type="text" if is_gsm(sms.text) else "unicode",
            client_ref=sms.id,
            callback=self._callback,
        )
        return ProviderRequest(self._send_url, {"Content-Type": "application/json"}, _encode_send(body))

    def read_send_reply(self, status: int, body: bytes) -> SendOutcome:
        """What the reply means: 200 even for errors, with a status for each message that the text was split into."""
        if status in (401, 403):
            return ChannelFault(f"http {status}", "Vonage refuses the login")
        if status == 429:
            return RetryLater("http 429", "Vonage has too much to do")
        if 400 <= status < 500 and status != 408:
            return SendRejected(f"http {status}", "Vonage refuses the request")
        try:
            messages = _decode_reply(body).messages if status == 200 else []
        except (ValueError, RecursionError):
            messages = []
        if not messages:
            return OutcomeUnknown(f"http {status}", "Vonage did not say whether it has the SMS")
        return _outcome_of_parts(messages)

    def _verify_signature(self, fields: Mapping[str, str], now: float) -> None:
        given, stamp = fields.get("sig", ""), fields.get("timestamp", "")
        if not given or not _TIMESTAMP_PATTERN.fullmatch(stamp):
            raise ForgedWebhookError(
                "sig or timestamp is missing: has Vonage been asked to sign this account's webhooks?"
            )
        if any(map(_SEPARATOR_PATTERN.search, fields)):
            raise ForgedWebhookError("a parameter's name has & or = in it: it would sign like several")
        signed = "".join(
            f"&{key}={value.translate(_SIGNED_VALUE_ESCAPES)}"
            for key, value in sorted(fields.items())
            if key != "sig"
        )
        if not compare_digest(
            self._compute_signature(signed.encode(errors="replace")), given.lower().encode(errors="replace")
        ):
            raise ForgedWebhookError(
                "sig is wrong: are PARLEY_VONAGE_SIGNATURE_SECRET and _METHOD those of the account?"
            )
        if abs(now - int(stamp)) > self._fresh_s:
            raise ForgedWebhookError(f"the webhook's timestamp is more than {self._fresh_s} s from now")

    def _compute_signature(self, signed: bytes) -> bytes:
        if self._method == "md5hash":
            digest = hashlib.md5(signed + self._signature_secret)  # noqa: S324 (Vonage's choice)
            return digest.hexdigest().encode()
        return hmac.digest(self._signature_secret, signed, self._method).hex().encode()


def make_provider(place: ProviderChannel, account: Account, options: Options) -> Vonage:
    """The provider of a channel. Raises UnusableChannelError."""
    if not account.signature_secret and not place.token:
        raise UnusableChannelError(
            "anyone could speak for Vonage: expected token_env "
            "(and ?token=... in the URL that Vonage calls), or PARLEY_VONAGE_SIGNATURE_SECRET"
        )
    return Vonage(place, account, options)


def _outcome_of_parts(messages: Sequence[_VonageMessage]) -> SendOutcome:
    refused = [message for message in messages if str(message.status) != ACCEPTED_STATUS]
    if not refused:
        cost_micros = sum(parse_cost_micros(bytes(message.message_price)) for message in messages)
        return SendAccepted(
            messages[0].message_id,
            parse_credit(bytes(messages[-1].remaining_balance)),
            parse_segments(str(len(messages))),
            cost_micros,
            PRICE_CURRENCY if cost_micros else "",
        )
    code, why = str(refused[0].status), refused[0].error_text
    if len(refused) < len(messages):
        taken = len(messages) - len(refused)
        return SendRejected(code, f"Vonage took {taken} of the SMS's {len(messages)} parts: {why}")
    return OUTCOMES_BY_CODE.get(code, SendRejected)(code, why)


def _sms_event(channel: str, message: str, fields: Mapping[str, str]) -> InboundSms | SmsPart:
    """An SMS, or a part of one; what says that it is a part and not which is taken for a whole."""
    text, to = fields.get("text", ""), fields.get("to", "")
    if fields.get("concat", "").lower() == "true":
        reference, number, total = (fields.get(f"concat-{name}", "") for name in ("ref", "part", "total"))
        if (
            _PART_NUMBER.fullmatch(number)
            and _PART_NUMBER.fullmatch(total)
            and 1 <= int(number) <= int(total) <= MOST_PARTS_OF_ONE_SMS
        ):
            return SmsPart(
                event_id("part", channel, message), channel, text, reference, int(number), int(total), to
            )
    return InboundSms(event_id("sms", channel, message), channel, text, originator=to)


def _receipt_events(
    channel: str, message: str, person: str, fields: Mapping[str, str]
) -> list[tuple[str, InboundEvent]]:
    status, code = fields["status"].lower(), fields.get("err-code", "")
    if code == "0":
        code = ""
    state = STATES_BY_STATUS.get(status, "")
    receipt = DeliveryReceipt(
        event_id("receipt", channel, message, status),
        channel,
        message,
        status,
        state,
        code,
        WHYS_BY_CODE.get(code, ""),
        permanent=state == "failed" and code in PERMANENT_CODES,
        sms=our_sms_id(fields.get("client-ref", "")),
    )
    events: list[tuple[str, InboundEvent]] = [(person, receipt)]
    if state == "failed" and code == OPTED_OUT_CODE:
        events.append((person, ProviderStop(event_id("stop", channel, message), channel)))
    return events


def _webhook_fields(call: WebhookCall) -> dict[str, str]:
    """The parameters: the query's of a GET, else the body's, JSON or a form. Raises UnreadableWebhookError."""
    if call.method == "GET":
        return _parse_form(call.query)
    body = call.body.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not body.startswith(b"{"):
        return _parse_form(body)
    try:
        return {key: str(value) for key, value in decode_json(_decode_fields, body).items()}
    except (ValueError, RecursionError) as e:
        raise UnreadableWebhookError("the body is neither a form nor a JSON object") from e


def _parse_form(written: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            written.decode(errors="replace"),
            keep_blank_values=True,
            errors="replace",
            max_num_fields=MOST_WEBHOOK_PARAMETERS,
        )
    except ValueError as e:
        raise UnreadableWebhookError(f"more than {MOST_WEBHOOK_PARAMETERS} parameters") from e
    return dict(pairs)
