"""What is a dead letter? An event or an SMS that could not be handled, with all that an operator needs to judge it.

A letter stays until an operator deals with it, its person is erased, or the survey that it belongs to says how long what
was said is kept; whatever takes it away writes the audit in the same call. Each shard has its letters in the order in
which they fell. How many there are of each reason is counted in that call too, but for those of earlier releases.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from operator import itemgetter
from typing import Literal

import msgspec
import redis

from config.store import keyspace
from workers.store.lanes import Letter

PAGE = 500

MOST_TRIED = 20
"""Attempts that a letter tells of, the newest ones."""

Reason = Literal[
    "undecodable", "unreadable_state", "engine_error", "worker_died",
    "unknown_channel", "rejected", "tries_exhausted", "uncertain",
]  # fmt: skip
"""`worker_died`: each worker that took it up was gone before it was done. `uncertain`: the provider may have the SMS,
and can no longer be asked by its id, or could not be asked in all its tries, or ever."""


class Tried(msgspec.Struct, frozen=True, array_like=True):
    """An attempt at `at` (ms), and what came of it."""

    at: int
    code: str = ""
    why: str = ""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """`what` is an event (mail entry, empty for a deadline) or an SMS (outbound), as bytes; `at` ms when it was given up;
    `attempts` how often it was tried, and `tries` the attempts that are known, oldest first; `version` the fencing token
    of the state that it met.

    Of an event, `state` is the lane then, without what no operator needs (None: not known), `session` and `survey` what
    was open where it belongs, and `stopped` says that it is a STOP, which holds all the same. Of an SMS, `survey` is whose
    text it is, `since` (ms) when it was first tried, and `uncertain` says that the provider may have it. `counted`: its
    reason is counted.
    """

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
    tries: list[Tried] = []
    state: bytes | None = None
    survey: str = ""
    uncertain: bool = False
    since: int = 0
    stopped: bool = False
    counted: bool = False

    @property
    def queue(self) -> str:
        """Of the worker that gave it up."""
        if self.kind == "sms":
            return keyspace.OUTBOUND
        return keyspace.STARTS if self.what[:1] == keyspace.START else keyspace.REPLIES


class Filed(msgspec.Struct, frozen=True):
    """A letter in its place: in the order of `place` those of a shard fell. It is the ms at which each did, and
    thousandths where several did at once."""

    place: float
    letter: DeadLetter


class Audited(msgspec.Struct, frozen=True):
    """What was done with a letter at `at` (ms), by whom, and what came of it."""

    at: int
    id: str
    by: str
    outcome: str
    kind: str
    reason: str
    channel: str


_encoder = msgspec.msgpack.Encoder()
decode = msgspec.msgpack.Decoder(DeadLetter).decode


def read(identity: str, blob: bytes) -> DeadLetter:
    """The letter in `blob`, whatever that is: one that this release cannot read is shown, and may be dropped."""
    try:
        return decode(blob)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        why = f"this letter cannot be read by this release: {e}"
        return DeadLetter(
            id=identity, kind="event", reason="undecodable", sender="", at=0, attempts=0, what=blob, why=why
        )


def seal(letter: DeadLetter) -> Letter:
    """The letter as a commit takes it."""
    return Letter(letter.id, _encoder.encode(msgspec.structs.replace(letter, counted=True)))


def stored(client: redis.Redis, k: int) -> Iterator[DeadLetter]:
    """Every dead letter of shard `k`, in no order."""
    for identity, blob in client.hscan_iter(keyspace.dead(k), count=PAGE):
        yield read(identity.decode(), blob)


def filed(client: redis.Redis, k: int) -> Iterator[Filed]:
    """Every dead letter of shard `k` that is there now, in the order in which they fell, read page by page."""
    places = sorted(
        {(place, identity) for identity, place in client.zscan_iter(keyspace.dead_index(k), count=PAGE)}
    )
    waiting = iter(places)
    while page := list(islice(waiting, PAGE)):
        blobs = keyspace.ask(client, ("HMGET", keyspace.dead(k), *(identity for _, identity in page)))
        for (place, identity), blob in zip(page, blobs, strict=True):
            if blob is not None:
                yield Filed(place, read(identity.decode(), blob))


def of_sender(client: redis.Redis, k: int, sender: str) -> list[DeadLetter]:
    """One person's dead letters, in the order in which they fell."""
    return [each.letter for each in filed(client, k) if each.letter.sender == sender]


def find(client: redis.Redis, shards: int, ids: Sequence[str]) -> dict[str, tuple[int, DeadLetter]]:
    """Those of these letters that are there, with their shards, in the order in which they fell."""
    if not ids:
        return {}
    commands: list[keyspace.Command] = []
    for k in range(shards):
        commands += [("HMGET", keyspace.dead(k), *ids), ("ZMSCORE", keyspace.dead_index(k), *ids)]
    answers = keyspace.run(client, commands)
    found = []
    for k, (blobs, places) in enumerate(zip(answers[::2], answers[1::2], strict=True)):
        for each, blob, place in zip(ids, blobs, places, strict=True):
            if blob is not None:
                found.append((float(place or 0), each, k, read(each, blob)))
    found.sort(key=itemgetter(0))
    return {each: (k, letter) for _, each, k, letter in found}


def discard(client: redis.Redis, k: int, ids: Sequence[str], by: str, outcome: str) -> list[bool]:
    """Let these letters of shard `k` go; the audit says by whom and why. Answers, for each, whether it was there."""
    if not ids:
        return []
    keys = [keyspace.dead(k), keyspace.dead_index(k), keyspace.dead_reasons(k), keyspace.dead_audit(k)]
    there = keyspace.ask(client, keyspace.call("discard", keys, (by, outcome, *ids)))
    return [bool(each) for each in there]


def delete(
    client: redis.Redis, k: int, concerned: Callable[[DeadLetter], bool], by: str, outcome: str
) -> int:
    """Let the dead letters of shard `k` go that are `concerned`; answers how many there were."""
    ids = [letter.id for letter in stored(client, k) if concerned(letter)]
    return sum(sum(discard(client, k, ids[at : at + PAGE], by, outcome)) for at in range(0, len(ids), PAGE))


def audit(client: redis.Redis, k: int, since: int = 0) -> Iterator[Audited]:
    """What was done with letters of shard `k` from `since` (ms) on, oldest first."""
    after = str(since)
    while page := keyspace.ask(client, ("XRANGE", keyspace.dead_audit(k), after, "+", "COUNT", PAGE)):
        for entry in page:
            yield _audited(*entry)
        after = "(" + page[-1][0].decode()


def last_audit(client: redis.Redis, k: int, identity: str) -> Audited | None:
    """The last thing that was done with this letter, if it is among the last of its shard."""
    entries = keyspace.ask(client, ("XREVRANGE", keyspace.dead_audit(k), "+", "-", "COUNT", PAGE))
    return next((each for each in (_audited(*entry) for entry in entries) if each.id == identity), None)


def _audited(entry_id: bytes, fields: dict[bytes, bytes]) -> Audited:
    words = {name.decode(): value.decode(errors="replace") for name, value in fields.items()}
    at = int(entry_id.partition(b"-")[0])
    return Audited(
        at, *(words.get(name, "") for name in ("id", "by", "outcome", "kind", "reason", "channel"))
    )
