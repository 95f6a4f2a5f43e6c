"""What lies in the event stream of a shard, page by page, and how some of it is taken out."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import redis

from config.store import function_calls, keyspace, redis_client
from config.store.entry_id import EntryId
from config.store.event_entries import entry_records
from config.store.server_functions import ForgetCampaignSessions
from engine.model.events import ArchiveRecord, decode_records

STREAM_PAGE_SIZE = 1_000


class StreamEntry(NamedTuple):
    """An entry of an event stream: its id, who it is about, and its records as they are stored."""

    id: EntryId
    sender: str
    content: bytes

    @property
    def records(self) -> list[ArchiveRecord]:
        return decode_records(self.content)


def scan_entries(client: redis.Redis, k: int, until: str = "+") -> Iterator[StreamEntry]:
    """Every entry of shard `k`, oldest first, up to `until` (ms, or a stream's id)."""
    for page in scan_pages(client, k, "-", until):
        yield from page


def scan_pages(client: redis.Redis, k: int, after: str, until: str) -> Iterator[list[StreamEntry]]:
    """The entries of shard `k` from `after` (`-`, or a stream's id after a parenthesis) up to `until` (ms, or a stream's id)."""
    while page := redis_client.run_command(
        client, ("XRANGE", keyspace.events_key(k), after, until, "COUNT", STREAM_PAGE_SIZE)
    ):
        yield [
            StreamEntry(EntryId.parse(entry_id), fields[b"to"].decode(), entry_records(fields))
            for entry_id, fields in page
        ]
        after = "(" + page[-1][0].decode()


def is_archived(client: redis.Redis, shards: int) -> bool:
    """Whether an archive has ever taken anything from these streams."""
    names = [("EXISTS", keyspace.archived_key(k)) for k in range(shards)]
    return any(redis_client.run_commands(client, names))


def delete_entries(client: redis.Redis, k: int, ids: Iterable[EntryId]) -> int:
    """Take these entries out; answers how many were there."""
    waiting = map(str, ids)
    deleted = 0
    while page := list(islice(waiting, STREAM_PAGE_SIZE)):
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
    """Empty the index entries that lead from these sessions to their senders; campaigns count those no more that are not over.
    The ids stay taken, so that a repeated invitation opens no second session. Returns how many there were."""
    ids = list(sessions)
    if not ids:
        return 0
    counted = ForgetCampaignSessions(
        campaigns=keyspace.campaigns_key(k),
        campaign_sessions=keyspace.campaign_sessions_key(k),
        sessions=ids,
    )
    emptied: list[function_calls.Command] = [
        ("SET", keyspace.session_key(k, each), "", "XX", "KEEPTTL") for each in ids
    ]
    answers = redis_client.run_commands(client, [function_calls.function_call(counted), *emptied])
    return sum(bool(answer) for answer in answers[1:])
