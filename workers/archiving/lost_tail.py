"""What if Redis is older than the archive? A server that was promoted, or started from an old disk, may not have what it had
said last, and the archive may have it already.

The rule. An archived entry is *lost* if the stream has not reached its id, or has neither it nor a trace of why: it was not
trimmed (the stream has older ones) nor deleted (an erasure or a `keep` leaves the newest deleted id), or if the stream has
another one at its id. What was lost did happen, so the archive keeps it, once; what happens from then on follows it. Two things would go wrong by themselves:

- The new server may give out ids at or below the position, which nobody would ever read: its clock may be behind. So the
  stream is made to give out later ones, by an entry at the position that is deleted in the same transaction; entries that
  it has written at such ids meanwhile, and all that followed them, are written anew at its end, in their order. Nothing is
  skipped, and each sender's order holds.
- A backup of yesterday looks the same, but for how much is lost. Beyond LONGEST_LOST_TAIL_MS a person has to look: the shard is
  held, which an error and a gauge say, and nothing of it is archived until `parley archive resume`, or until Redis has what
  it had.

The deleted entry is also the trace by which the stream is not found lacking again.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import redis
import structlog
from sqlalchemy import Connection, select, tuple_

from config.archive import tables
from config.store import keyspace, redis_client
from config.store.entry_id import BEGINNING, EntryId
from engine.model.errors import ParleyError
from workers.archiving.stream_reader import StreamState, read_span, read_state, stored_content

log = structlog.get_logger()

LONGEST_LOST_TAIL_MS = 600_000
"""A failover loses seconds. What spans more is a server that was put back to an earlier time."""

_COMPARED_PAGE = 1_000
_MOST_COMPARED = 20_000
"""Entries of the archive that are looked for in the stream, from the position backwards."""


class RedisOlderThanArchiveError(ParleyError):
    """A shard of Redis has not what the archive has of it: `lost` entries, from `since_ms` on."""

    def __init__(self, shard: int, lost: int, since_ms: int) -> None:
        found = f"shard {shard} of Redis is older than the archive, which has {lost} entries more"
        go_on = f"if it is to go on so, parley archive resume --shard {shard}"
        todo = "else put back what Redis had, or set PARLEY_ARCHIVE_URL to another archive"
        super().__init__(f"{found}: {go_on}; {todo}")
        self.shard, self.lost, self.since_ms = shard, lost, since_ms


def find_lost(archived: Sequence[EntryId], stream: StreamState) -> list[EntryId]:
    """Of entries of the archive that are not in the stream, those that the stream has lost."""

    def is_lost(entry: EntryId) -> bool:
        if entry > stream.last:
            return True
        was_trimmed = stream.first is None or entry < stream.first
        return not was_trimmed and entry > stream.max_deleted

    return [entry for entry in archived if is_lost(entry)]


def rejoin_stream(
    connection: Connection, client: redis.Redis, k: int, position: EntryId, *, by_operator: bool = False
) -> int:
    """Make sure that all that the stream gets from now on, and all that the archive has not of it, is after `position`; its
    row is locked, and the stream has not the archive's entry at it. Answers how many entries were lost. Raises
    RedisOlderThanArchiveError unless the loss is a failover's or an operator has agreed, and redis.RedisError."""
    if position == BEGINNING:
        return 0
    state = read_state(client, k)
    common, missing, replaced = _compare(connection, client, k, position)
    lost = [*replaced, *find_lost(missing, state)]
    if not lost and state.last >= position:
        return 0
    since_ms = min(lost, default=state.last).ms
    if position.ms - since_ms > LONGEST_LOST_TAIL_MS and not by_operator:
        raise RedisOlderThanArchiveError(k, len(lost), since_ms)
    first = common.following if common is not None else EntryId(since_ms, 0)
    moved = _move_behind(client, k, first, position)
    log.warning(
        "Redis has lost what the archive has; what happens now follows it",
        shard=k,
        lost=len(lost),
        rewritten=moved,
    )
    return len(lost)


def _compare(
    connection: Connection, client: redis.Redis, k: int, position: EntryId
) -> tuple[EntryId | None, list[EntryId], list[EntryId]]:
    """The newest entry that both have, BEGINNING if there is none, None if it is farther back than is looked; those of the
    archive after it that the stream has not, and those at whose ids it has others."""
    missing: list[EntryId] = []
    replaced: list[EntryId] = []
    for page in _archived_before(connection, k, position):
        there = {
            entry_id: stored_content(fields)
            for entry_id, fields in read_span(client, k, page[-1][0], page[0][0])
        }
        for entry_id, records in page:
            if there.get(entry_id) == records:
                return entry_id, missing, replaced
            (replaced if entry_id in there else missing).append(entry_id)
    is_all = len(missing) + len(replaced) < _MOST_COMPARED
    return BEGINNING if is_all else None, missing, replaced


def _archived_before(
    connection: Connection, k: int, position: EntryId
) -> Iterator[list[tuple[EntryId, bytes]]]:
    """The shard's entries in the archive up to `position`, newest first, by the page."""
    table = tables.entries.c
    end, compared = position, 0
    query = (
        select(table.entry_ms, table.entry_seq, table.records)
        .order_by(table.entry_ms.desc(), table.entry_seq.desc())
        .limit(_COMPARED_PAGE)
    )
    while compared < _MOST_COMPARED:
        here = tuple_(table.entry_ms, table.entry_seq)
        upto = here <= tuple_(*end) if not compared else here < tuple_(*end)
        rows = connection.execute(query.where(table.shard == k, upto)).all()
        if not rows:
            return
        yield [(EntryId(ms, seq), records) for ms, seq, records in rows]
        compared += len(rows)
        end = EntryId(*rows[-1][:2])


def _move_behind(client: redis.Redis, k: int, first: EntryId, position: EntryId) -> int:
    """Have the stream give out no id up to `position` any more, and write anew what it has at such ids from `first` on, with
    all that follows. Answers how many entries that were."""
    key = keyspace.events_key(k)

    rewritten = 0

    def move(pipeline: "redis.client.Pipeline") -> None:
        nonlocal rewritten
        state = read_state(client, k)
        late = read_span(client, k, first, position)
        moved = [*late, *read_span(client, k, position.following, state.last)] if late else []
        mark = str(position if state.last < position else state.last.following)
        pipeline.multi()
        pipeline.xadd(key, {"to": "", "e": ""}, id=mark)
        pipeline.xdel(key, mark, *[str(entry_id) for entry_id, _ in moved])
        for _, fields in moved:
            pipeline.xadd(key, dict[Any, Any](fields))
        rewritten = len(moved)

    redis_client.server_of(client, key).transaction(move, key)
    return rewritten
