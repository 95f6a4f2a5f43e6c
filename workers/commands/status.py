"""`parley status`: what is wrong, who works, and what waits.

The tables show what was found; `judge` says what of it is wrong, without I/O, worst first.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from time import sleep

import click
import msgspec
import redis
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from config.settings.settings import Mistakes, Settings, load
from config.store import keyspace
from config.store.pauses import Pause
from config.telemetry.process_registry import ROLES, UNHEARD, Process
from config.telemetry.redis_stats import Server, Shard, Sounder, Soundings
from engine.proofs.survey_loader import read_surveys
from engine.providers.provider_registry import mistakes
from workers.commands.connect import located
from workers.diagnosis.diagnose import ROLE
from workers.runtime.durability import DURABLE, forgetful
from workers.runtime.formatting import clock_time, rough

PIPE_WIDTH = 160
EVERY_S = 2.0
PATIENCE_S = 1.0
_READABLE = 20
"""Columns that a sentence needs."""

LATE_MS = 5_000
"""A clock that keeps up leaves no alarm due for so long."""

SLOW_MS = 30_000
"""Workers that keep up leave nobody in a queue for so long."""

FULL = 0.9
"""Of the memory that a server may use: what comes in is refused when all of it is used."""

_QUEUED = {
    keyspace.STARTS: "STARTs",
    keyspace.REPLIES: "replies",
    keyspace.OUTBOUND: "SMS to send",
}


class State(msgspec.Struct, frozen=True):
    """What was found. `forgetful`: settings of the lanes' server by which it may lose what was acknowledged. `mistakes`:
    of the settings and survey files as they are here, for which no process would start."""

    found: Soundings
    forgetful: Mapping[str, str] = {}
    mistakes: Sequence[str] = ()


class Verdict(msgspec.Struct, frozen=True):
    """What is wrong, worst first, and what is worth knowing. Sentences."""

    wrong: list[str]
    notes: list[str]

    @property
    def ok(self) -> bool:
        return not self.wrong


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object; with --watch, one a line.")
@click.option("--watch", is_flag=True, help="Look again every two seconds, until Ctrl-C.")
@click.option(
    "--shards", is_flag=True, help="All shards, not only those in which something waits or is locked."
)
def status(as_json: bool, watch: bool, shards: bool) -> None:
    """What is wrong, who works, and what waits.

    The first line says what is wrong first, or that all is well. Exit status 0 if all is well, 1 if something is wrong.

    \b
    Example:
      parley status
      parley status --json | jq -r '.wrong[]'
    """
    settings = located(os.environ)
    verdict = Verdict([], [])
    telling = _json() if as_json else _screens(settings, live=watch, every_shard=shards)
    with closing(Sounder(settings)) as sounder, telling as tell, suppress(KeyboardInterrupt):
        for state in _looks(settings, sounder, again=watch):
            verdict = judge(state)
            tell(state, verdict)
    sys.exit(0 if verdict.ok else 1)


Tell = Callable[[State, Verdict], None]


def _looks(settings: Settings, sounder: Sounder, *, again: bool) -> Iterator[State]:
    yield look(settings, sounder)
    while again:
        sleep(EVERY_S)
        yield look(settings, sounder)


@contextmanager
def _json() -> Iterator[Tell]:
    def tell(state: State, verdict: Verdict) -> None:
        told = {"ok": verdict.ok, "wrong": verdict.wrong, "notes": verdict.notes}
        click.echo(json.dumps(told | as_builtins(state)))

    yield tell


@contextmanager
def _screens(settings: Settings, *, live: bool, every_shard: bool) -> Iterator[Tell]:
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, markup=False)

    def draw(state: State, verdict: Verdict) -> RenderableType:
        return screen(settings, state, verdict, every_shard=every_shard)

    if not live:
        yield lambda state, verdict: console.print(draw(state, verdict))
        return
    with Live(console=console, auto_refresh=False) as shown:
        yield lambda state, verdict: shown.update(draw(state, verdict), refresh=True)


def look(settings: Settings, sounder: Sounder) -> State:
    """The state now. Never raises for a server that does not answer."""
    found = sounder.take()
    return State(found, _forgetful(settings) if found.lanes.up else {}, _mistakes())


def _mistakes() -> list[str]:
    try:
        load(os.environ, read_surveys, mistakes)
    except Mistakes as e:
        return e.problems
    return []


def _forgetful(settings: Settings) -> dict[str, str]:
    with keyspace.connect(settings.redis_url, 0, PATIENCE_S) as client:
        try:
            return forgetful(client)
        except redis.RedisError:
            return {}


def judge(state: State) -> Verdict:
    """What of it is wrong."""
    return Verdict(list(_wrong(state)), list(_notes(state)))


def _wrong(state: State) -> Iterator[str]:
    found = state.found
    if not found.lanes.up:
        yield f"the Redis of the lanes does not answer ({found.lanes.why}): nothing is accepted, and nothing moves"
    if not found.broker.up:
        yield f"the Redis of the wake-ups does not answer ({found.broker.why}): no worker is woken"
    yield from _missing(found)
    yield from _full("lanes", found.lanes)
    yield from _full("wake-ups", found.broker)
    yield from _late(found)
    for queue, waiting in found.queues.items():
        if waiting.oldest_ms > SLOW_MS:
            wait = _count(waiting.depth, "waits", "wait")
            yield (
                f"{wait} in the queue {queue} ({_QUEUED[queue]}), the first for {rough(waiting.oldest_ms)}"
                f"{_more(found, ROLE[queue])}"
            )
    if abandoned := sum(shard.abandoned for shard in found.shards):
        yield f"{_lanes(abandoned)} held by workers that never came back"
    for name, stands in found.channels.items():
        if stands.pause is not None and stands.pause.by != "operator":
            yield f"{_paused(name, stands.pause, stands.pause_left_ms)}{_TO_DO[stands.pause.by].format(name)}"
        if stands.sms_cap and stands.sms_today >= stands.sms_cap:
            yield f"the {name} channel has spent the day's {stands.sms_cap} SMS: new sessions are refused until midnight there"
    if dead := found.dead():
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dead.items()))
        oldest = max(shard.dead_oldest_ms for shard in found.shards)
        letters = _count(sum(dead.values()), "dead letter", "dead letters")
        yield f"{letters} ({reasons}), the oldest of {rough(oldest)} ago: `parley dead list`"
    if others := sum(found.dramatiq_dead.values()):
        yield f"{_count(others, 'message', 'messages')} in dead-letter queues of Dramatiq's own: `parley dead list`"
    for name, value in state.forgetful.items():
        yield f"Redis may lose what was acknowledged: {name} is {value!r}, not {DURABLE[name]!r}"


_TO_DO = {
    "account": "; mend the account, then `parley channel resume {}`",
    "circuit": "; it is tried again and again, and goes on by itself",
}


def _more(found: Soundings, role: str) -> str:
    """What to do about a queue in which somebody waits; nothing where nobody works on it, which is said already."""
    if role not in {each.role for each in found.processes.values()}:
        return ""
    return f": more `{role}` processes are needed, or those that live are stuck (see their log)"


def _missing(found: Soundings) -> Iterator[str]:
    """Roles that nobody has. A process of the earlier release may be one of those that do not say so."""
    if not found.lanes.up:
        return
    living = {each.role for each in found.processes.values()}
    earlier = any(not each.library for each in found.processes.values())
    missing = [role for role in ROLES if role not in living and not (earlier and role in UNHEARD)]
    if len(missing) == len(ROLES):
        yield "no process of Parley lives"
    elif missing:
        yield f"no {' and no '.join(f'`{role}`' for role in missing)} process lives"


def _full(which: str, server: Server) -> Iterator[str]:
    if server.most_memory and server.memory >= FULL * server.most_memory:
        share = server.memory / server.most_memory
        then = "what comes in is refused" if share >= 1 else "when all is used, what comes in is refused"
        yield f"the Redis of the {which} uses {share:.0%} of the memory that it may; {then}: raise its `maxmemory`"


def _late(found: Soundings) -> Iterator[str]:
    roles = {each.role for each in found.processes.values()}
    earlier = any(not each.library for each in found.processes.values())
    why = "`clock` does not keep up" if "clock" in roles or earlier else "that is for `clock` to do"
    for one, more, alarms in (
        ("lane is", "lanes are", [shard.lanes for shard in found.shards]),
        ("outbox is", "outboxes are", [shard.outboxes for shard in found.shards]),
    ):
        late_ms = max((each.late_ms for each in alarms), default=0)
        if late_ms > LATE_MS:
            yield (
                f"{_count(sum(each.due for each in alarms), one, more)} due and not rung for, the first for "
                f"{rough(late_ms)}: {why}"
            )


def _notes(state: State) -> Iterator[str]:
    found = state.found
    for name, stands in found.channels.items():
        if stands.pause is not None and stands.pause.by == "operator":
            yield f"{_paused(name, stands.pause, stands.pause_left_ms)}; `parley channel resume {name}` ends it"
    if len(releases := sorted({_release(each) for each in found.processes.values()})) > 1:
        yield f"processes of {len(releases)} releases run side by side: {', '.join(releases)}"
    if state.mistakes:
        first, *others = state.mistakes
        more = f", and {len(others)} more" if others else ""
        yield f"with the settings and surveys as they are here no process would start: {first}{more} (`parley check`)"


def _paused(name: str, pause: Pause, left_ms: int) -> str:
    return f"the {name} channel is paused {_pause(pause, left_ms)}"


def _pause(pause: Pause, left_ms: int) -> str:
    by = {
        "operator": f"by an operator{f', {pause.who}' if pause.who else ''}",
        "account": "as its provider refuses the account",
        "circuit": "as its provider fails",
    }[pause.by]
    left = f", for another {rough(left_ms)}" if left_ms else ""
    return f"{by}{left} ({pause.why})"


def _lanes(count: int) -> str:
    return _count(count, "lane is", "lanes are")


def _count(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def _release(process: Process) -> str:
    return (
        f"{process.release or '?'} ({process.library.removeprefix('parley_')})"
        if process.library
        else "earlier"
    )


# The screen


def screen(settings: Settings, state: State, verdict: Verdict, *, every_shard: bool) -> RenderableType:
    parts: list[RenderableType] = []
    if verdict.ok:
        told = "Nothing is wrong, but mind:" if verdict.notes else "All is well."
        parts.append(Text(told, style="bold green"))
    else:
        first, *others = verdict.wrong
        parts.append(Text(f"{first[:1].upper()}{first[1:]}.", style="bold red"))
        parts += [Text(f"- {sentence}", style="red") for sentence in others]
    parts += [Text(f"- {sentence}", style="yellow") for sentence in verdict.notes]
    tables = (_queues(state.found), _processes(state.found), _channels(settings, state.found))
    parts += [table for table in tables if table.row_count]
    shards = [shard for shard in state.found.shards if every_shard or _busy(shard)]
    if shards:
        parts.append(_shards(shards))
    parts.append(_servers(state.found))
    return Group(*parts)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 else "right", no_wrap=True)
    return table


def _queues(found: Soundings) -> Table:
    table = _table("queue", "waiting", "oldest", "workers", "a second")
    for queue, stands in found.queues.items():
        alive = [each for each in found.processes.values() if each.role == ROLE[queue]]
        oldest = rough(stands.oldest_ms) if stands.depth else "-"
        per_s = sum(each.per_s for each in alive)
        table.add_row(queue, str(stands.depth), oldest, f"{len(alive)} {ROLE[queue]}", f"{per_s:.1f}")
    return table


def _processes(found: Soundings) -> Table:
    table = _table("process", "release", "up for", "heard", "a second")
    now = found.lanes.now
    for each in found.processes.values():
        since = rough(now - each.since) if each.since else "?"
        table.add_row(
            Text(f"{each.role}@{each.host}:{each.pid}"),
            Text(_release(each)),
            since,
            f"{rough(now - each.at)} ago",
            f"{each.per_s:.1f}",
        )
    return table


def _channels(settings: Settings, found: Soundings) -> Table:
    table = _table("channel", "SMS today", "invitations")
    table.add_column("paused", min_width=_READABLE)
    for name, stands in found.channels.items():
        today = f"{stands.sms_today} of {stands.sms_cap}" if stands.sms_cap else "no cap"
        pause = stands.pause
        if pause is None:
            paused = Text("no")
        else:
            since = (
                clock_time(pause.since, found.lanes.now, settings.channels[name].timezone)
                if pause.since
                else "?"
            )
            paused = Text(f"since {since}, {_pause(pause, stands.pause_left_ms)}", style="red")
        table.add_row(name, today, str(stands.held), paused)
    return table


def _busy(shard: Shard) -> bool:
    return bool(
        shard.lanes.set
        or shard.outboxes.set
        or shard.held
        or shard.abandoned
        or shard.dead
        or shard.dead_oldest_ms
    )


def _shards(shards: list[Shard]) -> Table:
    table = _table(
        "shard",
        "lanes'\nalarms",
        "due",
        "late",
        "held",
        "abandoned",
        "outboxes",
        "due",
        "late",
        "dead\nletters",
    )
    table.collapse_padding = True
    for shard in shards:
        table.add_row(
            str(shard.k), str(shard.lanes.set), str(shard.lanes.due), _late_for(shard.lanes.late_ms), str(shard.held),
            str(shard.abandoned), str(shard.outboxes.set), str(shard.outboxes.due), _late_for(shard.outboxes.late_ms),
            str(sum(shard.dead.values())),
        )  # fmt: skip
    return table


def _late_for(ms: int) -> str:
    return rough(ms) if ms else "-"


def _servers(found: Soundings) -> Table:
    table = _table("server", "answers", "memory")
    for name, server in (("lanes", found.lanes), ("wake-ups", found.broker)):
        most = f" of {_mb(server.most_memory)}" if server.most_memory else ""
        table.add_row(
            name,
            "yes" if server.up else f"no: {server.why}",
            f"{_mb(server.memory)}{most}" if server.up else "-",
        )
    return table


def _mb(octets: int) -> str:
    return f"{octets / 1_048_576:.1f} MiB"


def as_builtins(state: State) -> dict[str, object]:
    """The state with processes as objects; on the wire they are arrays."""
    found = state.found
    processes = {
        name: {field: getattr(each, field) for field in Process.__struct_fields__}
        for name, each in found.processes.items()
    }
    plain: dict[str, object] = msgspec.to_builtins(msgspec.structs.replace(found, processes={}))
    return plain | {"processes": processes, "forgetful": dict(state.forgetful)}
