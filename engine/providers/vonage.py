"""Vonage's SMS API (once Nexmo): its webhooks, by GET, form or JSON, and `sms/json`.

The parts of a long SMS arrive one by one, in any order, and become Part events; the engine puts them together. Vonage
sends what is not answered 200 or 204 again for 24 hours, with the same messageId. It signs webhooks only where that
was asked for; then `signature_secret` is set, every webhook must be signed and fresh. Else it must know the channel's
token. A send has no id that Vonage would know again, and the SMS API lists nothing: an SMS whose fate is unknown is
sent at most once, and is an operator's to look up (dead letters, "uncertain").

Vonage splits a long text into messages with a status each. If it took some of them and not others, the SMS is refused
as a whole: sent again, its beginning would arrive twice.

Sources: Vonage's guides to inbound SMS, delivery receipts, signing messages and troubleshooting; its OpenAPI
description of the SMS API; the package vonage-http-client 1.5. Assumption: a retry carries a new timestamp and
signature; if it does not, `fresh_s` may be raised to a day, since a repeated messageId changes nothing.
"""

import hashlib
import hmac
import re
from collections.abc import Container, Mapping, Sequence
from hmac import compare_digest
from typing import Annotated, Literal
from urllib.parse import parse_qsl, quote

import msgspec
from msgspec import Meta

from engine.model.events import Inbound, Outbound, Part, ProviderStop, Receipt, Sms, SmsState
from engine.model.segments import is_gsm
from engine.providers import (
    Accepted,
    Acknowledgement,
    Call,
    ChannelFault,
    Forged,
    OptedOutThere,
    Outcome,
    Place,
    Recourse,
    Rejected,
    Request,
    RetryLater,
    Unknown,
    Unreachable,
    Unreadable,
    Unusable,
    Url,
    amount,
    event_id,
    our_id,
)
from engine.providers.surrogates import decode

ACCEPTED = "0"

OUTCOMES: dict[str, type[RetryLater | ChannelFault | Unreachable | OptedOutThere]] = {
    "1": RetryLater,  # throttled
    "4": ChannelFault,  # invalid credentials
    "5": RetryLater,  # internal error
    "7": Unreachable,  # number barred
    "8": ChannelFault,  # account barred
    "9": ChannelFault,  # no credit
    "10": RetryLater,  # too many connections
    "11": ChannelFault,  # account not enabled for HTTP
    "13": RetryLater,  # communication failed, not submitted
    "14": ChannelFault,  # invalid signature
    "23": ChannelFault,  # invalid callback URL: PARLEY_PUBLIC_URL
    "32": ChannelFault,  # both signature and secret
    "33": Unreachable,  # number deactivated
    "34": Unreachable,  # invalid recipient
    "101": OptedOutThere,  # the person left a US short code's campaign
}
"""What a message's status means, where it is neither success (0) nor the SMS's own fault (every other code, such as 2
and 3: a parameter, 6: unknown prefix, 12: too long, 15: this sender may not be used there, 22: network code, 29: an
account on trial may only text its own numbers)."""

CODES = frozenset((*OUTCOMES, "2", "3", "6", "12", "15", "22", "29"))
"""The statuses in its documentation."""

