"""`parley reshard`: the lanes of a deployment that is stopped, divided into more shards."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import click
import msgspec
import redis
from sqlalchemy.exc import SQLAlchemyError

from config.archive.archive_schema import has_schema, require_schema
from config.archive.database import ArchiveDatabase, describe_failure
from config.connections.redis_failures import failure_clause
from config.connections.redis_url import default_broker_url
from config.settings.settings import (
    MAX_SHARDS,
    Secret,
    Settings,
    exit_on_config_error,
    load_settings,
)
from config.settings.shard_count import ShardDivision, read_division
from config.store import redis_client
from config.store.audit import record_operator
from engine.commands.terminal import open_console, progress_bar, require_confirmation, simple_table
from engine.model.plurals import pluralize
from workers.archiving.deployment_pairing import is_of_another_deployment
from workers.commands.connect import confirm_replicated, url_without_credentials
from workers.resharding import archive_split, resharding
from workers.resharding.census import LABELS, Census, take_census
from workers.resharding.resharding import MiscountError, StillRunningError
from workers.resharding.shard_split import ShardSplit, UnsplittableError, require_split
from workers.runtime.embedded_redis import EmbeddedServerError, run_embedded_server, url_of_running
from workers.store.deployment import Deployment
from workers.store.event_stream import is_archived
from workers.store.replication_check import find_history

REDIS_TIMEOUT_S = 60.0
"""How long a server may take for one step, with which nobody else works meanwhile."""


@click.command()
@click.option("--to", "to", type=click.IntRange(1, MAX_SHARDS), required=True, help="How many shards.")
@click.option("--dry-run", is_flag=True, help="Count what there is, and change nothing.")
@click.option("--yes", is_flag=True, help="Ask nothing.")
def reshard(to: int, *, dry_run: bool, yes: bool) -> None:
    """Divide the lanes into more shards, while nothing runs.

    Stop all processes first. The number of shards has to be a multiple of what it is. Redis and the archive are divided; what
    there is, is counted before and after. Until it is done nothing starts; if it was interrupted, type it again.

    \b
    Example:
      parley reshard --to 256 --dry-run
      parley reshard --to 256
    """
    with _opened_deployment(os.environ) as deployment, _reported_errors():
        division = _read_division(deployment)
        archive = _open_archive(deployment, division)
        if division.to is None and division.shards == to:
            _divide_archive_alone(deployment, archive, to)
            return
        split = _require_split(division, to)
        if dry_run:
            _print_census(take_census(deployment.lanes, split.old), archive)
            return
        if division.to is None:
            _ask(split, yes=yes)
            resharding.begin_division(deployment.lanes, split, deployment.settings.replicas)
            record_operator(deployment.lanes, "reshard", "", shards=split.old, to=split.new)
            confirm_replicated(deployment)
        _divide(deployment, archive, split)
    _say_what_is_next(deployment.settings, split)


def _divide(deployment: Deployment, archive: ArchiveDatabase | None, split: ShardSplit) -> None:
    lanes, replicas = deployment.lanes, deployment.settings.replicas
    with progress_bar(split.old, "shards") as advance:
        found = resharding.divide_lanes(lanes, split, replicas, advance)
    confirm_replicated(deployment)
    _print_comparison(found.before, found.after)
    if archive is not None:
        _divide_archive(deployment, archive, split)
    resharding.end_division(lanes, split, replicas)
    confirm_replicated(deployment)


def _divide_archive(deployment: Deployment, archive: ArchiveDatabase, split: ShardSplit) -> None:
    if (needed := archive_split.find_archive_split(archive, split)) is None:
        return
    split = require_split(*needed)
    optouts = deployment.find_opt_out_list()
    before = archive_split.count_rows(archive)
    archive_split.split_archive(
        archive, split, optouts.hash_number if optouts is not None else None, lambda _: None
    )
    after = archive_split.count_rows(archive)
    if after != before:
        raise click.ClickException(
            f"the archive has other rows than before: it had {before}, and has {after}"
        )
    click.echo(f"archive: {pluralize(after['entries'], 'entry', 'entries')} in {split.new} shards, as before")


def _divide_archive_alone(deployment: Deployment, archive: ArchiveDatabase | None, to: int) -> None:
    """One that was put back to what it was before the lanes were divided."""
    split = ShardSplit(to, to)
    if archive is None or archive_split.find_archive_split(archive, split) is None:
        click.echo(f"the lanes are divided into {to} shards: there is nothing to do")
        return
    resharding.require_stopped(deployment.lanes)
    _divide_archive(deployment, archive, split)


# What it is done with


@contextmanager
def _opened_deployment(environ: Mapping[str, str]) -> Iterator[Deployment]:
    """The deployment, whatever number of shards it has; its embedded server, if it has one that does not run."""
    with exit_on_config_error():
        settings = load_settings(environ, needs_secrets=False)
        url = settings.redis_url or url_of_running(settings.var)
    if url:
        yield _connect(settings, url)
    else:
        try:
            with run_embedded_server(settings.var) as url:
                yield _connect(settings, url)
        except EmbeddedServerError as e:
            raise click.ClickException(f"{e}") from e


def _connect(settings: Settings, url: str) -> Deployment:
    broker_url = settings.broker_url or default_broker_url(url)
    settings = msgspec.structs.replace(settings, redis_url=Secret(url), broker_url=Secret(broker_url))
    lanes = redis_client.connect(url, timeout_s=REDIS_TIMEOUT_S)
    try:
        lanes.ping()
    except redis.RedisError as e:
        raise click.ClickException(
            f"the Redis of the lanes at {url_without_credentials(url)} {failure_clause(e)} "
            f"({type(e).__name__})"
        ) from e
    broker = redis_client.connect(broker_url, retries=0)
    return Deployment(settings, lanes, broker, history=find_history(settings, lanes))


def _read_division(deployment: Deployment) -> ShardDivision:
    with exit_on_config_error():
        return read_division(deployment.lanes, deployment.settings)


def _require_split(division: ShardDivision, to: int) -> ShardSplit:
    if division.to not in (None, to):
        raise click.ClickException(
            f"the lanes are being divided anew, from {division.shards} shards into {division.to}, and that "
            f"is not done: run `parley reshard --to {division.to}` until it is"
        )
    return require_split(division.shards, to)


def _open_archive(deployment: Deployment, division: ShardDivision) -> ArchiveDatabase | None:
    """The archive; None if there never was one. Ends the command if it is not there now, or is another's."""
    with exit_on_config_error():
        archive = ArchiveDatabase(deployment.settings.archive_url)
        if not has_schema(archive):
            if is_archived(deployment.lanes, division.shards):
                raise click.ClickException(
                    "there is an archive, but not where PARLEY_ARCHIVE_URL says: set it to that, as it is "
                    "divided too; or `parley archive forget`, if it is gone for good"
                )
            return None
        require_schema(archive)
        with archive.reading() as connection:
            if is_of_another_deployment(deployment.lanes, connection):
                raise click.ClickException("the archive at PARLEY_ARCHIVE_URL is of another deployment")
    return archive


