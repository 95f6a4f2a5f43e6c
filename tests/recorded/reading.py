"""Values of Redis as text that is the same for ever, and what they mean, field by field.

A sample is a line of JSON: `db` ("lanes" or "broker"), `key`, `type`, `ttl_ms` (-1: stays), `value` and `means`. Bytes are
text of one character each (latin-1). A value is a text, a list, a list of pairs (hash, sorted set), or a list of
[id, pairs] (stream). `means` is the value again, each piece that only Python reads in place of itself as an object whose
fields have names; null if it has none.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
import redis

from config.store import stored_values
from config.store.event_entries import entry_records
from engine.model import lane
from engine.model.events import decode_inbound, decode_outbound, decode_records
from workers.store import dead_letter_store

Sample = dict[str, Any]

PAGE = 1_000
GONE = -2
"""What PTTL says of a key that is not there."""


def samples(lanes: redis.Redis, broker: redis.Redis) -> Iterator[Sample]:
    """Every key of both, by name, but for those that go meanwhile."""
    for db, client in (("lanes", lanes), ("broker", broker)):
        for name in sorted(set(client.scan_iter(count=PAGE))):
            if (found := sample(db, client, name)) is not None:
                yield found


def sample(db: str, client: redis.Redis, name: bytes) -> Sample | None:
    """What lies there; None if it is gone."""
    kind = client.type(name).decode()
    value = _value(client, kind, name)
    ttl_ms = client.pttl(name)
    if ttl_ms == GONE:  # asked last: what was read before is whole
        return None
    key = text(name)
    return {
        "db": db,
        "key": key,
        "type": kind,
        "ttl_ms": ttl_ms,
        "value": value,
        "means": means(key, value),
    }


def restore(lanes: redis.Redis, broker: redis.Redis, found: Iterable[Sample]) -> None:
    """Put all of it back. What was to go goes as long from now on as it had then."""
    for each in found:
        client = {"lanes": lanes, "broker": broker}[each["db"]]
        name, value = raw(each["key"]), each["value"]
        match each["type"]:
            case "string":
                client.set(name, raw(value))
            case "list":
                client.rpush(name, *map(raw, value))
            case "hash":
                client.hset(name, mapping={raw(field): raw(held) for field, held in value})
            case "zset":
                client.zadd(name, {raw(member): score for member, score in value})
            case "stream":
                for identity, fields in value:
                    client.xadd(name, {raw(field): raw(held) for field, held in fields}, id=identity)
        if each["ttl_ms"] > 0:
            client.pexpire(name, each["ttl_ms"])


def text(value: bytes) -> str:
    return value.decode("latin-1")


def raw(value: str) -> bytes:
    return value.encode("latin-1")


def _value(client: redis.Redis, kind: str, name: bytes) -> Any:
    match kind:
        case "string":
            return text(client.get(name) or b"")
        case "list":
            return [text(each) for each in client.lrange(name, 0, -1)]
        case "hash":
            return [[text(field), text(held)] for field, held in sorted(client.hgetall(name).items())]
        case "zset":
            return [[text(member), score] for member, score in client.zrange(name, 0, -1, withscores=True)]
        case "stream":
            return [
                [text(identity), [[text(field), text(held)] for field, held in fields.items()]]
                for identity, fields in client.xrange(name)
            ]
        case "none":
            return None
    raise ValueError(f"{name!r} is of a type that nothing of ours is: {kind}")


def _mail(entry: bytes) -> Any:
    at, event = stored_values.parse_mail(entry)
    return {"at": at, "event": named(decode_inbound(event))}


def _held(mail: bytes) -> Any:
    sender, at, event = stored_values.parse_held_invitation(mail)
    return {"sender": sender, "at": at, "event": named(decode_inbound(event))}


def _lane(stored: bytes) -> Any:
    return named(lane.decode_lane(stored_values.lane_state(stored)))


def _sms(entry: bytes) -> Any:
    return named(decode_outbound(stored_values.outbox_sms(entry)))


def _records(content: bytes) -> Any:
    return named(decode_records(content))


def _letter(content: bytes) -> Any:
    return named(dead_letter_store.decode_dead_letter(content))


READERS: dict[str, Callable[[bytes], Any]] = {
    "mail": _mail, "lane": _lane, "outbox": _sms, "events": _records, "dead": _letter, "held-mail": _held,
}  # fmt: skip
"""By the word behind the shard in a key's name."""


def means(key: str, value: Any) -> Any:
    """The value, as this release reads it; None if it is not Python's alone to read, or cannot be read."""
    word = key.split(":")[1] if key.startswith("{") and ":" in key else ""
    reader = READERS.get(word)
    if reader is None:
        return None
    match word:
        case "lane":
            return _read(reader, value)
        case "mail" | "outbox":
            return [_read(reader, each) for each in value]
        case "events":
            return [
                _read(reader, text(entry_records({raw(f): raw(held) for f, held in fields})))
                for _, fields in value
            ]
        case _:
            return [_read(reader, held) for _, held in value]


def _read(reader: Callable[[bytes], Any], value: str) -> Any:
    try:
        return reader(raw(value))
    except (ValueError, lane.UnreadableLaneError):
        return None


def named(value: Any) -> Any:
    """A decoded value whose fields have names, as JSON has it. Of several kinds, it says which by the tag that is stored:
    what a class is called is nothing to a sample."""
    match value:
        case msgspec.Struct():
            fields = {field: named(getattr(value, field)) for field in value.__struct_fields__}
            tag = value.__struct_config__.tag
            return fields if tag is None else {"": tag} | fields
        case dict():
            return {str(key): named(held) for key, held in value.items()}
        case list() | tuple():
            return [named(each) for each in value]
        case bytes():
            return text(value)
        case _:
            return value


def still(then: Any, now: Any) -> bool:
    """Does what is read now say all that was read then? A release may have added fields."""
    match then, now:
        case dict(), dict():
            return all(key in now and still(held, now[key]) for key, held in then.items())
        case list(), list():
            return len(then) == len(now) and all(map(still, then, now))
        case _:
            return bool(then == now)
