"""What `archive` asks Redis: how far the event streams are, what follows a position, and to note how far the archive is."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import redis

from config.store import keyspace, redis_client
from config.store.entry_id import BEGINNING, EntryId
from config.store.event_entries import entry_records
from config.store.function_calls import Command, function_call
from config.store.redis_client import NotReplicatedError
from config.store.server_functions import NoteArchived
from engine.model.events import ArchiveRecord, decode_records
from workers.archiving.archive_rows import EntryPlace
from workers.archiving.projection import PageEntry

_NO_KEY = "no such key"


class StreamTips(NamedTuple):
    """How far the streams are: the last id that each has given out, by shard, at `now_ms` or later. `deployment` is the id
    of the deployment whose Redis it is; empty: it has none; None: the server of a cluster that has it is away. `last_entries`
    are what the last entry holds that each has still: after a failover, another may have its id. Of the shards that are `away`
    nothing is known, as their servers are."""

    now_ms: int
    deployment: bytes | None
    last_ids: Mapping[int, EntryId]
    last_entries: Mapping[int, bytes]
    away: Collection[int] = ()

    def tip(self, k: int) -> "StreamTip":
        """How far the stream of shard `k` is."""
        return StreamTip(self.last_ids[k], self.last_entries[k])


class StreamTip(NamedTuple):
    """Another, whenever a stream is another or has gone on."""

    last_id: EntryId
    last_entry: bytes


class StreamPage(NamedTuple):
    """What follows a position: at most as many entries as were asked for. All that the stream had at `now_ms` is there if
    they are fewer. `at_position`: what the entry at the position itself holds; None if it is not there."""

    now_ms: int
    deployment: bytes | None
    at_position: Mapping[bytes, bytes] | None
    entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]]

    @property
    def has_position(self) -> bool:
        return self.at_position is not None


class StreamState(NamedTuple):
    """What a stream says of itself: its first entry (None: it is empty), the last id that it has given out, the newest
    that was deleted from it, how many entries it ever had, and what the last of those holds that are there."""

    first: EntryId | None
    last: EntryId
    max_deleted: EntryId
    added: int
    last_entry: bytes = b""


_NO_STATE = StreamState(None, BEGINNING, BEGINNING, 0)


def read_tips(client: redis.Redis, shards: Sequence[int]) -> StreamTips:
    """Raises redis.RedisError, but for servers that are away while one of a cluster is not, whether or not it has any of these
    shards."""
    infos: list[Command] = [("XINFO", "STREAM", keyspace.events_key(k)) for k in shards]
    # of several servers the earliest time, asked before: what they have by then is told
    earliest_ms = min(redis_client.server_times_ms(client)) if redis_client.is_cluster(client) else None
    time, deployment, *answers = redis_client.try_commands(
        client, [("TIME",), ("GET", keyspace.DEPLOYMENT_KEY), *infos]
    )
    redis_client.raise_first_error([time])
    told = dict(zip(shards, answers, strict=True))
    away = frozenset(k for k, answer in told.items() if redis_client.is_away(answer))
    states = {k: _NO_STATE if k in away else _parse_state(answer) for k, answer in told.items()}
    return StreamTips(
        redis_client.time_reply_ms(time) if earliest_ms is None else earliest_ms,
        _known_deployment(deployment),
        {k: state.last for k, state in states.items()},
        {k: state.last_entry for k, state in states.items()},
        away,
    )


def _known_deployment(answer: Any) -> bytes | None:
    """Read the answer to GET; None if the server is away that has the id. Raises it if it is another error."""
    if redis_client.is_away(answer):
        return None
    redis_client.raise_first_error([answer])
    return answer or b""


def read_state(client: redis.Redis, k: int) -> StreamState:
    """Raises redis.RedisError."""
    (answer,) = redis_client.try_commands(client, [("XINFO", "STREAM", keyspace.events_key(k))])
    return _parse_state(answer)


def _parse_state(answer: Any) -> StreamState:
    """Read the answer to XINFO STREAM: names and values in turn. Raises it if it is an error, but for a stream that is not
    there."""
    if isinstance(answer, Exception):
        if _NO_KEY in str(answer):
            return _NO_STATE
        raise answer
    told = dict(zip(answer[::2], answer[1::2], strict=True))
    first, last = told[b"first-entry"], told[b"last-entry"]
    return StreamState(
        EntryId.parse(first[0]) if first else None,
        EntryId.parse(told[b"last-generated-id"]),
        EntryId.parse(told[b"max-deleted-entry-id"]),
        told[b"entries-added"],
        b"".join(last[1]) if last else b"",
    )


def read_after(client: redis.Redis, k: int, position: EntryId, most: int, *, replicas: int = 0) -> StreamPage:
    """Read at most `most` entries of a shard that follow `position`, as `read_pages_after` does."""
    return read_pages_after(client, {k: position}, most, replicas=replicas)[k]


def read_pages_after(
    client: redis.Redis, positions: Mapping[int, EntryId], most: int, *, replicas: int = 0
) -> dict[int, StreamPage]:
    """Read at most `most` entries of each of these shards that follow its position, which so many `replicas` have: no failover
    takes them back. On a cluster one shard can be read. Raises redis.RedisError."""
    keys = {k: keyspace.events_key(k) for k in positions}
    now_ms = None
    if redis_client.is_cluster(client):  # TIME below is another server's, and of another moment
        (key,) = keys.values()
        now_ms = redis_client.server_time_ms(redis_client.server_of(client, key))
    time, deployment, *found = redis_client.try_commands(
        client,
        [
            ("TIME",),
            ("GET", keyspace.DEPLOYMENT_KEY),
            *(
                command
                for k, position in positions.items()
                for command in (
                    ("XRANGE", keys[k], str(position), str(position), "COUNT", 1),
                    ("XRANGE", keys[k], f"({position}", "+", "COUNT", most),
                )
            ),
        ],
        transaction=True,
    )
    redis_client.raise_first_error([time, *found])
    after = dict(zip(positions, found[1::2], strict=True))
    if replicas:
        _require_replicated(
            client, {keys[k]: entries[-1] for k, entries in after.items() if entries}, replicas
        )
    now_ms = redis_client.time_reply_ms(time) if now_ms is None else now_ms
    known = _known_deployment(deployment)
    return {
        k: StreamPage(now_ms, known, at[0][1] if at else None, after[k])
        for k, at in zip(positions, found[::2], strict=True)
    }


def _require_replicated(
    client: redis.Redis, last_of: Mapping[str, tuple[bytes, Mapping[bytes, bytes]]], replicas: int
) -> None:
    """Raise NotReplicatedError unless the server has the entry of each of these streams, and replicas have all that it has: it
    may be another than the one that was read."""
    if not last_of:
        return
    commands = [("XRANGE", key, last[0], last[0]) for key, last in last_of.items()]
    found = redis_client.run_commands(client, commands, replicas=replicas)
    if found != [[last] for last in last_of.values()]:
        raise NotReplicatedError(found, 0, replicas)


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


def note_archived(client: redis.Redis, archived: Mapping[int, tuple[EntryId, int]]) -> None:
    """Tell Redis that the archive has all of these shards up to a position, which is committed: so many entries more than it was
    told before. It never goes back by that. Raises redis.RedisError."""
    redis_client.run_commands(
        client,
        [
            function_call(
                NoteArchived(
                    events=keyspace.events_key(k),
                    archived=keyspace.archived_key(k),
                    id=str(position),
                    entries=entries,
                )
            )
            for k, (position, entries) in archived.items()
        ],
    )


def begin_archived(client: redis.Redis, shards: int) -> None:
    """Tell Redis that an archive begins, which has nothing yet, whatever another had. Raises redis.RedisError."""
    commands: list[Command] = [("SET", keyspace.archived_key(k), f"{BEGINNING} 0") for k in range(shards)]
    redis_client.run_commands(client, commands)
