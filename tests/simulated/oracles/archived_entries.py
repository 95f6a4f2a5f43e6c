"""At the end of a run: has the archive all that happened, once, as it was, and is what it says of it made of that?"""

from collections.abc import Callable
from random import Random
from typing import Any

from config.store.entry_id import EntryId
from tests.simulated.oracles.event_streams import KeptSessions
from tests.simulated.oracles.stream_watcher import StreamWatcher
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.world.simulated_archive import SimulatedArchive
from tests.simulated.world.simulated_world import SimulatedWorld
from tests.support.archiving import DERIVED, archived_entries, derived_rows
from workers.archiving.page_writer import write_page
from workers.archiving.projection import PageEntry
from workers.archiving.stream_reader import parse_entry

PROJECTED_CHANCE = 0.1
"""In so many runs all that is made of the entries is compared: that takes as long as the run."""


class ArchivedEntryOracle:
    """Judges an archive, of which everything is there that the streams had."""

    def __init__(
        self,
        world: SimulatedWorld,
        archive: SimulatedArchive,
        watcher: StreamWatcher,
        kept: KeptSessions,
        hash_number: Callable[[str], str],
    ) -> None:
        self._world = world
        self._archive = archive
        self._watcher = watcher
        self._kept = kept
        self._hash_number = hash_number

    def judge(self) -> None:
        rows = {
            (k, EntryId(ms, seq)): (sender, stored)
            for k, ms, seq, sender, stored in self._archive.query(
                "SELECT shard, entry_ms, entry_seq, sender, records FROM entries"
            )
        }
        self._judge_rows(rows)
        for each in self._watcher.entries:
            is_there = rows.get((each.k, each.id)) == (each.sender, each.stored)
            if not is_there and not self._kept.is_due(each, self._now_ms):
                raise PromiseBroken("archived", f"{each.id} of shard {each.k} is not in the archive")
        if Random(f"projected {self._world.seed}").random() < PROJECTED_CHANCE:
            self._judge_projection()

    @property
    def _now_ms(self) -> int:
        return self._world.lanes.now_ms

    def _judge_rows(self, rows: dict[tuple[int, EntryId], tuple[str, bytes]]) -> None:
        """Entries of the archive are those of the streams, and what a failover took back: that did happen, so the archive
        keeps it. None is there at a place where it was before it was written anew, so each is there once."""
        seen: dict[tuple[int, EntryId], set[tuple[str, bytes]]] = {}
        for each in (*self._watcher.entries, *self._watcher.lost):
            seen.setdefault((each.k, each.id), set()).add((each.sender, each.stored))
        for place, content in rows.items():
            if content not in seen.get(place, ()):
                raise PromiseBroken(
                    "archived_as_it_was", f"{place[1]} of shard {place[0]} is none that was there"
                )

    def _judge_projection(self) -> None:
        """It is the same how entries are cut into pages."""
        database = self._archive.database()
        again = SimulatedArchive(self._world.scheduler, self._world.settings.shards)
        try:
            pages: dict[int, list[PageEntry]] = {}
            for k, ms, seq, sender, stored in archived_entries(database):
                entry, _ = parse_entry(k, b"%d-%d" % (ms, seq), {b"to": sender.encode(), b"e": stored})
                pages.setdefault(k, []).append(entry)
            with again.database().writing() as connection:
                for page in pages.values():
                    write_page(connection, page, self._hash_number)
            self._compare(derived_rows(database), derived_rows(again.database()))
        finally:
            again.close()

    def _compare(self, found: dict[str, list[Any]], expected: dict[str, list[Any]]) -> None:
        for name in DERIVED:
            if found[name] != expected[name]:
                raise PromiseBroken(
                    "projected_alike",
                    f"{name}: {sorted(set(found[name]) ^ set(expected[name]), key=repr)}",
                )
