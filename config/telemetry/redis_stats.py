"""Reads how much lies in Redis, and for how long. It is read from outside: nothing is claimed or changed, and ages
are by the clock of the server on which something lies.

A reading takes three round trips to the server of the lanes, two to that of the wake-ups, and waits for a second at the most at each. Of a server that does not
answer, only that is reported: of a cluster, what lies on one that is away reads as nothing, and is named.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import msgspec
import redis

from config.connections.redis_failures import failure_kind
from config.connections.server_greeting import read_greeting
from config.settings.channels import Channel
from config.settings.config_errors import ConfigError
from config.settings.redis_rights import CLUSTER_URL_SENTENCE
from config.settings.settings import Settings
from config.settings.shard_count import find_shards
from config.store import keyspace, redis_client
from config.store.channel_readings import ChannelReading, parse_reading, reading_commands
from config.store.counts.answer_record import AnswerReading, answer_commands, parse_answers
from config.store.counts.webhook_record import WebhookReading, parse_webhooks, webhook_commands
from config.store.entry_id import EntryId
from config.store.function_calls import Command
from config.store.keyspace import QUEUES
from config.store.pauses import StoredPause
from config.store.stored_values import LANE_LEASE_MS, parse_lock
from config.telemetry import hook_stats, process_registry
from config.telemetry.hook_stats import HookFirstTrip, HookStats, LagQuestions, StreamEnd
from config.telemetry.server_stats import SERVER_COMMANDS, ServerStats, read_cluster, server_stats

STATS_TIMEOUT_S = 1.0
"""How long a server may take to answer."""

MAX_LOCKS_READ = 4_096
"""Locks that are looked at in one reading, of all shards together."""

NEAR_TURN_MS = 12 * 3_600_000
"""An invitation whose moment is further ahead is not held up by anything: it was asked to be sent then. Quiet hours put off
others for no longer, and the alert on those that do not leave looks at 13 hours."""

_SCAN_COUNT, _MAX_SCAN_STEPS = 1_000, 10
"""Keys of the broker's that are looked through in one step for Dramatiq's dead letters, and the most steps."""


PROCESSES_UNREAD = "which processes live"
"""In `unread`."""


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
    `pause_left_ms` is 0 for a pause without end; `sms_cap` for no limit; `answers` are empty in a reading without them."""

    held: int = 0
    held_near: int = 0
    pause: StoredPause | None = None
    pause_left_ms: int = 0
    sms_today: int = 0
    sms_cap: int = 0
    webhooks: WebhookReading = WebhookReading()
    answers: AnswerReading = AnswerReading()


