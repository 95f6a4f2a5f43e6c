"""Twilio's Programmable Messaging: its webhooks, its REST API of 2010-04-01, and its error codes.

A webhook is signed over the public URL and every parameter, whether we know it or not; what we sign must be what
Twilio called, so the URL comes from the settings and never from the request. An SMS has an id of Twilio's own, so a
webhook that is repeated is the same event. Creating a message has no such id: what became of a request without an
answer is looked up among the messages sent to that number before anything is sent again.

Sources: the request validator of the `twilio` package 9.13 and its tests; twilio-oai 2.6.7 (twilio_api_v2010);
Twilio's pages on webhook requests, opt-out keywords, and error codes. Assumptions, each with its option or table here:
- the default opt-out words are answered by Twilio itself (`default_keywords`); toll-free numbers' network does the same;
- a list of messages has the newest first; one that still waits has no date sent, so the list is not asked for by date;
- a price is negative, as it leaves the account. Twilio knows it only some time after it took a message, so that mostly only
  a message that was looked up has one; status callbacks have none. Through a messaging service segments are 0 at first;
- an HTTP status of 5xx may hide a message that was created; 429, and 503 with code 20429, never do.
"""

import re
import unicodedata
from base64 import b64encode
from collections.abc import Container, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from hashlib import sha256
from hmac import compare_digest
from hmac import digest as hmac_digest
from typing import Annotated, Literal
from urllib.parse import unquote_to_bytes, urlencode, urlsplit
from xml.sax.saxutils import escape, quoteattr

import msgspec
from msgspec import Meta

from engine.model.events import (
    MOST_ATTACHMENTS,
    Attachment,
    DeliveryReceipt,
    HandledCommand,
    InboundEvent,
    InboundSms,
    OutboundSms,
    ProviderStop,
    SmsState,
)
from engine.providers import (
    AccountAnswer,
    AccountState,
    BaseUrl,
    ChannelFault,
    ForgedWebhookError,
    JsonScalar,
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
    SmsNotFound,
    UnreadableWebhookError,
    UnusableChannelError,
    WebhookCall,
    WebhookResponse,
    bounded_attachments,
    event_id,
    our_sms_id,
    parse_cost_micros,
    parse_credit,
    parse_currency,
    parse_segments,
    scalar_text,
    unread_account_reply,
)
from engine.providers.surrogates import decode_json

NEVER_PROCESSED_CODE = "20429"
"""Too many requests: the one code after which nothing was created, even with an HTTP status of 5xx."""

LOOP_PROTECTION_CODE = "14107"
"""Loop protection: the one code to be repeated later that says nothing of other numbers."""

_SendFailure = type[RetryLater | ChannelFault | NumberUnreachable | OptedOutAtProvider]

OUTCOMES_BY_CODE: dict[int, _SendFailure] = {
    14107: RetryLater,  # too many replies to one number in 30 s: loop protection
    20003: ChannelFault,  # permission denied: login
    20005: ChannelFault,  # account not active
    20404: ChannelFault,  # no such account
    20429: RetryLater,  # too many requests at once; never processed
    21211: NumberUnreachable,  # To is no phone number
    21212: ChannelFault,  # From is no number of the account
    21603: ChannelFault,  # From is missing
    21610: OptedOutAtProvider,  # the recipient is unsubscribed
    21611: RetryLater,  # the sender's queue of ten hours is full
    21612: NumberUnreachable,  # no way from this From to this To
    21614: NumberUnreachable,  # To is no mobile
    21659: ChannelFault,  # From is no Twilio number
    21660: ChannelFault,  # From belongs to another account
    21701: ChannelFault,  # no such messaging service
    21703: ChannelFault,  # the messaging service has no numbers
    30001: RetryLater,  # queue overflow
    30002: ChannelFault,  # account suspended
    30005: NumberUnreachable,  # unknown destination handset
    30006: NumberUnreachable,  # landline, or a carrier that cannot be reached
    30017: RetryLater,  # carrier congested
    30022: RetryLater,  # rate of the US 10DLC campaign exceeded
    30023: RetryLater,  # daily cap of the US carrier reached
    63038: ChannelFault,  # the account's daily number of messages is reached
}
"""What an error code means, where it is not the SMS's own fault (every other code, such as 21408: region not enabled,
21602: no body, 21606: this From cannot send there, 21608: a trial account's unverified To, 21617: too long)."""

