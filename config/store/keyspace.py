"""Where everything lies in Redis, and how it is reached.

A sender's keys and its shard's indexes share the hash tag `{k}`, k = crc32(sender) mod the number of shards, so one
server-side function (lua/) changes them at once, on a single server and on Redis Cluster alike. This module
knows names and argument orders and nothing of what the values mean.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar
from zlib import crc32

import hiredis
import redis
import redis.asyncio
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

_LUA_FILES = (
    "values", "letters", "mailboxes", "optouts", "lanes", "redress", "outboxes", "channels", "invitations", "answers",
)  # fmt: skip
_LUA_SOURCE = "\n".join(
    Path(__file__).with_name("lua").joinpath(f"{name}.lua").read_text() for name in _LUA_FILES
)

LIBRARY_NAME = f"parley_{blake2b(_LUA_SOURCE.encode(), digest_size=4).hexdigest()}"
"""What our server-side functions are called in Redis: by their text, so that those of two releases live side by side
in a rolling deployment. Each release calls its own, on the same keys."""

LIBRARY_SOURCE = _LUA_SOURCE.replace("@library@", LIBRARY_NAME)

QUEUES = STARTS_QUEUE, REPLIES_QUEUE, OUTBOUND_QUEUE = "starts", "replies", "outbound"
QUEUE_BY_NUMBER = {1: STARTS_QUEUE, 2: REPLIES_QUEUE}
"""What the server-side functions call the queues."""

START_PREFIX, REPLY_PREFIX = b"S", b"R"
"""The first byte of a mail entry."""

SURVEYS_KEY = "surveys"
"""Hash: survey version -> the file that it was read from, for sessions pinned to a version."""

PROCESSES_KEY = f"{{{SURVEYS_KEY}}}:runs"
"""Hash: process -> what it last said: see config/telemetry/process_registry.py."""

MAX_HELD_MS = 30 * 86_400_000
"""How long an invitation may wait for its turn. One whose turn has not come by then has lost its sense."""

SOCKET_TIMEOUT_S = 5.0  # longer than an fsync takes on a bad day
COMMAND_RETRIES = 3

OPTOUT_SECRET_KEY, OPTOUT_SECRET_CHECK_KEY = "optout-key", "optout-key-check"
"""The secret that hides numbers in the list of opt-outs, if Parley made it; and by what the secret in use is known."""

RETENTION_KEY = "retention"
"""There while the hour's sweep has been made: see workers/clock/retention.py."""

LIBRARIES_KEY = "libraries"
"""Sorted set: name of a library of server-side functions -> ms at which it was last known to be in use."""

Command = tuple[Any, ...]
T = TypeVar("T")


def shard_of(sender: str, shards: int) -> int:
    return crc32(sender.encode()) % shards


def group_by_shard(items: Iterable[T], sender_of: Callable[[T], str], shards: int) -> dict[int, list[T]]:
    """The items of each shard, in the order given."""
    groups: dict[int, list[T]] = {}
    for item in items:
        groups.setdefault(shard_of(sender_of(item), shards), []).append(item)
    return groups


def mailbox_key(k: int, sender: str) -> str:
    return f"{{{k}}}:mail:{sender}"


def lane_key(k: int, sender: str) -> str:
    return f"{{{k}}}:lane:{sender}"


def lane_key_pattern() -> str:
    """What every lane's name is like, for SCAN."""
    return "{*}:lane:*"


def sender_of_key(name: str) -> str:
    """Whose key it is: mailbox, lane, lock, outbox."""
    return name.rpartition(":")[2]


def lane_lock_key(k: int, sender: str) -> str:
    return f"{{{k}}}:lock:{sender}"


def outbox_key(k: int, sender: str) -> str:
    return f"{{{k}}}:outbox:{sender}"


def outbox_lock_key(k: int, sender: str) -> str:
    return f"{{{k}}}:outbox-lock:{sender}"


def lane_alarms_key(k: int) -> str:
    return f"{{{k}}}:alarms"


def outbox_alarms_key(k: int) -> str:
    return f"{{{k}}}:outbox-alarms"


def fence_key(k: int) -> str:
    return f"{{{k}}}:fence"


def events_key(k: int) -> str:
    return f"{{{k}}}:events"


