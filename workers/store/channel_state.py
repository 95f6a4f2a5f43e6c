"""What may a channel do now? Limits that span senders, pauses and circuits, shared by all workers through Redis.

Permits are taken in batches from token buckets, by the server's clock. A permit taken and not used is lost: a limit
errs on the safe side.

A channel's circuit opens when its provider fails: then nothing leaves for a while, and no SMS pays for it. After that one
SMS probes, of all processes; if it gets through the circuit is closed, else it stays open for twice as long. What
counts is failures in a row, not their share: a provider that takes every other request is worth asking, as each SMS
that it takes is one less to wait, and one that fails now is repeated alone. A row must span a while, or one hiccup under
many requests at once would be an outage. A fault of the account opens it too.

The day's SMS are counted when they are decided, and hold back new sessions only: a
conversation that has begun is finished.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import redis

from config.settings.settings import Channel
from config.store import keyspace, pauses, redis_client
from config.store.channel_readings import (
    ActivePause,
    ChannelReading,
    daily_sms_key,
    parse_pause,
    parse_reading,
    pause_commands,
    reading_commands,
)
from config.store.function_calls import function_call
from config.store.server_functions import (
    AcquirePermits,
    AttemptResult,
    CountSms,
    ReportResults,
    ResumeChannel,
    TakeTokens,
)
from engine.model.events import RefusalReason
from workers.store.outboxes import OUTBOX_LEASE_MS

_TWO_DAYS_S = 172_800

CIRCUIT_FAILURES = 5
"""So many failures in a row open a circuit: half of all requests failing does it once in 32, one in five hardly ever."""

CIRCUIT_FAILURES_SPAN_MS = 1_000
"""And they must take so long, from the first one's beginning."""

CIRCUIT_OPEN_MIN_MS, CIRCUIT_OPEN_MAX_MS = 1_000, 60_000
"""A circuit is open for so long at first, then for twice as long each time that its probe fails."""

ACCOUNT_FAULT_REST_MS = 60_000
"""How long a channel whose account is at fault rests before one SMS probes."""

ProviderHealth = Literal["works", "fails", "faults", "unmade"]
"""What an attempt says of the provider: `faults` is the account's fault, `unmade` a probe that was not made."""

PermitRequest = int | Literal["reply", "unasked"]
"""A request for a permit to send: as a reply, or as an SMS that yields to replies; or the epoch in which one has
been booked for now."""


class SendPermits(msgspec.Struct, frozen=True):
    """Permits to send. `waits_ms` has for each SMS 0 (now), in how many ms by a permit booked in `epoch`, or,
    negative, in how many ms it shall ask again. `probe`: the first that may leave is to probe. `failing`: the
    provider has failed of late. `reopened`: the channel's pause is over, SMS that were turned away are to be
    brought forward, and no other worker has been told."""

    epoch: int
    failing: bool
    reopened: bool
    probe: bool
    waits_ms: list[int]


class CircuitState(msgspec.Struct, frozen=True):
    """The circuit after attempts: open for `rest_ms`, 0 if closed; by what it was `opened` just now, if it was,
    and whether it was `closed` just now."""

    rest_ms: int = 0
    opened: Literal["", "circuit", "account"] = ""
    closed: bool = False