KNOWN_CODES = frozenset(map(str, (*OUTCOMES_BY_CODE, 21408, 21602, 21606, 21608, 21617)))

STATES_BY_STATUS: dict[str, SmsState] = {
    "sent": "sent",
    "partially_delivered": "sent",
    "delivered": "delivered",
    "read": "delivered",
    "failed": "failed",
    "undelivered": "failed",
    "canceled": "failed",
}
"""What a message's status says; accepted, scheduled, queued and sending say nothing new."""

WHYS_BY_CODE = {
    "21211": "this is no phone number",
    "21610": "the person has opted out with Twilio",
    "21612": "Twilio has no way to this number",
    "21614": "this is no mobile number",
    "30003": "the phone is switched off or out of reach",
    "30004": "the recipient or the carrier blocks it",
    "30005": "this number is unknown",
    "30006": "this is a landline, or its carrier cannot be reached",
    "30007": "the carrier filtered it out",
    "30008": "the carrier gave no reason",
    "30034": "the US number is not registered for 10DLC",
}
"""Reasons in a status callback, which carries the code alone."""

TWILIO_STOP_WORDS = frozenset(("STOP", "UNSUBSCRIBE", "END", "QUIT", "STOPALL", "REVOKE", "OPTOUT", "CANCEL"))
TWILIO_HELP_WORDS = frozenset(("HELP", "INFO"))
TWILIO_START_WORDS = frozenset(("START", "YES", "UNSTOP"))
"""Twilio answers these by default, if they are the whole SMS."""

LONGEST_MESSAGE = 1_600
"""Characters of a message."""

MOST_WEBHOOK_PARAMETERS = 1_000
LOOKUP_PAGE_SIZE = 200
"""Messages that one look-up lists, newest first."""

CLOCK_DIFFERENCE_S = 300.0
"""How far Twilio's clock and ours may be apart."""

_ERROR_CODE = re.compile(r"[0-9]{1,6}")
_SHORT_CODE = re.compile(r"\+[0-9]{3,6}")
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SMART_ENCODING = str.maketrans(
    "\u2018\u2019\u201a\u201c\u201d\u201e\u2013\u2014", "'''\"\"\"--"
)  # quotes and dashes
_SIGNATURE_ALGORITHMS = {"HMAC_SHA1": "sha1", "HMAC_SHA256": "sha256"}

FormPairs = Sequence[tuple[bytes, bytes]]


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """An account with Twilio, or with what speaks as Twilio does."""

    url: Annotated[BaseUrl, Meta(description="Twilio's API")] = "https://api.twilio.com"
    sid: Annotated[
        str,
        Meta(
            pattern=r"^AC[0-9a-fA-F]{32}\Z",
            description="the account's SID, AC and 32 hex digits",
            extra={"expected": "AC and 32 hex digits"},
        ),
    ]
    token: Annotated[str, Meta(min_length=1, description="the account's auth token: it signs webhooks")]
    key_sid: Annotated[str, Meta(description="an API key's SID, to send with instead of the auth token")] = ""
    key_secret: Annotated[str, Meta(description="that API key's secret")] = ""
    shared_keys: Annotated[
        str, Meta(description="keys of webhooks signed with SHA-256: id=secret, separated by commas")
    ] = ""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a channel with Twilio may say in parley.toml."""

    messaging_service: Annotated[
        str,
        Meta(
            pattern=r"^(MG[0-9a-fA-F]{32})?\Z",
            description="send through this messaging service instead of `number`",
            extra={"expected": "MG and 32 hex digits, or nothing"},
        ),
    ] = ""
    default_keywords: Annotated[
        bool,
        Meta(
            description="Twilio answers STOP and HELP itself; "
            "false for short codes, or if it was switched off"
        ),
    ] = True
    answer: Annotated[
        Literal["api", "twiml"],
        Meta(
            description="replies go through the API, "
            "or into the webhook's answer if they are there within 3 s"
        ),
    ] = "api"
    validity_s: Annotated[
        int,
        Meta(ge=0, le=36_000, description="seconds that Twilio may hold an SMS in its queue; 0: ten hours"),
    ] = 0
    content_retention: Annotated[
        Literal["retain", "discard"], Meta(description="whether Twilio keeps texts")
    ] = "retain"
    address_retention: Annotated[
        Literal["retain", "obfuscate"], Meta(description="whether Twilio keeps recipients' numbers")
    ] = "retain"


class _TwilioMessage(msgspec.Struct):
    """A message, or an error in either of Twilio's two shapes (its own, and RFC 9457)."""

    sid: JsonScalar = None
    code: JsonScalar = None
    message: JsonScalar = None
    title: JsonScalar = None
    detail: JsonScalar = None
    num_segments: msgspec.Raw = msgspec.Raw()
    price: msgspec.Raw = msgspec.Raw()
    price_unit: msgspec.Raw = msgspec.Raw()


