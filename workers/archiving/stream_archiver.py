"""Moves what happened from the event streams into the archive: exactly once, and in order for each shard.

Law: the position moves in the transaction in which its entries are written, and what follows it is read once its row is
locked. So any number of processes may do this, each may die or hang at any moment, and nobody can bring back what was erased
meanwhile. Shards of a group share a transaction, where one call may have keys of several: a commit costs more than its rows. Redis is told how far the archive is when that is committed, not before: it forgets what is behind it. On a cluster, a
shard whose server is away is looked at again later, by itself.
"""

from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import redis
import structlog
from sqlalchemy import Connection, select, update

from config.archive import tables
from config.archive.archived_entries import read_last_contents
from config.archive.database import EVENTS_SOURCE, ArchiveDatabase, Position
from config.archive.watermark import read_watermark
from config.host import THIS_HOST, Host
from config.store import redis_client
from config.store.entry_id import EntryId
from config.telemetry import faults, metrics
from workers.archiving.deployment_pairing import require_deployment
from workers.archiving.lost_tail import RedisOlderThanArchiveError, rejoin_stream
from workers.archiving.page_writer import HashNumber, write_page
from workers.archiving.stream_reader import (
    StreamPage,
    StreamTip,
    StreamTips,
    note_archived,
    parse_entry,
    read_pages_after,
    read_tips,
    stored_content,
)
from workers.archiving.survey_mover import SurveyMover

log = structlog.get_logger()

ENTRIES_A_PAGE = 1_000
"""Entries of a transaction, at the most; shards that share one have equal parts of it."""

ADVANCE_INTERVAL_S = 1.0
"""How often shards of which there is nothing to move are said to be read until now."""

HELD_INTERVAL_S = 5.0
"""How often a shard is looked at again that is held."""

FIRST_REST_S, LONGEST_REST_S = 0.5, 5.0
"""How soon a shard is looked at again whose server was away: at first, and after many times in a row."""

GROUPS_AT_ONCE = 2
"""Groups of shards of which one process moves pages at the same time, on PostgreSQL: its CPU and the server's are then both busy."""

_SHARDS_A_STATEMENT = 500


class MovedPage(NamedTuple):
    """What came of a look at a shard: where the archive is then, whether that is all that the stream had, and how many entries
    were moved and how many of them are only kept as they are."""

    position: EntryId
    is_all: bool
    entries: int = 0
    unreadable: int = 0


class MovedGroup(NamedTuple):
    """What came of a transaction, by shard, without those that another process has; why shards are held; and the versions of
    surveys that the entries refer to."""

    pages: Mapping[int, MovedPage]
    held: Sequence[RedisOlderThanArchiveError]
    versions: Collection[str]


class _Part:
    """Groups of shards that are looked at in one round."""

    def __init__(self, shard_groups: Sequence[Sequence[int]]) -> None:
        self.shard_groups = shard_groups
        self.shards = [k for group in shard_groups for k in group]
        self.has_more = False
        self.advanced_s = 0.0
        self.moves_known = -1  # of a process that died, nobody has said until when all is read


