"""What stands before the bytes that only Python reads: the headers of values in Redis, as lua/values.lua lays them down."""

import re

import msgspec

_MS_DIGITS = 13
"""Digits of a moment."""

REPEAT_MS = 7 * 86_400_000
"""For how long an applied event is remembered, if the settings say nothing else: PARLEY_REPEAT_DAYS."""

LANE_LEASE_MS = 5_000
"""How long the claim of a lane holds: after a kill -9, it waits this long and a tick of the clock."""

_LOCK_PATTERN = re.compile(rb"(\d+) (\d+) (\d+) (\d+) (.*)", re.DOTALL)


class StoredLock(msgspec.Struct, frozen=True):
    """Who has a lane or an outbox, or had: it is theirs until `until`. `attempts` are the takings in a row that came to
    nothing, this one included, the first of them at `since` (0: nothing was tried). Times are ms.

    Of an outbox, `fence` 0 says that nobody sends and the sender rests; `owner` is then how the last try was left. Of a
    lane, moments of later attempts may follow the owner (lua/values.lua).
    """

    fence: int
    until: int
    attempts: int
    since: int
    owner: str


def parse_lock(value: bytes) -> StoredLock | None:
    """The lock in a stored one; None if it cannot be read, which the functions take for no lock."""
    found = _LOCK_PATTERN.fullmatch(value)
    if found is None:
        return None
    fence, until, attempts, since, owner = found.groups()
    return StoredLock(int(fence), int(until), int(attempts), int(since), owner.decode(errors="replace"))


def mail_accepted_ms(mail: bytes) -> int:
    """When the event in a mailbox's entry was accepted (ms). Raises ValueError."""
    return int(mail[1 : 1 + _MS_DIGITS])


def mail_entry(kind: bytes, at: int, event: bytes) -> bytes:
    """A mailbox's entry: an event of this kind (keyspace.mail_prefix), accepted at `at` (ms)."""
    return kind + b"%013d" % at + event


def parse_mail(mail: bytes) -> tuple[int, bytes]:
    """Of a mailbox's entry, when its event was accepted (ms), and the event. Raises ValueError."""
    return int(mail[1 : 1 + _MS_DIGITS]), mail[1 + _MS_DIGITS :]


def parse_held_invitation(held: bytes) -> tuple[str, int, bytes]:
    """Of what is held, whose it is, when it was accepted (ms), and the invitation."""
    sender, _, rest = held.partition(b"\0")
    return sender.decode(), int(rest[:_MS_DIGITS]), rest[_MS_DIGITS:]


def lane_deadline_ms(lane: bytes) -> int:
    """When the engine wants to be called for a stored lane (ms); 0: never. 0 too if it cannot be read."""
    parts = lane.split(b" ", 2)
    return int(parts[1]) if len(parts) == 3 and parts[0].isdigit() and parts[1].isdigit() else 0


def lane_state(lane: bytes | None) -> bytes:
    """The state in a stored lane; empty if there is none."""
    return lane.split(b" ", 2)[-1] if lane else b""


def pack_applied_event(event_hash: bytes, at: int) -> bytes:
    """An event that was applied at `at` (ms), as remember_events (lua/applied_events.lua) reads it."""
    return event_hash + b"%013d" % at


def outbox_sms(entry: bytes) -> bytes:
    """The SMS in an outbox's entry; empty if its channel does not end."""
    return entry.partition(b"\0")[2]


def outbox_entry(channel: str, sms: bytes) -> bytes:
    return channel.encode() + b"\0" + sms


def with_accepted_ms(mail: bytes, at: int) -> bytes:
    """A mailbox's entry, as if its event had been accepted at `at` (ms). Raises ValueError if it is none."""
    _, event = parse_mail(mail)
    return mail_entry(mail[:1], at, event)
