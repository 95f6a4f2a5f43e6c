"""`parley status`: what is wrong, who works, and what waits.

The tables show what was found; `assess_health` says what of it is wrong, without I/O, worst first.
"""

import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from time import sleep

import click
import msgspec
import redis
from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from config.settings.durability import durability_gaps, wanted_of
from config.settings.settings import ConfigError, Durability, Settings
from config.settings.startup_check import load_settings_and_surveys
from config.store import keyspace, redis_client
from config.store.pauses import StoredPause
from config.store.webhook_record import FORGED_MINUTES, WebhookReading
from config.telemetry.hook_stats import HookStats
from config.telemetry.process_registry import (
    CLOCK_TOLERANCE_MS,
    ROLES,
    SILENT_KEPT_MS,
    ProcessHeartbeat,
)
from config.telemetry.redis_stats import PROCESSES_UNREAD, RedisStats, ShardStats, StatsReader
from config.telemetry.server_stats import ServerStats, find_old_releases
from engine.commands.exit_status import EXIT_OK, EXIT_PROBLEMS
from engine.commands.json_output import print_json
from engine.commands.terminal import open_console
from engine.model.durations import format_duration
from engine.model.plurals import pluralize
from engine.model.timestamps import format_clock_time
from workers.commands.channel import leftover_sentences
from workers.commands.connect import read_settings_in_use, unset_clause
from workers.diagnosis.diagnose import ROLE_OF_QUEUE
from workers.diagnosis.pause_wording import pause_cause
from workers.diagnosis.server_wording import (
    cluster_notes,
    cluster_problems,
    missing_replica_problems,
    release_problems,
)
from workers.store.channel_contents import ChannelLeftovers, count_leftovers

WATCH_INTERVAL_S = 2.0
REDIS_TIMEOUT_S = 1.0
_SENTENCE_WIDTH = 20
"""Columns that a sentence needs."""

ALARM_LATE_MS = 5_000
"""A clock that keeps up leaves no alarm due for so long."""

QUEUE_SLOW_MS = 30_000
"""Workers that keep up leave nobody in a queue for so long."""

ARCHIVE_LATE_MS = 300_000
"""An archive that keeps up is never so far behind."""

HOOK_LATE_MS = 300_000
"""An endpoint that takes what it is told is never so far behind."""

MOST_HOOKS_NAMED = 3
SHOWN_WHY_LENGTH = 120
"""Of what an endpoint answered."""

MOST_SHARDS_SHOWN = 8
"""Of one server."""

MEMORY_FULL_SHARE = 0.9
"""Of the memory that a server may use: what comes in is refused when all of it is used."""

MAX_ALARMS_LOOKED_AT = 4_096
"""Lanes, and outboxes, that are looked at for channels that are not configured: those with the nearest alarms. `parley
channel list` looks at all."""

_QUEUE_CONTENT = {
    keyspace.STARTS_QUEUE: "STARTs",
    keyspace.REPLIES_QUEUE: "replies",
    keyspace.OUTBOUND_QUEUE: "SMS to send",
}


class DeploymentState(msgspec.Struct, frozen=True):
    """The deployment's health as it was read. `forgetful`: durability settings of the lanes' server (name -> value) by which
    it may lose acknowledged data, None if it does not show them; `durability` is what processes ask of them. `mistakes`:
    errors in the settings and survey files on this machine, with which no process would start; `unset`: lines on secrets that
    are not set here, where perhaps none is to start. `removed`: what is left of
    channels that are not configured, by channel. `old_releases`: servers that are too old, each with its release."""

    found: RedisStats
    forgetful: Mapping[str, str] | None = {}
    mistakes: Sequence[str] = ()
    unset: Sequence[str] = ()
    durability: Durability = "strict"
    removed: Mapping[str, ChannelLeftovers] = {}
    old_releases: Sequence[str] = ()