class _TwilioBalance(msgspec.Struct):
    balance: str | None = None
    currency: str | None = None


class _ListedMessage(msgspec.Struct):
    sid: str
    direction: str
    status: str
    date_created: str
    to: str | None = None
    body: str | None = None
    error_code: JsonScalar = None
    num_segments: msgspec.Raw = msgspec.Raw()
    price: msgspec.Raw = msgspec.Raw()
    price_unit: msgspec.Raw = msgspec.Raw()


class _MessagePage(msgspec.Struct):
    messages: list[_ListedMessage]
    next_page_uri: str | None = None


_decode_message = msgspec.json.Decoder(_TwilioMessage).decode
_decode_balance = msgspec.json.Decoder(_TwilioBalance).decode
_decode_page = msgspec.json.Decoder(_MessagePage).decode
_decode_fields = msgspec.json.Decoder(dict[str, object]).decode


class Twilio:
    """The codec of one channel."""

    known_codes: Container[str] = KNOWN_CODES
    webhook_response = WebhookResponse(200, "text/xml", b"<Response/>")
    settings_warnings = ()
    required_mention = ""

    def __init__(self, place: ProviderChannel, account: Account, options: Options) -> None:
        self.replies_inline = options.answer == "twiml"
        self.recourse: Recourse = "look_up" if _keeps_messages(options) else "none"
        self._webhook_url = place.webhook_url
        self._signed_urls = [url.encode() for url in _with_and_without_port(place.webhook_url)]
        self._token = account.token.encode()
        self._shared_keys = _shared_keys(account.shared_keys)
        self._number = place.number
        self._service = options.messaging_service
        self._default_keywords = options.default_keywords
        self._fixed = _fixed_fields(options)
        self.url = account.url.rstrip("/")
        self._messages_url = f"{self.url}/2010-04-01/Accounts/{account.sid}/Messages.json"
        self._balance_url = f"{self.url}/2010-04-01/Accounts/{account.sid}/Balance.json"
        login = (
            f"{account.key_sid}:{account.key_secret}" if account.key_sid else f"{account.sid}:{account.token}"
        )
        self._login = {"Authorization": "Basic " + b64encode(login.encode()).decode()}
        self._form = {"Content-Type": "application/x-www-form-urlencoded", **self._login}

    def verify_webhook(self, call: WebhookCall) -> None:
        """Raises ForgedWebhookError unless `call` carries Twilio's signature of this channel's URL and of all that is in it."""
        given = call.header(b"x-twilio-signature")
        if not given:
            raise ForgedWebhookError("the header X-Twilio-Signature is missing: is this Twilio?")
        if call.query.count(b"&") + call.body.count(b"&") >= MOST_WEBHOOK_PARAMETERS:
            raise ForgedWebhookError(f"more than {MOST_WEBHOOK_PARAMETERS} parameters")
        secret, algorithm = self._signing_secret(call.header(b"x-twilio-webhooks-signature-settings"))
        rest = (b"?" + call.query if call.query else b"") + _signed_parameters(call)
        for url in self._signed_urls:
            if compare_digest(b64encode(hmac_digest(secret, url + rest, algorithm)), given):
                return
        raise ForgedWebhookError(
            "X-Twilio-Signature is wrong: "
            "is PARLEY_PUBLIC_URL what Twilio calls, and PARLEY_TWILIO_TOKEN its token?"
        )

    def read_webhook(self, channel: str, call: WebhookCall) -> list[tuple[str, InboundEvent]]:
        """An SMS, or what became of one of ours: a receipt, and a stop beside it if that is the reason."""
        fields = _webhook_fields(call)
        sid = fields.get("MessageSid") or fields.get("SmsSid") or fields.get("SmsMessageSid", "")
        if not sid:
            raise UnreadableWebhookError("the webhook has no MessageSid: is it one of Twilio's Messaging?")
        status = (fields.get("MessageStatus") or fields.get("SmsStatus", "")).lower()
        if status in ("", "receiving", "received"):
            return [self._sms_event(channel, sid, fields)]
        return self._receipt_events(channel, sid, status, fields, _callback_sms_id(call.query))

    def write_send_request(self, sms: OutboundSms, now: float) -> ProviderRequest:
        """A message to create."""
        fields = {"To": _twilio_number(sms.to), "Body": sms.text, **self._sender_fields(sms), **self._fixed}
        if self._webhook_url:
            fields["StatusCallback"] = self._callback_url(sms)
        return ProviderRequest(self._messages_url, self._form, urlencode(fields).encode())

    def read_send_reply(self, status: int, body: bytes) -> SendOutcome:
        """What the reply to a message's creation means."""
        reply = _decode_reply(body)
        if 200 <= status < 300:
            sid = scalar_text(reply.sid)
            if not sid:
                return OutcomeUnknown(f"http {status}", "Twilio's reply has no sid")
            return _accepted(sid, reply)
        code = scalar_text(reply.code)
        why = scalar_text(reply.message) or scalar_text(reply.detail) or scalar_text(reply.title)
        known = _failure_of_code(code)
        if known and (status < 500 or code == NEVER_PROCESSED_CODE):
            return (
                RetryLater(code, why, this_sms_only=True)
                if code == LOOP_PROTECTION_CODE
                else known(code, why)
            )
        if status == 429:
            return RetryLater(code or "http 429", why or "Twilio has too much to do")
        if status in (401, 403, 404):
            return ChannelFault(
                code or f"http {status}", why or "Twilio does not know the account, or its login"
            )
        if status < 400 or status == 408 or status >= 500:
            return OutcomeUnknown(
                code or f"http {status}", why or "Twilio did not say whether it has the SMS"
            )
        return SendRejected(code or f"http {status}", why or "Twilio refuses the SMS")

    def write_account_request(self) -> ProviderRequest:
        return ProviderRequest(self._balance_url, self._login)

    def read_account_reply(self, status: int, body: bytes) -> AccountAnswer:
        """The balance: `{"account_sid": "AC…", "balance": "12.54", "currency": "USD"}`; an account under another has none of its
        own."""
        try:
            reply = _decode_balance(body)
        except (ValueError, RecursionError):
            return unread_account_reply(status, "Twilio")
        if status != 200:
            return unread_account_reply(status, "Twilio")
        return AccountState(parse_credit(reply.balance or ""), reply.currency or "")

    def write_lookup_request(self, sms: OutboundSms, since: float) -> ProviderRequest:
        """The newest messages to that number, whenever they were sent: one that waits has no date sent yet."""
        asked = {"To": _twilio_number(sms.to), "PageSize": str(LOOKUP_PAGE_SIZE)}
        if not self._service:
            asked["From"] = self._sender_fields(sms)["From"]
        return ProviderRequest(f"{self._messages_url}?{urlencode(asked)}", self._login)

    def read_lookup_reply(
        self, sms: OutboundSms, since: float, status: int, body: bytes, known: Container[str]
    ) -> SendOutcome | SmsNotFound:
        """The oldest message from `since` on that says what `sms` says and is no other SMS's."""
        if status != 200:
            return OutcomeUnknown(f"http {status}", "Twilio does not list its messages")
        try:
            page = _decode_page(body)
            dates = [_parse_date(message.date_created) for message in page.messages]
        except (ValueError, RecursionError):
            return OutcomeUnknown("unreadable", "Twilio's list of messages is not one that we know")
        recent = [
            message
            for message, at in zip(page.messages, dates, strict=True)
            if at >= since - CLOCK_DIFFERENCE_S
        ]
        to, text = _twilio_number(sms.to), _comparable_text(sms.text)
        for message in reversed(recent):
            theirs = message.to == to and message.direction.startswith("outbound")
            if theirs and message.sid not in known and _comparable_text(message.body or "") == text:
                return _listed_outcome(message)
        if page.next_page_uri and len(recent) == len(page.messages):
            why = f"the last {LOOKUP_PAGE_SIZE} messages to this number do not reach back far enough"
            return OutcomeUnknown("many", why, this_sms_only=True)
        return SmsNotFound()

    def write_inline_replies(self, replies: Sequence[OutboundSms]) -> WebhookResponse:
        """A webhook's answer with these SMS in it, in this order."""
        messages = "".join(self._message_xml(sms) for sms in replies)
        twiml = f'<?xml version="1.0" encoding="UTF-8"?><Response>{messages}</Response>'
        return WebhookResponse(200, "text/xml", twiml.encode())

    def fits_inline(self, sms: OutboundSms) -> bool:
        """Can `sms` go into a webhook's answer? Twilio drops what is too long or says nothing, and tells nobody."""
        return len(sms.text) <= LONGEST_MESSAGE and bool(_comparable_text(sms.text))

    def _signing_secret(self, settings: bytes | None) -> tuple[bytes, str]:
        """The secret and the hash of a signature, by the header that says so; without one, the token and SHA-1."""
        if settings is None:
            return self._token, _SIGNATURE_ALGORITHMS["HMAC_SHA1"]
        said = dict(_split_pair(part) for part in settings.decode("latin-1").split(","))
        algorithm = _SIGNATURE_ALGORITHMS.get((said.get("algorithm") or "HMAC_SHA1").upper())
        if algorithm is None:
            raise ForgedWebhookError(
                "X-Twilio-Webhooks-Signature-Settings names an algorithm other than HMAC_SHA1 and HMAC_SHA256"
            )
        key = said.get("key")
        if not key:
            return self._token, algorithm
        if key not in self._shared_keys:
            raise ForgedWebhookError(
                "X-Twilio-Webhooks-Signature-Settings names a key that PARLEY_TWILIO_SHARED_KEYS has not"
            )
        return self._shared_keys[key], algorithm

    def _sms_event(self, channel: str, sid: str, fields: dict[str, str]) -> tuple[str, InboundEvent]:
        sender = fields.get("From", "")
        if not sender.strip():
            raise UnreadableWebhookError("the webhook has no From")
        text = fields.get("Body", "")
        handled = self._handled_command(text, fields.get("OptOutType", ""))
        return sender, InboundSms(
            event_id("sms", channel, sid),
            channel,
            text,
            handled=handled,
            originator=fields.get("To", ""),
            attachments=_attachments(fields),
        )

    def _handled_command(self, text: str, opt_out_type: str) -> HandledCommand:
        """The command that Twilio has answered itself."""
        said = opt_out_type.upper()
        if not said and self._default_keywords:
            said = text.strip().upper()
        if said in TWILIO_STOP_WORDS:
            return "stop"
        if said in TWILIO_HELP_WORDS:
            return "help"
        return "start" if said in TWILIO_START_WORDS else ""

    def _receipt_events(
        self, channel: str, sid: str, status: str, fields: dict[str, str], ours: str
    ) -> list[tuple[str, InboundEvent]]:
        recipient = fields.get("To", "")
        if not recipient.strip():
            raise UnreadableWebhookError("the status callback has no To")
        state, code = STATES_BY_STATUS.get(status, ""), fields.get("ErrorCode", "")
        if code == "0":
            code = ""
        meaning = _failure_of_code(code)
        receipt = DeliveryReceipt(
            event_id("receipt", channel, sid, status),
            channel,
            sid,
            status,
            state,
            code,
            fields.get("ErrorMessage") or WHYS_BY_CODE.get(code, ""),
            permanent=state == "failed" and meaning is NumberUnreachable,
            sms=ours,
        )
        events: list[tuple[str, InboundEvent]] = [(recipient, receipt)]
        if meaning is OptedOutAtProvider:
            events.append((recipient, ProviderStop(event_id("stop", channel, sid), channel)))
        return events

    def _sender_fields(self, sms: OutboundSms) -> dict[str, str]:
        if not self._service:
            return {"From": _twilio_number(sms.originator or self._number)}
        chosen = {"From": _twilio_number(sms.originator)} if sms.originator else {}
        return {"MessagingServiceSid": self._service, **chosen}

    def _callback_url(self, sms: OutboundSms) -> str:
        return f"{self._webhook_url}?sms={sms.id}"

    def _message_xml(self, sms: OutboundSms) -> str:
        sender = self._sender_fields(sms).get("From", "")
        attributes = {"to": _twilio_number(sms.to), "from": sender, "statusCallback": self._callback_url(sms)}
        written = "".join(f" {name}={quoteattr(value)}" for name, value in attributes.items() if value)
        return f"<Message{written}>{_escape_xml(sms.text)}</Message>"


