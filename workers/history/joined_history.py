"""What happened, from its beginning until now: from the archive as far as that is, and from the event stream what follows.

Law: no entry twice, and none left out. The archive has all up to its position, so the stream is read after that. While it is
read, the archive may go on, and what it has may be trimmed from the stream: so a page of the stream, or that there is none,
holds only if the archive is still no further than where that began. If it is, it is the archive's turn again.
"""

from collections.abc import Generator, Iterator

import redis

from config.archive.archived_entries import (
    ArchivedEntry,
    read_end,
    read_sender_entries,
    read_shard_entries,
)
from config.archive.database import ArchiveDatabase
from config.store.entry_id import BEGINNING, EntryId
from workers.store.event_stream import StreamEntry, scan_pages

ARCHIVE_PAGE_SIZE = 1_000

_NO_END_MS = 2**53


class HistoryReader:
    """Reads the history of lanes; of the event streams alone, if there is no archive."""

    def __init__(self, lanes: redis.Redis, database: ArchiveDatabase | None) -> None:
        self._redis = lanes
        self._database = database

    def read_sender(self, k: int, sender: str) -> Iterator[ArchivedEntry]:
        """Every entry of a person in shard `k`, oldest first. Of the archive by index; of the stream, all that the archive has
        not yet is looked through."""
        return (entry for entry in self._read(k, sender, _NO_END_MS) if entry.sender == sender)

    def read_shard(self, k: int, until_ms: int) -> Iterator[ArchivedEntry]:
        """Every entry of shard `k` up to `until_ms`, oldest first, in bounded memory."""
        return self._read(k, "", until_ms)

    def _read(self, k: int, sender: str, until_ms: int) -> Iterator[ArchivedEntry]:
        """Those of the archive that are the sender's, if one is named, and all of the stream that follow."""
        after = BEGINNING
        while True:
            if self._database is not None:
                after = yield from self._read_archived(self._database, k, sender, after, until_ms)
            for page in scan_pages(self._redis, k, f"({after}", str(until_ms)):
                if self._has_gone_on(k, after):
                    break
                entries = [_archived_entry(entry) for entry in page]
                yield from entries
                after = entries[-1].id
            if not self._has_gone_on(k, after):
                return

    def _read_archived(
        self, database: ArchiveDatabase, k: int, sender: str, after: EntryId, until_ms: int
    ) -> Generator[ArchivedEntry, None, EntryId]:
        """Yield what the archive has after `after`; return until where that is everything."""
        while True:
            with database.reading() as connection:
                end = read_end(connection, k)
                if sender:
                    page = read_sender_entries(connection, sender, after)
                else:
                    page = read_shard_entries(connection, k, after, until_ms, ARCHIVE_PAGE_SIZE)
            yield from page
            if sender or len(page) < ARCHIVE_PAGE_SIZE:
                return max(after, end)
            after = page[-1].id

    def _has_gone_on(self, k: int, after: EntryId) -> bool:
        """Whether the archive has more of shard `k` than up to `after`."""
        if self._database is None:
            return False
        with self._database.reading() as connection:
            return read_end(connection, k) > after


def _archived_entry(entry: StreamEntry) -> ArchivedEntry:
    return ArchivedEntry(entry.id, entry.sender, entry.content)