@contextmanager
def _reported_errors() -> Iterator[None]:
    """End the command with a sentence for what stands in its way."""
    try:
        yield
    except UnsplittableError as e:
        raise click.UsageError(str(e)) from e
    except StillRunningError as e:
        raise click.ClickException(
            f"{e} lives: stop all processes, and wait until `parley status` shows none any more (20 s after "
            "one that was killed)"
        ) from e
    except MiscountError as e:
        _print_comparison(e.before, e.after)
        raise click.ClickException(
            f"there is not what there was: {', '.join(LABELS[kind] for kind in e.differing)}. Nothing "
            "starts; look at what the table says, and put Redis back to what it was if you cannot tell why"
        ) from e
    except SQLAlchemyError as e:
        raise click.ClickException(
            f"the archive failed ({describe_failure(e)}): type this again once it answers"
        ) from e


def _ask(split: ShardSplit, *, yes: bool) -> None:
    if not yes:
        require_confirmation(
            f"The lanes are divided into {split.old} shards, and are going to be divided into {split.new}, "
            "for which there is no way back but a copy of Redis and of the archive. Go on?",
        )


# What is said


def _print_census(found: Census, archive: ArchiveDatabase | None) -> None:
    table = simple_table("there are", "")
    for kind, label in LABELS.items():
        if many := found.total(kind):
            table.add_row(f"{many:,}", label)
    if archive is not None:
        for name, rows in archive_split.count_rows(archive).items():
            table.add_row(f"{rows:,}", f"of the archive: rows of {name}")
    open_console().print(table)


def _print_comparison(before: Census, after: Census) -> None:
    table = simple_table("before", "after", "")
    for kind, label in LABELS.items():
        if before.total(kind) or after.total(kind):
            table.add_row(f"{before.total(kind):,}", f"{after.total(kind):,}", label)
    open_console().print(table)


def _say_what_is_next(settings: Settings, split: ShardSplit) -> None:
    click.echo(f"done: the lanes are divided into {split.new} shards")
    if settings.shards_are_set and settings.shards != split.new:
        click.echo(
            f"PARLEY_SHARDS is {settings.shards}: set it to {split.new}, or unset it, before anything starts"
        )