class HealthVerdict(msgspec.Struct, frozen=True):
    """Sentences for the operator: `wrong` problems, worst first, and `notes` that need no action."""

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
    settings = read_settings_in_use(os.environ)
    verdict = HealthVerdict([], [])
    telling = _json_printer() if as_json else _screen_printer(settings, live=watch, every_shard=shards)
    with closing(StatsReader(settings)) as sounder, telling as tell, suppress(KeyboardInterrupt):
        for state in _watch_states(settings, sounder, again=watch):
            verdict = assess_health(state)
            tell(state, verdict)
    sys.exit(EXIT_OK if verdict.ok else EXIT_PROBLEMS)


StatePrinter = Callable[[DeploymentState, HealthVerdict], None]


def _watch_states(settings: Settings, sounder: StatsReader, *, again: bool) -> Iterator[DeploymentState]:
    yield read_state(settings, sounder)
    while again:
        sleep(WATCH_INTERVAL_S)
        yield read_state(settings, sounder)


@contextmanager
def _json_printer() -> Iterator[StatePrinter]:
    def print_state(state: DeploymentState, verdict: HealthVerdict) -> None:
        told = {"ok": verdict.ok, "wrong": verdict.wrong, "notes": verdict.notes}
        print_json(told | as_builtins(state))

    yield print_state


@contextmanager
def _screen_printer(settings: Settings, *, live: bool, every_shard: bool) -> Iterator[StatePrinter]:
    console = open_console()

    def draw_screen(state: DeploymentState, verdict: HealthVerdict) -> RenderableType:
        return render_status(settings, state, verdict, every_shard=every_shard)

    if not live:
        yield lambda state, verdict: console.print(draw_screen(state, verdict))
        return
    with Live(console=console, auto_refresh=False) as shown:
        yield lambda state, verdict: shown.update(draw_screen(state, verdict), refresh=True)


def read_state(settings: Settings, sounder: StatsReader) -> DeploymentState:
    """The state now. Never raises for a server that does not answer."""
    found = sounder.read()
    unset: list[str] = []
    mistakes = _config_errors(unset)
    if not found.lanes.up:
        return DeploymentState(found, mistakes=mistakes, unset=unset, durability=settings.durability)
    return DeploymentState(
        found,
        _non_durable_settings(settings),
        mistakes,
        unset,
        settings.durability,
        _leftovers_of_removed(settings, [k for k in range(settings.shards) if k not in found.away_shards]),
        _old_releases(settings),
    )


def _config_errors(unset: list[str]) -> list[str]:
    """Errors in the settings and surveys, each a line; secrets that are not set are added to `unset`."""
    try:
        load_settings_and_surveys(unset=unset)
    except ConfigError as e:
        return [problem.partition("\n")[0] for problem in e.problems]
    return []


def _non_durable_settings(settings: Settings) -> dict[str, str] | None:
    with redis_client.connect(settings.redis_url, 0, REDIS_TIMEOUT_S) as client:
        try:
            return durability_gaps(client)
        except redis.RedisError:
            return {}


def _old_releases(settings: Settings) -> list[str]:
    with redis_client.connect(settings.redis_url, 0, REDIS_TIMEOUT_S) as client:
        try:
            return find_old_releases(client)
        except redis.RedisError:
            return []


def _leftovers_of_removed(settings: Settings, shards: Collection[int]) -> dict[str, ChannelLeftovers]:
    with redis_client.connect(settings.redis_url, 0, REDIS_TIMEOUT_S) as client:
        try:
            return count_leftovers(client, shards, settings.channels, MAX_ALARMS_LOOKED_AT)
        except redis.RedisError:
            return {}


def assess_health(state: DeploymentState) -> HealthVerdict:
    """Name the problems in `state`, worst first, and the notes. No I/O."""
    return HealthVerdict(list(_health_problems(state)), list(_health_notes(state)))