def dead_letters_key(k: int) -> str:
    return f"{{{k}}}:dead"


def dead_letter_index_key(k: int) -> str:
    return f"{{{k}}}:dead-index"


def dead_letter_reasons_key(k: int) -> str:
    """How many dead letters there are of each reason."""
    return f"{{{k}}}:dead-reasons"


def dead_letter_audit_key(k: int) -> str:
    """What operators have done with dead letters."""
    return f"{{{k}}}:dead-audit"


def tickets_key(k: int, sender: str) -> str:
    return f"{{{k}}}:tickets:{sender}"


def failed_attempts_key(k: int, sender: str) -> str:
    """What failed tries of the oldest SMS of an outbox came to."""
    return f"{{{k}}}:tries:{sender}"


def optouts_key(k: int) -> str:
    """The list of opt-outs of a shard's senders, by their keyed hashes."""
    return f"{{{k}}}:optouts"


def session_key(k: int, identity: str) -> str:
    """Whose session it is, and since when."""
    return f"{{{k}}}:session:{identity}"


def simulator_key(phone: str, what: str) -> str:
    """What a simulated phone got: its SMS, `sms`, and what it has had, `request:<id>`."""
    return f"simulator:{{{phone}}}:{what}"


def held_ids_key(k: int, channel: str) -> str:
    """Invitations that wait for the channel's pacer: ids, by the ms before which they are not released."""
    return f"{{{k}}}:held:{channel}"


def held_invitations_key(k: int) -> str:
    """The invitations that are held, by id."""
    return f"{{{k}}}:held-mail"


def reference_key(shards: int, identity: str) -> str:
    """What was invited under an inviter's reference. It lies by its own name, as it must be one for all numbers."""
    return f"{{{shard_of(identity, shards)}}}:reference:{identity}"


def wakeup_queue_key(queue: str) -> str:
    """A Dramatiq queue, on the broker's Redis: the senders to look at, in the order in which they were rung."""
    return f"bell:{queue}"


def sms_bucket_key(channel: str) -> str:
    return f"{{channel:{channel}}}:sms-per-second"


def session_bucket_key(channel: str) -> str:
    return f"{{channel:{channel}}}:sessions-per-minute"


def sms_counter_key(channel: str, day: str) -> str:
    return f"{{channel:{channel}}}:sms:{day}"


def invitation_bucket_key(channel: str) -> str:
    return f"{{channel:{channel}}}:invitations-per-second"


def released_sms_key(channel: str, slot: int) -> str:
    """SMS that invitations released in this span of time are going to need."""
    return f"{{channel:{channel}}}:released:{slot}"


def request_bucket_key(key: str) -> str:
    """Of one key to the API."""
    return f"{{key:{key}}}:requests-per-minute"


def pause_key(channel: str) -> str:
    """Why nothing is sent on a channel now; expires when it is tried again."""
    return f"{{channel:{channel}}}:pause"


def circuit_state_key(channel: str) -> str:
    """How a channel's provider does of late, and its pace: see lua/values.lua."""
    return f"{{channel:{channel}}}:flow"


def function_call(function: str, keys: Sequence[str], args: Iterable[Any]) -> Command:
    return ("FCALL", f"{LIBRARY_NAME}_{function}", len(keys), *keys, *args)


def accept_commands(
    shards: int, events_in: Sequence[tuple[str, bool, bytes]], ages_ms: Sequence[int] = ()
) -> tuple[list[Command], list[list[int]]]:
    """Commands that put (sender, is a START, event) into mailboxes, and the positions of each one's events. `ages_ms`
    says how long ago each was accepted, unless all of them are new.

    A command answers a list of ints, one an event: 0 if nobody need be woken, else a key of QUEUE_BY_NUMBER.
    """
    commands: list[Command] = []
    positions: list[list[int]] = []
    for k, group in group_by_shard(enumerate(events_in), lambda item: item[1][0], shards).items():
        keys = [lane_alarms_key(k), *(mailbox_key(k, sender) for _, (sender, _, _) in group)]
        args = (
            (sender, (START_PREFIX if start else REPLY_PREFIX) + event) for _, (sender, start, event) in group
        )
        ages = (ages_ms[at] for at, _ in group) if ages_ms else ()
        commands.append(function_call("accept", keys, chain(chain.from_iterable(args), ages)))
        positions.append([at for at, _ in group])
    return commands, positions