def make_provider(place: ProviderChannel, account: Account, options: Options) -> Twilio:
    """The provider of a channel. Raises UnusableChannelError."""
    problems = []
    if not place.webhook_url:
        problems.append("PARLEY_PUBLIC_URL is not set: expected it, as Twilio signs the URL that it calls")
    if bool(account.key_sid) != bool(account.key_secret):
        problems.append(
            "one of PARLEY_TWILIO_KEY_SID and PARLEY_TWILIO_KEY_SECRET is not set: expected both or none"
        )
    if any(not all(_split_pair(each)) for each in account.shared_keys.split(",") if each.strip()):
        problems.append("PARLEY_TWILIO_SHARED_KEYS cannot be read: expected id=secret, separated by commas")
    if options.answer == "twiml" and not _keeps_messages(options):
        problems.append(
            'answer = "twiml" needs Twilio to keep texts and numbers, where lost answers are looked up: '
            'expected content_retention and address_retention to be "retain"'
        )
    if problems:
        raise UnusableChannelError(*problems)
    return Twilio(place, account, options)


def _keeps_messages(options: Options) -> bool:
    """Can a message be found again by its text and its recipient?"""
    return options.content_retention == "retain" and options.address_retention == "retain"


def _with_and_without_port(url: str) -> list[str]:
    """`url` as it is, and with its scheme's port added or its own left out: Twilio signs one or the other."""
    parts = urlsplit(url)
    if parts.port is None:
        port = 443 if parts.scheme == "https" else 80
        return [url, parts._replace(netloc=f"{parts.netloc}:{port}").geturl()]
    return [url, parts._replace(netloc=parts.netloc.rpartition(":")[0]).geturl()]