class StreamArchiver:
    """Moves the event streams of one deployment, those of a group together, as far as so many `replicas` have them. `deployment`
    is its id, which both sides have. The groups are in so many `parts`, which have their rounds in turn."""

    def __init__(
        self,
        client: redis.Redis,
        database: ArchiveDatabase,
        shard_groups: Sequence[Sequence[int]],
        deployment: bytes,
        hash_number: HashNumber,
        host: Host = THIS_HOST,
        replicas: int = 0,
        parts: int = 1,
    ) -> None:
        self._redis = client
        self._replicas = replicas
        self._database = database
        self._parts = deque(_Part(shard_groups[at::parts]) for at in range(min(parts, len(shard_groups))))
        self._deployment = deployment
        self._hash_number = hash_number
        self._host = host
        self._surveys = SurveyMover(client)
        # how far streams were when all of them was moved
        self._read_to: dict[int, StreamTip] = {}
        self._noted: dict[int, EntryId] = {}
        self._held_until_s: dict[int, float] = {}
        self._failures: dict[int, int] = {}  # of looks in a row, by shard, as its server was away
        self._rests_until_s: dict[int, float] = {}
        self._lost: list[
            int
        ] = []  # shards of this round: those whose server is away now, and those whose server is back
        self._found: list[int] = []
        self._moves = 0  # rounds in which anything was moved

    def run_round(self) -> bool:
        """Move a page of each shard that has something, of the part whose turn it is; whether a shard of any part has more. Raises
        ConfigError if this is not the archive's Redis (any more), redis.RedisError, and SQLAlchemyError."""
        part = self._parts[0]
        self._parts.rotate(-1)
        tips = read_tips(self._redis, part.shards)
        require_deployment(self._deployment, tips.deployment, self._database)
        for k in tips.away:
            self._note_away(k)
        try:
            self._move_pages(part, tips)
            self._advance_idle_shards(part, tips)
        finally:
            self._tell_of_servers()
        return any(each.has_more for each in self._parts)

    def _move_pages(self, part: _Part, tips: StreamTips) -> None:
        now_s = self._host.monotonic_s()
        groups = [[k for k in group if self._is_to_look_at(k, tips, now_s)] for group in part.shard_groups]
        part.has_more = False
        for pages in self._look_at_groups([group for group in groups if group]):
            self._moves += bool(pages)
            for k, moved in pages.items():
                if moved.is_all and moved.position <= tips.last_ids[k]:
                    self._read_to[k] = tips.tip(k)
                part.has_more = part.has_more or not moved.is_all

    def _is_to_look_at(self, k: int, tips: StreamTips, now_s: float) -> bool:
        if k in tips.away or self._rests_until_s.get(k, 0.0) > now_s:
            return False
        return tips.tip(k) != self._read_to.get(k) and self._held_until_s.get(k, 0.0) <= now_s

    def _look_at_groups(self, groups: Sequence[Sequence[int]]) -> Iterable[Mapping[int, MovedPage]]:
        """Move a page of each shard of these groups, in the order given. PostgreSQL writes one group while the next is made
        ready."""
        if self._database.is_sqlite or len(groups) < 2:
            return map(self._look_at_group, groups)
        with ThreadPoolExecutor(GROUPS_AT_ONCE) as pool:
            return pool.map(self._look_at_group, groups)

    def _look_at_group(self, group: Sequence[int]) -> Mapping[int, MovedPage]:
        """Move a page of each shard, but for those that another process has, that are held, or whose server is away."""
        try:
            return self._move_and_note(group)
        except redis.RedisError as e:
            if not redis_client.is_alone(self._redis, e):
                raise
            for k in group:
                self._rest_shard(k)
        return {}

    def _move_and_note(self, group: Sequence[int]) -> Mapping[int, MovedPage]:
        moved = self._move_group(group)
        for error in moved.held:
            self._hold_shard(error)
        held = {error.shard for error in moved.held}
        for k in group:
            if k not in held and self._held_until_s.pop(k, None) is not None:
                log.info("a shard is archived again", shard=k)
        metrics.ARCHIVE_HELD_SHARDS.set(len(self._held_until_s))
        self._note_committed(moved)
        for k in group:
            self._rests_until_s.pop(k, None)
            if self._failures.pop(k, None) is not None:
                self._found.append(k)
        return moved.pages

    def _note_committed(self, moved: MovedGroup) -> None:
        self._surveys.note_committed(moved.versions)
        for k, page in moved.pages.items():
            metrics.ARCHIVED_ENTRIES.inc(page.entries)
            if page.unreadable:
                metrics.ARCHIVE_UNREADABLE.inc(page.unreadable)
                log.error(
                    "entries cannot be read, and are kept as they are", shard=k, entries=page.unreadable
                )
        new = {
            k: (page.position, page.entries)
            for k, page in moved.pages.items()
            if self._noted.get(k) != page.position
        }
        if new:
            note_archived(self._redis, new)
            self._noted |= {k: position for k, (position, _) in new.items()}
            faults.reach("after_note_archived")

    def _rest_shard(self, k: int) -> None:
        """Its server is away, while others of the cluster are not."""
        self._note_away(k)
        failures = self._failures[k]
        self._failures[k] = failures + 1
        rest_s = min(LONGEST_REST_S, FIRST_REST_S * 2 ** min(failures, 10))
        self._rests_until_s[k] = self._host.monotonic_s() + rest_s

    def _note_away(self, k: int) -> None:
        if k in self._failures:
            return
        self._failures[k] = 0
        self._read_to.pop(k, None)  # so that it is looked at, and said to be archived again
        metrics.ARCHIVE_ERRORS.labels("redis").inc()
        self._lost.append(k)

    def _tell_of_servers(self) -> None:
        """In a line for all shards: a server has many."""
        if self._lost:
            log.warning("shards are archived later, as their server is away", shards=sorted(self._lost))
        if self._found:
            log.info("shards are archived again, as their server is back", shards=sorted(self._found))
        self._lost, self._found = [], []

    def _hold_shard(self, error: RedisOlderThanArchiveError) -> None:
        if error.shard not in self._held_until_s:
            log.error("a shard is not archived", why=str(error), shard=error.shard)
        self._held_until_s[error.shard] = self._host.monotonic_s() + HELD_INTERVAL_S
        self._read_to.pop(error.shard, None)
        metrics.ARCHIVE_HELD_SHARDS.set(len(self._held_until_s))

    def _move_group(self, group: Sequence[int]) -> MovedGroup:
        with self._database.writing() as connection:
            positions = self._database.try_lock_positions(connection, EVENTS_SOURCE, group)
            if not positions:
                return MovedGroup({}, (), ())
            faults.reach("after_lock_position")
            most = max(1, ENTRIES_A_PAGE // len(positions))
            pages, held = self._read_pages(connection, positions, most)
            faults.reach("after_read_stream")
            moved = self._write_pages(connection, positions, pages, most)
            faults.reach("before_commit_page")
        faults.reach("after_commit_page")
        return moved._replace(held=held)

    def _read_pages(
        self, connection: Connection, positions: Mapping[int, Position], most: int
    ) -> tuple[dict[int, StreamPage], list[RedisOlderThanArchiveError]]:
        """Read at most `most` entries of each shard, and say why others are held."""
        ends = {k: position.entry_id for k, position in positions.items()}
        pages = self._read_after(ends, most)
        archived = read_last_contents(connection, pages)
        held: list[RedisOlderThanArchiveError] = []
        for k, page in [*pages.items()]:
            if _has_read(archived.get(k), page):
                continue
            try:
                if rejoin_stream(connection, self._redis, k, ends[k]):
                    pages |= self._read_after({k: ends[k]}, most)
            except RedisOlderThanArchiveError as e:
                held.append(e)
                del pages[k]
        return pages, held

    def _read_after(self, ends: Mapping[int, EntryId], most: int) -> dict[int, StreamPage]:
        """Read at most `most` entries of each of these shards behind its end. Raises ConfigError if they are another deployment's."""
        pages = read_pages_after(self._redis, ends, most, replicas=self._replicas)
        for deployment in {page.deployment for page in pages.values()}:
            require_deployment(self._deployment, deployment, self._database)
        return pages

    def _write_pages(
        self,
        connection: Connection,
        positions: Mapping[int, Position],
        pages: Mapping[int, StreamPage],
        most: int,
    ) -> MovedGroup:
        parsed = {k: [parse_entry(k, *entry) for entry in page.entries] for k, page in pages.items()}
        entries = [entry for of_shard in parsed.values() for entry, _ in of_shard]
        versions = self._surveys.move_versions(connection, entries)
        unreadable = Counter(
            k for k, of_shard in parsed.items() for _, is_readable in of_shard if not is_readable
        )
        unreadable.update(entry.place.shard for entry in write_page(connection, entries, self._hash_number))
        moved: dict[int, MovedPage] = {}
        new: dict[int, Position] = {}
        for k, page in pages.items():
            is_all = len(page.entries) < most
            if page.entries:
                last = EntryId.parse(page.entries[-1][0])
                until_ms = max(positions[k].read_until_ms, page.now_ms if is_all else last.ms)
                new[k] = Position(last.ms, last.seq, until_ms)
            moved[k] = MovedPage(new.get(k, positions[k]).entry_id, is_all, len(page.entries), unreadable[k])
        self._database.move_positions(connection, EVENTS_SOURCE, new)
        return MovedGroup(moved, (), versions)

    def _advance_idle_shards(self, part: _Part, tips: StreamTips) -> None:
        """Say of shards whose streams have nothing more that they are read until now, if anything was moved, of whatever part,
        since that was said last: a listing goes on, and an idle deployment writes nothing."""
        now_s = self._host.monotonic_s()
        if part.moves_known == self._moves or now_s - part.advanced_s < ADVANCE_INTERVAL_S:
            return
        idle = [k for k in part.shards if k not in tips.away and self._read_to.get(k) == tips.tip(k)]
        table = tables.positions
        with self._database.writing() as connection:
            for at in range(0, len(idle), _SHARDS_A_STATEMENT):
                behind = (
                    select(table.c.shard)
                    .where(
                        table.c.source == EVENTS_SOURCE,
                        table.c.shard.in_(idle[at : at + _SHARDS_A_STATEMENT]),
                        table.c.read_until_ms < tips.now_ms,
                    )
                    .with_for_update(skip_locked=True)
                )
                connection.execute(
                    update(table)
                    .where(table.c.source == EVENTS_SOURCE, table.c.shard.in_(behind))
                    .values(read_until_ms=tips.now_ms)
                )
            watermark_ms = read_watermark(connection)
        metrics.ARCHIVE_READ_UNTIL.set(watermark_ms / 1_000)
        part.advanced_s, part.moves_known = now_s, self._moves


def _has_read(archived: bytes | None, page: StreamPage) -> bool:
    """Whether the stream has the entry at the position, and it is the one that the archive has, if that was kept."""
    if page.at_position is None:
        return False
    return archived is None or archived == stored_content(page.at_position)
