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
from itertools import chain
from typing import Literal

import msgspec
import redis

from config.settings.settings import Channel
from config.store import keyspace, pauses
from config.store.channel_readings import (
    ActivePause,
    ChannelReading,
    daily_sms_key,
    parse_pause,
    parse_reading,
    pause_commands,
    reading_commands,
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
"""What a try says of the provider; `faults` the account's fault, `unmade` a probe that was not made."""

PermitRequest = int | Literal["reply", "unasked"]
"""What an SMS asks for that wants to leave: a permit as a reply, or as one that yields to replies; or the epoch in which
it has booked one for now."""


class SendPermits(msgspec.Struct, frozen=True):
    """What may leave. `waits` has for each SMS 0 (now), in how many ms by a permit booked in `epoch`, or, negative, in how
    many ms it shall ask again. `probe`: the first that may leave is to probe. `failing`: the provider has failed of
    late. `reopened`: SMS that were turned away want to be brought forward, and nobody else has been told."""

    epoch: int
    failing: bool
    reopened: bool
    probe: bool
    waits_ms: list[int]


class CircuitState(msgspec.Struct, frozen=True):
    """How a channel stands after tries: open for `rest_ms`, 0 if closed; by what it was `opened` just now, if it was, and
    whether it was `closed` just now."""

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
        """How many of `wanted` sessions may open, and why not all. Takes their permits."""
        limits = self._channels[name].limits
        wanted, reason = self.afford_sessions(name, wanted, now)
        if limits.new_sessions_per_minute and wanted:
            rate = limits.new_sessions_per_minute
            granted = keyspace.run_command(
                self._redis,
                keyspace.function_call(
                    "grant", [keyspace.session_bucket_key(name)], (rate / 60, rate, wanted)
                ),
            )
            if granted < wanted:
                wanted, reason = granted, "new_sessions"
        return wanted, reason

    def afford_sessions(self, name: str, wanted: int, now: int) -> tuple[int, RefusalReason | None]:
        """How many of `wanted` sessions the day's SMS leave room for, and why not for all. Takes nothing."""
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
            keyspace.run_command(
                self._redis, keyspace.function_call("count", [counter], (decided, _TWO_DAYS_S))
            )

    def spare_send_permits(self, name: str, wanted: int, now: int) -> int:
        """How many of `wanted` SMS could be sent at once, with half of the permits kept for replies; 0 while it is paused.
        Takes nothing."""
        paused, full_at = keyspace.run_commands(
            self._redis, [("EXISTS", keyspace.pause_key(name)), ("GET", keyspace.sms_bucket_key(name))]
        )
        if paused:
            return 0
        rate = self._channels[name].limits.sms_per_second
        if not rate:
            return wanted
        burst = max(1.0, rate)
        used = max(0.0, float(full_at or 0) - now) * rate / 1000
        return max(0, min(wanted, int(burst - used + 1e-6 - burst // 2)))

    def acquire_send_permits(self, name: str, wanted: Sequence[PermitRequest]) -> SendPermits:
        """Return which of these SMS may leave on a channel now. A probe may take as long as the lease of an attempt, before
        another SMS probes."""
        rate = self._channels[name].limits.sms_per_second
        keys = [keyspace.pause_key(name), keyspace.circuit_state_key(name), keyspace.sms_bucket_key(name)]
        epoch, failing, reopened, probe, *waits = keyspace.run_command(
            self._redis,
            keyspace.function_call("depart", keys, (rate, max(1, rate), OUTBOX_LEASE_MS, *wanted)),
        )
        return SendPermits(epoch, bool(failing), bool(reopened), bool(probe), waits)

    def report_results(self, name: str, tries: Sequence[tuple[str, int, str]]) -> CircuitState:
        """Tell how tries ended, in that order: a How ("probe-" before it if it probed), ms that it took, and why."""
        keys = [keyspace.pause_key(name), keyspace.circuit_state_key(name)]
        law = (
            CIRCUIT_FAILURES,
            CIRCUIT_FAILURES_SPAN_MS,
            CIRCUIT_OPEN_MIN_MS,
            CIRCUIT_OPEN_MAX_MS,
            ACCOUNT_FAULT_REST_MS,
        )
        rest_ms, opened, closed = keyspace.run_command(
            self._redis, keyspace.function_call("report", keys, (*law, *chain.from_iterable(tries)))
        )
        return CircuitState(rest_ms, opened.decode(), bool(closed))

    def active_pauses(self, names: Sequence[str]) -> dict[str, ActivePause]:
        """The paused ones of these channels."""
        asked = [command for name in names for command in pause_commands(name)]
        answers = keyspace.run_commands(self._redis, asked)
        pauses = map(parse_pause, answers[::2], answers[1::2])
        return {name: paused for name, paused in zip(names, pauses, strict=True) if paused is not None}

    def read(self, now: int) -> dict[str, ChannelReading]:
        """What Redis holds of each channel, at `now`."""
        commands = [
            command
            for name, channel in self._channels.items()
            for command in reading_commands(name, channel.timezone, now)
        ]
        answers = iter(keyspace.run_commands(self._redis, commands))
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
        there, pttl, _ = keyspace.run_commands(
            self._redis, [*pause_commands(name), ("SET", key, pauses.encode_pause(said), *end)]
        )
        return parse_pause(there, pttl)

    def resume(self, name: str) -> ActivePause | None:
        """End the pause of a channel, whoever made it, and close its circuit. Answers what was ended."""
        ended = keyspace.run_command(
            self._redis,
            keyspace.function_call(
                "resume", [keyspace.pause_key(name), keyspace.circuit_state_key(name)], ()
            ),
        )
        return parse_pause(*ended) if ended else None

    def _daily_sms_key(self, name: str, now: int) -> str:
        return daily_sms_key(name, self._channels[name].timezone, now)