def _shared_keys(written: str) -> dict[str, bytes]:
    return {name: secret.encode() for name, secret in map(_split_pair, written.split(",")) if name and secret}


def _split_pair(written: str) -> tuple[str, str]:
    name, _, value = written.partition("=")
    return name.strip(), value.strip()


def _fixed_fields(options: Options) -> dict[str, str]:
    """What every message of a channel says; what is Twilio's default is left out."""
    fields: dict[str, str] = {}
    if options.validity_s:
        fields["ValidityPeriod"] = str(options.validity_s)
    if options.content_retention != "retain":
        fields["ContentRetention"] = options.content_retention
    if options.address_retention != "retain":
        fields["AddressRetention"] = options.address_retention
    return fields


def _signed_parameters(call: WebhookCall) -> bytes:
    """What a signature covers beside the URL: nothing of a GET; of a form, each distinct value of each key, in order.

    Another body's hash is in the URL. Raises ForgedWebhookError if the hash is wrong.
    """
    if call.method == "GET":
        return b""
    if (said := _body_hash(call.query)) is not None:
        if not compare_digest(sha256(call.body).hexdigest().encode(), said.lower()):
            raise ForgedWebhookError("bodySHA256 is not the hash of the body")
        return b""
    return b"".join(key + value for key, value in sorted(set(_form_pairs(call.body))))


