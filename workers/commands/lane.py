"""`parley lane`: everything about one person on one screen, and why nothing is happening."""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from zoneinfo import ZoneInfo

import click
import msgspec
import redis
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from config.store import stored_values
from engine.turns.session_routing import channel_of
from workers.commands.cli_numbers import sender_named
from workers.commands.connect import reach_apart
from workers.commands.transcript import line, plain, when
from workers.diagnosis.diagnose import Diagnosis, Weight, diagnose
from workers.diagnosis.sender_snapshot import Open, Queued, Situation, Standing, Thread
from workers.diagnosis.snapshot_reader import read
from workers.runtime.formatting import clock_time, rough
from workers.sending.delivery import LEASE_MS as SENDING_MS
from workers.sending.send_policy import MAX_TRIES
from workers.store.lanes import LEASE_MS
from workers.turns.drafts import MAX_ATTEMPTS

PIPE_WIDTH = 160
_SHOWN = 10
_STYLE = {
    Weight.QUIET: "bold",
    Weight.NORMAL: "bold green",
    Weight.HELD_UP: "bold yellow",
    Weight.WRONG: "bold red",
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
    sender = sender_named(sender)
    settings, lanes, broker = reach_apart(os.environ)
    if channel and channel not in settings.channels:
        raise click.BadParameter(
            f"no channel is called {channel}; there are {', '.join(settings.channels)}",
            param_hint="--channel",
        )
    try:
        situation = read(settings, lanes, broker, sender)
    except redis.RedisError as e:
        raise click.ClickException(f"the Redis of the lanes failed: {type(e).__name__}") from e
    if channel:
        situation = of_channel(situation, channel)
    diagnosis = diagnose(situation)
    if as_json:
        click.echo(json.dumps(as_builtins(situation, diagnosis)))
    else:
        console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, markup=False)
        console.print(screen(situation, diagnosis))
    sys.exit(1 if situation.nothing else 0)


def of_channel(s: Situation, channel: str) -> Situation:
    """What of it concerns one channel. The lane, its mailbox and its outbox are one for all channels, and stay whole."""
    return msgspec.structs.replace(
        s,
        threads=[each for each in s.threads if each.channel == channel],
        gathered=[each for each in s.gathered if each.channel == channel],
        opt_outs=[each for each in s.opt_outs if channel_of(each.channel) == channel],
        invitations=[each for each in s.invitations if each.channel == channel],
        dead=[each for each in s.dead if each.channel in ("", channel)],
        records=[each for each in s.records if each.channel == channel],
    )


def as_builtins(s: Situation, diagnosis: Diagnosis) -> dict[str, object]:
    told: dict[str, object] = msgspec.to_builtins(msgspec.structs.replace(s, records=[]))
    told["records"] = [plain(record) for record in s.records]
    told["diagnosis"] = {
        "sentence": diagnosis.sentence,
        "weight": diagnosis.weight.name.lower(),
        "also": diagnosis.also,
    }
    return json.loads(json.dumps(told, default=msgspec.to_builtins))  # type: ignore[no-any-return]


def screen(s: Situation, diagnosis: Diagnosis) -> RenderableType:
    parts: list[RenderableType] = [Text(diagnosis.sentence, style=_STYLE[diagnosis.weight])]
    parts += [Text(f"- {sentence}") for sentence in diagnosis.also]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column()
    for label, lines in _rows(s):
        if lines := list(lines):
            grid.add_row(label, Text("\n".join(lines)))
    parts += [Text(), grid]
    if s.outbox:
        parts.append(_outbox_table(s))
    return Group(*parts)


def _rows(s: Situation) -> Iterator[tuple[str, Iterable[str]]]:
    yield "lane", _lane(s)
    yield "mailbox", _mailbox(s)
    yield "next alarm", _alarms(s)
    yield "sessions", _sessions(s)
    yield "limits", _limits(s)
    yield "channels", _channels(s)
    yield (
        "opted out",
        (
            f"of {each.channel} {rough(s.now - each.since)} ago"
            + (f", by {each.source}" if each.source else "")
            + ("" if each.in_lane else ", as the list says")
            for each in s.opt_outs
        ),
    )
    yield (
        "invitations",
        (
            f"{each.id} to {each.survey} on {each.channel}, waiting for {rough(s.now - each.at)}"
            + (f", not before {rough(each.not_before - s.now)} from now" if each.not_before > s.now else "")
            for each in s.invitations
        ),
    )
    yield "wake-ups", _wake_ups(s)
    yield (
        "dead letters",
        (
            f"{each.id}  {rough(s.now - each.at)} ago  {each.kind} {each.channel} {each.reason}: {each.why}"
            for each in s.dead
        ),
    )
    zones = {name: ZoneInfo(each.timezone) for name, each in s.channels.items()}
    yield "last events", (f"{when(record, zones)}  {line(record)}" for record in s.records)
    yield "unreadable", s.unreadable
    yield "outbox", _outbox(s)


