"""The line `archive` of the Procfile as a simulated process."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import redis
from sqlalchemy.exc import SQLAlchemyError

from config.store import keyspace
from tests.simulated.actors.quiet_waiting import QuietWait
from tests.simulated.world.scheduler import Process
from tests.simulated.world.simulated_archive import SimulatedArchive
from tests.simulated.world.simulated_world import SimulatedWorld
from workers.archiving.archive_loop import archive_until_stopped
from workers.roles.archive import (
    AUDIT_INTERVAL_S,
    SWEEP_INTERVAL_S,
    archive_audit,
    prepare_archiver,
    run_housekeeping,
)

SWEEP_WAIT_S = 4 * SWEEP_INTERVAL_S
"""How long a process lets pass between two sweeps: most find nothing, and take longer than all else that a run does."""

HELD_WAIT_S = 60.0
"""How long an archive may wait, at the most, that has not all that the streams have."""


def begin_archive(world: SimulatedWorld, archive: SimulatedArchive, process: Process) -> None:
    """Be `archive`."""
    deployment = world.deployment(process)
    database = archive.database(process)
    shards = range(world.settings.shards)

    def tips() -> object:
        return [world.lanes.view.last_entry(keyspace.events_key(k)) for k in shards], world.lanes.losses

    def is_there() -> bool:
        return all(
            (world.lanes.view.last_entry(keyspace.events_key(k)) or (0, 0)) == tuple(archive.positions[k])
            for k in shards
        )

    stop = QuietWait(process, world.lanes, tips, is_there, HELD_WAIT_S)
    process.spawn("", lambda: archive_until_stopped(partial(prepare_archiver, deployment, database), stop))

    def audit_tip() -> object:
        return world.lanes.view.last_entry(keyspace.AUDIT_KEY), [
            world.lanes.view.last_entry(keyspace.dead_letter_audit_key(k)) for k in shards
        ]

    _spawn_periodic(
        process,
        "audit",
        partial(archive_audit, deployment, database),
        AUDIT_INTERVAL_S,
        QuietWait(process, world.lanes, audit_tip, lambda: True, 0.0),
    )
    sweeps = QuietWait(process, world.lanes, lambda: 0, lambda: False, 0.0)
    _spawn_periodic(process, "tidy", partial(run_housekeeping, deployment, database), SWEEP_WAIT_S, sweeps)


def _spawn_periodic(
    process: Process, name: str, work: Callable[[], object], interval_s: float, stop: QuietWait
) -> None:
    def run() -> None:
        while True:
            with suppress(redis.RedisError, SQLAlchemyError):
                work()
            stop.wait(interval_s)

    process.spawn(name, run)
