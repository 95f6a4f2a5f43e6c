"""`parley lane`: everything about one person on one screen, and why nothing is happening."""

import json
import os
import sys
from zoneinfo import ZoneInfo

import click
import msgspec
import redis
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from config.store.audit import record_operator
from config.telemetry.logs import hash_sender
from engine.commands.exit_status import EXIT_OK, EXIT_PROBLEMS
from engine.commands.json_output import print_json
from engine.commands.terminal import open_console, simple_table
from engine.model.durations import format_duration
from engine.turns.session_routing import channel_of_key
from workers.commands.cli_numbers import parse_person_argument
from workers.commands.connect import connect_lanes
from workers.commands.reports.person_lookup import find_person
from workers.diagnosis.diagnose import Diagnosis, Severity, diagnose
from workers.diagnosis.sender_snapshot import SenderSnapshot
from workers.diagnosis.snapshot_reader import read_snapshot
from workers.diagnosis.snapshot_rows import ENTRIES_SHOWN, sms_state, snapshot_rows, truncate_text
from workers.history.record_wording import format_record, format_record_time, record_fields

_SEVERITY_STYLE = {
    Severity.QUIET: "bold",
    Severity.NORMAL: "bold green",
    Severity.HELD_UP: "bold yellow",
    Severity.WRONG: "bold red",
}


@click.command()
@click.argument("sender")
@click.option(
    "--channel", default="", help="Only what concerns this channel; limits and pauses are told of it."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, everything in it.")
def lane(sender: str, channel: str, as_json: bool) -> None:
    """Everything about one phone number: what waits, what is open, what is left of each limit.

    In place of the number, the ten letters and digits by which logs and the audit name a person will do: everybody is then
    looked through, some 100,000 keys of Redis a second.

    Begins with one sentence: why nothing is happening, or what happens next and when. Only looks; claims and changes
    nothing. Exit status 1 if nothing is known of the number.

    \b
    Example:
      parley lane +33612345678
      parley lane 4f0a1b2c3d
      parley lane +33612345678 --json | jq -r .diagnosis.sentence
    """
    person = parse_person_argument(sender)
    deployment = connect_lanes(os.environ)
    if channel and channel not in deployment.settings.channels:
        raise click.BadParameter(
            f"no channel is called {channel}; there are {', '.join(deployment.settings.channels)}",
            param_hint="--channel",
        )
    try:
        sender = find_person(deployment, person)
        log_name = hash_sender(deployment.open_log_key(), sender)
        record_operator(deployment.lanes, "read lane", log_name)
        situation = msgspec.structs.replace(read_snapshot(deployment, sender), log_name=log_name)
    except redis.exceptions.NoPermissionError:
        raise  # config/cli.py says which right is missing
    except redis.RedisError as e:
        raise click.ClickException(f"the Redis of the lanes failed: {type(e).__name__}") from e
    if channel:
        situation = restrict_to_channel(situation, channel)
    diagnosis = diagnose(situation)
    if as_json:
        print_json(as_builtins(situation, diagnosis))
    else:
        open_console().print(render_lane(situation, diagnosis))
    sys.exit(EXIT_PROBLEMS if situation.is_unknown else EXIT_OK)


def restrict_to_channel(s: SenderSnapshot, channel: str) -> SenderSnapshot:
    """The snapshot restricted to one channel. The lane, its mailbox and its outbox serve all channels, and are kept whole."""
    return msgspec.structs.replace(
        s,
        threads=[each for each in s.threads if each.channel == channel],
        gathered=[each for each in s.gathered if each.channel == channel],
        opt_outs=[each for each in s.opt_outs if channel_of_key(each.channel) == channel],
        invitations=[each for each in s.invitations if each.channel == channel],
        dead=[each for each in s.dead if each.channel in ("", channel)],
        records=[each for each in s.records if each.channel == channel],
    )


def as_builtins(s: SenderSnapshot, diagnosis: Diagnosis) -> dict[str, object]:
    told: dict[str, object] = msgspec.to_builtins(msgspec.structs.replace(s, records=[]))
    told["tries"] = [msgspec.structs.asdict(attempt) for attempt in s.tries]
    told["records"] = [record_fields(record) for record in s.records]
    told["diagnosis"] = {
        "sentence": diagnosis.sentence,
        "weight": diagnosis.severity.name.lower(),
        "also": diagnosis.also,
    }
    return json.loads(json.dumps(told, default=msgspec.to_builtins))  # type: ignore[no-any-return]


def render_lane(s: SenderSnapshot, diagnosis: Diagnosis) -> RenderableType:
    parts: list[RenderableType] = [Text(diagnosis.sentence, style=_SEVERITY_STYLE[diagnosis.severity])]
    parts += [Text(f"- {sentence}") for sentence in diagnosis.also]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column()
    zones = {name: ZoneInfo(each.timezone) for name, each in s.channels.items()}
    last = (f"{format_record_time(record, zones)}  {format_record(record)}" for record in s.records)
    for label, lines in (("number", [s.sender]), *snapshot_rows(s, last)):
        if lines := list(lines):
            grid.add_row(label, Text("\n".join(lines)))
    parts += [Text(), grid]
    if s.outbox:
        parts.append(_outbox_table(s))
    return Group(*parts)


def _outbox_table(s: SenderSnapshot) -> Table:
    table = simple_table()
    for column in ("SMS", "channel", "decided", "state"):
        table.add_column(column, no_wrap=True)
    table.add_column("text")
    for place, sms in enumerate(s.outbox[:ENTRIES_SHOWN]):
        decided = f"{format_duration(s.now - sms.decided)} ago" if sms.decided else "?"
        table.add_row(
            Text(sms.id or "unreadable"),
            Text(sms.channel),
            decided,
            sms_state(s, place, sms),
            Text(truncate_text(sms.text)),
        )
    if s.outbox_count > ENTRIES_SHOWN:
        table.add_row(f"and {s.outbox_count - ENTRIES_SHOWN} more")
    return table
