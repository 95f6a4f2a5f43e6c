"""Calls of our server-side functions at random, by their declarations: over few keys, with arguments that are plausible or odd."""

from collections.abc import Sequence
from random import Random
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from config.store.function_calls import Command, function_call, join_calls
from config.store.outbox_states import OUTBOX_STATES
from config.store.server_functions import (
    FUNCTIONS,
    JOINED_FUNCTIONS,
    Accept,
    ArgumentGroup,
    Claim,
    Commit,
    Key,
    LeaseSms,
    ServerFunction,
    UpdateOutbox,
)
from engine.model.events import OutboundSms

SENDERS = ("+33600000001", "+33600000002")
OWNERS = ("ada", "ben")
CHANNELS = ("clinic", "ward")
IDS = ("one", "two", "three")

_OF_A_SENDER = {
    "mailbox", "lane", "lane_lock", "outbox", "outbox_lock", "tickets", "failed_attempts", "applied_events",
}  # fmt: skip
"""Keys that a person has for themselves."""

_TEXTS: dict[str, Sequence[Any]] = {
    "owner": OWNERS,
    "token": OWNERS,
    "channel": CHANNELS,
    "name": CHANNELS,
    "number_hash": ("", "hash1", "hash2"),
    "mail_kind": (b"S", b"R"),
    "newcomer": ("nobody", "0123 4567"),
    "health": (
        "works",
        "fails",
        "faults",
        "unmade",
        "probe-works",
        "probe-fails",
        "probe-faults",
        "probe-unmade",
    ),
    "asked_channels": CHANNELS,
    "displaced_events": (b"", b"8 bytes!1792000000000"),
    "lane_mail": (b"", b"Ran event"),
    "records": (b"", b"\x91\x92\xa5begun\x01"),
    "ticket": ("", "ticket-1", "ticket-2"),
    "dead_letter_id": ("", *IDS),
}


_ON_THE_WAY = (Accept, Claim, Commit, LeaseSms, UpdateOutbox)
"""From a message to the SMS that answers it."""


