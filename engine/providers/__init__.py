"""Providers: one file each, both directions, no I/O.

A provider checks and reads webhooks into events, writes sends into HTTP requests, and reads the reply to a send into
one of a closed set of outcomes. An outcome carries its decision; nothing outside this folder knows an error code.
"""

import re
from collections.abc import Container, Iterable, Sequence
from decimal import Decimal
from hashlib import blake2b
from itertools import islice
from math import isfinite
from typing import Annotated, Literal, Protocol, assert_never, runtime_checkable

import msgspec
from msgspec import Meta

from engine.model.errors import ParleyError
from engine.model.events import MOST_ATTACHMENTS, Attachment, InboundEvent, OutboundSms

BaseUrl = Annotated[
    str,
    Meta(
        pattern=r"^https?://[^\s/?#@:]+[^\s?#@]*\Z",
        extra={"expected": "http:// or https://, a host, and the base path, without ? and #"},
    ),
]
"""Where a provider's API is; it may end in a slash."""

HeaderText = Annotated[
    str,
    Meta(
        pattern=r"^[!-~]([ -~]*[!-~])?\Z",
        extra={"expected": "printable ASCII without blanks at its ends, as it goes into an HTTP header"},
    ),
]

SecretText = Annotated[str, Meta(extra={"secret": True})]
"""An option `x` of this type is not written into parley.toml: `x_env` there names the variable that holds it."""


class ProviderChannel(msgspec.Struct, frozen=True):
    """A channel, as far as its provider needs to know it. `number` and `originators` are as parley.toml has them.

    `token` is what `token_env` names; empty if it names nothing. `webhook_url` is what the provider calls, without a
    query; empty if PARLEY_PUBLIC_URL is not set.
    """

    channel: str
    number: str
    token: str = ""
    originators: tuple[str, ...] = ()
    webhook_url: str = ""


class UnusableChannelError(ParleyError):
    """A channel's settings cannot work with its provider. `problems` are lines: what was found, what was expected.

    They follow "config/parley.toml: channels.<name>: ", and hold no secret.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class ForgedWebhookError(ParleyError):
    """A webhook does not prove that it comes from the provider: 403. The message says what is missing or wrong."""


class UnreadableWebhookError(ParleyError):
    """A webhook's body is none of the provider's forms. The message is a sentence for the provider's operator."""


class WebhookCall(msgspec.Struct, frozen=True):
    """A webhook as it came in. `query` is without its question mark, header names are lower case, as ASGI has both.

    `now` is in seconds since 1970, by the clock of the machine that was called.
    """

    method: str
    query: bytes
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    now: float

    def header(self, name: bytes) -> bytes | None:
        """The first header called `name`."""
        return next((value for known, value in self.headers if known == name), None)


class WebhookResponse(msgspec.Struct, frozen=True):
    """How a webhook is answered whose events are in their mailboxes."""

    status: int = 200
    content_type: str = ""
    body: bytes = b""


class SendAccepted(msgspec.Struct, frozen=True):
    """The provider has the SMS. `ticket` ties receipts and replies to it; empty if an earlier try got it. `credit` is what
    is left in the account, in the provider's unit, if it says so. `segments`, `cost_micros` and `currency` are as in
    DeliveryReceipt. Costs of an acceptance and of the receipt that ends an SMS are added: a provider says them in one place."""

    ticket: str
    credit: float | None = None
    segments: int = 0
    cost_micros: int = 0
    currency: str = ""


class RetryLater(msgspec.Struct, frozen=True):
    """Nothing is wrong with the SMS and the provider does not have it; the same request may be made again later.
    `this_sms_only`: it says nothing of other SMS, such as a limit of one number."""

    code: str
    why: str
    this_sms_only: bool = False


class OutcomeUnknown(msgspec.Struct, frozen=True):
    """The outcome of the send is unknown: the provider may have the SMS. Its `recourse` says whether it is repeated,
    looked up or given up. `this_sms_only`: the failure says nothing of other SMS."""

    code: str
    why: str
    this_sms_only: bool = False


class SendRejected(msgspec.Struct, frozen=True):
    """This SMS will never be accepted as it is: to the dead letters with it."""

    code: str
    why: str


class NumberUnreachable(msgspec.Struct, frozen=True):
    """This number will never get an SMS: its session is over."""

    code: str
    why: str


class ChannelFault(msgspec.Struct, frozen=True):
    """The account, not the SMS, is at fault (credit, login): the channel pauses and its SMS wait."""

    code: str
    why: str


class OptedOutAtProvider(msgspec.Struct, frozen=True):
    """The provider will not text this person, who told it to stop."""

    code: str
    why: str


SendOutcome = (
    SendAccepted
    | RetryLater
    | OutcomeUnknown
    | SendRejected
    | NumberUnreachable
    | ChannelFault
    | OptedOutAtProvider
)


class AccountState(msgspec.Struct, frozen=True):
    """The provider knows the account, and its keys are right. `credit` is what is left in it, None if that is not said;
    `unit` of what, in the provider's words."""

    credit: float | None = None
    unit: str = ""


AccountAnswer = AccountState | ChannelFault | OutcomeUnknown
"""What a provider says of an account that it is asked for."""


Recourse = Literal["repeat", "look_up", "none"]
"""What to do with an SMS that the provider may have: `repeat` it (the provider drops an id that it has had),
`look_up` whether it has it, or `none`: never send it again."""


class SmsNotFound(msgspec.Struct, frozen=True):
    """The provider does not have the SMS that was looked up: it may be sent."""


class ProviderRequest(msgspec.Struct, frozen=True):
    """A request to make; without a body, a GET."""

    url: str
    headers: dict[str, str]
    body: bytes = b""