def _health_problems(state: DeploymentState) -> Iterator[str]:
    found = state.found
    if not found.lanes.up:
        yield (
            f"the Redis of the lanes does not answer ({found.lanes.why}): nothing is accepted, and nothing "
            "moves"
        )
    if not found.broker.up:
        yield f"the Redis of the wake-ups does not answer ({found.broker.why}): no worker is woken"
    yield from cluster_problems(found)
    yield from missing_replica_problems(found)
    yield from release_problems(state.old_releases)
    yield from _missing_role_problems(found)
    yield from _silent_process_problems(found)
    yield from _clock_problems(found)
    yield from _memory_problems("lanes", found.lanes)
    yield from _memory_problems("wake-ups", found.broker)
    yield from _overdue_alarm_problems(found)
    for queue, waiting in found.queues.items():
        if waiting.oldest_ms > QUEUE_SLOW_MS:
            wait = pluralize(waiting.depth, "waits", "wait")
            yield (
                f"{wait} in the queue {queue} ({_QUEUE_CONTENT[queue]}), the first for "
                f"{format_duration(waiting.oldest_ms)}"
                f"{_backlog_remedy(found, ROLE_OF_QUEUE[queue])}"
            )
    yield from _archive_problems(found)
    yield from _hook_problems(found)
    if abandoned := sum(shard.abandoned for shard in found.shards):
        yield f"{pluralize(abandoned, 'lane is', 'lanes are')} held by workers that never came back"
    for name, stands in found.channels.items():
        if stands.pause is not None and stands.pause.by != "operator":
            paused = _paused_sentence(name, stands.pause, stands.pause_left_ms)
            yield paused + _PAUSE_REMEDY[stands.pause.by].format(name)
        if stands.webhooks.forged_lately and not stands.webhooks.good_ms:
            yield _forged_webhooks_sentence(name, stands.webhooks, found.lanes.now)
        if stands.sms_cap and stands.sms_today >= stands.sms_cap:
            yield (
                f"the {name} channel has spent the day's {stands.sms_cap} SMS: new sessions are refused "
                "until midnight there"
            )
    yield from leftover_sentences(state.removed)
    if dead := found.dead_by_reason():
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dead.items()))
        oldest = max(shard.dead_oldest_ms for shard in found.shards)
        letters = pluralize(sum(dead.values()), "dead letter")
        yield f"{letters} ({reasons}), the oldest of {format_duration(oldest)} ago: `parley dead list`"
    if others := sum(found.dramatiq_dead.values()):
        yield f"{pluralize(others, 'message')} in dead-letter queues of Dramatiq's own: `parley dead list`"
    if state.durability == "strict":
        yield from _durability_sentences(state)


def _durability_sentences(state: DeploymentState) -> Iterator[str]:
    for name, value in (state.forgetful or {}).items():
        yield f"Redis may lose what was acknowledged: {name} is {value!r}, not {wanted_of(name)!r}"
    if state.forgetful is None:
        yield "Redis does not show whether it keeps what it acknowledges: PARLEY_DURABILITY=managed, if so"


_PAUSE_REMEDY = {
    "account": "; mend the account, then `parley channel resume {}`",
    "circuit": "; it is tried again and again, and goes on by itself",
}


def _backlog_remedy(found: RedisStats, role: str) -> str:
    """The remedy for a queue with a backlog, a clause; empty if no process of `role` lives, as that problem is listed by
    itself."""
    if role not in {each.role for each in found.processes.values()}:
        return ""
    return f": more `{role}` processes are needed, or those that live are stuck (see their log)"


def _missing_role_problems(found: RedisStats) -> Iterator[str]:
    """Roles that nobody has."""
    if not found.lanes.up or PROCESSES_UNREAD in found.unread:
        return
    living = {each.role for each in found.processes.values()}
    wanted = [role for role in ROLES if role != "hooks" or found.hooks]
    missing = [role for role in wanted if role not in living]
    if len(missing) == len(wanted):
        yield "no process of Parley lives"
    elif missing:
        yield f"no {' and no '.join(f'`{role}`' for role in missing)} process lives"


