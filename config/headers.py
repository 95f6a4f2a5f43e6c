"""What stands before the bytes that only Python reads: the headers of values in Redis, as parley.lua lays them down."""

_MS = 13
"""Digits of a moment."""


def event_in(mail: bytes) -> tuple[int, bytes]:
    """Of a mailbox's entry, when its event was accepted (ms), and the event. Raises ValueError."""
    return int(mail[1 : 1 + _MS]), mail[1 + _MS :]


def invitation_in(held: bytes) -> tuple[str, int, bytes]:
    """Of what is held, whose it is, when it was accepted (ms), and the invitation."""
    sender, _, rest = held.partition(b"\0")
    return sender.decode(), int(rest[:_MS]), rest[_MS:]


def state_in(lane: bytes | None) -> bytes:
    """The state in a stored lane; empty if there is none."""
    return lane.split(b" ", 2)[-1] if lane else b""


def sms_in(entry: bytes) -> bytes:
    """The SMS in an outbox's entry."""
    return entry[entry.index(b"\0") + 1 :]


def outbox_entry(channel: str, sms: bytes) -> bytes:
    return channel.encode() + b"\0" + sms
