"""`parley lane`: everything about one person on one screen, and why nothing is happening."""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from zoneinfo import ZoneInfo

import click
import msgspec
import redis
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from config.store import stored_values
from config.store.audit import record_operator
from config.store.outbox_states import decode_owner
from config.store.stored_values import LANE_LEASE_MS
from config.telemetry.logs import hash_sender
from engine.commands.exit_status import EXIT_OK, EXIT_PROBLEMS
from engine.commands.json_output import print_json
from engine.commands.terminal import open_console, simple_table
from engine.model.durations import format_duration
from engine.model.plurals import pluralize
from engine.model.timestamps import format_clock_time
from engine.turns.session_routing import channel_of_key
from workers.commands.cli_numbers import parse_sender_argument
from workers.commands.connect import connect_lanes
from workers.commands.transcript import format_record, format_record_time, record_fields
from workers.diagnosis.diagnose import Diagnosis, Severity, diagnose
from workers.diagnosis.pause_wording import pause_cause
from workers.diagnosis.sender_snapshot import (
    ChannelStatus,
    ConversationStatus,
    OpenSession,
    QueuedSms,
    SenderSnapshot,
)
from workers.diagnosis.snapshot_reader import read_snapshot
from workers.sending.send_policy import MAX_SEND_ATTEMPTS
from workers.store.outboxes import OUTBOX_LEASE_MS
from workers.turns.drafts import MAX_CLAIM_ATTEMPTS

