"""Draws `parley status`: what people notice first, then who works, then servers. Whatever the terminal's size, what is wrong and how
the service does are there; what there is no room for says so in its last line."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo

import msgspec
from rich import box
from rich.console import Console, Group, RenderableType
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

from config.service.deployment_health import (
    ALARM_LATE_MS,
    DeploymentState,
    HealthVerdict,
    release_label,
    shown_why,
)
from config.service.pause_wording import pause_clause
from config.service.service_view import (
    AnswerPace,
    ChannelService,
    HookService,
    RoleService,
    ServiceView,
    view_service,
)
from config.settings.settings import Settings
from config.store.counts.answer_record import TREND_MINUTES
from config.telemetry.hook_stats import HookStats
from config.telemetry.process_registry import ROLE_OF_QUEUE, ROLES
from config.telemetry.redis_stats import QueueStats, RedisStats, ShardStats
from config.telemetry.server_stats import ServerStats
from engine.commands.terminal import NARROW_WIDTH
from engine.model.durations import format_duration, format_wait
from engine.model.plurals import pluralize
from engine.model.timestamps import format_clock_time

MOST_SHARDS_SHOWN = 8
"""Of one server."""

MOST_HOOKS_SHOWN = 4
SENTENCES_SHARE = 3
"""What is wrong, and notes, have one in so many lines of a screen that does not scroll."""

_NARROW_NAME_WIDTH = 14
_SENTENCE_WIDTH = 20
"""Columns that a sentence needs."""

_WIDE = 150
"""Columns in which two tables stand side by side."""

_TREND_MARKS = "▁▂▃▄▅▆▇█"

_QUEUE_OF_ROLE = {role: queue for queue, role in ROLE_OF_QUEUE.items()}


class ScreenPart(msgspec.Struct, frozen=True):
    """A part of a screen; where it does not fit, what there is `instead` of it."""

    whole: RenderableType
    instead: RenderableType | None = None

    @property
    def variants(self) -> Sequence[RenderableType]:
        return (self.whole,) if self.instead is None else (self.whole, self.instead)


class StatusScreen:
    """Draws a deployment's state. Times are on the clock of its channels, if they have one."""

    def __init__(self, settings: Settings, *, every_shard: bool) -> None:
        self._settings = settings
        self._every_shard = every_shard
        zones = {channel.timezone.key: channel.timezone for channel in settings.channels.values()}
        self._zone: tzinfo = next(iter(zones.values())) if len(zones) == 1 else UTC

    def draw(self, console: Console, state: DeploymentState, verdict: HealthVerdict) -> RenderableType:
        """All of it, as long as it may be."""
        service = view_service(self._settings, state.found)
        parts = [*_verdict_lines(verdict), *self._service_parts(console, service, state.found)]
        parts += self._machine_parts(service, state.found)
        return Group(*parts)

    def draw_fitting(
        self, console: Console, state: DeploymentState, verdict: HealthVerdict
    ) -> RenderableType:
        """As much of it as the terminal has room for."""
        service = view_service(self._settings, state.found)
        said = _first_sentences(console, _verdict_lines(verdict))
        needed = [*said, *self._service_parts(console, service, state.found)]
        return fit_parts(console, needed, self._live_parts(console, service, state.found))

    def _service_parts(
        self, console: Console, service: ServiceView | None, found: RedisStats
    ) -> Iterator[RenderableType]:
        if service is None:
            return
        yield Text()
        yield self._summary(service, with_trend=_shows_marks(console))
        yield Text()
        yield self._channel_table(console, service)

    def _live_parts(
        self, console: Console, service: ServiceView | None, found: RedisStats
    ) -> list[ScreenPart]:
        """What a live screen shows below the service, the most important first."""
        work, processes = _work_table(service, found), _process_table(found)
        servers = list(_server_tables(found))
        if console.width >= _WIDE:
            parts = [ScreenPart(_side_by_side(work, processes), work), ScreenPart(_stacked(servers))]
        else:
            parts = [
                ScreenPart(work, _work_line(service, found)),
                ScreenPart(processes),
                ScreenPart(_stacked(servers)),
            ]
        untold = service is not None and any(not hook.is_told for hook in service.hooks.values())
        shards = self._shards_shown(found)
        return [
            *([ScreenPart(_hook_table(found))] if untold else []),
            *parts[:1],
            *([ScreenPart(_shard_table(shards))] if shards else []),
            *parts[1:],
        ]

    def _machine_parts(self, service: ServiceView | None, found: RedisStats) -> Iterator[RenderableType]:
        tables = [_hook_table(found), _work_table(service, found), _process_table(found)]
        shards = self._shards_shown(found)
        tables += [_shard_table(shards)] if shards else []
        for table in (*tables, *_server_tables(found)):
            if table.row_count:
                yield Text()
                yield table

    def _shards_shown(self, found: RedisStats) -> list[ShardStats]:
        return [shard for shard in found.shards if self._every_shard or is_shard_wrong(shard)]

    def _summary(self, service: ServiceView, *, with_trend: bool) -> Table:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True, style="bold")
        grid.add_column()
        grid.add_row(
            "time", datetime.fromtimestamp(service.now / 1000, self._zone).strftime("%a %H:%M:%S %Z")
        )
        grid.add_row("answers", _answers_line(service.pace, with_trend=with_trend))
        grid.add_row("conversations", f"{service.open_conversations:,} open")
        grid.add_row("dead letters", _dead_letter_line(service))
        grid.add_row("archive", _archive_line(service))
        if service.hooks:
            grid.add_row("hooks", _hooks_line(service.hooks))
        return grid

    def _channel_table(self, console: Console, service: ServiceView) -> Table:
        if console.width < NARROW_WIDTH:
            return self._narrow_channel_table(service)
        has_trend = console.width >= _WIDE and _shows_marks(console)
        paused = any(channel.pause for channel in service.channels.values())
        trend = [f"{TREND_MINUTES} min"] if has_trend else []
        table = _new_table(
            "channel", "answers", "50% within", "95%", "SMS a minute", *trend, "SMS today", "invitations",
            "last webhook",
        )  # fmt: skip
        if paused:
            table.add_column("paused", min_width=_SENTENCE_WIDTH)
        for name, channel in service.channels.items():
            pace = channel.pace
            table.add_row(
                name,
                f"{pace.answers_per_minute:,.1f}/min",
                _format_wait(pace.p50_ms),
                _format_wait(pace.p95_ms),
                f"{pace.sms_per_minute:,.1f}",
                *([Text(_trend(pace.by_minute), "cyan")] if has_trend else []),
                _sms_today(channel, " of "),
                self._invitations(channel, service.now),
                self._last_webhook(channel, service.now),
                *([self._pause_text(channel, service.now)] if paused else []),
            )
        return table

    def _narrow_channel_table(self, service: ServiceView) -> Table:
        """As much of it as eighty columns have room for; who is paused is red, and above it is said why."""
        table = _new_table("channel", "a min", "50% / 95% within", "SMS today", "invitations", "webhook")
        table.collapse_padding = True
        table.columns[0].max_width = _NARROW_NAME_WIDTH
        for name, channel in service.channels.items():
            pace = channel.pace
            table.add_row(
                Text(name, style="red" if channel.pause else "", overflow="ellipsis"),
                f"{pace.answers_per_minute:,.1f}",
                f"{_format_wait(pace.p50_ms)} / {_format_wait(pace.p95_ms)}",
                _sms_today(channel, "/"),
                self._short_invitations(channel, service.now),
                _webhook_age(channel, service.now),
            )
        return table

    def _short_invitations(self, channel: ChannelService, now: int) -> str:
        """`3,000 to 21:40`, `3,000 to Nov 22`."""
        if channel.invitations_until is None:
            return f"{channel.invitations:,}{' paused' if channel.invitations and channel.pause else ''}"
        last, today = (
            datetime.fromtimestamp(ms / 1000, self._zone) for ms in (channel.invitations_until, now)
        )
        until = last.strftime("%H:%M" if last.date() == today.date() else "%b %d")
        return f"{channel.invitations:,} to {until}"

    def _invitations(self, channel: ChannelService, now: int) -> str:
        later = f"{channel.invitations_later:,} later" if channel.invitations_later else ""
        if not channel.invitations:
            return later or "0"
        if channel.invitations_until is not None:
            until = f" until {format_clock_time(channel.invitations_until, now, self._zone)}"
        else:
            until = ", paused" if channel.pause else ", not within 30 d"
        return f"{channel.invitations:,}{until}" + (f", {later}" if later else "")

    def _last_webhook(self, channel: ChannelService, now: int) -> Text:
        if channel.forged_webhooks and not channel.webhook_at:
            return Text("only forged", style="red")
        at = channel.webhook_at
        return Text(format_clock_time(at, now, self._zone) if at else "-")

    def _pause_text(self, channel: ChannelService, now: int) -> Text:
        if channel.pause is None:
            return Text("no")
        since = format_clock_time(channel.pause.since, now, self._zone) if channel.pause.since else "?"
        return Text(f"since {since}, {pause_clause(channel.pause, channel.pause_left_ms)}", style="red")


