"""The events that change a lane, and the records of what changed. Inbound events come from providers, the API and
operators through the mailbox; records are written to the archive stream by `advance` and by the delivery worker.
Both are msgpack arrays: a field may be appended with a default, never moved or removed, so that a release decodes
what the previous one wrote. Times are milliseconds since 1970 (UTC), by the Redis server's clock."""

from collections.abc import Callable
from hashlib import blake2b
from typing import Literal, TypeVar

import msgspec


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """`raw` is what the person wrote, unchanged; `value` is how it was read.

    A choice's `value` is the option's id and `index` its 0-based place; several choices' are tuples of both. Each type
    writes its values in one way, whatever was written: a date as YYYY-MM-DD, a phone number as E.164.
    """

    raw: str
    value: str | int | float | bool | tuple[str, ...]
    index: int = -1
    indexes: tuple[int, ...] = ()


class Attachment(msgspec.Struct, frozen=True, array_like=True):
    """What came with an SMS and is no text (MMS): its media type, and where the provider keeps it."""

    media_type: str
    url: str


MOST_ATTACHMENTS = 10
"""Of one SMS: so many Twilio's MMS may have. Further ones are dropped."""


HandledCommand = Literal["", "stop", "help", "start"]
"""The command that a provider recognised in an SMS and answered by itself; empty: none."""


class InboundSms(msgspec.Struct, frozen=True, array_like=True, tag="sms"):
    """One SMS from a person (MO).

    `id` is 16 hex digits, the same whenever the provider sends the same SMS again. `start` says that ingest
    recognised a survey's keyword and that the rate-limit worker admits it. `reply_to` is the provider's ticket of
    the SMS that this one answers, if it told us. `handled`: the provider has taken it for this command, has answered
    the person, and after a "stop" will not text them until a "start". `originator` is the channel's sub-number that
    the person wrote to; empty: its own number. `may_be_stop`: ingest has seen that it may be a STOP, whatever is being
    asked, so that nothing is sent past it while it waits to be read.
    """

    id: str
    channel: str
    text: str
    start: bool = False
    reply_to: str = ""
    handled: HandledCommand = ""
    originator: str = ""
    may_be_stop: bool = False
    attachments: tuple[Attachment, ...] = ()


class SmsPart(msgspec.Struct, frozen=True, array_like=True, tag="part"):
    """One part of a long SMS whose parts the provider hands over one by one, in any order.

    `reference` is the same in all `total` parts of an SMS, and used again for later ones; `number` counts from 1.
    """

    id: str
    channel: str
    text: str
    reference: str
    number: int
    total: int
    originator: str = ""
    attachments: tuple[Attachment, ...] = ()


class ProviderStop(msgspec.Struct, frozen=True, array_like=True, tag="stop"):
    """An opt-out that reached us other than by an SMS: from the provider (`source` empty), or from an operator's
    list, which `source` names. The person gets no confirmation."""

    id: str
    channel: str
    text: str = ""
    source: str = ""


SmsState = Literal["", "sent", "failed", "delivered"]
"""What a receipt says of an SMS, in the order in which a state may follow another; empty: nothing new."""


class DeliveryReceipt(msgspec.Struct, frozen=True, array_like=True, tag="receipt"):
    """A provider's delivery receipt for one of our SMS. `ticket` is the provider's id of that SMS; `sms` is ours,
    where the provider repeats it; `status` is the provider's own word. `permanent`: the number cannot get SMS, now
    or later. `segments` and `cost_micros` (millionths of `currency`, or of the account's unit if that is empty) are what
    the provider counts for the SMS; 0: it does not say."""

    id: str
    channel: str
    ticket: str
    status: str
    state: SmsState = ""
    code: str = ""
    why: str = ""
    permanent: bool = False
    sms: str = ""
    segments: int = 0
    cost_micros: int = 0
    currency: str = ""


class CancelSession(msgspec.Struct, frozen=True, array_like=True, tag="cancel"):
    """The inviter cancels a session: it ends, and its SMS that have not left are withdrawn."""

    id: str
    channel: str
    session: str


def cancel_event_id(session: str) -> str:
    """Return the id of the event that cancels a session: the same, however often it is wanted."""
    return blake2b(session.encode(), digest_size=8, person=b"cancel").hexdigest()


def derive_session_id(channel: str, reference: str) -> str:
    """Return the id of the session that is asked for under a reference."""
    return blake2b(f"{channel}\0{reference}".encode(), digest_size=8, person=b"invitation").hexdigest()


