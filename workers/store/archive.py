"""What lies in the archive of a shard, page by page, and how some of it is taken out."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import redis

from config.store import keyspace
from engine.model.events import Record, decode_records

PAGE = 1_000


class Stored(NamedTuple):
    """An entry of the archive: its id in the stream, and who it is about."""

    id: bytes
    sender: str
    content: bytes

    @property
    def records(self) -> list[Record]:
        return decode_records(self.content)


def stored(client: redis.Redis, k: int, until: str = "+") -> Iterator[Stored]:
    """Every entry of shard `k`, oldest first, up to `until` (ms, or a stream's id)."""
    after = "-"
    while page := keyspace.ask(client, ("XRANGE", keyspace.events(k), after, until, "COUNT", PAGE)):
        for entry_id, fields in page:
            yield Stored(entry_id, fields[b"to"].decode(), fields[b"e"])
        after = "(" + page[-1][0].decode()


def delete(client: redis.Redis, k: int, ids: Iterable[bytes]) -> int:
    """Take these entries out; answers how many were there."""
    waiting = iter(ids)
    deleted = 0
    while page := list(islice(waiting, PAGE)):
        deleted += keyspace.ask(client, ("XDEL", keyspace.events(k), *page))
    return deleted


def forget_references(client: redis.Redis, shards: int, sessions: Iterable[str]) -> None:
    """What these sessions' invitations said can be told no more, by trying all numbers neither. What stays is that
    their references are taken."""
    commands: list[keyspace.Command] = [
        ("SET", keyspace.reference(shards, each), "", "XX", "KEEPTTL") for each in sessions
    ]
    if commands:
        keyspace.run(client, commands)


def forget_sessions(client: redis.Redis, k: int, sessions: Iterable[str]) -> int:
    """Whose these sessions are is found by their ids no more. What stays is that there was one: an invitation that is
    repeated must not open it again. Answers how many there were."""
    commands: list[keyspace.Command] = [
        ("SET", keyspace.session(k, each), "", "XX", "KEEPTTL") for each in sessions
    ]
    return sum(bool(answer) for answer in keyspace.run(client, commands)) if commands else 0
