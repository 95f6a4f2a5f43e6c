"""`parley audit`: who did or read what, from the archive, and from Redis what is not there yet."""

import os
from collections.abc import Iterable
from typing import Any

import click
import msgspec
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from config.archive.audit_entries import AuditFilter
from config.archive.database import describe_failure
from config.store import redis_client
from engine.commands.json_output import print_json
from engine.commands.terminal import open_console, simple_table
from engine.model.timestamps import format_utc, format_utc_ms
from workers.archiving.audit_mover import AuditedAct
from workers.commands.cli_options import DurationParam
from workers.commands.connect import connect_lanes
from workers.commands.reports.open_archive import open_archive_or_warn
from workers.history.audit_history import AuditReader, detail_words, read_detail

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
            reader = AuditReader(deployment, archive, wanted, limit or None)
            _print_acts(reader.read_acts(), as_json)
        except SQLAlchemyError as e:
            raise click.ClickException(f"the archive failed: {describe_failure(e)}") from e
    if reader.unread:
        click.echo(reader.unread, err=True)


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


def _act_fields(act: AuditedAct) -> dict[str, Any]:
    return {"when": format_utc_ms(act.at), **msgspec.structs.asdict(act), "detail": read_detail(act)}


def _acts_table(acts: Iterable[AuditedAct]) -> Table:
    table = simple_table("when (UTC)", "who", "did", "of", "")
    for act in acts:
        table.add_row(format_utc(act.at), act.actor, act.action, act.subject, detail_words(read_detail(act)))
    return table