def _lane(s: Situation) -> Iterator[str]:
    if s.state_unreadable:
        yield f"UNREADABLE: {s.state_unreadable}"
    elif s.remembers:
        yield f"in shard {s.shard}, last changed by what happened {rough(s.now - s.clock)} ago"
    else:
        yield f"none in shard {s.shard}: nothing is remembered of this number"
    if s.lock is not None:
        yield _lock(s, s.lock)


def _lock(s: Situation, lock: stored_values.Lock) -> str:
    since = rough(s.now - lock.until + LEASE_MS)
    state = f"for another {rough(lock.until - s.now)}" if lock.until > s.now else "whose lease is over"
    return (
        f"locked by a worker that claimed it {since} ago, {state}; attempt {lock.attempts} of {MAX_ATTEMPTS}"
    )


def _mailbox(s: Situation) -> Iterator[str]:
    for each in s.mail[:_SHOWN]:
        age = f"{rough(s.now - each.at)} ago" if each.at else "nobody knows when"
        yield f"{each.kind} on {each.channel or '?'}, {age}" + (
            f"  > {_short(each.text)}" if each.text else ""
        )
    if s.mail_count > _SHOWN:
        yield f"and {s.mail_count - min(_SHOWN, len(s.mail))} more"


def _alarms(s: Situation) -> Iterator[str]:
    if s.alarm is not None:
        yield f"lane: {_moment(s, s.alarm)}, {_why(s)}"
    if s.outbox_alarm is not None:
        yield f"outbox: {_moment(s, s.outbox_alarm)}, {_outbox_why(s)}"


def _moment(s: Situation, at: int) -> str:
    return f"in {rough(at - s.now)}" if at > s.now else f"due for {rough(s.now - at)}"


def _why(s: Situation) -> str:
    if s.lock is not None:
        return "when the lease of whoever claimed it is over"
    if s.mail_count:
        return "to look whether the mail has been seen to"
    ahead = [
        (each.at, f"{each.what} of {session.survey}") for _, session in s.sessions for each in session.ahead
    ]
    ahead += [(parts.until, "parts of an SMS that stayed alone") for parts in s.gathered]
    return min(ahead)[1] if ahead else "for a deadline"


def _outbox_why(s: Situation) -> str:
    lock = s.outbox_lock
    if lock is None:
        return "to look whether the SMS has been seen to"
    if lock.fence:
        return "when the lease of whoever sends is over"
    return "when the sender has rested"


def _sessions(s: Situation) -> Iterator[str]:
    for thread, session in s.sessions:
        yield from _session(s, thread, session)
    for thread in s.threads:
        if thread.session is None and thread.ended_at:
            over = f" over {thread.originator}" if thread.originator else ""
            yield (
                f"{thread.channel}{over}: none open; the last, of {thread.ended_survey}, ended {thread.ended_how} "
                f"{rough(s.now - thread.ended_at)} ago"
            )
    for parts in s.gathered:
        yield f"{parts.channel}: {parts.came} of {parts.total} parts of a long SMS"


def _session(s: Situation, thread: Thread, session: Open) -> Iterator[str]:
    over = f" over {thread.originator}" if thread.originator else ""
    age = {True: "current", False: "OLDER than what runs", None: "nobody says what runs"}[session.current]
    yield (
        f"{thread.channel}{over}: {session.survey} at `{session.step}`, in {session.language}, opened "
        f"{rough(s.now - session.opened_at)} ago, last SMS {rough(s.now - session.touched_at)} ago"
    )
    yield f"  id {session.id}, version {session.version} ({age})" + (
        f", {session.misread} invalid answer{'s' if session.misread > 1 else ''}" if session.misread else ""
    )
    if session.problem:
        yield f"  {session.problem}"
    elif session.ahead:
        yield "  if nobody writes: " + ", ".join(
            f"{each.what} {_moment(s, each.at)}" for each in session.ahead
        )