def _silent_process_problems(found: RedisStats) -> Iterator[str]:
    """Processes that were killed, or hang: nobody but the machine that they are on can tell."""
    if not found.silent:
        return
    latest = max(found.silent.values(), key=lambda each: each.at)
    others = f", and neither have {len(found.silent) - 1} more" if len(found.silent) > 1 else ""
    silent_ms = found.lanes.now - latest.at
    left = format_duration(max(0, SILENT_KEPT_MS - silent_ms))
    yield (
        f"{latest.role}@{latest.host}:{latest.pid} has not been heard of for "
        f"{format_duration(silent_ms)}{others}: if it is still there it hangs, and has to be killed "
        f"(`kill -9`); if it was killed, this is forgotten in {left}"
    )


def _clock_problems(found: RedisStats) -> Iterator[str]:
    """Processes whose clock is not that of the lanes' Redis, the worst."""
    alive = found.processes.values()
    wrong = [each for each in alive if abs(each.clock_ahead_ms) > CLOCK_TOLERANCE_MS]
    if wrong:
        worst = max(wrong, key=lambda each: abs(each.clock_ahead_ms))
        direction = "ahead of" if worst.clock_ahead_ms > 0 else "behind"
        others = f", as does that of {len(wrong) - 1} more" if len(wrong) > 1 else ""
        yield (
            f"the clock of {worst.role}@{worst.host} differs{others}: "
            f"it is {format_duration(abs(worst.clock_ahead_ms))} {direction} that of Redis, "
            "and one of them is wrong"
        )


def _memory_problems(which: str, server: ServerStats) -> Iterator[str]:
    if server.most_memory and server.memory >= MEMORY_FULL_SHARE * server.most_memory:
        share = server.memory / server.most_memory
        then = "what comes in is refused" if share >= 1 else "when all is used, what comes in is refused"
        fullest = "the fullest server of " if len(server.nodes) > 1 else ""
        yield (
            f"{fullest}the Redis of the {which} uses {share:.0%} of the memory that it may; {then}: raise "
            "its `maxmemory`"
        )


def _overdue_alarm_problems(found: RedisStats) -> Iterator[str]:
    roles = {each.role for each in found.processes.values()}
    why = "`clock` does not keep up" if "clock" in roles else "that is for `clock` to do"
    for one, more, alarms in (
        ("lane is", "lanes are", [shard.lanes for shard in found.shards]),
        ("outbox is", "outboxes are", [shard.outboxes for shard in found.shards]),
    ):
        late_ms = max((each.late_ms for each in alarms), default=0)
        if late_ms > ALARM_LATE_MS:
            yield (
                f"{pluralize(sum(each.due for each in alarms), one, more)} due and not rung for, "
                f"the first for {format_duration(late_ms)}: {why}"
            )


def _archive_problems(found: RedisStats) -> Iterator[str]:
    """The worst that can be said of the archive, in one sentence; nothing while it keeps up."""
    unarchived = found.unarchived()
    processes = [each for each in found.processes.values() if each.role == "archive"]
    remedy = "see the log of `archive`" if processes else "that is for `archive` to do"
    if held := max((each.held_shards for each in processes), default=0):
        yield (
            f"the archive is ahead of Redis, which has lost what it had last or is another one: "
            f"{pluralize(held, 'shard is', 'shards are')} not archived any more: {remedy}"
        )
    elif not unarchived.seen and unarchived.waiting:
        days = keyspace.UNARCHIVED_STREAM_MS // 86_400_000
        yield f"no archive was ever seen: what was said is gone after {days} days: {remedy}"
    elif unarchived.oldest_ms > ARCHIVE_LATE_MS:
        waiting = pluralize(unarchived.waiting, "entry waits", "entries wait")
        behind = format_duration(unarchived.oldest_ms)
        yield f"the archive is {behind} behind, for which {waiting} in Redis: {remedy}"


