"""`parley archive`: how far is the archive, and what is made of its entries, anew."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from config.archive import archive_schema
from config.archive.database import EVENTS_SOURCE, ArchiveDatabase
from config.settings.settings import exit_on_config_error
from config.store import keyspace, redis_client
from config.store.entry_id import BEGINNING
from config.telemetry import process_registry
from config.telemetry.logs import configure_logging
from engine.commands.exit_status import EXIT_PROBLEMS
from engine.commands.json_output import print_json
from engine.commands.terminal import open_console, progress_bar, require_confirmation, simple_table
from engine.model.durations import format_duration
from engine.model.plurals import pluralize
from engine.model.timestamps import format_utc
from workers.archiving import rebuild as rebuilding
from workers.archiving.archive_status import ArchiveProgress, ShardProgress, read_progress
from workers.archiving.lost_tail import rejoin_stream
from workers.commands.connect import confirm_replicated, connect_lanes
from workers.store.deployment import Deployment


@click.group()
def archive() -> None:
    """How far the archive is; what is made of its entries, anew; go on after a loss; forget it.

    \b
    Example:
      parley archive status
      parley archive rebuild
    """


@archive.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(as_json: bool) -> None:
    """Where it is, how far it is behind each shard, what it has, and for how long answers are kept.

    \b
    Example:
      parley archive status --json | jq .read_until_ms
    """
    deployment = connect_lanes(os.environ)
    with _open_archive(deployment) as database:
        progress = read_progress(deployment.lanes, database, deployment.settings.shards)
    if as_json:
        print_json(progress)
    else:
        _print_progress(progress, deployment.settings.keep_ms)


@archive.command()
def rebuild() -> None:
    """Make sessions, answers and all else anew that is made of the archive's entries.

    For after an upgrade whose notes say so. `archive` may run meanwhile, and so may whoever reads: each shard changes at
    once. If it is interrupted, type it again.
    """
    deployment = connect_lanes(os.environ)
    configure_logging(deployment.settings)
    hash_number = deployment.open_opt_out_list().hash_number
    shards, unreadable = range(deployment.settings.shards), 0
    with _open_archive(deployment) as database:
        with database.reading() as connection:
            total = sum(rebuilding.count_entries(connection, k) for k in shards)
        with progress_bar(total, "entries") as advance:
            for k in shards:
                unreadable += rebuilding.rebuild_shard(database, k, hash_number, advance)
    click.echo(f"{pluralize(total, 'entry', 'entries')} projected anew")
    if unreadable:
        left = pluralize(unreadable, "entry", "entries")
        click.echo(f"{left} cannot be read by this release, and stay as they are", err=True)
        sys.exit(EXIT_PROBLEMS)


@archive.command()
@click.option("--shard", type=click.IntRange(0), required=True, help="The shard that is held.")
def resume(shard: int) -> None:
    """Go on with a shard that is held since Redis has not what the archive has of it.

    What Redis has lost stays in the archive, and what happens from now on follows it.

    \b
    Example:
      parley archive resume --shard 3
    """
    deployment = connect_lanes(os.environ)
    if shard >= deployment.settings.shards:
        raise click.UsageError(f"there are {deployment.settings.shards} shards, from 0")
    configure_logging(deployment.settings)
    with _open_archive(deployment) as database, database.writing() as connection:
        position = database.lock_position(connection, EVENTS_SOURCE, shard)
        lost = rejoin_stream(connection, deployment.lanes, shard, position.entry_id, by_operator=True)
    click.echo(
        f"shard {shard} goes on; {pluralize(lost, 'entry', 'entries')} that Redis has not stay in the archive"
    )


@archive.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
def forget(yes: bool) -> None:
    """Let Redis forget how far the archive is, as if none was ever seen.

    For when it is removed for good, or before it is put back to an earlier state. Redis then keeps what happened for 30 days,
    until an archive says again how far it is. The archive itself stays as it is. Stop all `archive` processes first.

    \b
    Example:
      parley archive forget
    """
    deployment = connect_lanes(os.environ)
    living = process_registry.living_processes(deployment.lanes).values()
    if archiving := [f"{each.role}@{each.host}:{each.pid}" for each in living if each.role == "archive"]:
        raise click.ClickException(
            f"{', '.join(archiving)} would say again how far the archive is: stop it, and wait until "
            "`parley status` does not show it any more"
        )
    if not yes:
        days = keyspace.UNARCHIVED_STREAM_MS // 86_400_000
        require_confirmation(f"Redis then keeps what happened for {days} days, archived or not. Forget it?")
    keys = [keyspace.archived_key(k) for k in range(deployment.settings.shards)]
    forgotten = sum(redis_client.run_commands(deployment.lanes, [("DEL", key) for key in keys]))
    confirm_replicated(deployment)
    click.echo(f"forgotten, for {forgotten} of {len(keys)} shards")


@contextmanager
def _open_archive(deployment: Deployment) -> Iterator[ArchiveDatabase]:
    """The archive of the settings. Ends the command with a sentence if there is none, or it does not answer."""
    with exit_on_config_error():
        database = ArchiveDatabase(deployment.settings.archive_url)
    try:
        with exit_on_config_error():
            archive_schema.require_schema(database)
            yield database
    except SQLAlchemyError as e:
        raise click.ClickException(
            f"the archive at {database.shown_url} does not answer ({type(e).__name__})"
        ) from e
    finally:
        database.close()


def _print_progress(progress: ArchiveProgress, keep_ms: int) -> None:
    console = open_console(soft_wrap=True)
    console.print(f"archive   {progress.archive}, schema {progress.schema}")
    until = format_utc(progress.read_until_ms) if progress.read_until_ms else "nothing yet"
    lag = format_duration(progress.lag_ms)
    console.print(
        f"has all   until {until} UTC", Text(f"({lag} behind)" if progress.lag_ms else "(not behind)")
    )
    since = f", the oldest of {format_utc(progress.kept_since_ms)} UTC" if progress.kept_since_ms else ""
    console.print(
        f"keeps     sessions for {format_duration(keep_ms)} once they are over (PARLEY_KEEP_DAYS){since}"
    )
    console.print("rows      " + ", ".join(f"{count:,} {name}" for name, count in progress.counts.items()))
    table = simple_table("shard", "archived to", "stream is at", "behind")
    for shard in filter(_has_happened, progress.shards):
        behind = progress.now_ms - shard.waiting_since_ms if shard.waiting_since_ms else 0
        stream = "its server is away" if shard.is_away else shard.last
        table.add_row(
            str(shard.shard), shard.archived, stream, format_duration(max(0, behind)) if behind else ""
        )
    open_console().print(table)


def _has_happened(shard: ShardProgress) -> bool:
    """Whether anything ever has in the shard."""
    return not shard.archived == shard.last == str(BEGINNING)