class RedisStats(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of both servers. `processes` are those that live, by name; `dramatiq_dead` counts messages by
    the key they lie at. `held_elsewhere` are invitations that channels hold which are not configured. `replicas_wanted` is
    how many of the lanes' server must have what is acknowledged. `silent` are processes that were killed, or hang. What a server of a cluster has that is away: `away_shards`,
    which are not among `shards`, and what else is `unread`, such as "the channel clinic"."""

    lanes: ServerStats
    broker: ServerStats
    replicas_wanted: int = 0
    shards: Sequence[ShardStats] = ()
    channels: Mapping[str, ChannelStats] = {}
    held_elsewhere: int = 0
    hooks: Mapping[str, HookStats] = {}
    processes: Mapping[str, process_registry.ProcessHeartbeat] = {}
    silent: Mapping[str, process_registry.ProcessHeartbeat] = {}
    queues: Mapping[str, QueueStats] = {}
    dramatiq_dead: Mapping[str, int] = {}
    away_shards: Sequence[int] = ()
    unread: Sequence[str] = ()

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
        self._stored: bytes | None = None

    def read(self, *, with_answers: bool = False) -> RedisStats:
        """Take one reading; `with_answers`: also of how people are answered of late, which takes a dozen commands for each channel.
        Never raises for a server that does not answer."""
        try:
            lanes = self._read_lanes(self._count_shards(), with_answers=with_answers)
        except redis.RedisError as e:
            lanes = {"lanes": _failed_server(self._lanes, e)}
        except ConfigError as e:
            lanes = {"lanes": ServerStats(up=False, why=str(e))}
        try:
            broker = self._read_broker()
        except redis.RedisError as e:
            broker = {"broker": _failed_server(self._broker, e)}
        return RedisStats(**lanes, **broker, replicas_wanted=self._settings.replicas)

    def close(self) -> None:
        self._lanes.close()
        self._broker.close()

    def _count_shards(self) -> int:
        """How many there are now: `parley reshard` may have divided them since the last reading. Where the server of a cluster that
        says so is away, as many as there were, or as the settings say."""
        try:
            stored = redis_client.run_command(self._lanes, ("GET", keyspace.SHARDS_KEY))
            if not self._shards or stored != self._stored:
                self._shards = find_shards(self._lanes, self._settings).shards
                self._stored = stored
        except redis.RedisError as e:
            known = self._shards or (self._settings.shards if self._settings.shards_are_set else 0)
            if not known or not redis_client.is_alone(self._lanes, e):
                raise
            self._shards = known
        return self._shards

    def _read_lanes(self, shards: int, *, with_answers: bool) -> dict[str, Any]:
        names = list(self._channels)
        most = max(1, MAX_LOCKS_READ // shards)
        away: set[str] = set()
        cluster = read_cluster(self._lanes, shards)
        answers = _pipeline_answers(
            self._lanes,
            [
                *(() if cluster else SERVER_COMMANDS), process_registry.HEARTBEATS_COMMAND,
                *(command for k in range(shards) for command in _shard_commands(k, names, most)),
                *(command for name in self._hooks for command in hook_stats.reading_commands(name)),
            ],
            away,
        )  # fmt: skip
        server, said = cluster or server_stats(answers), next(answers)
        firsts = [_ShardFirstTrip.from_answers(k, names, answers) for k in range(shards)]
        hooks = {name: HookFirstTrip.from_answers(answers) for name in self._hooks}
        lags = LagQuestions(hooks, [StreamEnd.from_fields(first.stream) for first in firsts])
        answers = _pipeline_answers(
            self._lanes,
            [
                *(
                    command
                    for channel in self._channels.values()
                    for command in (
                        *_near_turn_commands(channel.name, shards, server.now),
                        *reading_commands(channel.name, channel.timezone, server.now),
                        *webhook_commands(channel.name, server.now),
                        *(
                            answer_commands(channel.name, channel.timezone, server.now)
                            if with_answers
                            else ()
                        ),
                    )
                ),
                *(
                    command
                    for first in firsts
                    for command in first.followup_commands(server.now_of_shard(first.k))
                ),
                *lags.commands(),
            ],
            away,
        )
        away_shards = [k for k in range(shards) if keyspace.lane_alarms_key(k) in away]
        return {
            "lanes": server,
            "processes": process_registry.parse_living(said, server.now),
            "silent": process_registry.parse_silent(said, server.now),
            "channels": {
                channel.name: _channel_stats(
                    channel,
                    sum(first.invitations[channel.name] for first in firsts),
                    sum(next(answers) for _ in range(shards)),
                    parse_reading(answers),
                    parse_webhooks(answers),
                    parse_answers(answers, server.now) if with_answers else AnswerReading(),
                )
                for channel in self._channels.values()
            },
            "held_elsewhere": sum(first.held_elsewhere for first in firsts),
            "shards": [
                stats
                for first in firsts
                if (stats := first.shard_stats(server.now_of_shard(first.k), answers)).k not in away_shards
            ],
            "hooks": {
                name: hooks[name].hook_stats(server.now, lag_ms)
                for name, lag_ms in lags.lags_ms(server.now, answers).items()
            },
            "away_shards": away_shards,
            "unread": [
                what
                for what, key in (
                    (PROCESSES_UNREAD, keyspace.PROCESSES_KEY),
                    *((f"the channel {name}", keyspace.pause_key(name)) for name in names),
                    *((f"the hook {name}", keyspace.hook_positions_key(name)) for name in self._hooks),
                )
                if key in away
            ],
        }

    def _read_broker(self) -> dict[str, Any]:
        bells = [
            command
            for queue in QUEUES
            for command in (
                ("ZCARD", keyspace.wakeup_queue_key(queue)),
                _first_entry_command(keyspace.wakeup_queue_key(queue)),
            )
        ]
        cluster = read_cluster(self._broker)
        answers = _pipeline_answers(self._broker, [*(() if cluster else SERVER_COMMANDS), *bells])
        server = cluster or server_stats(answers)
        queues = {}
        for queue in QUEUES:
            depth, first = next(answers), next(answers)
            queues[queue] = QueueStats(depth, _first_age_ms(first, server.now))
        return {"broker": server, "queues": queues, "dramatiq_dead": self._read_dramatiq_dead()}

    def _read_dramatiq_dead(self) -> dict[str, int]:
        """Messages in Dramatiq's own dead-letter queues. Our broker makes none; a server that another Dramatiq uses, or
        has used, may have some; on a cluster it cannot work. Of a large database, not all is looked through."""
        if redis_client.is_cluster(self._broker):
            return {}
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


def _channel_stats(
    channel: Channel,
    held: int,
    held_near: int,
    reading: ChannelReading,
    webhooks: WebhookReading,
    answers: AnswerReading,
) -> ChannelStats:
    paused = reading.pause
    return ChannelStats(
        held=held,
        held_near=held_near,
        pause=paused.pause if paused else None,
        pause_left_ms=paused.left_ms or 0 if paused else 0,
        sms_today=reading.sms_today,
        sms_cap=channel.limits.sms_per_day,
        webhooks=webhooks,
        answers=answers,
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


def _near_turn_commands(channel: str, shards: int, now: int) -> Iterator[Command]:
    for k in range(shards):
        yield ("ZCOUNT", keyspace.held_ids_key(k, channel), "-inf", now + NEAR_TURN_MS)


def _first_entry_command(key: str) -> Command:
    return ("ZRANGE", key, 0, 0, "WITHSCORES")


def _pipeline_answers(
    client: redis.Redis, commands: Sequence[Command], away: set[str] | None = None
) -> Iterator[Any]:
    """The answers, in one round trip. An error is raised, but for a server that does not tell about itself, and a stream that
    is not there. What lies on a server of a cluster that is away reads as nothing, and its keys are added to `away`."""
    answers = redis_client.try_commands(client, commands)
    for at, (command, answer) in enumerate(zip(commands, answers, strict=True)):
        if not isinstance(answer, redis.RedisError):
            continue
        if redis_client.is_alone(client, answer):
            answers[at] = _NOTHING.get(command[0], answer)
            if away is not None:
                away.add(str(command[-1] if command[0] == "XINFO" else command[1]))
        elif command[0] not in ("INFO", "XINFO"):
            raise answer
    return iter(answers)


_NOTHING: Mapping[str, Any] = {
    "ECHO": b"", "GET": None, "HGETALL": {}, "HLEN": 0, "MGET": [], "PTTL": -2, "XRANGE": [], "ZCARD": 0,
    "ZCOUNT": 0, "ZRANGE": [],
}  # fmt: skip
"""By command, the answer of a server that has nothing. (XINFO has an error then.)"""


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


def _failed_server(client: redis.Redis, error: redis.RedisError) -> ServerStats:
    if failure_kind(error) == "refused":
        return ServerStats(up=False, why=_error_sentence(error), is_refusing=True)
    is_cut_off = isinstance(error, redis.exceptions.ConnectionError)
    if greeting := read_greeting(client) if is_cut_off else "":
        return ServerStats(up=False, why=greeting.partition(". ")[0].rstrip("."), is_refusing=True)
    return ServerStats(up=False, why=_error_sentence(error))


def _error_sentence(error: redis.RedisError) -> str:
    if isinstance(error, redis.exceptions.MovedError | redis.exceptions.AskError):
        return CLUSTER_URL_SENTENCE
    return str(error).rstrip(".") or type(error).__name__