def is_shard_wrong(shard: ShardStats) -> bool:
    """Whether something in the shard waits for longer than it does where all is well."""
    late = max(shard.lanes.late_ms, shard.outboxes.late_ms) > ALARM_LATE_MS
    return bool(late or shard.abandoned or sum(shard.dead.values()))


def fit_parts(
    console: Console, needed: Sequence[RenderableType], parts: Sequence[ScreenPart]
) -> RenderableType:
    """`needed` and, under it, as many of `parts` as the console has lines for, the first of them first; a last line says what is
    left out."""
    lines = [line for part in needed for line in _lines_of(console, part)]
    left_out = 0
    for part in parts:
        for shown in part.variants:
            below = _lines_of(console, Group(Text(), shown))
            if len(lines) + len(below) <= console.height - 1:
                lines += below
                break
        else:
            left_out += 1
    cut = len(lines) > console.height
    if cut or left_out:
        lines = lines[: console.height - 1]
        lines.append([Segment("more: in a larger window, or `parley status`", console.get_style("dim"))])
    return Segments([segment for line in lines for segment in (*line, Segment.line())][:-1])


def _first_sentences(console: Console, sentences: Sequence[RenderableType]) -> list[RenderableType]:
    """As many of them as have room; the first in any case."""
    room = console.height // SENTENCES_SHARE
    for count, sentence in enumerate(sentences):
        room -= len(_lines_of(console, sentence))
        if room < 0 < count:
            more = Text(f"  and {len(sentences) - count} more: `parley status`", "dim")
            return [*sentences[:count], more]
    return list(sentences)