def _body_hash(query: bytes) -> bytes | None:
    if b"bodySHA256=" not in query:
        return None
    return next((value for key, value in _form_pairs(query) if key == b"bodySHA256"), None)


@lru_cache(2)  # a webhook is verified, then read
def _form_pairs(written: bytes) -> FormPairs:
    """A form's pairs; blank values are values. In bytes, since that is what was signed."""
    pairs = []
    for part in written.replace(b"+", b" ").split(b"&"):
        key, _, value = part.partition(b"=")
        if b"%" in part:
            key, value = unquote_to_bytes(key), unquote_to_bytes(value)
        if part:
            pairs.append((key, value))
    return pairs


def _webhook_fields(call: WebhookCall) -> dict[str, str]:
    """The parameters of a verified call; of several values of one, the first. Raises UnreadableWebhookError."""
    if call.method == "GET":
        return _decode_pairs(_form_pairs(call.query))
    if _body_hash(call.query) is None:
        return _decode_pairs(_form_pairs(call.body))
    try:
        said = decode_json(_decode_fields, call.body)
    except (ValueError, RecursionError) as e:
        raise UnreadableWebhookError("the body is no JSON object") from e
    return {key: scalar_text(value) for key, value in said.items() if isinstance(value, str | int | float)}


def _decode_pairs(fields: FormPairs) -> dict[str, str]:
    return {key.decode(errors="replace"): value.decode(errors="replace") for key, value in reversed(fields)}


