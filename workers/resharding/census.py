"""What lies in the shards, and does it lie where it belongs? Counted before and after they are divided anew.

Law: nothing is missing, and nothing is there twice: of each kind there is as much as before, or as many times as much of what
each part of a shard has. Keys expire meanwhile, so they are counted by the hours in which they do, and those that have come
are left out.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import redis

from config.store import keyspace, redis_client, stored_values
from config.store.function_calls import Command
from workers.resharding.index_moves import scan_members
from workers.resharding.key_moves import COPIED_KINDS, StoredKey, find_owners, is_copied, scan_shard_keys
from workers.resharding.shard_split import ShardSplit
from workers.store.dead_letter_store import decode_dead_letter

_HOUR_MS = 3_600_000

NEVER = 0
"""The hour of what does not expire."""

MISPLACED = "misplaced"
"""What lies in another shard than its owner's."""

HOOK_POSITIONS = "hook positions"

LABELS = {
    "mail": "mailboxes",
    "lane": "lanes",
    "lock": "locks of lanes",
    "outbox": "outboxes",
    "outbox-lock": "locks of outboxes",
    "tries": "lists of failed tries",
    "tickets": "lists of tickets",
    "alarms": "alarms of lanes",
    "outbox-alarms": "alarms of outboxes",
    "events": "entries of event streams",
    "session": "sessions",
    "forgotten session": "sessions that were forgotten, in each part",
    "reference": "references of inviters",
    "held": "invitations that wait",
    "held-mail": "invitations that wait, their content",
    "campaigns": "shards that have anything of campaigns",
    "campaign-sessions": "sessions of campaigns that are not over",
    "dead": "dead letters",
    "dead-index": "dead letters, in their order",
    "dead-reasons": "dead letters, by reason",
    "dead-audit": "acts on dead letters",
    "optouts": "opt-outs, in each part",
    "applied": "people with more events remembered, in each part",
    "fence": "last fencing tokens, in each part",
    "server": "servers last worked on, in each part",
    "archived": "positions of the archive, in each part",
    HOOK_POSITIONS: "positions of endpoints, in each part",
    MISPLACED: "what lies where it does not belong",
}
"""Every kind that is counted, and what an operator is told of it."""

IN_EACH_PART = frozenset(
    (*COPIED_KINDS, "optouts", "forgotten session", "fence", "server", "archived", HOOK_POSITIONS)
)


