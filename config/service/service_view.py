"""How does the service do? What people who text us notice of it, before what machines do: one struct, of one reading of Redis, for
every screen that shows it. No I/O."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from config.service.invitation_forecast import forecast_last_invitation
from config.settings.settings import Settings
from config.store.counts.answer_record import TREND_MINUTES, AnswerReading, wait_quantile_ms
from config.store.pauses import StoredPause
from config.telemetry.hook_stats import HookStats
from config.telemetry.process_registry import OPTIONAL_ROLES, ROLES
from config.telemetry.redis_stats import PROCESSES_UNREAD, ChannelStats, RedisStats

_MINUTE_MS = 60_000


class AnswerPace(msgspec.Struct, frozen=True, kw_only=True):
    """First answers to people, and SMS in all, that providers took a minute, of late. Half of the people had theirs within
    `p50_ms` of their SMS's acceptance, all but one in twenty within `p95_ms`; None if nobody had one. `by_minute`: answers in
    each of the last TREND_MINUTES that are over, oldest first."""

    answers_per_minute: float = 0.0
    sms_per_minute: float = 0.0
    p50_ms: int | None = None
    p95_ms: int | None = None
    by_minute: Sequence[int] = (0,) * TREND_MINUTES


class ChannelService(msgspec.Struct, frozen=True, kw_only=True):
    """A channel. `sms_today` are those decided on its day, if they have a cap (`sms_cap`, 0 for none), else those that its
    provider took. `invitations` wait for their turn, the last of which leaves at `invitations_until` (ms) at the soonest, None if
    nobody can tell, as while it is paused; `invitations_later` were asked to be sent later than in some hours. `webhook_at` (ms) is when its provider last called, 0 if
    that is not known. `pause_left_ms` is 0 for a pause without end."""

    pace: AnswerPace
    sms_today: int = 0
    sms_cap: int = 0
    invitations: int = 0
    invitations_until: int | None = None
    invitations_later: int = 0
    webhook_at: int = 0
    forged_webhooks: int = 0
    pause: StoredPause | None = None
    pause_left_ms: int = 0


class HookService(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint: how far behind it is, and whether it is told now (not: paused, failing, or no process has it)."""

    lag_ms: int = 0
    is_told: bool = True


class RoleService(msgspec.Struct, frozen=True, kw_only=True):
    """The processes of a role: how many live and are `silent`, and what those that live do a second."""

    living: int = 0
    silent: int = 0
    per_s: float = 0.0

    @property
    def is_there(self) -> bool:
        return bool(self.living or self.silent)


class ServiceView(msgspec.Struct, frozen=True, kw_only=True):
    """The service at `now` (ms, the server's). `pace` is of all channels. `open_conversations` are people with whom something is
    open: a session, or an SMS that is being read. The oldest dead letter fell `dead_letters_oldest_ms` ago. `is_archived`: an archive was ever seen;
    what it has not, `archive_waiting` entries, is up to `archive_lag_ms` old. `roles` is empty if nobody can tell who lives."""

    now: int
    pace: AnswerPace
    open_conversations: int = 0
    channels: Mapping[str, ChannelService] = {}
    dead_letters: Mapping[str, int] = {}
    dead_letters_oldest_ms: int = 0
    is_archived: bool = False
    archive_lag_ms: int = 0
    archive_waiting: int = 0
    hooks: Mapping[str, HookService] = {}
    roles: Mapping[str, RoleService] = {}


def view_service(settings: Settings, found: RedisStats) -> ServiceView | None:
    """Sum up what was read; None if the lanes' server does not answer, and nothing is known."""
    if not found.lanes.up:
        return None
    unarchived = found.unarchived()
    return ServiceView(
        now=found.lanes.now,
        pace=_pace([stats.answers for stats in found.channels.values()]),
        open_conversations=sum(shard.lanes.set for shard in found.shards),
        channels={
            name: _channel_service(settings, name, stats, found.lanes.now)
            for name, stats in found.channels.items()
        },
        dead_letters=found.dead_by_reason(),
        dead_letters_oldest_ms=max((shard.dead_oldest_ms for shard in found.shards), default=0),
        is_archived=unarchived.seen,
        archive_lag_ms=unarchived.oldest_ms,
        archive_waiting=unarchived.waiting,
        hooks={name: _hook_service(hook) for name, hook in found.hooks.items()},
        roles=_roles(found),
    )


def _pace(readings: Sequence[AnswerReading]) -> AnswerPace:
    """The pace of all these channels together."""
    waits: dict[int, int] = {}
    for reading in readings:
        for step, count in reading.waits.items():
            waits[step] = waits.get(step, 0) + count
    minutes = max((reading.span_ms for reading in readings), default=0) / _MINUTE_MS
    return AnswerPace(
        answers_per_minute=_per_minute((each.answers for each in readings), minutes),
        sms_per_minute=_per_minute((each.sms for each in readings), minutes),
        p50_ms=wait_quantile_ms(waits, 0.5),
        p95_ms=wait_quantile_ms(waits, 0.95),
        by_minute=[sum(of_minute) for of_minute in zip(*(each.by_minute for each in readings), strict=True)],
    )


def _per_minute(counts: Iterable[int], minutes: float) -> float:
    return round(sum(counts) / minutes, 1) if minutes else 0.0


def _channel_service(settings: Settings, name: str, stats: ChannelStats, now: int) -> ChannelService:
    until = None
    if stats.held_near and stats.pause is None:
        until = forecast_last_invitation(settings.channels[name], stats.held_near, stats.sms_today, now)
    return ChannelService(
        pace=_pace([stats.answers]),
        sms_today=stats.sms_today if stats.sms_cap else stats.answers.sms_today,
        sms_cap=stats.sms_cap,
        invitations=stats.held_near,
        invitations_until=until,
        invitations_later=stats.held - stats.held_near,
        webhook_at=stats.webhooks.good_ms,
        forged_webhooks=stats.webhooks.forged_lately,
        pause=stats.pause,
        pause_left_ms=stats.pause_left_ms,
    )


def _hook_service(hook: HookStats) -> HookService:
    is_told = bool(hook.owner) and hook.pause is None and not hook.circuit.is_open
    return HookService(lag_ms=hook.lag_ms, is_told=is_told)


def _roles(found: RedisStats) -> dict[str, RoleService]:
    if PROCESSES_UNREAD in found.unread:
        return {}
    stands = {role: _role_service(found, role) for role in ROLES}
    return {role: each for role, each in stands.items() if role not in OPTIONAL_ROLES or each.is_there}


def _role_service(found: RedisStats, role: str) -> RoleService:
    living = [each for each in found.processes.values() if each.role == role]
    return RoleService(
        living=len(living),
        silent=sum(each.role == role for each in found.silent.values()),
        per_s=round(sum(each.per_s for each in living), 1),
    )
