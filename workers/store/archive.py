"""What lies in the archive of a shard, page by page, and how some of it is taken out."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import redis

from config.store import function_calls, keyspace, redis_client
from engine.model.events import ArchiveRecord, decode_records

ARCHIVE_PAGE_SIZE = 1_000


class ArchiveEntry(NamedTuple):
    """An entry of the archive: its id in the stream, and who it is about."""

    id: bytes
    sender: str
    content: bytes

    @property
    def records(self) -> list[ArchiveRecord]:
        return decode_records(self.content)


def scan_entries(client: redis.Redis, k: int, until: str = "+") -> Iterator[ArchiveEntry]:
    """Every entry of shard `k`, oldest first, up to `until` (ms, or a stream's id)."""
    after = "-"
    while page := redis_client.run_command(
        client, ("XRANGE", keyspace.events_key(k), after, until, "COUNT", ARCHIVE_PAGE_SIZE)
    ):
        for entry_id, fields in page:
            yield ArchiveEntry(entry_id, fields[b"to"].decode(), fields[b"e"])
        after = "(" + page[-1][0].decode()


def delete_entries(client: redis.Redis, k: int, ids: Iterable[bytes]) -> int:
    """Take these entries out; answers how many were there."""
    waiting = iter(ids)
    deleted = 0
    while page := list(islice(waiting, ARCHIVE_PAGE_SIZE)):
        deleted += redis_client.run_command(client, ("XDEL", keyspace.events_key(k), *page))
    return deleted


def forget_references(client: redis.Redis, shards: int, sessions: Iterable[str]) -> None:
    """Empty the stored references of these sessions' invitations, so that no number can be recovered from them. The
    references stay taken."""
    commands: list[function_calls.Command] = [
        ("SET", keyspace.reference_key(shards, each), "", "XX", "KEEPTTL") for each in sessions
    ]
    if commands:
        redis_client.run_commands(client, commands)


def forget_sessions(client: redis.Redis, k: int, sessions: Iterable[str]) -> int:
    """Empty the index entries that lead from these sessions to their senders. The ids stay taken, so that a repeated
    invitation opens no second session. Returns how many there were."""
    commands: list[function_calls.Command] = [
        ("SET", keyspace.session_key(k, each), "", "XX", "KEEPTTL") for each in sessions
    ]
    return sum(bool(answer) for answer in redis_client.run_commands(client, commands)) if commands else 0
