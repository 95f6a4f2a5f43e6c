"""Why does a channel send nothing? A pause as it lies in Redis, at keyspace.pause, for as long as it lasts."""

from typing import Literal

import msgspec

By = Literal["operator", "account", "circuit"]
"""Who paused it: a person; a fault of the account with the provider; a provider that fails too often."""


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """`since` is ms; one by an operator may have no end."""

    by: By
    why: str
    since: int = 0


_decode = msgspec.json.Decoder(Pause).decode
encode = msgspec.json.Encoder().encode


def decode(value: bytes) -> Pause:
    """The pause in `value`. An earlier release wrote no more than why, and paused for the account's faults alone."""
    try:
        return _decode(value)
    except msgspec.MsgspecError:
        return Pause(by="account", why=value.decode(errors="replace"))