class Invitation(msgspec.Struct, frozen=True, array_like=True, tag="invitation"):
    """We ask this person, who need not have written before, to take `survey`.

    `language` is used if the survey has it. `content` opens the first SMS. `variables` are the session's, their keys
    in any case. `expires_at` (ms) ends the session; 0: the survey's own `expires` does. `reference` is the inviter's.
    `originator` is the channel's sub-number that the session has for its own; empty: the channel's number, or a free
    sub-number if the person has a session there. `campaign` is the inviter's name of what it belongs to. `asked_at` (ms)
    is when it was accepted, by the clock of `web`, `not_before` (ms) the time that was asked for; 0: as soon as may be.
    `starts_after` (ms) is what the inviter was told of its turn; 0: nothing.
    """

    id: str
    channel: str
    survey: str
    language: str = ""
    content: str = ""
    variables: dict[str, str] = {}
    expires_at: int = 0
    reference: str = ""
    originator: str = ""
    campaign: str = ""
    asked_at: int = 0
    not_before: int = 0
    starts_after: int = 0


InboundEvent = InboundSms | SmsPart | ProviderStop | DeliveryReceipt | Invitation | CancelSession


class Mail(msgspec.Struct, frozen=True):
    """An inbound event as it lies in a mailbox: the event, and when it was accepted."""

    at: int
    event: InboundEvent


class OutboundSms(msgspec.Struct, frozen=True, array_like=True):
    """One SMS that a lane decided to send (MT).

    `id` is letters and digits only (Octopush's `request_id` allows no more): the id of the event or session that
    caused it, a letter, and a number. It never changes between tries. `originator` is the sub-number that it comes
    from; empty: the channel's number. `uncertain`: it may have been sent already, so whoever sends it asks first.
    `decided` (ms) is when; `heard` (ms) when the event was accepted whose first answer it is, 0 for any other SMS.
    `unasked`: an invitation's, which yields to replies. `survey` is whose text it is.
    """

    id: str
    channel: str
    to: str
    text: str
    session: str = ""
    originator: str = ""
    uncertain: bool = False
    decided: int = 0
    heard: int = 0
    unasked: bool = False
    survey: str = ""


def session_sms_id(session: str, number: int) -> str:
    """The id of a session's SMS: which of them it is counts from 0."""
    return f"{session}x{number}"


def session_of_sms_id(identity: str) -> str:
    """The session of an SMS with this id; empty if it is of none."""
    session, x, _ = identity.rpartition("x")
    return session if x else ""


RefusalReason = Literal[
    "throttled",
    "daily_cap",
    "cooldown",
    "new_sessions",
    "sms_budget",
    "already_open",
    "opted_out",
    "unknown_survey",
    "expired",
    "cancelled",
]
"""Why a START or an invitation opened nothing."""

SessionEnding = Literal[
    "completed", "expired", "idle", "gave_up", "stopped", "restarted", "exhausted", "cancelled", "unreachable"
]
"""How a session ended."""


class SessionOpened(msgspec.Struct, frozen=True, array_like=True, tag="opened"):
    at: int
    channel: str
    session: str
    survey: str
    version: str
    language: str
    originator: str = ""
    variables: dict[
        str, str
    ] = {}  # what the channel tells a session about the person, beside an invitation's


class SessionInvited(msgspec.Struct, frozen=True, array_like=True, tag="invited"):
    """The session was opened by an invitation, and by this one."""

    at: int
    channel: str
    session: str
    invitation: Invitation


class SmsReceived(msgspec.Struct, frozen=True, array_like=True, tag="heard"):
    """An SMS from the person was applied; `session` is empty if it belonged to none.

    If it answers `step`, `answer` is how it was read, by a reader of `answer_type` (the survey file's word). Records of
    0.1.0 have neither: what was answered stands in their SessionEnded alone.
    """

    at: int
    channel: str
    session: str
    id: str
    text: str
    reply_to: str = ""
    handled: HandledCommand = ""
    originator: str = ""
    step: str = ""
    answer: Answer | None = None
    answer_type: str = ""
    attachments: tuple[Attachment, ...] = ()


class AnswerRejected(msgspec.Struct, frozen=True, array_like=True, tag="misread"):
    """The SMS just received could not be read as an answer to `step`; `why` is the reader's reason."""

    at: int
    channel: str
    session: str
    step: str
    why: str


SmsKind = Literal["", "ask", "reask", "remind", "say", "fixed"]
"""What an SMS to a person is for: a question, the same again after an invalid answer, a reminder of it, a statement, or a
fixed text. Empty: a record of 0.1.0, which does not say."""


class SmsDecided(msgspec.Struct, frozen=True, array_like=True, tag="said"):
    """An SMS to the person was decided. `step` is a step's id, or the name of a fixed text: `kind` says which."""

    at: int
    channel: str
    session: str
    id: str
    step: str
    text: str
    kind: SmsKind = ""


class SmsSent(msgspec.Struct, frozen=True, array_like=True, tag="sent"):
    """The provider accepted an SMS and gave it a ticket. `segments` and `cost_micros` as in DeliveryReceipt."""

    at: int
    channel: str
    session: str
    id: str
    ticket: str
    segments: int = 0
    cost_micros: int = 0
    currency: str = ""