def _lines_of(console: Console, part: RenderableType) -> list[list[Segment]]:
    return console.render_lines(part, console.options.update(height=None), pad=False)


def _shows_marks(console: Console) -> bool:
    return console.encoding.startswith("utf")


def _verdict_lines(verdict: HealthVerdict) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if verdict.ok:
        told = "Nothing is wrong, but mind:" if verdict.notes else "All is well."
        parts.append(Text(told, style="bold green"))
    else:
        first, *others = verdict.wrong
        parts.append(Text(f"{first[:1].upper()}{first[1:]}.", style="bold red"))
        parts += [Text(f"- {sentence}", style="red") for sentence in others]
    return [*parts, *(Text(f"- {sentence}", style="yellow") for sentence in verdict.notes)]


# The service


def _answers_line(pace: AnswerPace, *, with_trend: bool) -> Text:
    line = Text(f"{pace.answers_per_minute:,.1f} a minute")
    if with_trend:
        line.append(f"  {_trend(pace.by_minute)}", "cyan")
    if pace.p50_ms is not None:
        line.append(f"  half within {_format_wait(pace.p50_ms)}, 95% within {_format_wait(pace.p95_ms)}")
    return line


def _trend(by_minute: Sequence[int]) -> str:
    """The minutes that are over, oldest first, as bars; nothing as the lowest."""
    most = max(by_minute, default=0)
    top = len(_TREND_MARKS) - 1
    return "".join(_TREND_MARKS[-(-count * top // most) if most else 0] for count in by_minute)


def _dead_letter_line(service: ServiceView) -> Text:
    count = sum(service.dead_letters.values())
    if not count:
        return Text("none")
    return Text(f"{count:,}, the oldest of {format_duration(service.dead_letters_oldest_ms)} ago", "red")


def _archive_line(service: ServiceView) -> Text:
    if not service.archive_waiting:
        return Text("has all of it" if service.is_archived else "nothing yet")
    waiting = pluralize(service.archive_waiting, "entry waits", "entries wait")
    seen = "" if service.is_archived else "none was ever seen; "
    return Text(f"{seen}{format_duration(service.archive_lag_ms)} behind, {waiting}")


def _hooks_line(hooks: Mapping[str, HookService]) -> Text:
    shown = sorted(hooks.items(), key=lambda each: (each[1].is_told, -each[1].lag_ms))
    line = Text()
    for name, hook in shown[:MOST_HOOKS_SHOWN]:
        behind = f"{format_duration(hook.lag_ms)} behind" if hook.lag_ms else "has all of it"
        line.append(", " if line else "").append(f"{name} {behind}", "" if hook.is_told else "red")
    if len(shown) > MOST_HOOKS_SHOWN:
        line.append(f" and {len(shown) - MOST_HOOKS_SHOWN} more")
    return line


def _format_wait(ms: int | None) -> str:
    return "-" if ms is None else format_wait(ms)


def _sms_today(channel: ChannelService, of: str) -> Text:
    if not channel.sms_cap:
        return Text(f"{channel.sms_today:,}")
    spent = channel.sms_today >= channel.sms_cap
    return Text(f"{channel.sms_today:,}{of}{channel.sms_cap:,}", style="red" if spent else "")


def _webhook_age(channel: ChannelService, now: int) -> Text:
    if channel.webhook_at:
        return Text(f"{format_duration(now - channel.webhook_at)} ago")
    return Text("forged", style="red") if channel.forged_webhooks else Text("-")


# The machines


def _new_table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 else "right", no_wrap=True)
    return table


def _stacked(tables: Sequence[Table]) -> RenderableType:
    first, *others = tables
    return Group(first, *(part for table in others for part in (Text(), table)))


def _side_by_side(left: Table, right: Table) -> Table:
    grid = Table.grid(padding=(0, 6))
    grid.add_row(left, right)
    return grid


def _work_table(service: ServiceView | None, found: RedisStats) -> Table:
    """Each role: who works, how much, and who waits for it."""
    table = _new_table("process", "alive", "a second", "queue", "waiting", "oldest")
    roles = service.roles if service is not None else {}
    for role in ROLES if roles or found.queues else ():
        queue = _QUEUE_OF_ROLE.get(role, "")
        stands = found.queues.get(queue)
        waiting = ("", "", "") if stands is None else (queue, f"{stands.depth:,}", _oldest(stands))
        table.add_row(role, *_alive_cells(roles.get(role)), *waiting)
    return table


def _alive_cells(role: RoleService | None) -> tuple[Text, str]:
    if role is None:
        return Text("?"), "-"
    alive = Text(f"{role.living}", "" if role.living else "red")
    if role.silent:
        alive.append(f", {role.silent} silent", "red")
    return alive, f"{role.per_s:,.1f}"


def _oldest(queue: QueueStats) -> str:
    return format_duration(queue.oldest_ms) if queue.depth else "-"


def _work_line(service: ServiceView | None, found: RedisStats) -> Text:
    """The same in a line or two."""
    roles = service.roles if service is not None else {}
    line = Text("alive: " if roles else "")
    for at, (role, stands) in enumerate(roles.items()):
        silent = f" and {stands.silent} silent" if stands.silent else ""
        line.append(", " if at else "").append(f"{role} {stands.living}{silent}", "red" if silent else "")
    waiting = ", ".join(
        f"{queue} {stands.depth:,}" + (f" for {_oldest(stands)}" if stands.depth else "")
        for queue, stands in found.queues.items()
    )
    return line.append(f"{'; ' if roles else ''}waiting: {waiting or 'nobody knows'}")


def _process_table(found: RedisStats) -> Table:
    table = _new_table("process", "release", "up for", "heard", "a second")
    now = found.lanes.now
    for each in found.processes.values():
        since = format_duration(now - each.since) if each.since else "?"
        table.add_row(
            Text(f"{each.role}@{each.host}:{each.pid}"),
            Text(release_label(each)),
            since,
            f"{format_duration(now - each.at)} ago",
            f"{each.per_s:.1f}",
        )
    for each in found.silent.values():
        table.add_row(
            Text(f"{each.role}@{each.host}:{each.pid}"),
            Text(release_label(each)),
            "silent",
            f"{format_duration(now - each.at)} ago",
            "-",
            style="red",
        )
    return table


def _server_tables(found: RedisStats) -> Iterator[Table]:
    yield _server_table(found)
    for which, server in (("lanes", found.lanes), ("wake-ups", found.broker)):
        if server.nodes:
            yield _node_table(which, server)


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
        return Text(pause_clause(hook.pause, hook.pause_left_ms), style="red")
    if hook.circuit.is_open:
        failing = f"as it fails, for {format_duration(max(0, now - hook.circuit.since))} ({shown_why(hook)})"
        return Text(failing, style="red")
    if hook.circuit.failures:
        return Text(f"no; it failed just now ({shown_why(hook)})")
    return Text("no")


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
