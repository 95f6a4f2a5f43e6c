"""What `archive` asks Redis: how far the event streams are, what follows a position, and to note how far the archive is."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import redis

from config.store import keyspace, redis_client
from config.store.entry_id import BEGINNING, EntryId
from config.store.event_entries import entry_records
from config.store.function_calls import Command, function_call
from config.store.server_functions import NoteArchived
from engine.model.events import ArchiveRecord, decode_records
from workers.archiving.archive_rows import EntryPlace
from workers.archiving.projection import PageEntry

_NO_KEY = "no such key"


class StreamTips(NamedTuple):
    """How far the streams are: the last id that each has given out, by shard, at `now_ms` or later. `deployment` is the id
    of the deployment whose Redis it is; empty: it has none."""

    now_ms: int
    deployment: bytes
    last_ids: Sequence[EntryId]


class StreamPage(NamedTuple):
    """What follows a position: at most as many entries as were asked for. All that the stream had at `now_ms` is there if
    they are fewer. `has_position`: the entry at the position is there itself."""

    now_ms: int
    deployment: bytes
    has_position: bool
    entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]]


class StreamState(NamedTuple):
    """What a stream says of itself: its first entry (None: it is empty), the last id that it has given out, the newest
    that was deleted from it, and how many entries it ever had."""

    first: EntryId | None
    last: EntryId
    max_deleted: EntryId
    added: int


def read_tips(client: redis.Redis, shards: int) -> StreamTips:
    """Raises redis.RedisError."""
    infos: list[Command] = [("XINFO", "STREAM", keyspace.events_key(k)) for k in range(shards)]
    time, deployment, *answers = redis_client.try_commands(
        client, [("TIME",), ("GET", keyspace.DEPLOYMENT_KEY), *infos]
    )
    for answer in (time, deployment):
        if isinstance(answer, Exception):
            raise answer
    last_ids = [_parse_state(answer).last for answer in answers]
    return StreamTips(redis_client.time_reply_ms(time), deployment or b"", last_ids)


def read_state(client: redis.Redis, k: int) -> StreamState:
    """Raises redis.RedisError."""
    (answer,) = redis_client.try_commands(client, [("XINFO", "STREAM", keyspace.events_key(k))])
    return _parse_state(answer)


def _parse_state(answer: Any) -> StreamState:
    """Read the answer to XINFO STREAM: names and values in turn. Raises it if it is an error, but for a stream that is not
    there."""
    if isinstance(answer, Exception):
        if _NO_KEY in str(answer):
            return StreamState(None, BEGINNING, BEGINNING, 0)
        raise answer
    told = dict(zip(answer[::2], answer[1::2], strict=True))
    first = told[b"first-entry"]
    return StreamState(
        EntryId.parse(first[0]) if first else None,
        EntryId.parse(told[b"last-generated-id"]),
        EntryId.parse(told[b"max-deleted-entry-id"]),
        told[b"entries-added"],
    )


def read_after(client: redis.Redis, k: int, position: EntryId, most: int) -> StreamPage:
    """Read at most `most` entries that follow `position`. Raises redis.RedisError."""
    key = keyspace.events_key(k)
    time, deployment, at, after = redis_client.run_commands(
        client,
        [
            ("TIME",),
            ("GET", keyspace.DEPLOYMENT_KEY),
            ("XRANGE", key, str(position), str(position), "COUNT", 1),
            ("XRANGE", key, f"({position}", "+", "COUNT", most),
        ],
        transaction=True,
    )
    return StreamPage(redis_client.time_reply_ms(time), deployment or b"", bool(at), after)


def read_span(
    client: redis.Redis, k: int, first: EntryId, last: EntryId
) -> list[tuple[EntryId, Mapping[bytes, bytes]]]:
    """Read all entries from `first` to `last`, both included. Raises redis.RedisError."""
    found = redis_client.run_command(client, ("XRANGE", keyspace.events_key(k), str(first), str(last)))
    return [(EntryId.parse(entry_id), fields) for entry_id, fields in found]


def parse_entry(k: int, entry_id: bytes, fields: Mapping[bytes, bytes]) -> tuple[PageEntry, bool]:
    """The entry, and whether its records could be read. One that is not as we write them is kept with all that it has."""
    sender, stored = fields.get(b"to", b""), stored_content(fields)
    records = parse_records(stored)
    place = EntryPlace(k, *EntryId.parse(entry_id))
    return PageEntry(place, sender.decode(errors="replace"), records or (), stored), records is not None


def stored_content(fields: Mapping[bytes, bytes]) -> bytes:
    """What the archive keeps of an entry: its records, or all its fields if they are not as we write them."""
    return entry_records(fields) or msgspec.msgpack.encode(list(fields.items()))


def parse_records(stored: bytes) -> Sequence[ArchiveRecord] | None:
    """The records of an entry as it is stored; None if this release cannot read them."""
    try:
        return decode_records(stored)
    except msgspec.MsgspecError:
        return None


def note_archived(client: redis.Redis, k: int, position: EntryId, entries: int = 0) -> None:
    """Tell Redis that the archive has all up to `position`, which is committed: so many entries more than it was told before.
    It never goes back by that. Raises redis.RedisError."""
    call = NoteArchived(
        events=keyspace.events_key(k), archived=keyspace.archived_key(k), id=str(position), entries=entries
    )
    redis_client.run_command(client, function_call(call))


def begin_archived(client: redis.Redis, shards: int) -> None:
    """Tell Redis that an archive begins, which has nothing yet, whatever another had. Raises redis.RedisError."""
    commands: list[Command] = [("SET", keyspace.archived_key(k), f"{BEGINNING} 0") for k in range(shards)]
    redis_client.run_commands(client, commands)
