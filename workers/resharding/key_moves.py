"""Moves the keys that are one person's, and copies those of which nobody knows whose they are.

Law: a key is in its new place, on as many replicas as it takes, before it leaves the old one. So whoever dies leaves it in one
of them or in both, and both are alike; the next run finds what lies in the old place still. What has a TTL ends when it would
have ended.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import redis

from config.store import keyspace, redis_client
from config.store.function_calls import Command
from config.telemetry import faults
from workers.resharding.shard_split import ShardSplit

KEYS_A_STEP = 1_000
"""Keys that are looked at in one round trip."""

COPIED_KINDS = ("applied",)
"""Keys that are called by a hash of their person: each part of the shard has them."""

_SESSION_KIND = "session"


class StoredKey(NamedTuple):
    """A key of a shard, by its name."""

    name: str
    key: keyspace.ShardKey


class _KeyMove(NamedTuple):
    """`leaves`: it is in its only place then, and else in the old one too."""

    name: str
    targets: Sequence[str]
    leaves: bool


def scan_shard_keys(client: redis.Redis) -> Iterator[list[StoredKey]]:
    """Every key of every shard, by the page; some perhaps twice. A name that is no text is left out."""
    for server in redis_client.servers_of(client):
        cursor = 0
        while True:
            step = ("SCAN", cursor, "MATCH", keyspace.SHARD_KEY_PATTERN, "COUNT", KEYS_A_STEP)
            cursor, names = redis_client.run_command(server, step)
            yield [found for name in names if (found := _parse(name)) is not None]
            if not int(cursor):
                break


def _parse(name: bytes) -> StoredKey | None:
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return None
    key = keyspace.parse_shard_key(text)
    return StoredKey(text, key) if key is not None else None


def find_owners(client: redis.Redis, page: Sequence[StoredKey]) -> list[str | None]:
    """Whose each key is: as its name says, or, of a session, what it holds. None if neither says."""
    sessions = [each.name for each in page if each.key.kind == _SESSION_KIND]
    answers = redis_client.run_commands(client, [("GET", name) for name in sessions]) if sessions else []
    senders = dict(zip(sessions, map(_session_sender, answers), strict=True))
    return [senders.get(each.name) if each.key.kind == _SESSION_KIND else each.key.owner for each in page]


def _session_sender(value: bytes | None) -> str | None:
    """Whose session it is; None of one that was forgotten on purpose, whose id stays taken in each part."""
    sender = (value or b"").partition(b" ")[2]
    return sender.decode(errors="replace") or None


def is_copied(key: keyspace.ShardKey, owner: str | None) -> bool:
    """Whether each part of its shard has it."""
    return key.kind in COPIED_KINDS or (key.kind == _SESSION_KIND and owner is None)


def move_keys(client: redis.Redis, split: ShardSplit, replicas: int) -> None:
    """Move every key that belongs to another part of its shard. Raises redis.RedisError."""
    for page in scan_shard_keys(client):
        there = [each for each in page if each.key.k < split.old]
        owners = find_owners(client, there)
        moves = [
            move
            for each, owner in zip(there, owners, strict=True)
            if (move := _move_of(split, each, owner)) is not None
        ]
        if moves:
            _copy(client, moves, replicas)
            faults.reach("after_reshard_copy")
            if leaving := [each.name for each in moves if each.leaves]:
                redis_client.run_commands(client, [("UNLINK", name) for name in leaving])
            faults.reach("after_reshard_move")


def _move_of(split: ShardSplit, each: StoredKey, owner: str | None) -> _KeyMove | None:
    k = each.key.k
    if is_copied(each.key, owner):
        others = [_in_shard(each.name, part) for part in split.parts(k) if part != k]
        return _KeyMove(each.name, others, leaves=False)
    if owner is None or (part := split.part_of(k, owner)) == k:
        return None
    return _KeyMove(each.name, [_in_shard(each.name, part)], leaves=True)


def _in_shard(name: str, k: int) -> str:
    """What a key of any shard is called in shard `k`."""
    return f"{{{k}}}{name[name.index('}') + 1 :]}"


def _copy(client: redis.Redis, moves: Sequence[_KeyMove], replicas: int) -> None:
    reads: list[Command] = [
        command for each in moves for command in (("DUMP", each.name), ("PEXPIRETIME", each.name))
    ]
    answers = iter(redis_client.run_commands(client, reads))
    writes: list[Command] = []
    for each, content, until in zip(moves, answers, answers, strict=True):
        if content is not None:  # else it has expired
            writes += (("RESTORE", to, max(0, until), content, "REPLACE", "ABSTTL") for to in each.targets)
    if writes:
        redis_client.run_commands(client, writes, replicas=replicas)
