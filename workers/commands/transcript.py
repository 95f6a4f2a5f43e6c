"""`parley transcript`: what was said with one phone number, from the archive and the event stream."""

import os
from zoneinfo import ZoneInfo

import click
import msgspec

from config.store import keyspace
from config.store.audit import record_operator
from config.telemetry.logs import hash_sender
from engine.commands.json_output import print_json
from engine.model.events import (
    AnswerRejected,
    ArchiveRecord,
    DeadLetterAdded,
    OpeningRefused,
    PersonOptedIn,
    PersonOptedOut,
    ReceiptRecorded,
    SessionEnded,
    SessionInvited,
    SessionOpened,
    SmsDecided,
    SmsNotSent,
    SmsReceived,
    SmsSent,
    kind_of,
)  # fmt: skip
from engine.model.timestamps import format_local
from workers.commands.cli_numbers import parse_sender_argument
from workers.commands.connect import connect_lanes
from workers.commands.reports.open_archive import open_history


@click.command()
@click.argument("sender")
@click.option("--session", default="", help="Only this session.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, everything in it.")
def transcript(sender: str, session: str, as_json: bool) -> None:
    """What was said with one phone number, oldest first. Exit status 1 if nothing was.

    Read from the archive, and what that has not yet from Redis. Times are of the channel's time zone, as its offset says.

    \b
    Example:
      parley transcript +33612345678
    """
    sender = parse_sender_argument(sender)
    deployment = connect_lanes(os.environ)
    settings = deployment.settings
    k = keyspace.shard_of(sender, settings.shards)
    record_operator(deployment.lanes, "read transcript", hash_sender(settings.log_key, sender))
    with open_history(deployment) as history:
        records = [
            record
            for entry in history.read_sender(k, sender)
            for record in entry.records
            if not session or _session_of(record) == session
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


def format_record(record: ArchiveRecord) -> str:
    """Format a record for a terminal: `> ` before an inbound SMS, `< ` before an outbound one, `-- ` before anything else."""
    match record:
        case SmsReceived(text=text, handled=handled, attachments=attachments):
            answered = f"  (a {handled.upper()}, which the provider answered)" if handled else ""
            attached = "".join(f"  [{each.media_type or 'attachment'}]" for each in attachments)
            return f"> {text}{attached}{answered}"
        case SmsDecided(text=text):
            return f"< {text}".replace("\n", "\n" + " " * 29)
        case SessionOpened(session=session, survey=survey, version=version, originator=originator):
            over = f", from {originator}" if originator else ""
            return f"-- session {session} opened: {survey}, version {version}{over}"
        case SessionInvited(invitation=invitation):
            return f"-- by an invitation {invitation.reference}".rstrip()
        case SessionEnded(session=session, how=how, why=why):
            return f"-- session {session} ended: {how}" + (f", {why}" if why else "")
        case AnswerRejected(step=step, why=why):
            return f"-- no answer to {step}: {why}"
        case SmsSent(id=id, ticket=ticket):
            return f"-- {id} accepted by the provider" + (f" as {ticket}" if ticket else " at an earlier try")
        case SmsNotSent(id=id, code=code, why=why):
            return f"-- {id} will not be sent: {code} {why}".rstrip()
        case OpeningRefused(id=id, reason=reason):
            return f"-- refused, {id}: {reason}"
        case PersonOptedOut(by_provider=by_provider, source=source):
            teller = source or "the provider"
            return "-- opted out" + (f", as {teller} tells" if by_provider else "")
        case PersonOptedIn():
            return "-- opted in again"
        case ReceiptRecorded(ticket=ticket, status=status, state=state, code=code, why=why, sms=sms):
            because = " ".join(each for each in (code, why) if each)
            return f"-- {sms or ticket} {state or status}" + (f": {because}" if because else "")
        case DeadLetterAdded(id=id, kind=kind, reason=reason, code=code, why=why):
            because = " ".join(each for each in (code, why) if each)
            return f"-- {kind} put aside as the dead letter {id}: {reason}" + (
                f", {because}" if because else ""
            )


def _session_of(record: ArchiveRecord) -> str:
    """The record's session id. A refused invitation's own id is the id that its session would have had."""
    return record.id if isinstance(record, OpeningRefused) else getattr(record, "session", "")


def record_fields(record: ArchiveRecord) -> dict[str, object]:
    """The record's fields as a dict for JSON, with `event` naming its type."""
    fields: dict[str, object] = {"event": kind_of(record)}
    return fields | msgspec.structs.asdict(record)


def format_record_time(record: ArchiveRecord, zones: dict[str, ZoneInfo]) -> str:
    zone = zones.get(record.channel, ZoneInfo("UTC"))
    return format_local(record.at, zone)
