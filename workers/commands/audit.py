"""`parley audit`: who did or read what, from the archive, and from Redis what is not there yet."""

import heapq
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import attrgetter
from typing import Any

import click
import msgspec
import redis
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from config.archive.audit_entries import AuditFilter, scan_archived_acts
from config.archive.database import ArchiveDatabase, describe_failure
from config.store import redis_client
from config.store.entry_id import BEGINNING, EntryId
from engine.commands.json_output import print_json
from engine.commands.terminal import open_console, simple_table
from engine.model.timestamps import format_utc, format_utc_ms
from workers.archiving.audit_mover import (
    AuditedAct,
    AuditEntryPlace,
    AuditStream,
    audit_streams,
    read_positions,
    scan_acts,
)
from workers.commands.cli_options import DurationParam
from workers.commands.connect import connect_lanes
from workers.commands.reports.open_archive import open_archive_or_warn
from workers.store.deployment import Deployment

DEFAULT_ACTS = 100


@click.command()
@click.option(
    "--since", "since_ms", type=DurationParam(), default=0, help="Only of so long ago and less, such as 1d."
)
@click.option("--actor", default="", help="Only by whoever has this in their name, such as ada or `key crm`.")
@click.option("--action", default="", help="Only what has this in its name, such as `read` or `opt out`.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=DEFAULT_ACTS,
    show_default=True,
    help="So many, the newest; 0: all.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def audit(since_ms: int, actor: str, action: str, limit: int, as_json: bool) -> None:
    """Who did what, and who read whose data; the newest first.

    Whoever reads answers, numbers or conversations is told here before they are shown, by the API and by commands alike;
    so are opt-outs that operators list, and what becomes of dead letters. It names no number: a subject is a survey, a
    session, a dead letter, or a number's hash, as in the logs.

    \b
    Example:
      parley audit --since 7d --action read
    """
    deployment = connect_lanes(os.environ)
    since = redis_client.server_time_ms(deployment.lanes) - since_ms if since_ms else 0
    wanted = AuditFilter(since, actor, action)
    with open_archive_or_warn(deployment) as archive:
        try:
            _print_acts(_AuditReader(deployment, archive, wanted, limit or None).read_acts(), as_json)
        except SQLAlchemyError as e:
            raise click.ClickException(f"the archive failed: {describe_failure(e)}") from e


def _print_acts(acts: Iterable[AuditedAct], as_json: bool) -> None:
    if as_json:
        for act in acts:
            print_json(_act_fields(act))
        return
    table = _acts_table(acts)
    if table.row_count:
        open_console().print(table)
    else:
        click.echo("Nobody has done anything like that.")


class _AuditReader:
    """Reads acts from both places. Law: Redis is read before the archive, so that what is moved between is in one of them at
    least, and what is in both is told once."""

    def __init__(
        self,
        deployment: Deployment,
        archive: ArchiveDatabase | None,
        wanted: AuditFilter,
        limit: int | None,
    ) -> None:
        self._deployment = deployment
        self._archive = archive
        self._wanted = wanted
        self._limit = limit

    def read_acts(self) -> Iterator[AuditedAct]:
        """Acts, newest first; without an archive those in Redis alone."""
        waiting = self._read_waiting()
        archived = self._read_archived(self._archive, waiting) if self._archive is not None else iter(())
        newest_first = sorted(waiting.values(), key=attrgetter("at"), reverse=True)
        yield from islice(
            heapq.merge(newest_first, archived, key=attrgetter("at"), reverse=True), self._limit
        )

    def _read_waiting(self) -> dict[AuditEntryPlace, AuditedAct]:
        positions: dict[tuple[str, int], EntryId] = {}
        if self._archive is not None:
            with self._archive.reading() as connection:
                positions = read_positions(connection)
        waiting: dict[AuditEntryPlace, AuditedAct] = {}
        for stream in self._streams():
            after = positions.get((stream.source, stream.shard), BEGINNING)
            fitting = (each for each in scan_acts(stream, after) if self._is_wanted(each[1]))
            waiting.update(islice(fitting, self._limit))
        return waiting

    def _streams(self) -> Sequence[AuditStream]:
        lanes, broker = self._deployment.lanes, self._deployment.broker
        reachable = broker if len(self._deployment.distinct_servers) > 1 and _answers(broker) else None
        return audit_streams(lanes, self._deployment.settings.shards, reachable)

    def _read_archived(
        self, database: ArchiveDatabase, waiting: Iterable[AuditEntryPlace]
    ) -> Iterator[AuditedAct]:
        told = set(waiting)
        with database.reading() as connection:
            for row in scan_archived_acts(connection, self._wanted):
                place = AuditEntryPlace(row.source, row.shard, row.entry_ms, row.entry_seq)
                if place not in told:
                    yield AuditedAct(row.at, row.actor, row.action, row.subject, row.detail)

    def _is_wanted(self, act: AuditedAct) -> bool:
        return self._wanted.lets_through(act.at, act.actor, act.action)


def _answers(broker: redis.Redis) -> bool:
    """Whether the Redis of the wake-ups is there: the audit of Dramatiq's letters is on it."""
    try:
        redis_client.require_answer(broker)
    except redis.RedisError as e:
        why = f"The Redis of the wake-ups does not answer ({type(e).__name__})"
        click.echo(
            f"{why}: what was done with Dramatiq's letters is told as far as it is archived.", err=True
        )
        return False
    return True


def _act_fields(act: AuditedAct) -> dict[str, Any]:
    return {"when": format_utc_ms(act.at), **msgspec.structs.asdict(act), "detail": _read_detail(act)}


def _read_detail(act: AuditedAct) -> Any:
    try:
        return msgspec.json.decode(act.detail)
    except msgspec.MsgspecError:
        return act.detail


def _acts_table(acts: Iterable[AuditedAct]) -> Table:
    table = simple_table("when (UTC)", "who", "did", "of", "")
    for act in acts:
        table.add_row(
            format_utc(act.at), act.actor, act.action, act.subject, _detail_words(_read_detail(act))
        )
    return table


def _detail_words(detail: Any) -> str:
    """`survey clinic, count 3`; what is empty is left out."""
    if not isinstance(detail, dict):
        return str(detail)
    return ", ".join(
        f"{name} {_detail_words(value) if isinstance(value, dict) else value}"
        for name, value in detail.items()
        if value not in ("", 0, [], {}, None)
    )