def _limits(s: Situation) -> Iterator[str]:
    for thread in s.threads:
        parts = []
        if thread.most_today:
            parts.append(f"{thread.opened_today} of {thread.most_today} sessions today")
        if thread.starts_left is not None:
            later = (
                f", the next in {rough(thread.next_start_at - s.now)}" if thread.next_start_at > s.now else ""
            )
            parts.append(f"{thread.starts_left} STARTs left{later}")
        parts += [f"{survey} cools down for {rough(until - s.now)}" for survey, until in thread.cools.items()]
        if parts:
            yield f"{thread.channel}{f' over {thread.originator}' if thread.originator else ''}: {', '.join(parts)}"


def _channels(s: Situation) -> Iterator[str]:
    concerned = {each.channel for each in s.threads} | {each.channel for each in s.mail}
    concerned |= {each.channel for each in s.outbox} | {each.channel for each in s.invitations}
    concerned |= {each.channel for each in s.opt_outs}
    for name, standing in s.channels.items():
        if name in concerned or not concerned:
            yield f"{name}: {', '.join(_standing(s, standing)) or 'no limits'}"


def _standing(s: Situation, standing: Standing) -> Iterator[str]:
    if (pause := standing.pause) is not None:
        zone = ZoneInfo(standing.timezone)
        until = f" until {clock_time(standing.pause_until, s.now, zone)}" if standing.pause_until else ""
        since = f" since {clock_time(pause.since, s.now, zone)}" if pause.since else ""
        yield f"PAUSED by {pause.by}{since}{until} ({pause.why})"
    if standing.sms_per_day:
        yield f"{standing.sms_today} of {standing.sms_per_day} SMS today"
    if standing.sms_per_second:
        behind = f", booked for {rough(standing.behind_ms)} ahead" if standing.behind_ms else ""
        yield f"{standing.sms_per_second:g} SMS a second{behind}"
    if standing.sessions_per_minute:
        yield f"{standing.sessions_left} of {standing.sessions_per_minute} new sessions a minute left"
    if standing.quiet_until:
        yield f"quiet where they are for {rough(standing.quiet_until - s.now)}"


def _wake_ups(s: Situation) -> Iterator[str]:
    if s.broker:
        yield f"the Redis of the wake-ups does not answer: {s.broker}"
    for queue, rung in s.queues.items():
        if rung.place is not None:
            yield f"{queue}: rung for {rough(rung.since_ms)}, {rung.place} of {rung.depth} before"


def _outbox(s: Situation) -> Iterator[str]:
    if (lock := s.outbox_lock) is None:
        return
    if lock.fence:
        since = rough(s.now - lock.until + SENDING_MS)
        state = f"for another {rough(lock.until - s.now)}" if lock.until > s.now else "whose lease is over"
        yield f"taken by a worker {since} ago, {state}; try {lock.attempts} of {MAX_TRIES}"
    else:
        tries = f" after {lock.attempts} of {MAX_TRIES} tries" if lock.attempts else ""
        yield f"at rest ({lock.owner.split(' ')[0]}){tries}, {_moment(s, lock.until)}"
    for tried in s.tries:
        yield f"  tried {rough(s.now - tried.at)} ago: {': '.join(filter(None, (tried.code, tried.why)))}"


def _outbox_table(s: Situation) -> Table:
    table = Table(box=box.SIMPLE)
    for column in ("SMS", "channel", "decided", "state"):
        table.add_column(column, no_wrap=True)
    table.add_column("text")
    for place, sms in enumerate(s.outbox[:_SHOWN]):
        decided = f"{rough(s.now - sms.decided)} ago" if sms.decided else "?"
        table.add_row(
            Text(sms.id or "unreadable"),
            Text(sms.channel),
            decided,
            _sms_state(s, place, sms),
            Text(_short(sms.text)),
        )
    if s.outbox_count > _SHOWN:
        table.add_row(f"and {s.outbox_count - _SHOWN} more")
    return table


def _sms_state(s: Situation, place: int, sms: Queued) -> str:
    lock = s.outbox_lock
    uncertain = sms.uncertain or (
        place == 0
        and lock is not None
        and (lock.owner.endswith("?") or (lock.fence > 0 and lock.until <= s.now))
    )
    told = ["uncertain"] if uncertain else []
    if place == 0 and lock is not None and lock.fence and lock.until > s.now:
        told.append("being sent")
    if sms.unasked:
        told.append("invitation")
    return ", ".join(told) or "waits"


def _short(text: str, most: int = 60) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"
