"""Why does a channel send nothing? A pause as it lies in Redis, at keyspace.pause, for as long as it lasts."""

from typing import Literal

import msgspec

PausedBy = Literal["operator", "account", "circuit"]
"""Who paused it: a person; a fault of the account with the provider; a provider that fails too often."""


class StoredPause(msgspec.Struct, frozen=True, kw_only=True):
    """`since` is ms, `who` the operator's name. One by an operator may have no end, outranks the others, and is ended by
    nothing but its end or a resume. The others end when one SMS, which probes, is accepted."""

    by: PausedBy
    why: str
    since: int = 0
    who: str = ""


_decode_json = msgspec.json.Decoder(StoredPause).decode
encode_pause = msgspec.json.Encoder().encode


def decode_pause(value: bytes) -> StoredPause:
    """The pause in `value`. One that this release cannot read, as a later one wrote it, holds all the same: it is taken
    for an account's, with all of it for its reason."""
    try:
        return _decode_json(value)
    except msgspec.MsgspecError:
        return StoredPause(by="account", why=value.decode(errors="replace"))


def pause_left_ms(pttl: int) -> int | None:
    """For how long yet, by what PTTL says of a pause that is there; None: until it is ended."""
    return None if pttl < 0 else pttl
