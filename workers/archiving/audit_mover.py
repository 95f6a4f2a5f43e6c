"""Moves the audit into the archive: what roles and commands have told (config/store/audit.py), and what operators did with dead
letters, which is told where it is done (config/store/lua/dead_letters.lua).

Laws:

- Exactly once, whoever moves and dies: a page is read with its stream's position locked, and written in the transaction that
  moves the position.
- The stream `audit` is trimmed behind its position, and only after that is committed. What was done with dead letters
  stays in Redis as well, for as long as it always did: replaying and `parley dead` look there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
import redis
from sqlalchemy import Connection, insert, select

from config.archive import tables
from config.archive.database import ArchiveDatabase, Position
from config.store import keyspace, redis_client
from config.store.entry_id import BEGINNING, EntryId
from config.telemetry import faults

AUDIT_SOURCE = "audit"
LETTERS_SOURCE = "dead-audit"
DRAMATIQ_SOURCE = "dramatiq-audit"
"""What `positions` and `audit` call the streams: of all roles; of each shard's dead letters; of Dramatiq's own, where the
wake-ups have a server to themselves."""

AUDIT_PAGE = 1_000
"""Entries of one transaction."""

_STREAMS_A_LOOK = 1_000
"""Streams in one round trip."""

_EntryFields = Mapping[bytes, bytes]


class AuditedAct(msgspec.Struct, frozen=True):
    """Who did what, of what, and what else matters, as JSON. `at` is ms."""

    at: int
    actor: str
    action: str
    subject: str
    detail: str


class AuditStream(NamedTuple):
    """A stream of acts: what the archive calls it, where it lies, and how an entry of it is read."""

    source: str
    shard: int
    client: redis.Redis
    key: str
    parse: Callable[[int, _EntryFields], AuditedAct]


class AuditEntryPlace(NamedTuple):
    """Where an act was told: a row of `audit`."""

    source: str
    shard: int
    entry_ms: int
    entry_seq: int


def move_audit(
    database: ArchiveDatabase, client: redis.Redis, shards: int, broker: redis.Redis | None = None
) -> int:
    """Move what was told since the last time; answers how many entries. `broker` is the Redis of the wake-ups, where it is
    another. Raises redis.RedisError and sqlalchemy's errors; what is moved by then is moved. What lies on a server that is away,
    while others of a cluster are not, is moved later."""
    with database.reading() as connection:
        positions = read_positions(connection)
    streams = audit_streams(client, shards, broker)
    return sum(
        _move_if_there(database, stream)
        for stream in streams_with_news(streams, positions, without_away=True)
    )


def _move_if_there(database: ArchiveDatabase, stream: AuditStream) -> int:
    moved = 0
    try:
        while page := _move_page(database, stream):
            moved += page
            if page < AUDIT_PAGE:
                break
    except redis.RedisError as e:
        if not redis_client.is_alone(stream.client, e):
            raise
    return moved


def audit_streams(
    client: redis.Redis, shards: int, broker: redis.Redis | None = None
) -> Sequence[AuditStream]:
    streams = [AuditStream(AUDIT_SOURCE, 0, client, keyspace.AUDIT_KEY, _parse_act)]
    streams += [
        AuditStream(LETTERS_SOURCE, k, client, keyspace.dead_letter_audit_key(k), _parse_letter_act)
        for k in range(shards)
    ]
    if broker is not None:
        key = keyspace.dead_letter_audit_key(0)
        streams.append(AuditStream(DRAMATIQ_SOURCE, 0, broker, key, _parse_letter_act))
    return streams


def read_positions(connection: Connection) -> dict[tuple[str, int], EntryId]:
    """How far streams are in the archive: the id of the last entry there, by source and shard."""
    table = tables.positions.c
    query = select(table.source, table.shard, table.last_ms, table.last_seq)
    return {(source, shard): EntryId(ms, seq) for source, shard, ms, seq in connection.execute(query)}


def scan_acts(
    stream: AuditStream, after: EntryId, before_ms: int = 0
) -> Iterator[tuple[AuditEntryPlace, AuditedAct]]:
    """What a stream has after an entry, and before a moment if that is given, newest first."""
    until = str(before_ms - 1) if before_ms else "+"
    while page := redis_client.run_command(
        stream.client, ("XREVRANGE", stream.key, until, f"({after}", "COUNT", AUDIT_PAGE)
    ):
        for entry_id, fields in page:
            ms, seq = EntryId.parse(entry_id)
            yield AuditEntryPlace(stream.source, stream.shard, ms, seq), stream.parse(ms, fields)
        until = f"({page[-1][0].decode()}"


def streams_with_news(
    streams: Sequence[AuditStream], positions: Mapping[tuple[str, int], EntryId], *, without_away: bool
) -> Iterator[AuditStream]:
    """Those that have an entry after their position, asked for at once. Raises redis.RedisError; `without_away`: not for one that
    lies on a server that is away, while others of a cluster are not, and is left out."""
    for at in range(0, len(streams), _STREAMS_A_LOOK):
        group = streams[at : at + _STREAMS_A_LOOK]
        for client in {stream.client: None for stream in group}:
            there = [stream for stream in group if stream.client is client]
            looks = [
                (
                    "XRANGE",
                    each.key,
                    f"({positions.get((each.source, each.shard), BEGINNING)}",
                    "+",
                    "COUNT",
                    1,
                )
                for each in there
            ]
            if without_away:
                found = redis_client.try_commands(client, looks)
                redis_client.raise_unless_alone(client, found)
            else:
                found = redis_client.run_commands(client, looks)
            yield from (
                stream
                for stream, news in zip(there, found, strict=True)
                if news and not isinstance(news, Exception)
            )


def _move_page(database: ArchiveDatabase, stream: AuditStream) -> int:
    """Move the next page of a stream; answers how many entries it was."""
    with database.writing() as connection:
        position = database.lock_position(connection, stream.source, stream.shard)
        page = redis_client.run_command(
            stream.client, ("XRANGE", stream.key, f"({position.entry_id}", "+", "COUNT", AUDIT_PAGE)
        )
        if page:
            rows = [_row_of(stream, *EntryId.parse(entry_id), fields) for entry_id, fields in page]
            connection.execute(insert(tables.audit), rows)
            last = EntryId.parse(page[-1][0])
            position = Position(last.ms, last.seq, last.ms)
            database.move_position(connection, stream.source, stream.shard, position)
        faults.reach("before_audit_commit")
    faults.reach("after_audit_commit")
    if stream.source == AUDIT_SOURCE:
        kept_from = str(position.entry_id.following)
        redis_client.run_command(stream.client, ("XTRIM", stream.key, "MINID", kept_from))
    return len(page)


def _row_of(stream: AuditStream, ms: int, seq: int, fields: _EntryFields) -> dict[str, object]:
    place = AuditEntryPlace(stream.source, stream.shard, ms, seq)
    return {**place._asdict(), **msgspec.structs.asdict(stream.parse(ms, fields))}


def _parse_act(ms: int, fields: _EntryFields) -> AuditedAct:
    words = _read_words(fields)
    return AuditedAct(ms, *(words.get(name, "") for name in ("actor", "action", "subject", "detail")))


def _parse_letter_act(ms: int, fields: _EntryFields) -> AuditedAct:
    """An act of `parley dead`; or of `parley erase` and a survey's `keep`, which are nobody's."""
    words = _read_words(fields)
    by, outcome = words.get("by", ""), words.get("outcome", "")
    detail = {name: words.get(name, "") for name in ("kind", "reason", "channel")}
    actor = by if by in _NO_OPERATORS else f"operator {by}"
    return AuditedAct(
        ms, actor, f"dead letter {outcome}", words.get("id", ""), msgspec.json.encode(detail).decode()
    )


_NO_OPERATORS = ("parley erase", "keep")
"""By whom dead letters go that no operator has chosen."""


def _read_words(fields: _EntryFields) -> dict[str, str]:
    """An entry's fields as SQL takes them, whatever they are."""
    return {
        name.decode(errors="replace"): value.decode(errors="replace").replace("\0", "\ufffd")
        for name, value in fields.items()
    }
