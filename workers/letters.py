"""What is a dead letter? An event or an SMS that could not be handled, with all that an operator needs to judge it."""

from typing import Literal

import msgspec

from workers.lanes import Letter

Reason = Literal[
    "undecodable", "unreadable_state", "engine_error", "worker_died",
    "unknown_channel", "rejected", "tries_exhausted", "uncertain",
]  # fmt: skip
"""`worker_died`: each worker that took it up was gone before it was done. `uncertain`: the provider may have the SMS,
and can no longer be asked by its id."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """`what` is an event (mail entry) or an SMS (outbound), as bytes; `at` ms when it was given up; `attempts` how
    often it was tried; `version` the fencing token of the state that it met."""

    id: str
    kind: Literal["event", "sms"]
    reason: Reason
    sender: str
    at: int
    attempts: int
    what: bytes
    channel: str = ""
    session: str = ""
    version: int = 0
    code: str = ""
    why: str = ""
    traceback: str = ""


_encoder = msgspec.msgpack.Encoder()
decode = msgspec.msgpack.Decoder(DeadLetter).decode


def seal(letter: DeadLetter) -> Letter:
    """The letter as a commit takes it."""
    return Letter(letter.id, _encoder.encode(letter))
