"""What is wrong with a deployment, and what does whoever looks after it do about it? Decided of what was read, without I/O,
worst first."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from config.service.channel_leftovers import ChannelLeftovers, leftover_sentences
from config.service.pause_wording import pause_clause
from config.service.server_wording import (
    cluster_notes,
    cluster_problems,
    missing_replica_problems,
    release_problems,
)
from config.settings.config_errors import unset_clause
from config.settings.durability import wanted_of
from config.settings.settings import Durability
from config.store import keyspace
from config.store.counts.webhook_record import FORGED_MINUTES, WebhookReading
from config.store.pauses import StoredPause
from config.telemetry.hook_stats import HookStats
from config.telemetry.process_registry import (
    CLOCK_TOLERANCE_MS,
    OPTIONAL_ROLES,
    ROLE_OF_QUEUE,
    ROLES,
    SILENT_KEPT_MS,
    ProcessHeartbeat,
)
from config.telemetry.redis_stats import PROCESSES_UNREAD, RedisStats
from config.telemetry.server_stats import ServerStats
from engine.model.durations import format_duration
from engine.model.plurals import pluralize
from engine.model.timestamps import format_clock_time

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

MEMORY_FULL_SHARE = 0.9
"""Of the memory that a server may use: what comes in is refused when all of it is used."""

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


def assess_health(state: DeploymentState) -> HealthVerdict:
    """Name the problems in `state`, worst first, and the notes. No I/O."""
    return HealthVerdict(list(_health_problems(state)), list(_health_notes(state)))


def _health_problems(state: DeploymentState) -> Iterator[str]:
    found = state.found
    if not found.lanes.up:
        yield f"{server_failure('lanes', found.lanes)}: nothing is accepted, and nothing moves"
    if not found.broker.up:
        yield f"{server_failure('wake-ups', found.broker)}: no worker is woken"
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
    needed = [role for role in ROLES if role not in OPTIONAL_ROLES]
    wanted = [role for role in needed if role != "hooks" or found.hooks]
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
                f"({shown_why(hook)}); it is tried again and again, and goes on by itself"
            )
        elif hook.lag_ms > HOOK_LATE_MS:
            remedy = "see the log of `hooks`" if has_processes else "that is for `hooks` to do"
            yield f"the hook {name} is {format_duration(hook.lag_ms)} behind: {remedy}"


def _lag_clause(hook: HookStats) -> str:
    return f", and is {format_duration(hook.lag_ms)} behind" if hook.lag_ms > HOOK_LATE_MS else ""


def shown_why(hook: HookStats) -> str:
    """What an endpoint answered last, cut."""
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
            paused = pause_clause(hook.pause, hook.pause_left_ms) + _lag_clause(hook)
            yield f"the hook {name} is paused {paused}; `parley hooks resume {name}` ends it"
    yield from cluster_notes(found)
    if state.durability == "relaxed":
        for sentence in _durability_sentences(state):
            yield f"{sentence} (PARLEY_DURABILITY is relaxed)"
    if len(releases := sorted({release_label(each) for each in found.processes.values()})) > 1:
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
    return f"the {name} channel is paused {pause_clause(pause, left_ms)}"


def server_failure(which: str, server: ServerStats) -> str:
    """What is the matter with a server that is not up: it does not answer, or it refuses us."""
    if server.is_refusing:
        ways = "by its password, its users or its protected mode"
        return f"the Redis of the {which} refuses us ({server.why}), {ways}"
    return f"the Redis of the {which} does not answer ({server.why})"


def release_label(process: ProcessHeartbeat) -> str:
    """`0.1.0 (5f3a9c10)`: the package's version, and that of the server-side functions."""
    return f"{process.release or '?'} ({process.library.removeprefix('parley_')})"
