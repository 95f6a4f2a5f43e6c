"""Sees every entry of the event streams as it comes, and keeps what the server loses or trims."""

from collections.abc import Collection, Iterator
from typing import NamedTuple, TypeVar

from config.store import keyspace
from config.store.entry_id import EntryId
from config.store.event_entries import entry_records
from engine.model.events import ArchiveRecord, decode_records
from tests.simulated.world.simulated_world import SimulatedWorld

T = TypeVar("T")


class SeenEntry(NamedTuple):
    """An entry that came at `at_us`, by the change number `change` of the server."""

    k: int
    id: EntryId
    sender: str
    records: list[ArchiveRecord]
    at_us: int
    change: int
    stored: bytes


class SeenRecord(NamedTuple):
    record: ArchiveRecord
    entry: SeenEntry


class StreamWatcher:
    """The entries of a run, in the order in which they came. Those that a failover took back are in `lost`, and the
    former places of those that were written anew in `moved`."""

    def __init__(self, world: SimulatedWorld) -> None:
        self.entries: list[SeenEntry] = []
        self.lost: list[SeenEntry] = []
        self.moved: list[SeenEntry] = []
        self._world = world
        self._seen: dict[int, tuple[int, int]] = {}
        world.lanes.losing.append(self._forget_lost)
        world.scheduler.observers.append(self.look)

    def look(self) -> None:
        for k in range(self._world.settings.shards):
            last = self._world.lanes.view.last_entry(keyspace.events_key(k))
            if last is None or last == self._seen.get(k):
                continue
            self._take_new(k)
            self._seen[k] = last

    def records(self, sender: str, *, with_lost: bool = False) -> list[SeenRecord]:
        """The records of a person, in the order in which they came."""
        entries = (
            sorted([*self.entries, *self.lost], key=lambda each: each.at_us) if with_lost else self.entries
        )
        return [
            SeenRecord(record, entry)
            for entry in entries
            if entry.sender == sender
            for record in entry.records
        ]

    def _take_new(self, k: int) -> None:
        after = "({}-{}".format(*self._seen[k]) if k in self._seen else "-"
        for entry_id, fields in self._world.lanes.model.execute(
            ("XRANGE", keyspace.events_key(k), after, "+")
        ):
            content = dict(zip(fields[::2], fields[1::2], strict=True))
            stored = entry_records(content)
            entry = SeenEntry(
                k,
                EntryId.parse(entry_id),
                content[b"to"].decode(),
                decode_records(stored),
                self._world.scheduler.now_us,
                self._world.lanes.model.changes,
                stored,
            )
            self._forget_moved(entry)
            self.entries.append(entry)

    def _forget_moved(self, entry: SeenEntry) -> None:
        """An entry that was written anew at a later place (workers/archiving/lost_tail.py) is no more where it was."""
        key = keyspace.events_key(entry.k)
        for at, each in enumerate(self.entries):
            is_alike = each.k == entry.k and each.sender == entry.sender and each.stored == entry.stored
            if is_alike and not self._world.lanes.view.has_entry(key, (each.id.ms, each.id.seq)):
                del self.entries[at]
                self.moved.append(each)
                return

    def _forget_lost(self, changes: Collection[int]) -> None:
        self.look()
        self.lost += [each for each in self.entries if each.change in changes]
        self.entries = [each for each in self.entries if each.change not in changes]
        for k in range(self._world.settings.shards):
            of_shard = [each.id for each in self.entries if each.k == k]
            self._seen.pop(k, None)
            if of_shard:
                self._seen[k] = (of_shard[-1].ms, of_shard[-1].seq)


def of_type(seen: list[SeenRecord], kind: type[T]) -> Iterator[tuple[T, SeenEntry]]:
    """The records of one type."""
    for record, entry in seen:
        if isinstance(record, kind):
            yield record, entry
