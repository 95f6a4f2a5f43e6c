"""After each call: the archive is no further in Redis' eyes than it has committed, positions of streams go forwards alone, and what
leaves a stream may leave it."""

from collections.abc import Mapping

from config.store import keyspace
from config.store.entry_id import BEGINNING, EntryId
from engine.model.events import Invitation, OpeningRefused, SessionEnded
from tests.simulated.oracles.stream_watcher import SeenEntry, StreamWatcher
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.world.simulated_archive import SimulatedArchive
from tests.simulated.world.simulated_world import SimulatedWorld
from workers.store.session_records import session_of_record


class KeptSessions:
    """Which entries need be kept no more: those of sessions that ended longer ago than their survey's `keep`. `keeps` are ms, by
    survey."""

    def __init__(self, watcher: StreamWatcher, keeps: Mapping[str, int]) -> None:
        self._watcher = watcher
        self._keeps = keeps

    def is_due(self, entry: SeenEntry, now_ms: int) -> bool:
        """Whether what an entry holds belongs to nothing but sessions whose time has come."""
        sessions = {session_of_record(record) for record in entry.records} - {""}
        ends = self._ends()
        return bool(sessions) and all(ends.get(session, now_ms) < now_ms for session in sessions)

    def _ends(self) -> dict[str, int]:
        """By session, until when (ms) it is kept, of those that are over and not kept for good."""
        ends: dict[str, int] = {}
        surveys: dict[str, str] = {}
        for entry in (*self._watcher.entries, *self._watcher.lost):
            for record in entry.records:
                survey = getattr(record, "survey", "")
                session = session_of_record(record)
                if session and survey:
                    surveys.setdefault(session, survey)
                match record:
                    case SessionEnded(at=at, session=session):
                        keep_ms = self._keeps.get(surveys.get(session, ""))
                    case OpeningRefused(at=at, id=session, invitation=Invitation(survey=survey)):
                        keep_ms = self._keeps.get(survey)
                    case _:
                        continue
                if keep_ms is not None:
                    ends[session] = at + keep_ms
        return ends


class EventStreamOracle:
    """Looks at the streams of a run, and at how far its archive is."""

    def __init__(
        self, world: SimulatedWorld, archive: SimulatedArchive, watcher: StreamWatcher, kept: KeptSessions
    ) -> None:
        self._world = world
        self._archive = archive
        self._watcher = watcher
        self._kept = kept
        shards = range(world.settings.shards)
        self._said = dict.fromkeys(shards, BEGINNING)
        self._committed = dict.fromkeys(shards, BEGINNING)
        self._there: dict[int, list[tuple[int, int]]] = {k: [] for k in shards}
        self._deletions = dict.fromkeys(shards, 0)
        self._version = (-1, 0)
        self._problem = ""
        archive.committed.append(self._look_at_commit)
        world.lanes.losing.append(lambda changes: self.look())
        world.scheduler.observers.append(self.look)

    def look(self) -> None:
        if self._problem:
            raise PromiseBroken("archived_goes_forwards", self._problem)
        version = self._world.lanes.version
        if version == self._version:
            return
        has_lost = version[1] != self._version[1]
        self._version = version
        for k in range(self._world.settings.shards):
            self._look_at_position(k, has_lost=has_lost)
            self._look_at_stream(k, has_lost=has_lost)

    def _look_at_commit(self) -> None:
        for k, position in self._archive.positions.items():
            if position < self._committed[k]:
                self._problem = f"the archive's position of shard {k} went back to {position}"
            self._committed[k] = position

    def _look_at_position(self, k: int, *, has_lost: bool) -> None:
        stored = self._world.lanes.view.string(keyspace.archived_key(k))
        said = EntryId.parse(stored.split(b" ")[0]) if stored else BEGINNING
        if said > self._archive.positions[k]:
            raise PromiseBroken(
                "told_after_commit",
                f"Redis is told that shard {k} is archived up to {said}, and it is up to {self._archive.positions[k]}",
            )
        if said < self._said[k] and not has_lost:
            raise PromiseBroken(
                "archived_goes_forwards",
                f"what Redis knows of the archive's shard {k} went back from {self._said[k]} to {said}",
            )
        self._said[k] = said

    def _look_at_stream(self, k: int, *, has_lost: bool) -> None:
        stream = self._world.lanes.model.values.get(keyspace.events_key(k).encode())
        there = [number for number, _ in stream.entries] if stream is not None else []
        deletions = stream.deletions if stream is not None else 0
        before, self._there[k] = self._there[k], there
        was_deleted, self._deletions[k] = deletions != self._deletions[k], deletions
        if has_lost or (len(before) <= len(there) and before == there[: len(before)]):
            return
        for ms, seq in sorted({*before} - {*there}):
            if was_deleted:
                self._judge_deleted(k, EntryId(ms, seq))
            else:
                self._judge_trimmed(k, EntryId(ms, seq))

    def _judge_trimmed(self, k: int, entry: EntryId) -> None:
        """Nothing leaves for its age alone that an archive, once one was seen, does not have."""
        settings = self._world.settings
        is_seen = self._world.lanes.view.exists(keyspace.archived_key(k))
        old_ms = settings.stream_ms if is_seen else keyspace.UNARCHIVED_STREAM_MS
        if is_seen and entry > self._archive.positions[k]:
            raise PromiseBroken(
                "trimmed_is_archived", f"{entry} of shard {k} was trimmed, and no archive has it"
            )
        if entry.ms > self._world.lanes.now_ms - old_ms:
            raise PromiseBroken("trimmed_is_old", f"{entry} of shard {k} was trimmed too soon")

    def _judge_deleted(self, k: int, entry: EntryId) -> None:
        """What was said in a session is deleted when its survey's `keep` has passed since it ended. (Or it is elsewhere.)"""
        for each in self._watcher.entries:
            if each.k == k and each.id == entry and not self._kept.is_due(each, self._world.lanes.now_ms):
                raise PromiseBroken(
                    "kept_while_open", f"{entry} of shard {k} was deleted before its session's time"
                )
