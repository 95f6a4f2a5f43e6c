"""Reads how much lies in Redis, and for how long. It is read from outside: nothing is claimed or changed, and ages
are by the clock of the server on which something lies.

A reading takes two round trips to each server, and waits for a second at the most at each. Of a server that does not
answer, only that is reported.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import msgspec
import redis

from config.settings.channels import Channel
from config.settings.config_errors import ConfigError
from config.settings.settings import Settings
from config.settings.shard_count import find_shards
from config.store import keyspace, redis_client
from config.store.channel_readings import ChannelReading, parse_reading, reading_commands
from config.store.entry_id import EntryId
from config.store.function_calls import Command
from config.store.keyspace import QUEUES
from config.store.pauses import StoredPause
from config.store.stored_values import LANE_LEASE_MS, parse_lock
from config.telemetry import hook_stats, process_registry
from config.telemetry.hook_stats import HookFirstTrip, HookStats, LagQuestions, StreamEnd

STATS_TIMEOUT_S = 1.0
"""How long a server may take to answer."""

MAX_LOCKS_READ = 4_096
"""Locks that are looked at in one reading, of all shards together."""

NEAR_TURN_MS = 12 * 3_600_000
"""An invitation whose moment is further ahead is not held up by anything: it was asked to be sent then. Quiet hours put off
others for no longer, and the alert on those that do not leave looks at 13 hours."""

_SCAN_COUNT, _MAX_SCAN_STEPS = 1_000, 10
"""Keys of the broker's that are looked through in one step for Dramatiq's dead letters, and the most steps."""


class ServerStats(msgspec.Struct, frozen=True, kw_only=True):
    """`why` it does not answer. `now` is its time (ms), `most_memory` 0 without a limit; both in bytes."""

    up: bool
    why: str = ""
    now: int = 0
    memory: int = 0
    most_memory: int = 0


class QueueStats(msgspec.Struct, frozen=True):
    """Senders for whom a worker has been rung, and how long ago the first of them was."""

    depth: int = 0
    oldest_ms: int = 0


class AlarmStats(msgspec.Struct, frozen=True):
    """Alarms: how many are `set`, how many of them are `due`, and for how long (ms) the first has been."""

    set: int = 0
    due: int = 0
    late_ms: int = 0


class StreamStats(msgspec.Struct, frozen=True):
    """What no archive has of a shard's events: at most so many entries `waiting`, the first of which is `oldest_ms` old.
    `seen`: an archive has said how far it is."""

    seen: bool = False
    waiting: int = 0
    oldest_ms: int = 0


class ShardStats(msgspec.Struct, frozen=True, kw_only=True):
    """`held` lanes are some worker's; that of `abandoned` ones has not come back within its lease. Both are counted among
    those whose alarms are nearest, the latter without those that an operator had. `dead` letters are by reason, `dead_oldest_ms` is the age of the oldest."""

    k: int
    lanes: AlarmStats
    outboxes: AlarmStats
    held: int = 0
    abandoned: int = 0
    dead: Mapping[str, int] = {}
    dead_oldest_ms: int = 0
    events: StreamStats = StreamStats()


class ChannelStats(msgspec.Struct, frozen=True, kw_only=True):
    """`held` invitations wait for their turn, `held_near` of them for one that has come or comes within NEAR_TURN_MS.
    `pause_left_ms` is 0 for a pause without end; `sms_cap` for no limit."""

    held: int = 0
    held_near: int = 0
    pause: StoredPause | None = None
    pause_left_ms: int = 0
    sms_today: int = 0
    sms_cap: int = 0


class RedisStats(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of both servers. `processes` are those that live, by name; `dramatiq_dead` counts messages by
    the key they lie at. `held_elsewhere` are invitations that channels hold which are not configured."""

    lanes: ServerStats
    broker: ServerStats
    shards: Sequence[ShardStats] = ()
    channels: Mapping[str, ChannelStats] = {}
    held_elsewhere: int = 0
    hooks: Mapping[str, HookStats] = {}
    processes: Mapping[str, process_registry.ProcessHeartbeat] = {}
    queues: Mapping[str, QueueStats] = {}
    dramatiq_dead: Mapping[str, int] = {}

    def dead_by_reason(self) -> dict[str, int]:
        """Dead letters of all shards, by reason."""
        found: dict[str, int] = {}
        for shard in self.shards:
            for reason, count in shard.dead.items():
                found[reason] = found.get(reason, 0) + count
        return found

    def unarchived(self) -> StreamStats:
        """What no archive has of all shards together."""
        streams = [shard.events for shard in self.shards]
        return StreamStats(
            any(each.seen for each in streams),
            sum(each.waiting for each in streams),
            max((each.oldest_ms for each in streams), default=0),
        )


