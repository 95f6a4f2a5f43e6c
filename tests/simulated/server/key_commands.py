"""Commands on keys of any kind: whether they are there, and when they end."""

from collections.abc import Callable
from typing import Any

from tests.simulated.server.command_table import ModelCommand, Words, parse_scan, reads, writes
from tests.simulated.server.scanning import scan_step
from tests.simulated.server.server_data import ServerData
from tests.simulated.server.stored_types import EntryStream, SortedSet
from tests.simulated.server.wire_words import (
    MOST,
    OK,
    Status,
    fail,
    format_integer,
    glob_pattern,
    parse_integer,
)

_TYPES = {
    bytes: Status(b"string"), dict: Status(b"hash"), list: Status(b"list"),
    SortedSet: Status(b"zset"), EntryStream: Status(b"stream"),
}  # fmt: skip
_NO_TYPE = Status(b"none")

_CONDITIONS = (b"NX", b"XX", b"GT", b"LT")


def _select(data: ServerData, words: Words) -> Any:
    if parse_integer(words[0]) != 0:
        raise NotImplementedError("of databases, only the first is modelled")
    return OK


def _delete(data: ServerData, words: Words) -> Any:
    return sum(map(data.remove, words))


def _exists(data: ServerData, words: Words) -> Any:
    return sum(key in data.values for key in words)


def _type(data: ServerData, words: Words) -> Any:
    return _TYPES.get(type(data.values.get(words[0])), _NO_TYPE)


def _expire(name: str, unit: int, *, from_now: bool) -> Callable[[ServerData, Words], Any]:
    """`unit`: how many ms one is."""

    def answer(data: ServerData, words: Words) -> Any:
        key = words[0]
        conditions = {word.upper() for word in words[2:]}
        for word in words[2:]:
            if word.upper() not in _CONDITIONS:
                fail(f"ERR Unsupported option {word.decode(errors='replace')}")
        if b"NX" in conditions and len(conditions) > 1:
            fail("ERR NX and XX, GT or LT options at the same time are not compatible")
        if {b"GT", b"LT"} <= conditions:
            fail("ERR GT and LT options at the same time are not compatible")
        given = parse_integer(words[1])
        end = given * unit + (data.now_ms if from_now else 0)
        if not -MOST - 1 <= given * unit <= MOST or end > MOST:
            fail(f"ERR invalid expire time in '{name}' command")
        if key not in data.values:
            return 0
        known = data.ends.get(key)
        if (
            (b"NX" in conditions and known is not None)
            or (b"XX" in conditions and known is None)
            or (b"GT" in conditions and (known is None or end <= known))
            or (b"LT" in conditions and known is not None and end >= known)
        ):
            return 0
        data.end_at(key, end)
        return 1

    return answer


def _persist(data: ServerData, words: Words) -> Any:
    if words[0] not in data.ends:
        return 0
    data.end_never(words[0])
    return 1


def _shown_end(show: Callable[[int, int], int]) -> Callable[[ServerData, Words], Any]:
    """`show` is given the end and now (ms)."""

    def answer(data: ServerData, words: Words) -> Any:
        end = data.ends.get(words[0])
        if end is None:
            return -1 if words[0] in data.values else -2
        return show(end, data.now_ms)

    return answer


def _scan(data: ServerData, words: Words) -> Any:
    options = parse_scan(words)
    cursor, keys = scan_step(data.values, options)
    if options.kind:
        keys = [key for key in keys if _TYPES[type(data.values[key])] == options.kind]
    return [format_integer(cursor), keys]


def _keys(data: ServerData, words: Words) -> Any:
    fits = glob_pattern(words[0]).fullmatch
    return [key for key in data.values if fits(key)]


def _dbsize(data: ServerData, words: Words) -> Any:
    return len(data.values)


def _flush(data: ServerData, words: Words) -> Any:
    if words:
        raise NotImplementedError("options of FLUSHALL are not modelled")
    for key in [*data.values]:
        data.remove(key)
    return OK


KEY_COMMANDS: dict[bytes, ModelCommand] = {
    b"SELECT": reads(_select, 2),
    b"DEL": writes(_delete, -2),
    b"UNLINK": writes(_delete, -2),
    b"EXISTS": reads(_exists, -2),
    b"TYPE": reads(_type, 2),
    b"EXPIRE": writes(_expire("expire", 1000, from_now=True), -3),
    b"PEXPIRE": writes(_expire("pexpire", 1, from_now=True), -3),
    b"EXPIREAT": writes(_expire("expireat", 1000, from_now=False), -3),
    b"PEXPIREAT": writes(_expire("pexpireat", 1, from_now=False), -3),
    b"PERSIST": writes(_persist, 2),
    b"TTL": reads(_shown_end(lambda end, now: (end - now + 500) // 1000), 2),
    b"PTTL": reads(_shown_end(lambda end, now: end - now), 2),
    b"EXPIRETIME": reads(_shown_end(lambda end, _: (end + 500) // 1000), 2),
    b"PEXPIRETIME": reads(_shown_end(lambda end, _: end), 2),
    b"SCAN": reads(_scan, -2),
    b"KEYS": reads(_keys, 2),
    b"DBSIZE": reads(_dbsize, 1),
    b"FLUSHALL": writes(_flush, -1),
    b"FLUSHDB": writes(_flush, -1),
}