def _hook_problems(found: RedisStats) -> Iterator[str]:
    """The worst that can be said of each endpoint, but that an operator has paused it; nothing of one that is told."""
    has_processes = "hooks" in {each.role for each in found.processes.values()}
    unheld = [name for name, hook in found.hooks.items() if not hook.owner]
    if unheld and has_processes:
        others = f" and {len(unheld) - MOST_HOOKS_NAMED} more" if len(unheld) > MOST_HOOKS_NAMED else ""
        named = f"{', '.join(unheld[:MOST_HOOKS_NAMED])}{others}"
        yield f"no process tells {named} (hooks) what happens: see the log of `hooks`"
    for name, hook in found.hooks.items():
        if hook.pause is not None:
            continue
        if hook.circuit.is_open:
            times = pluralize(hook.circuit.failures, "time")
            since = format_duration(max(0, found.lanes.now - hook.circuit.since))
            yield (
                f"the endpoint of the hook {name} has failed {times} in a row in {since}{_lag_clause(hook)} "
                f"({_shown_why(hook)}); it is tried again and again, and goes on by itself"
            )
        elif hook.lag_ms > HOOK_LATE_MS:
            remedy = "see the log of `hooks`" if has_processes else "that is for `hooks` to do"
            yield f"the hook {name} is {format_duration(hook.lag_ms)} behind: {remedy}"


def _lag_clause(hook: HookStats) -> str:
    return f", and is {format_duration(hook.lag_ms)} behind" if hook.lag_ms > HOOK_LATE_MS else ""


def _shown_why(hook: HookStats) -> str:
    why = hook.circuit.why
    return why if len(why) <= SHOWN_WHY_LENGTH else why[:SHOWN_WHY_LENGTH] + "…"


def _health_notes(state: DeploymentState) -> Iterator[str]:
    found = state.found
    for name, stands in found.channels.items():
        if stands.pause is not None and stands.pause.by == "operator":
            yield (
                f"{_paused_sentence(name, stands.pause, stands.pause_left_ms)}; "
                f"`parley channel resume {name}` ends it"
            )
        if stands.webhooks.forged_lately and stands.webhooks.good_ms:
            yield _forged_webhooks_sentence(name, stands.webhooks, found.lanes.now)
    for name, hook in found.hooks.items():
        if hook.pause is not None:
            paused = _pause_clause(hook.pause, hook.pause_left_ms) + _lag_clause(hook)
            yield f"the hook {name} is paused {paused}; `parley hooks resume {name}` ends it"
    yield from cluster_notes(found)
    if state.durability == "relaxed":
        for sentence in _durability_sentences(state):
            yield f"{sentence} (PARLEY_DURABILITY is relaxed)"
    if len(releases := sorted({_release_label(each) for each in found.processes.values()})) > 1:
        yield f"processes of {len(releases)} releases run side by side: {', '.join(releases)}"
    if state.mistakes:
        first, *others = state.mistakes
        more = f", and {len(others)} more" if others else ""
        yield (
            f"with the settings and surveys as they are here no process would start: {first}{more} "
            "(`parley check`)"
        )
    if state.unset:
        yield f"what needs secrets is not checked here: {unset_clause(state.unset)}"


def _forged_webhooks_sentence(name: str, webhooks: WebhookReading, now: int) -> str:
    """Also strangers call so: where good ones come, it is a note."""
    came = pluralize(webhooks.forged_lately, "webhook")
    if webhooks.good_ms:
        then = f"the last good one {format_clock_time(webhooks.good_ms, now)}"
    else:
        then = "never a good one: `parley check` has the URL to give to the provider"
    return f"{name}: {came} with a wrong token or signature in {FORGED_MINUTES} min; {then}"


def _paused_sentence(name: str, pause: StoredPause, left_ms: int) -> str:
    return f"the {name} channel is paused {_pause_clause(pause, left_ms)}"