class CallSamples:
    """What it draws follows from the seed and the clock, and from what calls have answered."""

    def __init__(self, chance: Random, now_ms: int) -> None:
        self.chance = chance
        self.now_ms = now_ms
        self.fences = [1, now_ms * 1000]
        self.entries: list[bytes] = []

    def call(self, function: type[ServerFunction] | None = None) -> Command:
        command = (
            self._joined_call()
            if function is None and self.chance.random() < 0.1
            else self._single_call(function or self.one(self.one((FUNCTIONS, _ON_THE_WAY))))
        )
        if self.chance.random() < 0.03:
            at = self.chance.randrange(3, max(4, len(command)))
            command = (*command[:at], self.one(("", "x", b"\xff", 0)), *command[at + 1 :])
        return command

    def _single_call(self, function: type[ServerFunction]) -> Command:
        return function_call(self._struct(function, self.one(SENDERS)))

    def _joined_call(self) -> Command:
        function = self.one(JOINED_FUNCTIONS)
        (command,), _ = join_calls([self._single_call(function) for _ in range(3)])
        return command

    def damage(self) -> Command:
        """A command that puts something odd where a function looks."""
        sender = self.one(SENDERS)
        return self.one(
            [
                ("SET", self._key("outbox_lock", sender), self._lock()),
                ("SET", self._key("lane_lock", sender), self._lock()),
                (
                    "SET",
                    self._key("lane", sender),
                    self.one((b"no lane", f"{self._fence()} {self.now_ms} ".encode() + b"\x01")),
                ),
                ("RPUSH", self._key("outbox", sender), self._entry()),
                (
                    "RPUSH",
                    self._key("mailbox", sender),
                    self.one((b"", b"Rx", b"S%d" % self.now_ms + b"event")),
                ),
                ("HSET", "server", "admitted", self.one((f"{'ab' * 20} {'cd' * 20} 0", "odd"))),
                ("DEL", "server"),
                (
                    "SET",
                    "pause",
                    self.one((b"no JSON", b'{"by":"operator"}', b'{"by":"circuit"}', b"[1]")),
                    "PX",
                    5000,
                ),
                ("HSET", "dead_letters", self.one(IDS), self._letter()),
                ("SET", self._key("outbox", sender), "of another type"),
                ("DEL", self._key("outbox", sender)),
            ]
        )

    def learn(self, answer: Any) -> None:
        """Note what may be a fence."""
        for each in answer if isinstance(answer, list) else ():
            if isinstance(each, list) and each and isinstance(each[0], int) and each[0] > 10:
                self.fences.append(each[0])
                self.entries += [value for value in each[-1:] if isinstance(value, bytes)]

    def one(self, values: Sequence[Any]) -> Any:
        return self.chance.choice(values)

    def _struct(self, declared: type[ServerFunction] | type[ArgumentGroup], sender: str) -> Any:
        hints = get_type_hints(declared, include_extras=True)
        return declared(**{name: self._field(name, hint, sender) for name, hint in hints.items()})

    def _field(self, name: str, hint: Any, sender: str) -> Any:
        if hint == Key:
            return self._key(name, sender)
        if get_origin(hint) is Sequence:
            (element,) = get_args(hint)
            return [self._element(name, element) for _ in range(self.one((0, 1, 1, 2)))]
        groups = [
            each for each in get_args(hint) if isinstance(each, type) and issubclass(each, ArgumentGroup)
        ]
        if groups and NoneType in get_args(hint):
            return self.one((None, self._struct(groups[0], sender)))
        return self._value(name, hint, sender)

    def _element(self, name: str, element: Any) -> Any:
        sender = self.one(SENDERS)
        if isinstance(element, type) and issubclass(element, ArgumentGroup):
            return self._struct(element, sender)
        return (
            self._field(name.removesuffix("s"), element, sender)
            if element == Key
            else self._value(name, element, sender)
        )

    def _key(self, name: str, sender: str) -> str:
        return f"{name}:{sender}" if name in _OF_A_SENDER else name

    def _value(self, name: str, hint: Any, sender: str) -> Any:
        if name == "sender":
            return sender
        if name in _TEXTS:
            return self.one(_TEXTS[name])
        if name == "entry" and self.entries and self.chance.random() < 0.7:
            return self.entries[-1]
        if name in ("entry", "marked", "outbox_entries"):
            return self._entry()
        if name in ("dead_letter", "content"):
            return self._letter()
        if name == "fence":
            return self._fence()
        if name == "bells_database":
            return self.one(("", 0))
        if name == "wanted" and hint is not int:
            return self.one(("reply", "unasked", self.now_ms))
        options = [each for each in get_args(hint) if get_origin(each) is Literal] or [hint]
        literals = [each for option in options if get_origin(option) is Literal for each in get_args(option)]
        if literals and (int not in get_args(hint) or self.chance.random() < 0.5):
            return self.one(literals)
        if name.endswith("_ms") or name in ("deadline", "keep_until"):
            return (
                self._moment()
                if name in ("at_ms", "until_ms", "deadline", "keep_until", "not_before_ms")
                else self.one((0, 1, 500, 10_000, 20_000))
            )
        if name.endswith("id") and hint is str:
            return self._identity(name)
        if hint is int or int in get_args(hint):
            return self.one((0, 1, 2, 5, 20))
        if hint is float:
            return self.one((0.5, 1.0, 3.0, 10.0))
        return self.one(IDS) if hint is str else self.one(IDS).encode()

    def _identity(self, name: str) -> str:
        if name in ("id", "letter_id", "new_id"):
            return str(self.one((*IDS, f"{self.now_ms}-0")))
        return str(self.one(("-", "+", f"{self.now_ms}-0", f"({self.now_ms}-0", "0-0")))

    def _moment(self) -> int:
        return int(self.one((0, self.now_ms - 1000, self.now_ms, self.now_ms + 500, self.now_ms + 60_000)))

    def _fence(self) -> int:
        return int(self.one((*self.fences[-4:], 1)))

    def _lock(self) -> str:
        state = (
            self.one(OUTBOX_STATES).spelling.replace("<token>", "ada").replace("<epoch>", str(self.now_ms))
        )
        fence, till = self.one((0, self._fence())), self._moment() + self.one((0, 10**9))
        return str(self.one((f"{fence} {till} {self.one((0, 1, 3))} {self._moment()} {state}", "no lock")))

    def _entry(self) -> bytes:
        channel = str(self.one(CHANNELS))
        sms = OutboundSms(
            id=f"{self.one(IDS)}x{self.one((1, 2))}", channel=channel, to=str(self.one(SENDERS)), text="hello é",
            session=str(self.one(IDS)), **({"unasked": True} if self.chance.random() < 0.3 else {}),
        )  # fmt: skip
        packed = msgspec.msgpack.encode(sms)
        return channel.encode() + b"\0" + bytes(self.one((packed, packed, packed, b"\xc1", packed[:-3])))

    def _letter(self) -> bytes:
        fields = {
            "id": self.one(IDS),
            "channel": self.one(CHANNELS),
            "at": self.now_ms,
            "reason": "poison",
            "event": b"raw",
        }
        packed = msgspec.msgpack.encode(fields)
        return bytes(self.one((packed, packed, b"damaged", packed[:-4])))