class SmsNotSent(msgspec.Struct, frozen=True, array_like=True, tag="unsent"):
    """An SMS will not be sent: the provider refused it, its tries are used up, or it was withdrawn. `code` says
    which, `why` in words."""

    at: int
    channel: str
    session: str
    id: str
    code: str
    why: str


class OpeningRefused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """A START or an invitation opened nothing. `invitation` is the one that did not, if it could be read."""

    at: int
    channel: str
    id: str
    reason: RefusalReason
    invitation: Invitation | None = None


class SessionEnded(msgspec.Struct, frozen=True, array_like=True, tag="ended"):
    """A session is over. `answers` are the person's, by step, and its variables, by "$" and key: the result."""

    at: int
    channel: str
    session: str
    how: SessionEnding
    answers: dict[str, Answer] = {}
    why: str = ""  # what the provider said, if the number is unreachable


class PersonOptedOut(msgspec.Struct, frozen=True, array_like=True, tag="opted_out"):
    """Evidence of an opt-out: the id of the event that carried it, its text as written, and whether it came from the
    provider (`by_provider`) or an operator's list (`source`)."""

    at: int
    channel: str
    id: str
    text: str
    by_provider: bool = False
    source: str = ""


class PersonOptedIn(msgspec.Struct, frozen=True, array_like=True, tag="opted_in"):
    at: int
    channel: str
    id: str


class ReceiptRecorded(msgspec.Struct, frozen=True, array_like=True, tag="receipt"):
    """A provider's receipt that brought something new. Fields as in Receipt."""

    at: int
    channel: str
    ticket: str
    status: str
    state: SmsState = ""
    code: str = ""
    why: str = ""
    sms: str = ""
    segments: int = 0
    cost_micros: int = 0
    currency: str = ""


class DeadLetterAdded(msgspec.Struct, frozen=True, array_like=True, tag="dead_letter"):
    """An event or SMS (`kind`) that could not be handled was put aside as the dead letter `id`, as `parley dead` names it; one
    that fails again keeps its place, and is not told of. Fields as in DeadLetter.

    Release 0.1.0 does not know it: so it is never in a list with others (config/store/event_entries.py).
    """

    at: int
    channel: str
    session: str
    id: str
    kind: str
    reason: str
    survey: str = ""
    code: str = ""
    why: str = ""


ArchiveRecord = (
    SessionOpened
    | SessionInvited
    | SmsReceived
    | AnswerRejected
    | SmsDecided
    | SmsSent
    | SmsNotSent
    | OpeningRefused
    | SessionEnded
    | PersonOptedOut
    | PersonOptedIn
    | ReceiptRecorded
    | DeadLetterAdded
)

PUBLISHED_NAMES: dict[type[InboundEvent | OutboundSms | ArchiveRecord], str] = {
    InboundSms: "Sms",
    SmsPart: "Part",
    ProviderStop: "ProviderStop",
    DeliveryReceipt: "Receipt",
    Invitation: "Invitation",
    CancelSession: "Cancel",
    OutboundSms: "Outbound",
    SessionOpened: "Opened",
    SessionInvited: "Invited",
    SmsReceived: "Heard",
    AnswerRejected: "Misread",
    SmsDecided: "Said",
    SmsSent: "Sent",
    SmsNotSent: "Unsent",
    OpeningRefused: "Refused",
    SessionEnded: "Ended",
    PersonOptedOut: "OptedOut",
    PersonOptedIn: "OptedIn",
    ReceiptRecorded: "Delivered",
    DeadLetterAdded: "DeadLetter",
}
"""What events and records are called where people and programs read them: `--json`, metric labels, `parley dead show`."""


def kind_of(event: InboundEvent | OutboundSms | ArchiveRecord) -> str:
    """Return an event's or record's published name in lower case, as JSON and metric labels spell it."""
    return PUBLISHED_NAMES[type(event)].lower()


_encoder = msgspec.msgpack.Encoder()
encode_event = _encoder.encode


_T = TypeVar("_T")


def _with_msgspec_errors(decode: Callable[[bytes], _T]) -> Callable[[bytes], _T]:
    """Wrap `decode` so that it raises only msgspec.MsgspecError. msgspec itself raises UnicodeDecodeError for text
    that is not UTF-8 and RecursionError for deep nesting."""

    def decode_or_raise(blob: bytes) -> _T:
        try:
            return decode(blob)
        except (UnicodeDecodeError, RecursionError) as e:
            raise msgspec.DecodeError(str(e)) from e

    return decode_or_raise


decode_inbound = _with_msgspec_errors(msgspec.msgpack.Decoder(InboundEvent).decode)
decode_outbound = _with_msgspec_errors(msgspec.msgpack.Decoder(OutboundSms).decode)
decode_records = _with_msgspec_errors(msgspec.msgpack.Decoder(list[ArchiveRecord]).decode)