def _pause_clause(pause: StoredPause, left_ms: int) -> str:
    left = f", for another {format_duration(left_ms)}" if left_ms else ""
    return f"{pause_cause(pause)}{left} ({pause.why})"


def _release_label(process: ProcessHeartbeat) -> str:
    return f"{process.release or '?'} ({process.library.removeprefix('parley_')})"


# The screen


def render_status(
    settings: Settings, state: DeploymentState, verdict: HealthVerdict, *, every_shard: bool
) -> RenderableType:
    parts: list[RenderableType] = []
    if verdict.ok:
        told = "Nothing is wrong, but mind:" if verdict.notes else "All is well."
        parts.append(Text(told, style="bold green"))
    else:
        first, *others = verdict.wrong
        parts.append(Text(f"{first[:1].upper()}{first[1:]}.", style="bold red"))
        parts += [Text(f"- {sentence}", style="red") for sentence in others]
    parts += [Text(f"- {sentence}", style="yellow") for sentence in verdict.notes]
    tables = (
        _queue_table(state.found),
        _process_table(state.found),
        _channel_table(settings, state.found),
        _hook_table(state.found),
    )
    parts += [table for table in tables if table.row_count]
    shards = [shard for shard in state.found.shards if every_shard or _is_busy_shard(shard)]
    if shards:
        parts.append(_shard_table(shards))
    parts.append(_server_table(state.found))
    parts += [
        _node_table(which, server)
        for which, server in (("lanes", state.found.lanes), ("wake-ups", state.found.broker))
        if server.nodes
    ]
    return Group(*parts)


def _new_table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 else "right", no_wrap=True)
    return table


def _queue_table(found: RedisStats) -> Table:
    table = _new_table("queue", "waiting", "oldest", "workers", "a second")
    for queue, stands in found.queues.items():
        alive = [each for each in found.processes.values() if each.role == ROLE_OF_QUEUE[queue]]
        oldest = format_duration(stands.oldest_ms) if stands.depth else "-"
        per_s = sum(each.per_s for each in alive)
        table.add_row(
            queue, str(stands.depth), oldest, f"{len(alive)} {ROLE_OF_QUEUE[queue]}", f"{per_s:.1f}"
        )
    return table


def _process_table(found: RedisStats) -> Table:
    table = _new_table("process", "release", "up for", "heard", "a second")
    now = found.lanes.now
    for each in found.processes.values():
        since = format_duration(now - each.since) if each.since else "?"
        table.add_row(
            Text(f"{each.role}@{each.host}:{each.pid}"),
            Text(_release_label(each)),
            since,
            f"{format_duration(now - each.at)} ago",
            f"{each.per_s:.1f}",
        )
    for each in found.silent.values():
        table.add_row(
            Text(f"{each.role}@{each.host}:{each.pid}"),
            Text(_release_label(each)),
            "silent",
            f"{format_duration(now - each.at)} ago",
            "-",
            style="red",
        )
    return table


def _channel_table(settings: Settings, found: RedisStats) -> Table:
    table = _new_table("channel", "SMS today", "invitations")
    table.add_column("paused", min_width=_SENTENCE_WIDTH)
    for name, stands in found.channels.items():
        today = f"{stands.sms_today} of {stands.sms_cap}" if stands.sms_cap else "no cap"
        pause = stands.pause
        if pause is None:
            paused = Text("no")
        else:
            since = (
                format_clock_time(pause.since, found.lanes.now, settings.channels[name].timezone)
                if pause.since
                else "?"
            )
            paused = Text(f"since {since}, {_pause_clause(pause, stands.pause_left_ms)}", style="red")
        table.add_row(name, today, str(stands.held), paused)
    return table


