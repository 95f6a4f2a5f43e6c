"""Providers: one file each, both directions, no I/O.

A provider reads webhooks into events and writes sends into HTTP requests, and reads the reply to a send into one
of a closed set of outcomes. An outcome carries its decision; nothing outside this folder knows an error code.
"""

from typing import Protocol

import msgspec

from engine.events import Inbound, Outbound


class Unreadable(Exception):
    """A webhook's body is none of the provider's forms. The message is a sentence for the provider's operator."""


class Accepted(msgspec.Struct, frozen=True):
    """The provider has the SMS. `ticket` ties receipts and replies to it; empty if an earlier try got it."""

    ticket: str


class RetryLater(msgspec.Struct, frozen=True):
    """Nothing is wrong with the SMS; the same request may be made again later, with the same id."""

    code: str
    why: str


class Rejected(msgspec.Struct, frozen=True):
    """This SMS will never be accepted as it is: to the dead letters with it."""

    code: str
    why: str


class ChannelFault(msgspec.Struct, frozen=True):
    """The account, not the SMS, is at fault (credit, login): the channel pauses and its SMS wait."""

    code: str
    why: str


class OptedOutThere(msgspec.Struct, frozen=True):
    """The provider will not text this person, who told it to stop."""

    code: str
    why: str


Outcome = Accepted | RetryLater | Rejected | ChannelFault | OptedOutThere


class Request(msgspec.Struct, frozen=True):
    """A POST to make."""

    url: str
    headers: dict[str, str]
    body: bytes


class Provider(Protocol):
    """What ingest and the delivery worker need of a provider."""

    confirms_stop: bool  # the provider itself answers a STOP that comes as an SMS

    def read(self, channel: str, body: bytes) -> list[tuple[str, Inbound]]:
        """The (sender as the provider wrote it, event) pairs in a webhook's body. Raises Unreadable."""
        ...

    def write(self, sms: Outbound) -> Request:
        """The request that sends `sms`."""
        ...

    def outcome(self, status: int, body: bytes) -> Outcome:
        """What the reply to that request means."""
        ...
