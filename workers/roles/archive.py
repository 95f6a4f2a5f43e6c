"""The line `archive` of the Procfile: a process that moves what happened from the event streams into the archive."""

from functools import partial
from math import ceil

import structlog

from config.archive import archive_schema
from config.archive.database import EVENTS_SOURCE, ArchiveDatabase
from config.archive.pseudonyms import read_pseudonyms
from config.store.keyspace import SHARDS_TOGETHER
from config.telemetry import process_registry
from config.telemetry.periodic_task import run_periodically
from config.telemetry.supervision import LoopRounds
from workers.archiving.archive_loop import PARTS, archive_until_stopped
from workers.archiving.archive_retention import sweep_archive_hourly
from workers.archiving.audit_mover import move_audit
from workers.archiving.deployment_pairing import is_ours, pair_with_redis
from workers.archiving.stream_archiver import StreamArchiver
from workers.roles.worker_process import StopSignal, open_deployment, supervised_process
from workers.store.deployment import Deployment

log = structlog.get_logger()

SWEEP_INTERVAL_S = 3_600.0
"""How often it is looked whether anything is due that the archive need not keep."""

AUDIT_INTERVAL_S = 5.0
"""How often it is looked whether anything was told in the audit."""

ROUND_HANGS_AFTER_S = 900.0
"""A round may bring a large archive to this release's schema."""


def run() -> None:
    deployment = open_deployment("archive")
    database = ArchiveDatabase(deployment.settings.archive_url)
    rounds = LoopRounds(ROUND_HANGS_AFTER_S)
    stop = StopSignal(rounds.went_round)
    log.info("running", role="archive", archive=database.shown_url)
    with (
        supervised_process(deployment.settings, rounds),
        process_registry.send_heartbeats(deployment.settings.redis_url, "archive"),
        run_periodically(partial(run_housekeeping, deployment, database), SWEEP_INTERVAL_S, "tidy"),
        run_periodically(partial(archive_audit, deployment, database), AUDIT_INTERVAL_S, "audit"),
    ):
        archive_until_stopped(partial(prepare_archiver, deployment, database), stop)


def run_housekeeping(deployment: Deployment, database: ArchiveDatabase) -> None:
    """Let go of what the archive need not keep, unless another process has."""
    sweep_archive_hourly(deployment, database)


def archive_audit(deployment: Deployment, database: ArchiveDatabase) -> None:
    """Move what was told in the audit, if there is an archive yet and it is this deployment's."""
    if not is_ours(deployment.lanes, database):
        return
    broker = deployment.broker if deployment.lanes in deployment.distinct_servers else None
    move_audit(database, deployment.lanes, deployment.settings.shards, broker)


def prepare_archiver(deployment: Deployment, database: ArchiveDatabase) -> StreamArchiver:
    """Bring the archive to this release's schema, pair it with Redis, and see that it has what numbers are hidden by. Raises ConfigError if it is of another
    deployment."""
    lanes, shards = deployment.lanes, deployment.settings.shards
    archive_schema.migrate(database)
    paired = pair_with_redis(lanes, database, shards, deployment.host)
    read_pseudonyms(database)
    with database.writing() as connection:
        database.make_positions(connection, EVENTS_SOURCE, shards)
    hash_number = deployment.open_opt_out_list().hash_number
    replicas = deployment.settings.replicas
    groups = deployment.shard_groups(ceil(shards / PARTS) if database.is_sqlite else SHARDS_TOGETHER)
    return StreamArchiver(lanes, database, groups, paired, hash_number, deployment.host, replicas, PARTS)