STATES: dict[str, SmsState] = {
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

OPTED_OUT = "9"
"""The receipt's err-code if the person asked not to get these SMS."""

PERMANENT = frozenset(("3", "4", "12", "14"))
"""Err-codes of numbers that get no SMS, now or later."""

WHYS = {
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

MOST_PARTS = 255
MOST_FIELDS = 100

_STAMP = re.compile(r"[0-9]{1,12}")
_COUNT = re.compile(r"[0-9]{1,3}")
_IN_A_VALUE = str.maketrans("&=", "__")


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """An account with Vonage, or with what speaks as Vonage does."""

    url: Annotated[Url, Meta(description="Vonage's SMS API")] = "https://rest.nexmo.com"
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


class _Sent(msgspec.Struct, rename="kebab"):
    status: str | int = ""
    message_id: str = ""
    error_text: str = ""
    remaining_balance: msgspec.Raw = msgspec.Raw()


class _Reply(msgspec.Struct):
    messages: list[_Sent] = []


class _Send(msgspec.Struct, rename={"client_ref": "client-ref"}, omit_defaults=True):
    api_key: str
    api_secret: str
    to: str
    text: str
    client_ref: str
    sender: str = msgspec.field(name="from")
    type: str = "text"
    callback: str = ""


_encode = msgspec.json.Encoder().encode
_decode_reply = msgspec.json.Decoder(_Reply).decode
_decode_fields = msgspec.json.Decoder(dict[str, object]).decode


class Vonage:
    """The codec of one channel."""

    recourse: Recourse = "none"
    codes: Container[str] = CODES
    answers_in_place = False
    acknowledgement = Acknowledgement()

    def __init__(self, place: Place, account: Account, options: Options) -> None:
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

    def verify(self, call: Call) -> None:
        """Raises Forged unless `call` is signed and fresh or, where nothing is signed, knows the token."""
        try:
            fields = _fields(call) if self._signature_secret else _pairs(call.query)
        except Unreadable as e:
            raise Forged(str(e)) from e
        if self._signature_secret:
            self._verify_signature(fields, call.now)
        elif not compare_digest(fields.get("token", "").encode(), self._token):
            raise Forged("the channel's token is missing in the URL, or wrong")

    def read(self, channel: str, call: Call) -> list[tuple[str, Inbound]]:
        """An SMS, a part of one, or a receipt, with a stop beside it if that is the reason. Raises Unreadable."""
        fields = _fields(call)
        message, person = fields.get("messageId", ""), fields.get("msisdn", "")
        if not message or not person.strip():
            raise Unreadable("the webhook has no messageId or no msisdn: is it one of Vonage's SMS API?")
        if "status" in fields and "text" not in fields:
            return _receipt(channel, message, person, fields)
        return [(person, _sms(channel, message, fields))]

    def write(self, sms: Outbound, now: float) -> Request:
        """A request to send. `client-ref` comes back with each receipt, whichever message of a long SMS it is for."""
        body = _Send(
            api_key=self._key,
            api_secret=self._secret,
            sender=(sms.originator or self._number).removeprefix("+"),
            to=sms.to.removeprefix("+"),
            text=sms.text,
            type="text" if is_gsm(sms.text) else "unicode",
            client_ref=sms.id,
            callback=self._callback,
        )
        return Request(self._send_url, {"Content-Type": "application/json"}, _encode(body))

    def outcome(self, status: int, body: bytes) -> Outcome:
        """What the reply means: 200 even for errors, with a status for each message that the text was split into."""
        if status in (401, 403):
            return ChannelFault(f"http {status}", "Vonage refuses the login")
        if status == 429:
            return RetryLater("http 429", "Vonage has too much to do")
        if 400 <= status < 500 and status != 408:
            return Rejected(f"http {status}", "Vonage refuses the request")
        try:
            messages = _decode_reply(body).messages if status == 200 else []
        except (ValueError, RecursionError):
            messages = []
        if not messages:
            return Unknown(f"http {status}", "Vonage did not say whether it has the SMS")
        return _judge(messages)

    def _verify_signature(self, fields: Mapping[str, str], now: float) -> None:
        given, stamp = fields.get("sig", ""), fields.get("timestamp", "")
        if not given or not _STAMP.fullmatch(stamp):
            raise Forged(
                "sig or timestamp is missing: has Vonage been asked to sign this account's webhooks?"
            )
        signed = "".join(
            f"&{key}={value.translate(_IN_A_VALUE)}" for key, value in sorted(fields.items()) if key != "sig"
        )
        if not compare_digest(
            self._signature(signed.encode(errors="replace")), given.lower().encode(errors="replace")
        ):
            raise Forged("sig is wrong: are PARLEY_VONAGE_SIGNATURE_SECRET and _METHOD those of the account?")
        if abs(now - int(stamp)) > self._fresh_s:
            raise Forged(f"the webhook's timestamp is more than {self._fresh_s} s from now")

    def _signature(self, signed: bytes) -> bytes:
        if self._method == "md5hash":
            return hashlib.md5(signed + self._signature_secret).hexdigest().encode()  # noqa: S324 (Vonage's choice)
        return hmac.digest(self._signature_secret, signed, self._method).hex().encode()


def provider(place: Place, account: Account, options: Options) -> Vonage:
    """The provider of a channel. Raises Unusable."""
    if not account.signature_secret and not place.token:
        raise Unusable(
            "anyone could speak for Vonage: expected token_env (and ?token=... in the URL that Vonage calls), "
            "or PARLEY_VONAGE_SIGNATURE_SECRET"
        )
    return Vonage(place, account, options)


def _judge(messages: Sequence[_Sent]) -> Outcome:
    refused = [message for message in messages if str(message.status) != ACCEPTED]
    if not refused:
        return Accepted(messages[0].message_id, amount(bytes(messages[-1].remaining_balance)))
    code, why = str(refused[0].status), refused[0].error_text
    if len(refused) < len(messages):
        taken = len(messages) - len(refused)
        return Rejected(code, f"Vonage took {taken} of the SMS's {len(messages)} parts: {why}")
    return OUTCOMES.get(code, Rejected)(code, why)


def _sms(channel: str, message: str, fields: Mapping[str, str]) -> Sms | Part:
    """An SMS, or a part of one; what says that it is a part and not which is taken for a whole."""
    text, to = fields.get("text", ""), fields.get("to", "")
    if fields.get("concat", "").lower() == "true":
        reference, number, total = (fields.get(f"concat-{name}", "") for name in ("ref", "part", "total"))
        if (
            _COUNT.fullmatch(number)
            and _COUNT.fullmatch(total)
            and 1 <= int(number) <= int(total) <= MOST_PARTS
        ):
            return Part(
                event_id("part", channel, message), channel, text, reference, int(number), int(total), to
            )
    return Sms(event_id("sms", channel, message), channel, text, originator=to)


def _receipt(channel: str, message: str, person: str, fields: Mapping[str, str]) -> list[tuple[str, Inbound]]:
    status, code = fields["status"].lower(), fields.get("err-code", "")
    if code == "0":
        code = ""
    state = STATES.get(status, "")
    receipt = Receipt(
        event_id("receipt", channel, message, status),
        channel,
        message,
        status,
        state,
        code,
        WHYS.get(code, ""),
        permanent=state == "failed" and code in PERMANENT,
        sms=our_id(fields.get("client-ref", "")),
    )
    events: list[tuple[str, Inbound]] = [(person, receipt)]
    if state == "failed" and code == OPTED_OUT:
        events.append((person, ProviderStop(event_id("stop", channel, message), channel)))
    return events


def _fields(call: Call) -> dict[str, str]:
    """The parameters: the query's of a GET, else the body's, JSON or a form. Raises Unreadable."""
    if call.method == "GET":
        return _pairs(call.query)
    body = call.body.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not body.startswith(b"{"):
        return _pairs(body)
    try:
        return {key: str(value) for key, value in decode(_decode_fields, body).items()}
    except (ValueError, RecursionError) as e:
        raise Unreadable("the body is neither a form nor a JSON object") from e


def _pairs(written: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            written.decode(errors="replace"),
            keep_blank_values=True,
            errors="replace",
            max_num_fields=MOST_FIELDS,
        )
    except ValueError as e:
        raise Unreadable(f"more than {MOST_FIELDS} parameters") from e
    return dict(pairs)
