"""Who did or read what? From the archive, and from Redis what is not there yet."""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import attrgetter
from typing import Any

import msgspec
import redis

from config.archive.audit_entries import AuditFilter, find_newest_since, scan_archived_acts
from config.archive.database import ArchiveDatabase
from config.connections.redis_failures import failure_clause
from config.store import redis_client
from config.store.entry_id import BEGINNING, EntryId
from workers.archiving.audit_mover import (
    AuditedAct,
    AuditEntryPlace,
    AuditStream,
    audit_streams,
    read_positions,
    scan_acts,
    streams_with_news,
)
from workers.store.deployment import Deployment


class AuditReader:
    """Reads acts from both places, `limit` of them; `most_examined` acts of each place are looked at, if that is said, and
    `looked_back_to` (ms) says how far that was, 0 for all. `unread` says what of Redis could not be read. Law: Redis is read before the archive, so that what is moved between is in one of them at
    least, and what is in both is told once."""

    def __init__(
        self,
        deployment: Deployment,
        archive: ArchiveDatabase | None,
        wanted: AuditFilter,
        limit: int | None,
        most_examined: int | None = None,
    ) -> None:
        self._deployment = deployment
        self._archive = archive
        self._wanted = wanted
        self._limit = limit
        self._most_examined = most_examined
        self.looked_back_to = 0
        self.unread = ""

    def read_acts(self) -> Iterator[AuditedAct]:
        """Acts, newest first; without an archive those in Redis alone."""
        waiting = self._read_waiting()
        archived = self._read_archived(self._archive, waiting) if self._archive is not None else iter(())
        newest_first = sorted(waiting.values(), key=attrgetter("at"), reverse=True)
        merged = heapq.merge(newest_first, archived, key=attrgetter("at"), reverse=True)
        yield from islice((act for act in merged if act.at >= self.looked_back_to), self._limit)

    def _read_waiting(self) -> dict[AuditEntryPlace, AuditedAct]:
        positions: dict[tuple[str, int], EntryId] = {}
        if self._archive is not None:
            with self._archive.reading() as connection:
                positions = read_positions(connection)
        waiting: dict[AuditEntryPlace, AuditedAct] = {}
        for stream in streams_with_news(self._streams(), positions, without_away=False):
            after = positions.get((stream.source, stream.shard), BEGINNING)
            fitting = (each for each in self._examine(stream, after) if self._is_wanted(each[1]))
            waiting.update(islice(fitting, self._limit))
        return waiting

    def _examine(self, stream: AuditStream, after: EntryId) -> Iterator[tuple[AuditEntryPlace, AuditedAct]]:
        """Acts of a stream, newest first, no more of them than may be."""
        for examined, (place, act) in enumerate(scan_acts(stream, after, self._wanted.before), 1):
            yield place, act
            if examined == self._most_examined:
                is_all_of_one_moment = act.at + 1 == self._wanted.before
                seen_whole = act.at if is_all_of_one_moment else act.at + 1  # others of its moment may follow
                self.looked_back_to = max(self.looked_back_to, seen_whole)
                return

    def _streams(self) -> Sequence[AuditStream]:
        lanes, broker = self._deployment.lanes, self._deployment.broker
        is_another = len(self._deployment.distinct_servers) > 1
        reachable = broker if is_another and self._answers(broker) else None
        return audit_streams(lanes, self._deployment.settings.shards, reachable)

    def _answers(self, broker: redis.Redis) -> bool:
        """Whether the Redis of the wake-ups is there: the audit of Dramatiq's letters is on it."""
        try:
            redis_client.require_answer(broker)
        except redis.RedisError as e:
            why = f"The Redis of the wake-ups {failure_clause(e)} ({type(e).__name__})"
            self.unread = f"{why}: what was done with Dramatiq's letters is told as far as it is archived."
            return False
        return True

    def _read_archived(
        self, database: ArchiveDatabase, waiting: Iterable[AuditEntryPlace]
    ) -> Iterator[AuditedAct]:
        told = set(waiting)
        wanted = self._wanted
        with database.reading() as connection:
            if self._most_examined is not None:
                bound = find_newest_since(connection, wanted.before, self._most_examined)
                self.looked_back_to = max(self.looked_back_to, bound)
                wanted = msgspec.structs.replace(wanted, since=max(wanted.since, self.looked_back_to))
            for row in scan_archived_acts(connection, wanted):
                place = AuditEntryPlace(row.source, row.shard, row.entry_ms, row.entry_seq)
                if place not in told:
                    yield AuditedAct(row.at, row.actor, row.action, row.subject, row.detail)

    def _is_wanted(self, act: AuditedAct) -> bool:
        return self._wanted.lets_through(act.at, act.actor, act.action)


def read_detail(act: AuditedAct) -> Any:
    """What else an act says, as it was written; its text if that is no JSON."""
    try:
        return msgspec.json.decode(act.detail)
    except msgspec.MsgspecError:
        return act.detail


def detail_words(detail: Any) -> str:
    """`survey clinic, count 3`; what is empty is left out."""
    if not isinstance(detail, dict):
        return str(detail)
    return ", ".join(
        f"{name} {detail_words(value) if isinstance(value, dict) else value}"
        for name, value in detail.items()
        if value not in ("", 0, [], {}, None)
    )