class Provider(Protocol):
    """What ingest and the delivery worker need of a provider, for one channel."""

    url: str  # what it is sent to lies under here: proxies and certificates of the environment go by it
    recourse: Recourse  # with "look_up", it is a LookupProvider
    known_codes: Container[str]  # what an outcome's code may be, of the codes that are the provider's own
    replies_inline: bool  # replies may go into the answer to a webhook (ingest/webhooks/inline_replies.py)
    webhook_response: WebhookResponse
    settings_warnings: tuple[str, ...]  # what an operator should know of settings that are no mistake
    required_mention: str  # a word without which the provider refuses a text; mostly empty

    def verify_webhook(self, call: WebhookCall) -> None:
        """Raises ForgedWebhookError unless the provider made this call."""
        ...

    def read_webhook(self, channel: str, call: WebhookCall) -> list[tuple[str, InboundEvent]]:
        """The (sender as the provider wrote it, event) pairs in a verified webhook. Raises UnreadableWebhookError."""
        ...

    def write_send_request(self, sms: OutboundSms, now: float) -> ProviderRequest:
        """The request that sends `sms`, made `now` (seconds since 1970)."""
        ...

    def read_send_reply(self, status: int, body: bytes) -> SendOutcome:
        """What the reply to that request means."""
        ...


class LookupProvider(Provider, Protocol):
    """A provider that can be asked which SMS it has."""

    def write_lookup_request(self, sms: OutboundSms, since: float) -> ProviderRequest:
        """The request that asks for what was sent to that number from `since` (seconds) on."""
        ...

    def read_lookup_reply(
        self, sms: OutboundSms, since: float, status: int, body: bytes, known: Container[str]
    ) -> SendOutcome | SmsNotFound:
        """What the reply to that request says of `sms`; tickets in `known` belong to other SMS."""
        ...


@runtime_checkable
class AccountProvider(Provider, Protocol):
    """A provider that can be asked whether it knows the account."""

    def write_account_request(self) -> ProviderRequest:
        """The request that asks for the account, or what is left in it. It changes nothing."""
        ...

    def read_account_reply(self, status: int, body: bytes) -> AccountAnswer:
        """What the reply to that request means."""
        ...


def event_id(*parts: str, key: bytes = b"") -> str:
    """An event's id, the same whenever a provider says the same of it."""
    return blake2b("\0".join(parts).encode(errors="replace"), digest_size=8, key=key).hexdigest()


def unread_account_reply(status: int, provider: str) -> AccountAnswer:
    """What a reply means that does not tell of the account: the keys are wrong, or nobody knows."""
    if status in (401, 403, 404):
        return ChannelFault(f"http {status}", f"{provider} does not know the account, or its keys")
    return OutcomeUnknown(f"http {status}", f"{provider}'s answer is not one that we know")


def our_sms_id(said: str) -> str:
    """The id of an SMS of ours, as a provider repeats it; empty if it cannot be one."""
    return said if said.isalnum() and said.isascii() else ""


def parse_credit(written: bytes | str) -> float | None:
    """What is left in an account, of a number in JSON or in a text; None if that is not what it is."""
    try:
        found = float(msgspec.json.decode(written, type=str | float, strict=False))
    except (ValueError, RecursionError):
        return None
    return found if isfinite(found) else None


LONGEST_MEDIA_TYPE, LONGEST_MEDIA_URL = 255, 2_048
"""Characters of an attachment's. RFC 6838 allows a media type 127 on either side of its slash."""


def bounded_attachments(found: Iterable[tuple[str, str]]) -> tuple[Attachment, ...]:
    """Return the first MOST_ATTACHMENTS of (media type, URL). A media type that is too long is cut; a URL that is, is left
    out, as a part of it leads nowhere. Nothing is fetched."""
    return tuple(
        Attachment(media_type[:LONGEST_MEDIA_TYPE], url if len(url) <= LONGEST_MEDIA_URL else "")
        for media_type, url in islice(found, MOST_ATTACHMENTS)
    )


MOST_SEGMENTS, MOST_COST = 255, 1_000_000
"""Of one SMS; what it costs is in whatever currency."""

_COUNT = re.compile(r"[0-9]{1,3}")
_AMOUNT = re.compile(r"[0-9]{1,12}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?")
_CURRENCY = re.compile(r"[A-Z]{3}")
_MILLIONTH = Decimal("0.000001")


def parse_segments(written: bytes | str) -> int:
    """How many segments an SMS has, of a number in JSON or in a text; 0 if that is not what it is."""
    text = _number_text(written)
    found = int(text) if _COUNT.fullmatch(text) else 0
    return found if found <= MOST_SEGMENTS else 0


def parse_cost_micros(written: bytes | str) -> int:
    """Millionths of an amount of money, of a number in JSON or in a text, rounded to the nearest; 0 if that is not what it
    is, or it is more than MOST_COST. Decimals are read as they are written, never as a float."""
    text = _number_text(written)
    amount = Decimal(text) if _AMOUNT.fullmatch(text) else Decimal(0)
    return int(amount.quantize(_MILLIONTH).scaleb(6)) if amount <= MOST_COST else 0


def parse_currency(written: bytes | str) -> str:
    """An ISO 4217 code, of a text or a text in JSON; empty if that is not what it is."""
    text = _number_text(written).upper()
    return text if _CURRENCY.fullmatch(text) else ""


def _number_text(written: bytes | str) -> str:
    """What is written, without the quotation marks that JSON puts around a text."""
    text = written.decode("ascii", "replace") if isinstance(written, bytes) else written
    return text.strip(' "')


JsonScalar = str | int | float | bool | None
"""What providers write where a text is meant."""


def scalar_text(value: JsonScalar) -> str:
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