class ChannelStore:
    """The deployment's channels as they stand. Times are the server's, in ms."""

    def __init__(self, client: redis.Redis, channels: Mapping[str, Channel]) -> None:
        self._redis = client
        self._channels = channels

    def __getitem__(self, name: str) -> Channel:
        return self._channels[name]

    def admit_sessions(self, name: str, wanted: int, now: int) -> tuple[int, RefusalReason | None]:
        """Take permits for up to `wanted` new sessions; return how many may open, and why not all."""
        limits = self._channels[name].limits
        wanted, reason = self.afford_sessions(name, wanted, now)
        if limits.new_sessions_per_minute and wanted:
            rate = limits.new_sessions_per_minute
            granted = redis_client.run_command(
                self._redis,
                function_call(
                    TakeTokens(
                        bucket=keyspace.session_bucket_key(name),
                        rate_per_s=rate / 60,
                        burst=rate,
                        wanted=wanted,
                    )
                ),
            )
            if granted < wanted:
                wanted, reason = granted, "new_sessions"
        return wanted, reason

    def afford_sessions(self, name: str, wanted: int, now: int) -> tuple[int, RefusalReason | None]:
        """Return how many of `wanted` sessions the day's SMS leave room for, and why not for all. Takes nothing."""
        cap = self._channels[name].limits.sms_per_day
        left = max(0, cap - self.sms_today(name, now)) if cap else wanted
        return (left, "sms_budget") if left < wanted else (wanted, None)

    def sms_today(self, name: str, now: int) -> int:
        return int(self._redis.get(self._daily_sms_key(name, now)) or 0)

    def count_sms(self, name: str, decided: int, now: int) -> None:
        """Add to the day's SMS of a channel, if it has a cap."""
        channel = self._channels.get(name)
        if channel is not None and channel.limits.sms_per_day:
            counter = self._daily_sms_key(name, now)
            call = CountSms(sms_counter=counter, decided=decided, keep_s=_TWO_DAYS_S)
            redis_client.run_command(self._redis, function_call(call))

    def spare_send_permits(self, name: str, wanted: int, now: int) -> int:
        """Return how many of `wanted` SMS could be sent at once, with half of the permits kept for replies; 0
        while the channel is paused. Takes nothing."""
        paused, full_at, clock = redis_client.run_commands(
            self._redis,
            [
                ("EXISTS", keyspace.pause_key(name)),
                ("GET", keyspace.sms_bucket_key(name)),
                ("HGET", keyspace.circuit_state_key(name), "clock"),
            ],
        )
        if paused:
            return 0
        rate = self._channels[name].limits.sms_per_second
        if not rate:
            return wanted
        burst = max(1.0, rate)
        behind = max(0, int(clock or 0) - now)  # the server's clock was set back since
        used = max(0.0, float(full_at or 0) - behind - now) * rate / 1000
        return max(0, min(wanted, int(burst - used + 1e-6 - burst // 2)))

    def acquire_send_permits(self, name: str, wanted: Sequence[PermitRequest]) -> SendPermits:
        """Return which of these SMS may leave on a channel now. A probe may take as long as the lease of an attempt, before
        another SMS probes."""
        rate = self._channels[name].limits.sms_per_second
        call = AcquirePermits(
            pause=keyspace.pause_key(name),
            circuit_state=keyspace.circuit_state_key(name),
            sms_bucket=keyspace.sms_bucket_key(name),
            rate_per_s=rate,
            burst=max(1, rate),
            probe_lease_ms=OUTBOX_LEASE_MS,
            wanted=wanted,
        )
        epoch, failing, reopened, probe, *waits = redis_client.run_command(self._redis, function_call(call))
        return SendPermits(epoch, bool(failing), bool(reopened), bool(probe), waits)

    def report_results(self, name: str, tries: Sequence[tuple[str, int, str]]) -> CircuitState:
        """Record the results of attempts, in order: (ProviderHealth, prefixed by "probe-" for a probe; ms taken; reason).
        Returns the circuit after them."""
        call = ReportResults(
            pause=keyspace.pause_key(name),
            circuit_state=keyspace.circuit_state_key(name),
            max_failures=CIRCUIT_FAILURES,
            failures_span_ms=CIRCUIT_FAILURES_SPAN_MS,
            open_min_ms=CIRCUIT_OPEN_MIN_MS,
            open_max_ms=CIRCUIT_OPEN_MAX_MS,
            account_fault_ms=ACCOUNT_FAULT_REST_MS,
            results=[
                AttemptResult(health=health, took_ms=took_ms, why=why) for health, took_ms, why in tries
            ],
        )
        rest_ms, opened, closed = redis_client.run_command(self._redis, function_call(call))
        return CircuitState(rest_ms, opened.decode(), bool(closed))

    def active_pauses(self, names: Sequence[str]) -> dict[str, ActivePause]:
        """The paused ones of these channels."""
        asked = [command for name in names for command in pause_commands(name)]
        answers = redis_client.run_commands(self._redis, asked)
        pauses = map(parse_pause, answers[::2], answers[1::2])
        return {name: paused for name, paused in zip(names, pauses, strict=True) if paused is not None}

    def read(self, now: int) -> dict[str, ChannelReading]:
        """Read each channel, by name, at `now`."""
        commands = [
            command
            for name, channel in self._channels.items()
            for command in reading_commands(name, channel.timezone, now)
        ]
        answers = iter(redis_client.run_commands(self._redis, commands))
        return {name: parse_reading(answers) for name in self._channels}

    def pause(self, name: str, why: str, for_ms: int | None = None, who: str = "") -> ActivePause | None:
        """Let nothing leave on a channel, on an operator's word, until resumed or for so long. Answers the pause that this
        one replaces."""
        key = keyspace.pause_key(name)
        seconds, microseconds = self._redis.time()
        said = pauses.StoredPause(
            by="operator", why=why, since=seconds * 1000 + microseconds // 1000, who=who
        )
        end = () if for_ms is None else ("PX", for_ms)
        there, pttl, _ = redis_client.run_commands(
            self._redis, [*pause_commands(name), ("SET", key, pauses.encode_pause(said), *end)]
        )
        return parse_pause(there, pttl)

    def resume(self, name: str) -> ActivePause | None:
        """End the pause of a channel, whoever made it, and close its circuit. Answers what was ended."""
        call = ResumeChannel(pause=keyspace.pause_key(name), circuit_state=keyspace.circuit_state_key(name))
        ended = redis_client.run_command(self._redis, function_call(call))
        return parse_pause(*ended) if ended else None

    def _daily_sms_key(self, name: str, now: int) -> str:
        return daily_sms_key(name, self._channels[name].timezone, now)
