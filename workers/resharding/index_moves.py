"""Moves what stands in the indexes of a shard: alarms, invitations that are held, dead letters; and copies what each part has:
the list of opt-outs, the last fencing token, the server on which the shard was worked.

Law: as for keys (key_moves.py): what is in its new place, on as many replicas as it takes, leaves the old one.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import redis

from config.store import keyspace, redis_client, stored_values
from config.store.function_calls import Command
from config.telemetry import faults
from workers.resharding.shard_split import ShardSplit
from workers.store.dead_letter_store import decode_dead_letter

MEMBERS_A_STEP = 1_000

_HELD_PREFIX = "held:"

Members = Sequence[tuple[bytes, Any]]


def scan_members(client: redis.Redis, command: str, name: str) -> Iterator[Members]:
    """What a sorted set (ZSCAN: members and scores) or a hash (HSCAN: fields and values) holds, by the page; some of it
    perhaps twice."""
    cursor = 0
    while True:
        cursor, found = redis_client.run_command(client, (command, name, cursor, "COUNT", MEMBERS_A_STEP))
        page = list(found.items()) if isinstance(found, Mapping) else found
        if page:
            yield page
        if not int(cursor):
            return


class IndexMover:
    """Moves what stands in the indexes of one shard after the other. Raises redis.RedisError."""

    def __init__(self, client: redis.Redis, split: ShardSplit, replicas: int) -> None:
        self._redis = client
        self._split = split
        self._replicas = replicas

    def move_indexes(self, k: int) -> None:
        """Move what stands in the indexes of shard `k` and belongs to another part of it."""
        for alarms in (keyspace.lane_alarms_key, keyspace.outbox_alarms_key):
            for page in scan_members(self._redis, "ZSCAN", alarms(k)):
                moved = [(sender, at, part) for sender, at in page if (part := self._part(k, sender)) != k]
                self._copy([("ZADD", alarms(part), repr(at), sender) for sender, at, part in moved])
                self._remove("ZREM", alarms(k), [sender for sender, *_ in moved])
        self._move_invitations(k)
        self._move_dead_letters(k)
        self._copy_opt_outs(k)
        self._copy_marks(k)

    def _part(self, k: int, sender: bytes) -> int:
        return self._split.part_of(k, sender.decode(errors="replace"))

    def _others(self, k: int) -> list[int]:
        return [part for part in self._split.parts(k) if part != k]

    def _copy(self, commands: Sequence[Command]) -> None:
        if commands:
            redis_client.run_commands(self._redis, commands, replicas=self._replicas)
            faults.reach("after_reshard_copy")

    def _remove(self, command: str, name: str, members: Sequence[bytes]) -> None:
        if members:
            redis_client.run_command(self._redis, (command, name, *members))
            faults.reach("after_reshard_move")

    # Invitations

    def _move_invitations(self, k: int) -> None:
        mail = keyspace.held_invitations_key(k)
        for channel in self._held_channels(k):
            for page in scan_members(self._redis, "ZSCAN", keyspace.held_ids_key(k, channel)):
                ids = [identity for identity, _ in page]
                held = redis_client.run_command(self._redis, ("HMGET", mail, *ids))
                moved = [
                    (identity, at, part, value)
                    for (identity, at), value in zip(page, held, strict=True)
                    if value is not None and (part := self._part_of_held(k, value)) != k
                ]
                self._copy([
                    command
                    for identity, at, part, value in moved
                    for command in (
                        ("HSET", keyspace.held_invitations_key(part), identity, value),
                        ("ZADD", keyspace.held_ids_key(part, channel), repr(at), identity),
                    )
                ])  # fmt: skip
                self._remove("ZREM", keyspace.held_ids_key(k, channel), [each[0] for each in moved])
                self._remove("HDEL", mail, [each[0] for each in moved])
        self._move_left_mail(k)
        self._move_campaign_sessions(k)

    def _held_channels(self, k: int) -> list[str]:
        found = self._redis.scan_iter(keyspace.held_ids_key(k, "*"), count=MEMBERS_A_STEP)
        return sorted({name.decode().partition(_HELD_PREFIX)[2] for name in found})

    def _part_of_held(self, k: int, held: bytes) -> int:
        try:
            return self._split.part_of(k, stored_values.parse_held_invitation(held)[0])
        except ValueError:
            return k

    def _move_left_mail(self, k: int) -> None:
        """Of a run that died: its ids have left, and their mail has not."""
        for page in scan_members(self._redis, "HSCAN", keyspace.held_invitations_key(k)):
            moved = [(each, held, part) for each, held in page if (part := self._part_of_held(k, held)) != k]
            self._copy(
                [("HSET", keyspace.held_invitations_key(part), each, held) for each, held, part in moved]
            )
            self._remove("HDEL", keyspace.held_invitations_key(k), [each[0] for each in moved])

    def _move_campaign_sessions(self, k: int) -> None:
        """What is said of a campaign's sessions goes where their persons are; how many there are in which state stays, as only
        the sum over all shards counts. One whose person is forgotten stays."""
        for page in scan_members(self._redis, "HSCAN", keyspace.campaign_sessions_key(k)):
            moved = [
                (session, line, part)
                for (session, line), part in zip(
                    page, self._parts_of_sessions(k, [each.decode() for each, _ in page]), strict=True
                )
                if part != k
            ]
            self._copy(
                [("HSET", keyspace.campaign_sessions_key(part), each, line) for each, line, part in moved]
            )
            self._remove("HDEL", keyspace.campaign_sessions_key(k), [each[0] for each in moved])

    def _parts_of_sessions(self, k: int, sessions: Sequence[str]) -> list[int]:
        """By whose a session's index says that it is, which has its place among the keys, or had it before they moved."""
        parts = self._split.parts(k)
        found = redis_client.run_commands(
            self._redis,
            [("GET", keyspace.session_key(part, each)) for each in sessions for part in parts],
        )
        senders = [
            next(filter(None, found[at : at + len(parts)]), b"") for at in range(0, len(found), len(parts))
        ]
        return [self._part(k, sender) if (sender := value.partition(b" ")[2]) else k for value in senders]

    # Dead letters

    def _move_dead_letters(self, k: int) -> None:
        """What operators did with letters stays in the shard in which it was told: nothing there says whose they were."""
        for page in scan_members(self._redis, "HSCAN", keyspace.dead_letters_key(k)):
            moved = [
                (identity, letter, part)
                for identity, letter in page
                if (part := self._part_of_letter(k, letter)) != k
            ]
            if not moved:
                continue
            ids = [identity for identity, *_ in moved]
            places = redis_client.run_command(
                self._redis, ("ZMSCORE", keyspace.dead_letter_index_key(k), *ids)
            )
            commands: list[Command] = []
            for (identity, letter, part), place in zip(moved, places, strict=True):
                commands.append(("HSET", keyspace.dead_letters_key(part), identity, letter))
                if place is not None:
                    index = keyspace.dead_letter_index_key(part)
                    commands.append(("ZADD", index, repr(float(place)), identity))
            self._copy(commands)
            self._remove("HDEL", keyspace.dead_letters_key(k), ids)
            self._remove("ZREM", keyspace.dead_letter_index_key(k), ids)
        self._move_left_places(k)
        self._count_letters(k)

    def _part_of_letter(self, k: int, letter: bytes) -> int:
        """One that cannot be read stays: nobody knows whose it is."""
        try:
            return self._split.part_of(k, decode_dead_letter(letter).sender)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return k

    def _move_left_places(self, k: int) -> None:
        """Of a run that died: letters have left, and their places in the order have not."""
        for page in scan_members(self._redis, "ZSCAN", keyspace.dead_letter_index_key(k)):
            ids = [identity for identity, _ in page]
            there = redis_client.run_command(self._redis, ("HMGET", keyspace.dead_letters_key(k), *ids))
            left = [identity for identity, letter in zip(ids, there, strict=True) if letter is None]
            self._remove("ZREM", keyspace.dead_letter_index_key(k), left)

    def _count_letters(self, k: int) -> None:
        """Count anew the letters of each part by their reasons."""
        for part in self._split.parts(k):
            reasons = Counter(
                reason
                for _, letter in self._letters_of(part).items()
                if (reason := _reason_of(letter)) is not None
            )
            name = keyspace.dead_letter_reasons_key(part)
            counted = [word for reason, count in reasons.items() for word in (reason, count)]
            commands: list[Command] = [("DEL", name), *([("HSET", name, *counted)] if counted else [])]
            redis_client.run_commands(self._redis, commands, transaction=True)

    def _letters_of(self, k: int) -> dict[bytes, bytes]:
        pages = scan_members(self._redis, "HSCAN", keyspace.dead_letters_key(k))
        return {identity: letter for page in pages for identity, letter in page}

    # What each part has

    def _copy_opt_outs(self, k: int) -> None:
        for page in scan_members(self._redis, "HSCAN", keyspace.optouts_key(k)):
            words = [word for pair in page for word in pair]
            self._copy([("HSET", keyspace.optouts_key(part), *words) for part in self._others(k)])

    def _copy_marks(self, k: int) -> None:
        """The last fencing token, and the server on which the shard was worked last."""
        fence, server = redis_client.run_commands(
            self._redis, [("GET", keyspace.fence_key(k)), ("HGETALL", keyspace.server_key(k))]
        )
        commands: list[Command] = []
        for part in self._others(k):
            if fence is not None:
                commands.append(("SET", keyspace.fence_key(part), fence))
            if server:
                words = [word for pair in server.items() for word in pair]
                commands.append(("HSET", keyspace.server_key(part), *words))
        self._copy(commands)


def _reason_of(letter: bytes) -> str | None:
    """By what the server-side functions count a letter; None if that cannot be read."""
    try:
        reason = msgspec.msgpack.decode(letter, type=dict[str, Any])["reason"]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError):
        return None
    return reason if isinstance(reason, str) else None
