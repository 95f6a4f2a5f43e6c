"""How far is the archive, and how long does it keep what it has? What whoever shows answers says of them first."""

import msgspec
from sqlalchemy import Connection, select

from config.archive import tables
from config.archive.watermark import read_watermark
from config.store import keyspace, redis_client
from config.store.entry_id import BEGINNING, EntryId
from engine.model.durations import format_duration
from engine.surveys.program import Survey
from workers.store.deployment import Deployment

DAY_MS = 86_400_000
LATE_MS = 60_000
"""An archive that is as far behind is late."""


class ArchiveState(msgspec.Struct, frozen=True):
    """`read_until` (ms): all that was said by then is in the archive; 0: nothing is. `is_complete`: whatever the event streams
    have is. `now` (ms) is by Redis' clock. Answers are kept `keep_ms` after a session is over."""

    read_until: int
    now: int
    keep_ms: int
    is_complete: bool

    @property
    def behind_ms(self) -> int:
        return 0 if self.is_complete else max(0, self.now - self.read_until)

    @property
    def kept_days(self) -> float:
        return self.keep_ms / DAY_MS


def read_archive_state(
    connection: Connection, deployment: Deployment, versions: list[Survey]
) -> ArchiveState:
    """How far the archive is, and how long it keeps answers: as the newest of the survey's versions says, or else the settings."""
    newest = versions[0] if versions else None
    keep_ms = (
        newest.keep_ms if newest is not None and newest.keep_ms is not None else deployment.settings.keep_ms
    )
    read_until, is_complete = read_watermark(connection), _is_complete(connection, deployment)
    now = redis_client.server_time_ms(deployment.lanes)
    return ArchiveState(read_until, now, min(keep_ms, deployment.settings.keep_ms), is_complete)


def _is_complete(connection: Connection, deployment: Deployment) -> bool:
    """Has no event stream an entry that the archive has not? As of this transaction, and of now in Redis."""
    table = tables.positions.c
    rows = select(table.shard, table.last_ms, table.last_seq).where(table.source == "events")
    read = {shard: EntryId(ms, seq) for shard, ms, seq in connection.execute(rows)}
    shards = range(deployment.settings.shards)
    newest = redis_client.run_commands(
        deployment.lanes, [("XREVRANGE", keyspace.events_key(k), "+", "-", "COUNT", 1) for k in shards]
    )
    return all(
        EntryId.parse(entry_id) <= read.get(k, BEGINNING)
        for k, found in zip(shards, newest, strict=True)
        for entry_id, _ in found
    )


def describe_archive(state: ArchiveState) -> list[str]:
    """Sentences about an archive: how late it is, and how long it keeps what it has."""
    days = f"{state.kept_days:g}"
    kept = f"Answers are kept for {days} {'day' if days == '1' else 'days'} after a session is over."
    if state.is_complete:
        return [f"The archive has all that was said. {kept}"]
    if not state.read_until:
        return ["The archive has nothing yet: is the process `archive` running?", kept]
    behind = format_duration(state.behind_ms)
    if state.behind_ms < LATE_MS:
        return [f"The archive is {behind} behind. {kept}"]
    missing = "so the latest answers are missing: is the process `archive` running?"
    return [f"The archive is {behind} behind, {missing}", kept]