class Census(msgspec.Struct):
    """How much there is: kind -> the hour in which it expires -> how many. Made at `at_ms` of the server."""

    at_ms: int = 0
    counts: dict[str, dict[int, int]] = {}

    def add(self, kind: str, many: int = 1, hour: int = NEVER) -> None:
        if many:
            of_kind = self.counts.setdefault(kind, {})
            of_kind[hour] = of_kind.get(hour, 0) + many

    def total(self, kind: str) -> int:
        return sum(self.counts.get(kind, {}).values())

    def living(self, kind: str, at_ms: int) -> dict[int, int]:
        """Those that have not expired at this time, nor do so within its hour."""
        of_kind = self.counts.get(kind, {})
        return {hour: many for hour, many in of_kind.items() if hour == NEVER or hour > at_ms // _HOUR_MS}


decode_census = msgspec.json.Decoder(Census).decode


def find_differences(before: Census, after: Census, split: ShardSplit) -> list[str]:
    """The kinds of which there is another number than there has to be."""
    differing = []
    for kind in LABELS:
        factor = split.factor if kind in IN_EACH_PART else 1
        wanted = {hour: many * factor for hour, many in before.living(kind, after.at_ms).items()}
        if wanted != after.living(kind, after.at_ms):
            differing.append(kind)
    return differing


def take_census(client: redis.Redis, shards: int) -> Census:
    """Count what lies in `shards` shards. Raises redis.RedisError."""
    found = Census()
    seen: set[int] = set()  # SCAN may say a name twice
    for page in scan_shard_keys(client):
        new = [each for each in page if hash(each.name) not in seen]
        seen.update(hash(each.name) for each in new)
        _count_page(client, shards, list(dict.fromkeys(new)), found)
    for name in client.scan_iter(keyspace.hook_key_pattern(), count=1_000):
        positions = redis_client.run_command(client, ("HGETALL", name))
        found.add(HOOK_POSITIONS, sum(int(k) < shards for k in positions))
    found.at_ms = redis_client.server_time_ms(client)
    return found


def _count_page(client: redis.Redis, shards: int, page: Sequence[StoredKey], found: Census) -> None:
    if not page:
        return
    owners = find_owners(client, page)
    ends: list[Command] = [("PEXPIRETIME", each.name) for each in page]
    for each, owner, until in zip(page, owners, redis_client.run_commands(client, ends), strict=True):
        if until == -2:
            continue
        hour = until // _HOUR_MS if until > 0 else NEVER
        if is_copied(each.key, owner):
            kind = each.key.kind if each.key.kind in COPIED_KINDS else f"forgotten {each.key.kind}"
            found.add(kind, hour=hour)
        elif owner is not None:
            is_right = keyspace.shard_of(owner, shards) == each.key.k
            found.add(each.key.kind if is_right else MISPLACED, hour=hour)
        elif each.key.k >= shards:
            found.add(MISPLACED)
        else:
            for kind, many in _count_index(client, shards, each):
                found.add(kind, many)


def _count_index(client: redis.Redis, shards: int, each: StoredKey) -> Iterator[tuple[str, int]]:
    """How much stands in an index of a shard: what belongs there, and what does not."""
    k, kind, name = each.key.k, each.key.kind, each.name
    owner_of: Callable[[bytes, Any], str | None] = _OWNERS.get(kind, lambda *_: None)
    members: Iterator[Sequence[tuple[bytes, Any]]]
    match kind:
        case "alarms" | "outbox-alarms" | "held" | "dead-index":
            members = scan_members(client, "ZSCAN", name)
        case "optouts" | "held-mail" | "campaign-sessions" | "dead":
            members = scan_members(client, "HSCAN", name)
        case "dead-reasons":
            counts = redis_client.run_command(client, ("HGETALL", name))
            yield kind, sum(map(int, counts.values()))
            return
        case "events":
            members = _scan_entries(client, name)
        case "dead-audit":
            yield kind, redis_client.run_command(client, ("XLEN", name))
            return
        case _:
            yield kind, 1
            return
    there, misplaced = 0, 0
    seen: set[bytes] = set()
    for page in members:
        for member, value in page:
            if member not in seen:
                owner = owner_of(member, value)
                is_right = owner is None or keyspace.shard_of(owner, shards) == k
                there, misplaced = there + is_right, misplaced + (not is_right)
        if kind != "events":  # whose ids are read in their order
            seen.update(member for member, _ in page)
    yield kind, there
    yield MISPLACED, misplaced


def _scan_entries(client: redis.Redis, name: str) -> Iterator[Sequence[tuple[bytes, Any]]]:
    after = "-"
    while page := redis_client.run_command(client, ("XRANGE", name, after, "+", "COUNT", 1_000)):
        yield page
        after = f"({page[-1][0].decode()}"


def _owner_of_alarm(sender: bytes, _: Any) -> str | None:
    return sender.decode(errors="replace")


def _owner_of_held(_: bytes, held: bytes) -> str | None:
    try:
        return stored_values.parse_held_invitation(held)[0]
    except ValueError:
        return None


def _owner_of_letter(_: bytes, letter: bytes) -> str | None:
    try:
        return decode_dead_letter(letter).sender
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _owner_of_entry(_: bytes, fields: Any) -> str | None:
    return fields.get(b"to", b"").decode(errors="replace") or None


_OWNERS: dict[str, Callable[[bytes, Any], str | None]] = {
    "alarms": _owner_of_alarm,
    "outbox-alarms": _owner_of_alarm,
    "held-mail": _owner_of_held,
    "dead": _owner_of_letter,
    "events": _owner_of_entry,
}
"""Whose a member of an index is, by the index; of the others nobody knows."""
