"""What is a dead letter? An event or an SMS that could not be handled, with all that an operator needs to judge it."""

from collections.abc import Callable, Iterator
from typing import Literal

import msgspec
import redis

from config import keyspace
from workers.lanes import Letter

PAGE = 500

Reason = Literal[
    "undecodable", "unreadable_state", "engine_error", "worker_died",
    "unknown_channel", "rejected", "tries_exhausted", "uncertain",
]  # fmt: skip
"""`worker_died`: each worker that took it up was gone before it was done. `uncertain`: the provider may have the SMS,
and can no longer be asked by its id, or could not be asked in all its tries, or ever."""


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


def stored(client: redis.Redis, k: int) -> Iterator[DeadLetter]:
    """Every dead letter of shard `k`."""
    for _, blob in client.hscan_iter(keyspace.dead(k), count=PAGE):
        yield decode(blob)


def delete(client: redis.Redis, k: int, concerned: Callable[[DeadLetter], bool]) -> int:
    """Delete the dead letters of shard `k` that are `concerned`; answers how many there were."""
    ids = [letter.id for letter in stored(client, k) if concerned(letter)]
    if ids:
        keyspace.run(client, [("HDEL", keyspace.dead(k), *ids), ("ZREM", keyspace.dead_index(k), *ids)])
    return len(ids)


def seal(letter: DeadLetter) -> Letter:
    """The letter as a commit takes it."""
    return Letter(letter.id, _encoder.encode(letter))