def _callback_sms_id(query: bytes) -> str:
    """The id of our SMS, from the URL that we gave for its status callbacks."""
    said = next((value for key, value in _form_pairs(query) if key == b"sms"), b"")
    return our_sms_id(said.decode(errors="replace"))


def _decode_reply(body: bytes) -> _TwilioMessage:
    try:
        return _decode_message(body)
    except (ValueError, RecursionError):
        return _TwilioMessage()


def _attachments(fields: Mapping[str, str]) -> tuple[Attachment, ...]:
    """What came with an MMS. Its URLs are Twilio's, and may want the account's login."""
    if fields.get("NumMedia", "0") == "0":
        return ()
    found = [
        (fields.get(f"MediaContentType{n}", ""), fields.get(f"MediaUrl{n}", ""))
        for n in range(MOST_ATTACHMENTS)
    ]
    return bounded_attachments(pair for pair in found if any(pair))


def _parse_date(date: str) -> float:
    """An RFC 2822 date in seconds since 1970; Twilio's are GMT, whether they say so or not. Raises ValueError."""
    at = parsedate_to_datetime(date)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _listed_outcome(message: _ListedMessage) -> SendOutcome:
    """What became of a message that Twilio has."""
    code = scalar_text(message.error_code)
    meaning = _failure_of_code(code)
    if STATES_BY_STATUS.get(message.status) == "failed" and (
        meaning is NumberUnreachable or meaning is OptedOutAtProvider
    ):
        return meaning(code, WHYS_BY_CODE.get(code, ""))
    return _accepted(message.sid, message)


def _accepted(sid: str, message: _TwilioMessage | _ListedMessage) -> SendAccepted:
    segments = parse_segments(bytes(message.num_segments))
    cost_micros = parse_cost_micros(bytes(message.price).strip(b'"').removeprefix(b"-"))
    currency = parse_currency(bytes(message.price_unit)) if cost_micros else ""
    return SendAccepted(sid, None, segments, cost_micros, currency)


def _failure_of_code(code: str) -> _SendFailure | None:
    return OUTCOMES_BY_CODE.get(int(code)) if _ERROR_CODE.fullmatch(code) else None


def _twilio_number(number: str) -> str:
    """A number as Twilio has it: a short code has no plus."""
    return number.removeprefix("+") if _SHORT_CODE.fullmatch(number) else number


def _comparable_text(text: str) -> str:
    """What is left of a text however Twilio stores it: its smart encoding and its XML reader change some characters."""
    folded = unicodedata.normalize("NFKC", _NOT_IN_XML.sub("", text)).translate(_SMART_ENCODING)
    return " ".join(folded.split())


def _escape_xml(text: str) -> str:
    """Text in XML, without what XML cannot hold."""
    return escape(_NOT_IN_XML.sub("", text), {"\r": "&#13;"})
