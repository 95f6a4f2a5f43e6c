"""`parley transcript`: what was said with one phone number, from the archive and the event stream."""

import os

import click

from config.store import keyspace
from config.store.audit import record_operator
from config.telemetry.logs import hash_sender
from engine.commands.json_output import print_json
from workers.commands.cli_numbers import parse_person_argument
from workers.commands.connect import connect_lanes
from workers.commands.reports.open_archive import open_history
from workers.commands.reports.person_lookup import find_person
from workers.history.record_wording import format_record, format_record_time, record_fields, session_of_record


@click.command()
@click.argument("sender")
@click.option("--session", default="", help="Only this session.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, everything in it.")
def transcript(sender: str, session: str, as_json: bool) -> None:
    """What was said with one phone number, oldest first; or with whom logs name so (`4f0a1b2c3d`). Exit status 1 if nothing was.

    Read from the archive, and what that has not yet from Redis. Times are of the channel's time zone, as its offset says.

    \b
    Example:
      parley transcript +33612345678
    """
    person = parse_person_argument(sender)
    deployment = connect_lanes(os.environ)
    sender = find_person(deployment, person)
    settings = deployment.settings
    k = keyspace.shard_of(sender, settings.shards)
    record_operator(deployment.lanes, "read transcript", hash_sender(deployment.open_log_key(), sender))
    with open_history(deployment) as history:
        records = [
            record
            for entry in history.read_sender(k, sender)
            for record in entry.records
            if not session or session_of_record(record) == session
        ]
    if not records:
        raise click.ClickException(
            f"nothing is archived of {sender}{f' and session {session}' if session else ''}; invitations "
            "that wait for "
            "their turn are not there yet, and what is older than PARLEY_KEEP_DAYS or its survey's `keep` is "
            "gone"
        )
    zones = {name: channel.timezone for name, channel in settings.channels.items()}
    for record in records:
        if as_json:
            print_json(record_fields(record))
        else:
            click.echo(f"{format_record_time(record, zones)}  {format_record(record)}")
