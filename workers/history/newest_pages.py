"""What happened with a person, the newest first, page by page: of the event stream as far as the archive has it not yet, and before
that of the archive, by an index.

Law: no entry twice, and none left out. The stream is read first, and then how far the archive is: up to there all is in the
archive, and what follows has not been trimmed from the stream. Of a stream no more is looked through for a page than
MAX_STREAM_PAGES; where a page ends for that, the next goes on there.
"""

from typing import NamedTuple

import msgspec
import redis

from config.archive.archived_entries import ArchivedEntry, read_end, read_last_entries
from config.archive.database import ArchiveDatabase
from config.store import keyspace, redis_client
from config.store.entry_id import BEGINNING, EntryId
from config.store.event_entries import entry_records
from engine.model.events import ArchiveRecord
from workers.store.event_stream import STREAM_PAGE_SIZE

MAX_STREAM_PAGES = 5


class HistoryPage(NamedTuple):
    """Records, oldest first. Older ones are looked for `before` this entry; None: there are none. `unread` are sentences on what
    cannot be read."""

    records: list[ArchiveRecord]
    before: EntryId | None
    unread: list[str]


class NewestPagesReader:
    """Reads the history of persons; of the event streams alone, if there is no archive."""

    def __init__(self, lanes: redis.Redis, archive: ArchiveDatabase | None) -> None:
        self._redis = lanes
        self._archive = archive

    def read_page(self, k: int, sender: str, before: EntryId | None, limit: int) -> HistoryPage:
        """Return the last entries of a person in shard `k` before this one (None: the very last), `limit` at the most. Raises
        redis.RedisError, and SQLAlchemyError."""
        recent, looked_to = self._read_stream(k, sender, before, limit)
        if self._archive is None:
            return _decode_page(recent[:limit], _oldest(recent, limit) or looked_to)
        with self._archive.reading() as connection:
            end = read_end(connection, k)
            recent = [entry for entry in recent if entry.id > end][:limit]
            if len(recent) == limit or (looked_to is not None and looked_to > end):
                return _decode_page(recent, _oldest(recent, limit) or looked_to)
            wanted = limit - len(recent)
            archived = read_last_entries(
                connection, sender, wanted, min(before or end.following, end.following)
            )
        found = recent + archived[::-1]
        return _decode_page(found, found[-1].id if len(archived) == wanted else None)

    def _read_stream(
        self, k: int, sender: str, before: EntryId | None, limit: int
    ) -> tuple[list[ArchivedEntry], EntryId | None]:
        """The person's newest entries after those of the archive, newest first, and where it was given up to look for more; None
        if nothing is left there."""
        after = BEGINNING
        if self._archive is not None:
            with self._archive.reading() as connection:
                after = read_end(connection, k)
        found: list[ArchivedEntry] = []
        until = "+" if before is None else f"({before}"
        for _ in range(MAX_STREAM_PAGES):
            page = redis_client.run_command(
                self._redis,
                ("XREVRANGE", keyspace.events_key(k), until, f"({after}", "COUNT", STREAM_PAGE_SIZE),
            )
            found += [
                ArchivedEntry(EntryId.parse(identity), sender, entry_records(fields))
                for identity, fields in page
                if fields.get(b"to") == sender.encode()
            ]
            if len(page) < STREAM_PAGE_SIZE:
                return found, None
            last = EntryId.parse(page[-1][0])
            if len(found) > limit:
                return found, last
            until = f"({last}"
        return found, last


def _oldest(found: list[ArchivedEntry], limit: int) -> EntryId | None:
    """Where a page that is full goes on, if there is more than it takes."""
    return found[limit - 1].id if len(found) >= limit else None


def _decode_page(found: list[ArchivedEntry], before: EntryId | None) -> HistoryPage:
    records: list[ArchiveRecord] = []
    unread: list[str] = []
    for entry in reversed(found):
        try:
            records += entry.records
        except (msgspec.MsgspecError, ValueError) as e:
            unread.append(f"The entry {entry.id} of what happened cannot be read: {e}")
    return HistoryPage(records, before, unread)
