"""`parley transcript`: what was said with one phone number, from the archive."""

import json
import os
from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

import click
import msgspec
import redis

from config.store import keyspace
from engine.model.events import (
    Delivered,
    Ended,
    Heard,
    Invited,
    Misread,
    Opened,
    OptedIn,
    OptedOut,
    Record,
    Refused,
    Said,
    Sent,
    Unsent,
)  # fmt: skip
from workers.commands.cli_numbers import sender_named
from workers.commands.connect import reach
from workers.store import archive


@click.command()
@click.argument("sender")
@click.option("--session", default="", help="Only this session.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, everything in it.")
def transcript(sender: str, session: str, as_json: bool) -> None:
    """What was said with one phone number, oldest first. Exit status 1 if nothing was.

    Times are of the channel's time zone, as its offset says.

    \b
    Example:
      parley transcript +33612345678
    """
    sender = sender_named(sender)
    settings, client = reach(os.environ)
    k = keyspace.shard_of(sender, settings.shards)
    records = [
        record for record in archived(client, k, sender) if not session or _session_of(record) == session
    ]
    if not records:
        raise click.ClickException(
            f"nothing is archived of {sender}{f' and session {session}' if session else ''}; invitations that wait for "
            "their turn are not there yet, and what is older than PARLEY_KEEP_DAYS or its survey's `keep` is gone"
        )
    zones = {name: channel.timezone for name, channel in settings.channels.items()}
    for record in records:
        if as_json:
            click.echo(json.dumps(plain(record), default=msgspec.structs.asdict))
        else:
            click.echo(f"{when(record, zones)}  {line(record)}")


def archived(client: redis.Redis, k: int, sender: str) -> Iterator[Record]:
    """Every record of one sender in shard `k`, oldest first."""
    for entry in archive.stored(client, k):
        if entry.sender == sender:
            yield from entry.records


def line(record: Record) -> str:
    """A record as a person reads it: `>` came in, `<` went out, `--` is about them."""
    match record:
        case Heard(text=text, handled=handled):
            return f"> {text}" + (f"  (a {handled.upper()}, which the provider answered)" if handled else "")
        case Said(text=text):
            return f"< {text}".replace("\n", "\n" + " " * 29)
        case Opened(session=session, survey=survey, version=version, originator=originator):
            over = f", from {originator}" if originator else ""
            return f"-- session {session} opened: {survey}, version {version}{over}"
        case Invited(invitation=invitation):
            return f"-- by an invitation {invitation.reference}".rstrip()
        case Ended(session=session, how=how, why=why):
            return f"-- session {session} ended: {how}" + (f", {why}" if why else "")
        case Misread(step=step, why=why):
            return f"-- no answer to {step}: {why}"
        case Sent(id=id, ticket=ticket):
            return f"-- {id} accepted by the provider" + (f" as {ticket}" if ticket else " at an earlier try")
        case Unsent(id=id, code=code, why=why):
            return f"-- {id} will not be sent: {code} {why}".rstrip()
        case Refused(id=id, reason=reason):
            return f"-- refused, {id}: {reason}"
        case OptedOut(by_provider=by_provider, source=source):
            teller = source or "the provider"
            return "-- opted out" + (f", as {teller} tells" if by_provider else "")
        case OptedIn():
            return "-- opted in again"
        case Delivered(ticket=ticket, status=status, state=state, code=code, why=why, sms=sms):
            because = " ".join(each for each in (code, why) if each)
            return f"-- {sms or ticket} {state or status}" + (f": {because}" if because else "")


def _session_of(record: Record) -> str:
    """An invitation that opened nothing has the id that its session would have had."""
    return record.id if isinstance(record, Refused) else getattr(record, "session", "")


def plain(record: Record) -> dict[str, object]:
    """A record as a program reads it."""
    fields: dict[str, object] = {"event": type(record).__name__.lower()}
    return fields | msgspec.structs.asdict(record)


def when(record: Record, zones: dict[str, ZoneInfo]) -> str:
    zone = zones.get(record.channel, ZoneInfo("UTC"))
    return datetime.fromtimestamp(record.at / 1000, zone).isoformat(" ", "seconds")