_ENTRIES_SHOWN = 10
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

    Begins with one sentence: why nothing is happening, or what happens next and when. Only looks; claims and changes
    nothing. Exit status 1 if nothing is known of the number.

    \b
    Example:
      parley lane +33612345678
      parley lane +33612345678 --json | jq -r .diagnosis.sentence
    """
    sender = parse_sender_argument(sender)
    deployment = connect_lanes(os.environ)
    if channel and channel not in deployment.settings.channels:
        raise click.BadParameter(
            f"no channel is called {channel}; there are {', '.join(deployment.settings.channels)}",
            param_hint="--channel",
        )
    try:
        record_operator(deployment.lanes, "read lane", hash_sender(deployment.settings.log_key, sender))
        situation = read_snapshot(deployment, sender)
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
    for label, lines in _screen_rows(s):
        if lines := list(lines):
            grid.add_row(label, Text("\n".join(lines)))
    parts += [Text(), grid]
    if s.outbox:
        parts.append(_outbox_table(s))
    return Group(*parts)


def _screen_rows(s: SenderSnapshot) -> Iterator[tuple[str, Iterable[str]]]:
    yield "lane", _lane_lines(s)
    yield "mailbox", _mailbox_lines(s)
    yield "next alarm", _alarm_lines(s)
    yield "sessions", _session_lines(s)
    yield "limits", _limit_lines(s)
    yield "channels", _channel_lines(s)
    yield (
        "opted out",
        (
            f"of {each.channel} {format_duration(s.now - each.since)} ago"
            + (f", by {each.source}" if each.source else "")
            + ("" if each.in_lane else ", as the list says")
            for each in s.opt_outs
        ),
    )
    yield (
        "invitations",
        (
            f"{each.id} to {each.survey} on {each.channel}, waiting for {format_duration(s.now - each.at)}"
            + (
                f", not before {format_duration(each.not_before - s.now)} from now"
                if each.not_before > s.now
                else ""
            )
            for each in s.invitations
        ),
    )
    yield "wake-ups", _wakeup_lines(s)
    yield (
        "dead letters",
        (
            f"{each.id}  {format_duration(s.now - each.at)} ago  {each.kind} {each.channel} {each.reason}: "
            f"{each.why}"
            for each in s.dead
        ),
    )
    zones = {name: ZoneInfo(each.timezone) for name, each in s.channels.items()}
    yield (
        "last events",
        (f"{format_record_time(record, zones)}  {format_record(record)}" for record in s.records),
    )
    yield "unreadable", s.unreadable
    yield "outbox", _outbox_lock_lines(s)


def _lane_lines(s: SenderSnapshot) -> Iterator[str]:
    if s.state_unreadable:
        yield f"UNREADABLE: {s.state_unreadable}"
    elif s.remembers:
        yield f"in shard {s.shard}, last changed by what happened {format_duration(s.now - s.clock)} ago"
    else:
        yield f"none in shard {s.shard}: nothing is remembered of this number"
    if s.lock is not None:
        yield _lock_sentence(s, s.lock)


def _lock_sentence(s: SenderSnapshot, lock: stored_values.StoredLock) -> str:
    since = format_duration(s.now - lock.until + LANE_LEASE_MS)
    state = (
        f"for another {format_duration(lock.until - s.now)}" if lock.until > s.now else "whose lease is over"
    )
    return (
        f"locked by a worker that claimed it {since} ago, {state}; attempt {lock.attempts} of "
        f"{MAX_CLAIM_ATTEMPTS}"
    )


def _mailbox_lines(s: SenderSnapshot) -> Iterator[str]:
    for each in s.mail[:_ENTRIES_SHOWN]:
        age = f"{format_duration(s.now - each.at)} ago" if each.at else "nobody knows when"
        yield f"{each.kind} on {each.channel or '?'}, {age}" + (
            f"  > {_truncate_text(each.text)}" if each.text else ""
        )
    if s.mail_count > _ENTRIES_SHOWN:
        yield f"and {s.mail_count - min(_ENTRIES_SHOWN, len(s.mail))} more"


def _alarm_lines(s: SenderSnapshot) -> Iterator[str]:
    if s.alarm is not None:
        yield f"lane: {_format_moment(s, s.alarm)}, {_lane_alarm_reason(s)}"
    if s.outbox_alarm is not None:
        yield f"outbox: {_format_moment(s, s.outbox_alarm)}, {_outbox_alarm_reason(s)}"


def _format_moment(s: SenderSnapshot, at: int) -> str:
    return f"in {format_duration(at - s.now)}" if at > s.now else f"due for {format_duration(s.now - at)}"


def _lane_alarm_reason(s: SenderSnapshot) -> str:
    if s.lock is not None:
        return "when the lease of whoever claimed it is over"
    if s.mail_count:
        return "to look whether the mail has been seen to"
    ahead = [
        (each.at, f"{each.what} of {session.survey}")
        for _, session in s.open_sessions
        for each in session.ahead
    ]
    ahead += [(parts.until, "parts of an SMS that stayed alone") for parts in s.gathered]
    return min(ahead)[1] if ahead else "for a deadline"


def _outbox_alarm_reason(s: SenderSnapshot) -> str:
    lock = s.outbox_lock
    if lock is None:
        return "to look whether the SMS has been seen to"
    if lock.fence:
        return "when the lease of whoever sends is over"
    return "when the sender has rested"


def _session_lines(s: SenderSnapshot) -> Iterator[str]:
    for thread, session in s.open_sessions:
        yield from _open_session_lines(s, thread, session)
    for thread in s.threads:
        if thread.session is None and thread.ended_at:
            over = f" over {thread.originator}" if thread.originator else ""
            yield (
                f"{thread.channel}{over}: none open; the last, of {thread.ended_survey}, ended "
                f"{thread.ended_how} "
                f"{format_duration(s.now - thread.ended_at)} ago"
            )
    for parts in s.gathered:
        yield f"{parts.channel}: {parts.came} of {parts.total} parts of a long SMS"


def _open_session_lines(s: SenderSnapshot, thread: ConversationStatus, session: OpenSession) -> Iterator[str]:
    over = f" over {thread.originator}" if thread.originator else ""
    age = {True: "current", False: "OLDER than what runs", None: "nobody says what runs"}[session.current]
    yield (
        f"{thread.channel}{over}: {session.survey} at `{session.step}`, in {session.language}, opened "
        f"{format_duration(s.now - session.opened_at)} ago, last SMS "
        f"{format_duration(s.now - session.touched_at)} ago"
    )
    yield f"  id {session.id}, version {session.version} ({age})" + (
        f", {pluralize(session.misread, 'invalid answer')}" if session.misread else ""
    )
    if session.problem:
        yield f"  {session.problem}"
    elif session.ahead:
        yield "  if nobody writes: " + ", ".join(
            f"{each.what} {_format_moment(s, each.at)}" for each in session.ahead
        )


def _limit_lines(s: SenderSnapshot) -> Iterator[str]:
    for thread in s.threads:
        parts = []
        if thread.most_today:
            parts.append(f"{thread.opened_today} of {thread.most_today} sessions today")
        if thread.starts_left is not None:
            later = (
                f", the next in {format_duration(thread.next_start_at - s.now)}"
                if thread.next_start_at > s.now
                else ""
            )
            parts.append(f"{thread.starts_left} STARTs left{later}")
        parts += [
            f"{survey} cools down for {format_duration(until - s.now)}"
            for survey, until in thread.cools.items()
        ]
        if parts:
            yield (
                f"{thread.channel}{f' over {thread.originator}' if thread.originator else ''}: "
                f"{', '.join(parts)}"
            )


def _channel_lines(s: SenderSnapshot) -> Iterator[str]:
    concerned = {each.channel for each in s.threads} | {each.channel for each in s.mail}
    concerned |= {each.channel for each in s.outbox} | {each.channel for each in s.invitations}
    concerned |= {each.channel for each in s.opt_outs}
    for name, standing in s.channels.items():
        if name in concerned or not concerned:
            yield f"{name}: {', '.join(_channel_clauses(s, standing)) or 'no limits'}"


def _channel_clauses(s: SenderSnapshot, standing: ChannelStatus) -> Iterator[str]:
    if (pause := standing.pause) is not None:
        zone = ZoneInfo(standing.timezone)
        until = (
            f" until {format_clock_time(standing.pause_until, s.now, zone)}" if standing.pause_until else ""
        )
        since = f" since {format_clock_time(pause.since, s.now, zone)}" if pause.since else ""
        yield f"PAUSED {pause_cause(pause)}{since}{until} ({pause.why})"
    if standing.sms_per_day:
        yield f"{standing.sms_today} of {standing.sms_per_day} SMS today"
    if standing.sms_per_second:
        behind = f", booked for {format_duration(standing.behind_ms)} ahead" if standing.behind_ms else ""
        yield f"{standing.sms_per_second:g} SMS a second{behind}"
    if standing.sessions_per_minute:
        yield f"{standing.sessions_left} of {standing.sessions_per_minute} new sessions a minute left"
    if standing.quiet_until:
        yield f"quiet where they are for {format_duration(standing.quiet_until - s.now)}"


def _wakeup_lines(s: SenderSnapshot) -> Iterator[str]:
    if s.broker:
        yield f"the Redis of the wake-ups does not answer: {s.broker}"
    for queue, rung in s.queues.items():
        if rung.place is not None:
            yield f"{queue}: rung for {format_duration(rung.since_ms)}, {rung.place} of {rung.depth} before"


def _outbox_lock_lines(s: SenderSnapshot) -> Iterator[str]:
    if (lock := s.outbox_lock) is None:
        return
    if lock.fence:
        since = format_duration(s.now - lock.until + OUTBOX_LEASE_MS)
        state = (
            f"for another {format_duration(lock.until - s.now)}"
            if lock.until > s.now
            else "whose lease is over"
        )
        yield f"taken by a worker {since} ago, {state}; try {lock.attempts} of {MAX_SEND_ATTEMPTS}"
    else:
        tries = f" after {lock.attempts} of {MAX_SEND_ATTEMPTS} tries" if lock.attempts else ""
        owner = decode_owner(lock.fence, lock.owner)
        doubt = "?" if owner.uncertain else ""
        yield f"at rest ({owner.state}{doubt}){tries}, {_format_moment(s, lock.until)}"
    for tried in s.tries:
        yield (
            f"  tried {format_duration(s.now - tried.at)} ago: "
            f"{': '.join(filter(None, (tried.code, tried.why)))}"
        )


def _outbox_table(s: SenderSnapshot) -> Table:
    table = simple_table()
    for column in ("SMS", "channel", "decided", "state"):
        table.add_column(column, no_wrap=True)
    table.add_column("text")
    for place, sms in enumerate(s.outbox[:_ENTRIES_SHOWN]):
        decided = f"{format_duration(s.now - sms.decided)} ago" if sms.decided else "?"
        table.add_row(
            Text(sms.id or "unreadable"),
            Text(sms.channel),
            decided,
            _sms_state(s, place, sms),
            Text(_truncate_text(sms.text)),
        )
    if s.outbox_count > _ENTRIES_SHOWN:
        table.add_row(f"and {s.outbox_count - _ENTRIES_SHOWN} more")
    return table


def _sms_state(s: SenderSnapshot, place: int, sms: QueuedSms) -> str:
    lock = s.outbox_lock
    uncertain = sms.uncertain or (
        place == 0
        and lock is not None
        and (decode_owner(lock.fence, lock.owner).uncertain or (lock.fence > 0 and lock.until <= s.now))
    )
    told = ["uncertain"] if uncertain else []
    if place == 0 and lock is not None and lock.fence and lock.until > s.now:
        told.append("being sent")
    if sms.unasked:
        told.append("invitation")
    return ", ".join(told) or "waits"


def _truncate_text(text: str, most: int = 60) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"
