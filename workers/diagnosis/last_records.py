"""What happened last with one person? In the end of the shard's event stream, as far as the archive has not that yet, and
before it in the archive, by an index. What cannot be read is a sentence, and hides nothing else."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from itertools import chain

import msgspec
import redis
from sqlalchemy.exc import SQLAlchemyError

from config.archive.archive_schema import has_schema
from config.archive.archived_entries import ArchivedEntry, read_end, read_last_entries
from config.archive.database import ArchiveDatabase, describe_failure
from config.settings.config_errors import ConfigError
from config.store import keyspace, redis_client
from config.store.entry_id import EntryId
from config.store.event_entries import entry_records
from engine.model.events import ArchiveRecord

RECORDS_SHOWN = 10
_STREAM_PAGE_SIZE = 1_000
_STREAM_PAGES_READ = 20
"""Pages of a shard's event stream that are looked through for a person's last records."""

_ARCHIVE_TIMEOUT_S = 5.0


class LastRecordsReader:
    """Reads the last records of a person in shard `k`, and adds to `unreadable` what cannot be read."""

    def __init__(self, lanes: redis.Redis, k: int, sender: str, unreadable: list[str]) -> None:
        self._redis = lanes
        self._k = k
        self._sender = sender
        self._unreadable = unreadable

    def read(self, archive_url: str, clock: int) -> list[ArchiveRecord]:
        """Return them, oldest first. `clock` (ms) is about when their lane last changed: without an archive they are looked
        for there too, if they are not among the shard's latest."""
        try:
            with closing(ArchiveDatabase(archive_url, _ARCHIVE_TIMEOUT_S)) as archive:
                if has_schema(archive):
                    return self._last(self._joined_entries(archive))
        except ConfigError as e:
            self._unreadable.append(f"the archive cannot be read: {e}")
        except SQLAlchemyError as e:
            self._unreadable.append(f"the archive cannot be read: {describe_failure(e)}")
        found, _ = self._stream_entries("+", "-", _STREAM_PAGES_READ // 2)
        if not found and clock:
            found, _ = self._stream_entries(str(clock + 5_000), "-", _STREAM_PAGES_READ // 2)
        return self._last(found)

    def _joined_entries(self, archive: ArchiveDatabase) -> list[ArchivedEntry]:
        """The stream is read first, so that what is archived meanwhile is found in the archive, and left out here."""
        with archive.reading(_ARCHIVE_TIMEOUT_S) as connection:
            before = read_end(connection, self._k)
        recent, is_all = self._stream_entries("+", f"({before}", _STREAM_PAGES_READ)
        with archive.reading(_ARCHIVE_TIMEOUT_S) as connection:
            end = read_end(connection, self._k)
            archived = read_last_entries(connection, self._sender, RECORDS_SHOWN)
        if not is_all and len(recent) < RECORDS_SHOWN:
            self._unreadable.append(
                "the archive is far behind: some of what happened may be in neither part that was read"
            )
        return archived + [entry for entry in recent if entry.id > end]

    def _stream_entries(self, until: str, after: str, pages: int) -> tuple[list[ArchivedEntry], bool]:
        """Their entries in the last `pages` of the stream between both, until there are enough, oldest first; and whether
        nothing is left there."""
        found: list[list[ArchivedEntry]] = []
        for _ in range(pages):
            page = redis_client.run_command(
                self._redis,
                ("XREVRANGE", keyspace.events_key(self._k), until, after, "COUNT", _STREAM_PAGE_SIZE),
            )
            found.append([*reversed(list(self._entries_in(page)))])
            if len(page) < _STREAM_PAGE_SIZE:
                return list(chain.from_iterable(reversed(found))), True
            if sum(map(len, found)) >= RECORDS_SHOWN:
                break
            until = "(" + page[-1][0].decode()
        return list(chain.from_iterable(reversed(found))), False

    def _entries_in(self, page: Iterable[tuple[bytes, Mapping[bytes, bytes]]]) -> Iterator[ArchivedEntry]:
        for identity, fields in page:
            if fields.get(b"to") == self._sender.encode():
                yield ArchivedEntry(EntryId.parse(identity), self._sender, entry_records(fields))

    def _last(self, entries: Iterable[ArchivedEntry]) -> list[ArchiveRecord]:
        found: list[ArchiveRecord] = []
        for entry in entries:
            try:
                found += entry.records
            except (msgspec.MsgspecError, ValueError) as e:
                self._unreadable.append(f"the entry {entry.id} of what happened cannot be read: {e}")
        return found[-RECORDS_SHOWN:]
