"""What follows an endpoint's position in a shard: from the event stream, and where that was trimmed, from the archive.

Law: no entry is left out, and they come in order. Trimming takes the oldest entries of a stream, and none that the archive
lacks. So what the stream has is complete from its first entry on, and what lies between the position and that is in the
archive; the archive is read after the stream, so that what was trimmed before the stream was read is there. It is not asked
while Redis knows of no archive that is beyond the position, as nothing beyond it can have been trimmed then: so an endpoint
that is where the streams end does without an archive that is away.

A server that was promoted may lack what endpoints were told already, and may give out ids anew at or below a position, which
nobody would ever read. So leases are void there, and positions are those that it has (lua/hooks.lua). One that is gone all the
same goes back by as much as a failover may lose, and the endpoint is told again what happened since: it knows repeats by their
ids.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import redis
import structlog

from config.archive.archived_entries import ArchivedEntry, read_end, read_last_before, read_shard_entries
from config.store import keyspace, redis_client
from config.store.entry_id import BEGINNING, EntryId
from workers.archiving.lost_tail import LONGEST_LOST_TAIL_MS, find_lost
from workers.archiving.stream_reader import parse_entry, read_after, read_state
from workers.hooks.archive_questions import ArchiveQuestions

log = structlog.get_logger()

ENTRIES_A_PAGE = 100

_NO_END_MS = 2**53


class EntryPage(NamedTuple):
    """Entries that follow `position`, oldest first. `is_all`: there were no more."""

    position: EntryId
    entries: Sequence[ArchivedEntry]
    is_all: bool


class EntryReader:
    """Reads the shards of one deployment, as far as so many `replicas` have them; of the event streams alone, while there is no
    archive."""

    def __init__(self, client: redis.Redis, archive: ArchiveQuestions | None, replicas: int = 0) -> None:
        self._redis = client
        self._replicas = replicas
        self._archive = archive

    def read(self, k: int, position: EntryId, most: int = ENTRIES_A_PAGE) -> EntryPage:
        """Read at most `most` entries of shard `k`. Raises redis.RedisError, sqlalchemy.exc.SQLAlchemyError and
        ArchiveBusyError."""
        page = read_after(self._redis, k, position, most, replicas=self._replicas)
        if not page.has_position and position != BEGINNING and self._is_lost(k, position):
            position = self._go_back(k, position)
            page = read_after(self._redis, k, position, most, replicas=self._replicas)
        entries = [_entry(k, entry_id, fields) for entry_id, fields in page.entries]
        may_be_trimmed = not page.has_position and self._may_be_trimmed(k, position)
        if may_be_trimmed and (trimmed := self._read_trimmed(k, position, entries, most)):
            return EntryPage(position, trimmed, is_all=False)
        return EntryPage(position, entries, is_all=len(entries) < most)

    def find_last_before(self, k: int, before_ms: int) -> EntryId:
        """The place of the last entry of shard `k` before this time; BEGINNING if there was none."""
        key = keyspace.events_key(k)
        found = redis_client.run_command(
            self._redis, ("XREVRANGE", key, f"{max(0, before_ms - 1)}", "-", "COUNT", 1)
        )
        if found:
            return EntryId.parse(found[0][0])
        if self._archive is None or not self._archive.is_there():
            return BEGINNING
        return self._archive.ask(lambda connection: read_last_before(connection, k, before_ms))

    def _may_be_trimmed(self, k: int, position: EntryId) -> bool:
        """Whether there may have been entries after the position that the stream, which was read before, had no more."""
        archived = redis_client.run_command(self._redis, ("GET", keyspace.archived_key(k)))
        return not archived or EntryId.parse(archived.split(b" ")[0]) > position

    def _is_lost(self, k: int, position: EntryId) -> bool:
        """Whether the server lacks it that we have now. If the archive has it, the stream is made to go on behind it, and until
        then whoever archives waits too (workers/archiving/lost_tail.py)."""
        if not find_lost([position], read_state(self._redis, k)):
            return False
        if self._archive is None or not self._archive.is_there():
            return True
        return self._archive.ask(lambda connection: read_end(connection, k)) < position

    def _go_back(self, k: int, position: EntryId) -> EntryId:
        back = self.find_last_before(k, position.ms - LONGEST_LOST_TAIL_MS)
        log.warning("Redis has lost what an endpoint was told; it is told again what followed", shard=k)
        return back

    def _read_trimmed(
        self, k: int, position: EntryId, found: Sequence[ArchivedEntry], most: int
    ) -> list[ArchivedEntry]:
        """What the archive has between the position and the first entry that the stream has after it."""
        if self._archive is None or not self._archive.is_there():
            return []
        first = found[0].id if found else None
        until_ms = first.ms if first else _NO_END_MS
        archived = self._archive.ask(
            lambda connection: read_shard_entries(connection, k, position, until_ms, most)
        )
        return [entry for entry in archived if first is None or entry.id < first]


def _entry(k: int, entry_id: bytes, fields: Mapping[bytes, bytes]) -> ArchivedEntry:
    entry, _ = parse_entry(k, entry_id, fields)
    return ArchivedEntry(EntryId(*entry.place[1:]), entry.sender, entry.stored)
