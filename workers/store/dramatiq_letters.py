"""Which messages has Dramatiq itself given up? Ours has no dead-letter queue, but a Redis that is shared with stock
Dramatiq, or was taken over from it, may hold some: `<namespace>:<queue>.XQ`, a sorted set of ids by the ms at which each
was given up, and `.XQ.msgs`, a hash of the messages.

One is put back into its queue as a new message, never tried before, by one server-side function that also writes the
audit, on the server where it lies. Not on Redis Cluster, where stock Dramatiq does not run. Dramatiq deletes what has
been there for a week.
"""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import redis

from config.host import THIS_HOST, Host
from config.store import keyspace, redis_client
from config.store.function_calls import function_call
from config.store.server_functions import ResolveDramatiqLetter

DRAMATIQ_SCAN_COUNT = 500
DRAMATIQ_ID_PREFIX = "d:"
"""What the ids of these letters begin with, and no other's."""

_DEAD_QUEUE_SUFFIX = ".XQ"
_RETRY_OPTIONS = ("retries", "traceback", "requeue_timestamp", "eta")


class DramatiqLetter(msgspec.Struct, frozen=True, kw_only=True):
    """`key` is where it lies (`<namespace>:<queue>.XQ`), `message_id` its id there, `message` itself as stored. `at` (ms)
    is when it was given up, by its worker's clock; `why` the last line of its last traceback."""

    key: str
    message_id: str
    at: int
    message: bytes
    queue: str
    actor: str = ""
    retries: int = 0
    traceback: str = ""
    readable: bool = True

    @property
    def id(self) -> str:
        return f"{DRAMATIQ_ID_PREFIX}{self.key.removesuffix(_DEAD_QUEUE_SUFFIX)}:{self.message_id}"

    @property
    def why(self) -> str:
        lines = self.traceback.strip().splitlines()
        return lines[-1].strip() if lines else ""


def scan_letters(client: redis.Redis) -> Iterator[DramatiqLetter]:
    """Every message that Dramatiq has given up on this server, oldest first in each queue; none of a cluster."""
    if redis_client.is_cluster(client):
        return
    names = {
        name.decode()
        for name in client.scan_iter("*" + _DEAD_QUEUE_SUFFIX, count=DRAMATIQ_SCAN_COUNT, _type="zset")
    }
    for key in sorted(names):
        ids = sorted({(at, identity) for identity, at in client.zscan_iter(key, count=DRAMATIQ_SCAN_COUNT)})
        for start in range(0, len(ids), DRAMATIQ_SCAN_COUNT):
            page = ids[start : start + DRAMATIQ_SCAN_COUNT]
            messages = redis_client.run_command(
                client, ("HMGET", f"{key}.msgs", *(identity for _, identity in page))
            )
            for (at, identity), message in zip(page, messages, strict=True):
                yield _decode_message(key, identity.decode(), round(at), message or b"")


def find_by_id(client: redis.Redis, identity: str) -> DramatiqLetter | None:
    """The message of this id, if it is on this server."""
    place, _, message_id = identity.removeprefix(DRAMATIQ_ID_PREFIX).rpartition(":")
    key = place + _DEAD_QUEUE_SUFFIX
    at, message = redis_client.run_commands(
        client, [("ZSCORE", key, message_id), ("HGET", f"{key}.msgs", message_id)]
    )
    return None if at is None else _decode_message(key, message_id, round(float(at)), message or b"")


def requeue(client: redis.Redis, letter: DramatiqLetter, by: str, host: Host = THIS_HOST) -> bool:
    """Put it back into its queue; False if it is not there any more. Raises ValueError if it cannot be read."""
    if not letter.readable:
        raise ValueError("the message is not JSON, as Dramatiq's are unless it is told otherwise")
    new_id = f"replay-{host.token_hex(16)}"
    message = _renewed_message(letter, new_id, redis_client.server_time_ms(client))
    return _take_from_dead_queue(client, letter, by, "requeued", new_id, message)


def drop(client: redis.Redis, letter: DramatiqLetter, by: str) -> bool:
    """Let it go for good; False if it is not there any more."""
    return _take_from_dead_queue(client, letter, by, "dropped")


def _take_from_dead_queue(
    client: redis.Redis, letter: DramatiqLetter, by: str, outcome: str, new_id: str = "", message: bytes = b""
) -> bool:
    queue = letter.key.removesuffix(_DEAD_QUEUE_SUFFIX)
    call = ResolveDramatiqLetter(
        dead_queue=letter.key,
        dead_messages=f"{letter.key}.msgs",
        queue=queue,
        messages=f"{queue}.msgs",
        dead_letter_audit=keyspace.dead_letter_audit_key(0),
        message_id=letter.message_id,
        by=by,
        outcome=outcome,
        message=letter.message,
        new_id=new_id,
        new_message=message,
    )
    return bool(redis_client.run_command(client, function_call(call)))


def _renewed_message(letter: DramatiqLetter, new_id: str, now: int) -> bytes:
    """The message as if it had just been sent: no retries behind it, and not too old."""
    message = json.loads(letter.message)
    options = {name: each for name, each in message["options"].items() if name not in _RETRY_OPTIONS}
    message |= {
        "queue_name": letter.queue,
        "options": options | {"redis_message_id": new_id},
        "message_timestamp": now,
    }
    return json.dumps(message, separators=(",", ":")).encode()


def _decode_message(key: str, message_id: str, at: int, message: bytes) -> DramatiqLetter:
    queue = key.removesuffix(_DEAD_QUEUE_SUFFIX).rpartition(":")[2]
    try:
        fields: Any = json.loads(message)
        options = fields["options"]
        return DramatiqLetter(
            key=key,
            message_id=message_id,
            at=at,
            message=message,
            queue=queue,
            actor=str(fields["actor_name"]),
            retries=int(options.get("retries", 0)),
            traceback=str(options.get("traceback", "")),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return DramatiqLetter(
            key=key, message_id=message_id, at=at, message=message, queue=queue, readable=False
        )
