"""What happens to a lane, and what a lane says has happened.

Inbound events come from providers through the mailbox; a record is what `advance` and the delivery worker
write to the archive stream. Both are msgpack arrays: a field may be appended with a default, never moved or
removed, so that a release decodes what the previous one wrote. Times are milliseconds since 1970, UTC, by the
Redis server's clock.
"""

from typing import Literal

import msgspec


class Sms(msgspec.Struct, frozen=True, array_like=True, tag="sms"):
    """One SMS from a person (MO).

    `id` is 16 hex digits, the same whenever the provider sends the same SMS again. `start` says that ingest
    recognised a survey's keyword and that the rate-limit worker admits it. `reply_to` is the provider's ticket of
    the SMS that this one answers, if it told us.
    """

    id: str
    channel: str
    text: str
    start: bool = False
    reply_to: str = ""


class ProviderStop(msgspec.Struct, frozen=True, array_like=True, tag="stop"):
    """The provider tells us that this person opted out with it, and has confirmed it to them."""

    id: str
    channel: str
    text: str = ""


class Receipt(msgspec.Struct, frozen=True, array_like=True, tag="receipt"):
    """What became of an SMS that the provider accepted: its ticket, and the provider's own word for the state."""

    id: str
    channel: str
    ticket: str
    status: str


class Invitation(msgspec.Struct, frozen=True, array_like=True, tag="invitation"):
    """We ask this person, who need not have written before, to take `survey`.

    `language` is used if the survey has it. `content` opens the first SMS. `variables` are the session's, their keys
    in any case. `expires_at` (ms) ends the session; 0: the survey's own `expires` does. `reference` is the inviter's.
    """

    id: str
    channel: str
    survey: str
    language: str = ""
    content: str = ""
    variables: dict[str, str] = {}
    expires_at: int = 0
    reference: str = ""


Inbound = Sms | ProviderStop | Receipt | Invitation


class Mail(msgspec.Struct, frozen=True):
    """An inbound event as it lies in a mailbox: the event, and when it was accepted."""

    at: int
    event: Inbound


class Outbound(msgspec.Struct, frozen=True, array_like=True):
    """One SMS that a lane decided to send (MT).

    `id` is letters and digits only (Octopush's `request_id` allows no more): the id of the event or session that
    caused it, a letter, and a number. It never changes between tries.
    """

    id: str
    channel: str
    to: str
    text: str
    session: str = ""


Refusal = Literal[
    "throttled", "daily_cap", "cooldown", "new_sessions", "sms_budget", "already_open", "opted_out", "unknown_survey",
    "expired",
]  # fmt: skip
"""Why a START or an invitation opened nothing."""

Ending = Literal["completed", "expired", "idle", "gave_up", "stopped", "restarted", "exhausted"]
"""How a session ended."""


class Opened(msgspec.Struct, frozen=True, array_like=True, tag="opened"):
    at: int
    channel: str
    session: str
    survey: str
    version: str
    language: str


class Invited(msgspec.Struct, frozen=True, array_like=True, tag="invited"):
    """The session was opened by an invitation, and by this one."""

    at: int
    channel: str
    session: str
    invitation: Invitation


class Heard(msgspec.Struct, frozen=True, array_like=True, tag="heard"):
    """An SMS from the person was applied; `session` is empty if it belonged to none."""

    at: int
    channel: str
    session: str
    id: str
    text: str
    reply_to: str = ""


class Misread(msgspec.Struct, frozen=True, array_like=True, tag="misread"):
    """The SMS just heard was no answer to the step that was asked."""

    at: int
    channel: str
    session: str
    step: str
    why: str


class Said(msgspec.Struct, frozen=True, array_like=True, tag="said"):
    """An SMS to the person was decided. `step` is a step's id, or the name of a fixed text."""

    at: int
    channel: str
    session: str
    id: str
    step: str
    text: str


class Sent(msgspec.Struct, frozen=True, array_like=True, tag="sent"):
    """The provider accepted an SMS and gave it a ticket."""

    at: int
    channel: str
    session: str
    id: str
    ticket: str


class Unsent(msgspec.Struct, frozen=True, array_like=True, tag="unsent"):
    """An SMS will not leave: refused by the provider, given up, or withdrawn by a STOP."""

    at: int
    channel: str
    session: str
    id: str
    code: str
    why: str


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """A START or an invitation opened nothing."""

    at: int
    channel: str
    id: str
    reason: Refusal


class Ended(msgspec.Struct, frozen=True, array_like=True, tag="ended"):
    at: int
    channel: str
    session: str
    how: Ending


class OptedOut(msgspec.Struct, frozen=True, array_like=True, tag="opted_out"):
    """Evidence of a STOP: the event that carried it, its text as written, and whether the provider told us."""

    at: int
    channel: str
    id: str
    text: str
    by_provider: bool = False


class OptedIn(msgspec.Struct, frozen=True, array_like=True, tag="opted_in"):
    at: int
    channel: str
    id: str


class Delivered(msgspec.Struct, frozen=True, array_like=True, tag="receipt"):
    """A provider's receipt, as it came."""

    at: int
    channel: str
    ticket: str
    status: str


Record = (
    Opened
    | Invited
    | Heard
    | Misread
    | Said
    | Sent
    | Unsent
    | Refused
    | Ended
    | OptedOut
    | OptedIn
    | Delivered
)

_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
decode_inbound = msgspec.msgpack.Decoder(Inbound).decode
decode_outbound = msgspec.msgpack.Decoder(Outbound).decode
decode_records = msgspec.msgpack.Decoder(list[Record]).decode