class StatsReader:
    """Reads the statistics of a deployment, until it is closed."""

    def __init__(self, settings: Settings) -> None:
        self._lanes = redis_client.connect(settings.redis_url, 0, STATS_TIMEOUT_S)
        self._broker = redis_client.connect(settings.broker_url, 0, STATS_TIMEOUT_S)
        self._settings = settings
        self._channels = settings.channels
        self._hooks = settings.hooks
        self._shards = 0  # until the lanes' server has said how many there are

    def read(self) -> RedisStats:
        """Take one reading. Never raises for a server that does not answer."""
        try:
            self._shards = self._shards or find_shards(self._lanes, self._settings).shards
            lanes = self._read_lanes()
        except redis.RedisError as e:
            lanes = {"lanes": ServerStats(up=False, why=_error_sentence(e))}
        except ConfigError as e:
            lanes = {"lanes": ServerStats(up=False, why=str(e))}
        try:
            broker = self._read_broker()
        except redis.RedisError as e:
            broker = {"broker": ServerStats(up=False, why=_error_sentence(e))}
        return RedisStats(**lanes, **broker)

    def close(self) -> None:
        self._lanes.close()
        self._broker.close()

    def _read_lanes(self) -> dict[str, Any]:
        names = list(self._channels)
        most = max(1, MAX_LOCKS_READ // self._shards)
        answers = _pipeline_answers(
            self._lanes,
            [
                *_SERVER_COMMANDS, process_registry.HEARTBEATS_COMMAND,
                *(command for k in range(self._shards) for command in _shard_commands(k, names, most)),
                *(command for name in self._hooks for command in hook_stats.reading_commands(name)),
            ],
        )  # fmt: skip
        server, said = _server_stats(answers), next(answers)
        firsts = [_ShardFirstTrip.from_answers(k, names, answers) for k in range(self._shards)]
        hooks = {name: HookFirstTrip.from_answers(answers) for name in self._hooks}
        lags = LagQuestions(hooks, [StreamEnd.from_fields(first.stream) for first in firsts])
        answers = _pipeline_answers(
            self._lanes,
            [
                *(
                    command
                    for channel in self._channels.values()
                    for command in (
                        *self._near_turn_commands(channel.name, server.now),
                        *reading_commands(channel.name, channel.timezone, server.now),
                    )
                ),
                *(command for first in firsts for command in first.followup_commands(server.now)),
                *lags.commands(),
            ],
        )
        return {
            "lanes": server,
            "processes": process_registry.parse_living(said, server.now),
            "channels": {
                channel.name: _channel_stats(
                    channel,
                    sum(first.invitations[channel.name] for first in firsts),
                    sum(next(answers) for _ in range(self._shards)),
                    parse_reading(answers),
                )
                for channel in self._channels.values()
            },
            "held_elsewhere": sum(first.held_elsewhere for first in firsts),
            "shards": [first.shard_stats(server.now, answers) for first in firsts],
            "hooks": {
                name: hooks[name].hook_stats(server.now, lag_ms)
                for name, lag_ms in lags.lags_ms(server.now, answers).items()
            },
        }

    def _near_turn_commands(self, channel: str, now: int) -> Iterator[Command]:
        for k in range(self._shards):
            yield ("ZCOUNT", keyspace.held_ids_key(k, channel), "-inf", now + NEAR_TURN_MS)

    def _read_broker(self) -> dict[str, Any]:
        bells = [
            command
            for queue in QUEUES
            for command in (
                ("ZCARD", keyspace.wakeup_queue_key(queue)),
                _first_entry_command(keyspace.wakeup_queue_key(queue)),
            )
        ]
        answers = _pipeline_answers(self._broker, [*_SERVER_COMMANDS, *bells])
        server = _server_stats(answers)
        queues = {}
        for queue in QUEUES:
            depth, first = next(answers), next(answers)
            queues[queue] = QueueStats(depth, _first_age_ms(first, server.now))
        return {"broker": server, "queues": queues, "dramatiq_dead": self._read_dramatiq_dead()}

    def _read_dramatiq_dead(self) -> dict[str, int]:
        """Messages in Dramatiq's own dead-letter queues. Our broker makes none; a server that another Dramatiq uses, or
        has used, may have some. Of a large database, not all is looked through."""
        names: set[bytes] = set()
        cursor = 0
        for _ in range(_MAX_SCAN_STEPS):
            step = ("SCAN", cursor, "MATCH", "*.XQ", "COUNT", _SCAN_COUNT, "TYPE", "zset")
            cursor, found = next(_pipeline_answers(self._broker, [step]))
            names |= set(found)
            if not cursor:
                break
        keys = sorted(names)
        return {
            key.decode(errors="replace"): int(count)
            for key, count in zip(
                keys, _pipeline_answers(self._broker, [("ZCARD", key) for key in keys]), strict=True
            )
        }


class _ShardFirstTrip(msgspec.Struct, frozen=True):
    """The answers of a shard's first round trip: `nearest` alarms of lanes are (sender, ms)."""

    k: int
    lanes: int
    nearest: Sequence[tuple[bytes, float]]
    outboxes: int
    first_outbox: Sequence[Any]
    reasons: Mapping[bytes, bytes]
    first_letter: Sequence[Any]
    archived: bytes | None
    stream: Mapping[bytes, Any]
    all_invitations: int
    invitations: Mapping[str, int]

    @classmethod
    def from_answers(cls, k: int, channels: Sequence[str], answers: Iterator[Any]) -> Self:
        """Take the answers to `_shard_commands`."""
        return cls(
            k,
            next(answers),
            _members_with_scores(next(answers)),
            next(answers),
            next(answers),
            next(answers),
            next(answers),
            next(answers),
            _stream_fields(next(answers)),
            next(answers),
            {name: next(answers) for name in channels},
        )

    @property
    def held_elsewhere(self) -> int:
        """Return how many invitations are held on other channels than those that are configured."""
        return max(0, self.all_invitations - sum(self.invitations.values()))

    def followup_commands(self, now: int) -> Iterator[Command]:
        """Yield the commands that need the server's time."""
        yield ("ZCOUNT", keyspace.lane_alarms_key(self.k), "-inf", now)
        yield ("ZCOUNT", keyspace.outbox_alarms_key(self.k), "-inf", now)
        locks = [  # a claimed lane's alarm is the end of its lease, so it is no further ahead
            keyspace.lane_lock_key(self.k, sender.decode())
            for sender, at in self.nearest
            if at <= now + LANE_LEASE_MS
        ]
        yield ("MGET", *locks) if locks else ("ECHO", b"")
        after = f"({self._archived_id.decode()}"
        yield ("XRANGE", keyspace.events_key(self.k), after, "+", "COUNT", 1)

    @property
    def _archived_id(self) -> bytes:
        """The id of the last entry that an archive has."""
        return self.archived.partition(b" ")[0] if self.archived else b"0-0"

    def _stream_stats(self, unarchived: Sequence[Any], now: int) -> StreamStats:
        """`unarchived`: the first entry that no archive has, if there is one."""
        if not unarchived:
            return StreamStats(self.archived is not None)
        archived = int(self.archived.partition(b" ")[2] or 0) if self.archived else 0
        there = self.stream.get(b"length", 0)
        waiting = min(there, self.stream.get(b"entries-added", 0) - archived)
        return StreamStats(self.archived is not None, max(1, waiting), max(0, now - _entry_ms(unarchived[0])))

    def shard_stats(self, now: int, answers: Iterator[Any]) -> ShardStats:
        """Take the answers to `followup_commands`."""
        lanes_due, outboxes_due, stored, unarchived = (next(answers) for _ in range(4))
        locks = [lock for value in stored or () if value and (lock := parse_lock(value))]
        held = sum(lock.until > now for lock in locks)
        lapsed = sum(lock.until <= now and lock.attempts > 0 for lock in locks)
        first_lane = [part for pair in self.nearest[:1] for part in pair]
        return ShardStats(
            k=self.k,
            lanes=AlarmStats(self.lanes, lanes_due, _first_age_ms(first_lane, now)),
            outboxes=AlarmStats(self.outboxes, outboxes_due, _first_age_ms(self.first_outbox, now)),
            held=held,
            abandoned=lapsed,
            dead=self._dead_by_reason(),
            dead_oldest_ms=_first_age_ms(self.first_letter, now),
            events=self._stream_stats(unarchived, now),
        )

    def _dead_by_reason(self) -> dict[str, int]:
        return {reason.decode(): int(count) for reason, count in self.reasons.items() if int(count) > 0}


_SERVER_COMMANDS: tuple[Command, ...] = (("TIME",), ("INFO", "memory"))


def _channel_stats(channel: Channel, held: int, held_near: int, reading: ChannelReading) -> ChannelStats:
    paused = reading.pause
    return ChannelStats(
        held=held,
        held_near=held_near,
        pause=paused.pause if paused else None,
        pause_left_ms=paused.left_ms or 0 if paused else 0,
        sms_today=reading.sms_today,
        sms_cap=channel.limits.sms_per_day,
    )


def _shard_commands(k: int, channels: Sequence[str], most: int) -> Iterator[Command]:
    yield ("ZCARD", keyspace.lane_alarms_key(k))
    yield ("ZRANGE", keyspace.lane_alarms_key(k), 0, most - 1, "WITHSCORES")
    yield ("ZCARD", keyspace.outbox_alarms_key(k))
    yield _first_entry_command(keyspace.outbox_alarms_key(k))
    yield ("HGETALL", keyspace.dead_letter_reasons_key(k))
    yield _first_entry_command(keyspace.dead_letter_index_key(k))
    yield ("GET", keyspace.archived_key(k))
    yield ("XINFO", "STREAM", keyspace.events_key(k))
    yield ("HLEN", keyspace.held_invitations_key(k))
    for name in channels:
        yield ("ZCARD", keyspace.held_ids_key(k, name))


def _first_entry_command(key: str) -> Command:
    return ("ZRANGE", key, 0, 0, "WITHSCORES")


def _pipeline_answers(client: redis.Redis, commands: Sequence[Command]) -> Iterator[Any]:
    """The answers, in one round trip. An error is raised, but for a server that does not tell about itself, and a stream that
    is not there."""
    answers = redis_client.try_commands(client, commands)
    for command, answer in zip(commands, answers, strict=True):
        if isinstance(answer, Exception) and command[0] not in ("INFO", "XINFO"):
            raise answer
    return iter(answers)


def _server_stats(answers: Iterator[Any]) -> ServerStats:
    """Take the answers to `_SERVER_COMMANDS`."""
    now = redis_client.time_reply_ms(next(answers))
    memory = next(answers)
    known = memory if isinstance(memory, Mapping) else {}
    return ServerStats(
        up=True,
        now=now,
        memory=int(known.get("used_memory", 0)),
        most_memory=int(known.get("maxmemory", 0)),
    )


def _stream_fields(shown: Sequence[Any] | Exception) -> dict[bytes, Any]:
    """What XINFO STREAM answers, by name; nothing of a stream that is not there."""
    return {} if isinstance(shown, Exception) else dict(zip(shown[::2], shown[1::2], strict=True))


def _entry_ms(entry: Sequence[Any]) -> int:
    """When an entry of a stream was added, by its id."""
    return EntryId.parse(entry[0]).ms


def _members_with_scores(flat: Sequence[bytes]) -> list[tuple[bytes, float]]:
    return [(member, float(score)) for member, score in zip(flat[::2], flat[1::2], strict=True)]


def _first_age_ms(first: Sequence[Any], now: int) -> int:
    """For how many ms the first of a sorted set has been due; 0 if it is empty, or lies ahead."""
    return max(0, now - round(float(first[1]))) if first else 0


def _error_sentence(error: redis.RedisError) -> str:
    return str(error).rstrip(".") or type(error).__name__
