"""How far is the archive, and what has it? Read from both sides, for `parley archive status`."""

from collections.abc import Sequence

import msgspec
import redis
from sqlalchemy import func, select

from config.archive import tables
from config.archive.archive_schema import stored_schema
from config.archive.database import EVENTS_SOURCE, ArchiveDatabase
from config.archive.watermark import read_watermark
from config.store.entry_id import BEGINNING, EntryId
from workers.archiving.stream_reader import read_after, read_tips

COUNTED_TABLES = ("entries", "sessions", "answers", "messages", "surveys", "opt_outs", "audit")


class ShardProgress(msgspec.Struct, frozen=True):
    """A shard: the last entry that is archived, the last that the stream has given out, since when (ms) the oldest that is
    not archived has waited (0: none does), and until when (ms) all is archived. `is_away`: its server is, and nothing is known of
    the stream."""

    shard: int
    archived: str
    last: str
    waiting_since_ms: int
    read_until_ms: int
    is_away: bool = False


class ArchiveProgress(msgspec.Struct, frozen=True):
    """`now_ms` is the server's. `kept_since_ms` is when the oldest session ended that is there (0: none is)."""

    archive: str
    schema: str
    now_ms: int
    read_until_ms: int
    kept_since_ms: int
    counts: dict[str, int]
    shards: Sequence[ShardProgress]

    @property
    def lag_ms(self) -> int:
        """For how long the oldest entry has waited that is not archived."""
        waiting = [shard.waiting_since_ms for shard in self.shards if shard.waiting_since_ms]
        return max(0, self.now_ms - min(waiting)) if waiting else 0


def read_progress(client: redis.Redis, database: ArchiveDatabase, shards: int) -> ArchiveProgress:
    """Raises ConfigError if there is no archive, redis.RedisError, and SQLAlchemyError."""
    table = tables.positions.c
    with database.reading() as connection:
        found = connection.execute(
            select(table.shard, table.last_ms, table.last_seq, table.read_until_ms).where(
                table.source == EVENTS_SOURCE
            )
        )
        positions = {shard: (EntryId(ms, seq), until_ms) for shard, ms, seq, until_ms in found}
        counts = {
            name: connection.execute(
                select(func.count()).select_from(tables.METADATA.tables[name])
            ).scalar_one()
            for name in COUNTED_TABLES
        }
        kept_since_ms = connection.execute(
            select(func.min(tables.sessions.c.ended_at, type_=tables.Moment))
        ).scalar()
        read_until_ms, schema = read_watermark(connection), stored_schema(connection)
    tips = read_tips(client, range(shards))
    progress = []
    for k in range(shards):
        position, until_ms = positions.get(k, (BEGINNING, 0))
        if k in tips.away:
            progress.append(ShardProgress(k, str(position), "", 0, until_ms, is_away=True))
            continue
        since_ms = _waiting_since(client, k, position) if tips.last_ids[k] > position else 0
        progress.append(ShardProgress(k, str(position), str(tips.last_ids[k]), since_ms, until_ms))
    return ArchiveProgress(
        database.shown_url, schema, tips.now_ms, read_until_ms, kept_since_ms or 0, counts, progress
    )


def _waiting_since(client: redis.Redis, k: int, position: EntryId) -> int:
    """When the oldest entry was written that is not archived (ms); 0 if there is none."""
    entries = read_after(client, k, position, 1).entries
    return EntryId.parse(entries[0][0]).ms if entries else 0