def unhold_command(
    k: int, channel: str, identity: str, sender: str, keep_events_ms: int, records: bytes
) -> Command:
    """Hold an invitation no more: `records` say why, and without any it is forgotten. Answers 1 if it was held."""
    keys = [held_ids_key(k, channel), held_invitations_key(k), session_key(k, identity), events_key(k)]
    return function_call("unhold", keys, (identity, sender, keep_events_ms, records))


def wake_command(queue: str, senders: Iterable[str]) -> Command:
    """For the broker's Redis: wake a worker of `queue` for these senders."""
    return function_call("ring", [wakeup_queue_key(queue)], senders)


def server_time_ms(client: redis.Redis) -> int:
    """The server's time."""
    return time_reply_ms(run_command(client, ("TIME",)))


def time_reply_ms(time: tuple[int | bytes, int | bytes]) -> int:
    """A server's time, of what it answers to TIME."""
    seconds, microseconds = time
    return int(seconds) * 1_000 + int(microseconds) // 1_000


def run_command(client: redis.Redis, command: Command) -> Any:
    """The answer to one command."""
    return run_commands(client, [command])[0]


def run_commands(client: redis.Redis, commands: Sequence[Command]) -> list[Any]:
    """The answers to `commands`, sent in one round trip. Raises the first error among them, without the command
    that redis-py would quote: it names phone numbers. A server that lost our functions gets them again."""
    answers = _send_commands(client, commands)
    if any(
        isinstance(answer, redis.ResponseError) and "Function not found" in str(answer) for answer in answers
    ):
        load_functions(client)
        answers = _send_commands(client, commands)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def _send_commands(client: redis.Redis, commands: Sequence[Command]) -> list[Any]:
    if len(commands) == 1:
        try:
            return [client.execute_command(*commands[0])]  # type: ignore[no-untyped-call]
        except redis.ResponseError as e:
            return [e]
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
    answers: list[Any] = pipeline.execute(raise_on_error=False)
    return answers


class _HiredisPacker:
    """Packs a command as redis-py does, in half of its time (a quarter under asyncio, where it does not ask hiredis):
    what it looks into every argument for, bytearrays and memoryviews, is in none of ours."""

    @staticmethod
    def pack(*args: Any) -> list[bytes]:
        words = args[0].split()  # CONFIG GET, say
        return [hiredis.pack_command(args if len(words) == 1 else (*words, *args[1:]))]


class _AsyncConnection(Connection):
    """By TLS redis-py takes a connection of its own, which packs as it always did."""

    def pack_command(self, *args: Any) -> list[bytes]:
        return _HiredisPacker.pack(*args)


_RETRIED_ERRORS = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)


def connect(url: str, retries: int = COMMAND_RETRIES, timeout_s: float = SOCKET_TIMEOUT_S) -> redis.Redis:
    """A client whose calls are repeated when a reply was lost: every function of ours allows it."""
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        socket_keepalive=True,
        retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=1.0), retries),
        retry_on_error=list(_RETRIED_ERRORS),
        protocol=2,
        command_packer=_HiredisPacker,
    )


def connect_async(url: str, retries: int = 1) -> "redis.asyncio.Redis":
    """The same for asyncio. Whoever awaits a reply bounds the wait, which costs less than a timeout a read."""
    return redis.asyncio.Redis.from_url(
        url,
        connection_class=_AsyncConnection,
        socket_timeout=None,
        socket_connect_timeout=1.0,
        socket_keepalive=True,
        retry=AsyncRetry(ExponentialWithJitterBackoff(base=0.05, cap=0.2), retries),
        retry_on_error=list(_RETRIED_ERRORS),
        protocol=2,
    )


def load_functions(client: redis.Redis) -> None:
    """Make the server-side functions known; safe beside running processes of any release. A server whose memory is full
    takes none, and need not if it has them: whoever empties it must be able to start."""
    try:
        client.function_load(LIBRARY_SOURCE, replace=True)
    except redis.exceptions.OutOfMemoryError:
        if not client.function_list(LIBRARY_NAME):
            raise