def _hook_table(found: RedisStats) -> Table:
    table = _new_table("hook", "behind", "told by")
    table.add_column("paused", min_width=_SENTENCE_WIDTH)
    for name, hook in found.hooks.items():
        behind = "-" if hook.is_begun else "not begun"
        teller = hook.owner.rpartition(".")[0] or hook.owner or "nobody"
        table.add_row(
            name,
            format_duration(hook.lag_ms) if hook.lag_ms else behind,
            Text(teller, style="" if hook.owner else "red"),
            _hook_pause_text(hook, found.lanes.now),
        )
    return table


def _hook_pause_text(hook: HookStats, now: int) -> Text:
    if hook.pause is not None:
        return Text(_pause_clause(hook.pause, hook.pause_left_ms), style="red")
    if hook.circuit.is_open:
        failing = f"as it fails, for {format_duration(max(0, now - hook.circuit.since))} ({_shown_why(hook)})"
        return Text(failing, style="red")
    if hook.circuit.failures:
        return Text(f"no; it failed just now ({_shown_why(hook)})")
    return Text("no")


def _is_busy_shard(shard: ShardStats) -> bool:
    return bool(
        shard.lanes.set
        or shard.outboxes.set
        or shard.held
        or shard.abandoned
        or shard.dead
        or shard.dead_oldest_ms
    )


def _shard_table(shards: list[ShardStats]) -> Table:
    table = _new_table(
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
            str(shard.k),
            str(shard.lanes.set), str(shard.lanes.due), _format_lateness(shard.lanes.late_ms),
            str(shard.held), str(shard.abandoned),
            str(shard.outboxes.set), str(shard.outboxes.due), _format_lateness(shard.outboxes.late_ms),
            str(sum(shard.dead.values())),
        )  # fmt: skip
    return table


def _format_lateness(ms: int) -> str:
    return format_duration(ms) if ms else "-"


def _server_table(found: RedisStats) -> Table:
    table = _new_table("server", "answers", "memory")
    for name, server in (("lanes", found.lanes), ("wake-ups", found.broker)):
        most = f" of {_format_mebibytes(server.most_memory)}" if server.most_memory else ""
        table.add_row(
            name,
            "yes" if server.up else f"no: {server.why}",
            f"{_format_mebibytes(server.memory)}{most}" if server.up else "-",
        )
    return table


def _node_table(which: str, server: ServerStats) -> Table:
    """The servers of a cluster."""
    table = _new_table(f"server of the {which}", "answers", "slots", "shards", "memory", "replicas")
    for node in server.nodes:
        most = f" of {_format_mebibytes(node.most_memory)}" if node.most_memory else ""
        table.add_row(
            node.address,
            "yes" if node.up else Text(f"no: {node.why}", style="red", overflow="fold"),
            str(node.slots),
            _format_shards(node.shards),
            f"{_format_mebibytes(node.memory)}{most}" if node.now else "-",
            str(node.replicas) if node.now else "-",
        )
    return table


def _format_shards(shards: Sequence[int]) -> str:
    if len(shards) <= MOST_SHARDS_SHOWN:
        return " ".join(map(str, shards)) or "-"
    return f"{len(shards)} ({' '.join(map(str, shards[: MOST_SHARDS_SHOWN - 1]))} …)"


def _format_mebibytes(octets: int) -> str:
    return f"{octets / 1_048_576:.1f} MiB"


def _as_objects(processes: Mapping[str, ProcessHeartbeat]) -> dict[str, dict[str, object]]:
    return {
        name: {field: getattr(each, field) for field in ProcessHeartbeat.__struct_fields__}
        for name, each in processes.items()
    }


def as_builtins(state: DeploymentState) -> dict[str, object]:
    """The state with processes as objects; on the wire they are arrays."""
    found = state.found
    plain: dict[str, object] = msgspec.to_builtins(msgspec.structs.replace(found, processes={}, silent={}))
    return plain | {
        "processes": _as_objects(found.processes),
        "silent": _as_objects(found.silent),
        "forgetful": dict(state.forgetful or {}),
        "durability": state.durability,
        "removed": msgspec.to_builtins(state.removed),
        "old_releases": list(state.old_releases),
    }
