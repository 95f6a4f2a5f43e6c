"""`parley erase`: every trace of a person goes, but that they said stop (workers/erasure/sender_eraser.py)."""

import os

import click
import msgspec

from config.settings.settings import exit_on_config_error
from config.store.audit import record_operator
from config.telemetry.logs import hash_sender
from engine.commands.json_output import print_json
from engine.commands.terminal import open_console, require_confirmation, simple_table
from workers.commands.cli_numbers import parse_sender_argument
from workers.commands.connect import confirm_replicated, connect_both
from workers.erasure.sender_eraser import (
    COUNT_LABELS,
    LOG_HELD_SENTENCE,
    ArchiveNotErasedError,
    ErasureCounts,
    LaneBusyError,
    SenderEraser,
    unfinished_sentence,
)


@click.command()
@click.argument("sender")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Say what would go; remove nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def erase(sender: str, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Remove every trace of a phone number, but that it opted out.

    Sessions, answers, transcripts, dead letters and what waits are gone for good, from Redis and from the archive. That
    they said stop is kept without the number, so that nobody texts them again; and so is, for some days, which webhooks
    were applied, so that a copy of one changes nothing. May be done while Parley runs. Exit status 1 if the archive could
    not be reached: type it again then. Backups and exports that were made before are yours to delete from.

    \b
    Example:
      parley erase +33612345678 --dry-run
    """
    sender = parse_sender_argument(sender)
    deployment = connect_both(os.environ)
    with exit_on_config_error():
        eraser = SenderEraser(deployment, deployment.open_opt_out_list())
    if not (yes or dry_run):
        require_confirmation(f"Remove all that is known of {sender}? It cannot be undone", stderr=True)
    subject = hash_sender(deployment.open_log_key(), sender)
    record_operator(deployment.lanes, "count traces" if dry_run else "erase", subject)
    try:
        erased = eraser.count_traces(sender) if dry_run else eraser.erase(sender)
    except LaneBusyError as e:
        raise click.ClickException(str(e)) from e
    except ArchiveNotErasedError as e:
        if dry_run:
            sentence = f"what the archive has of them cannot be counted: {e}"
            raise click.ClickException(sentence) from e
        raise click.ClickException(unfinished_sentence(e)) from e
    if not dry_run:
        confirm_replicated(deployment)
    if eraser.log_is_held:
        click.echo(LOG_HELD_SENTENCE, err=True)
    if as_json:
        print_json({"dry_run": dry_run} | msgspec.structs.asdict(erased))
    else:
        _print_counts(erased, "would be removed" if dry_run else "removed")


def _print_counts(erased: ErasureCounts, head: str) -> None:
    table = simple_table("", head)
    for name, count in msgspec.structs.asdict(erased).items():
        table.add_row(COUNT_LABELS[name], str(count))
    open_console().print(table)
