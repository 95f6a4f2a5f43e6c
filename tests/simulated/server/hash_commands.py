"""Commands on hashes."""

from typing import Any

from tests.simulated.server.command_table import (
    ModelCommand,
    Words,
    pairs_after,
    parse_cursor,
    parse_scan,
    reads,
    takes_in,
    writes,
    wrong_number,
)
from tests.simulated.server.scanning import scan_step
from tests.simulated.server.server_data import ServerData
from tests.simulated.server.wire_words import LEAST, MOST, fail, flat, format_integer, parse_integer

_NOTHING: dict[bytes, bytes] = {}

_SMALL = 512
"""So many fields a hash has at the most that HSCAN answers all at once, if none is longer than 64 bytes."""

_SHORT = 64


def _read(data: ServerData, key: bytes) -> dict[bytes, bytes]:
    return data.read(key, dict) or _NOTHING


def _hset(data: ServerData, words: Words) -> Any:
    fields = pairs_after(words, 1, wrong_number(b"HSET"))
    there: dict[bytes, bytes] = data.own(words[0], dict)
    before = len(there)
    there.update(fields)
    return len(there) - before


def _hsetnx(data: ServerData, words: Words) -> Any:
    key, field, value = words
    if field in _read(data, key):
        return 0
    data.own(key, dict)[field] = value
    return 1


def _hget(data: ServerData, words: Words) -> Any:
    return _read(data, words[0]).get(words[1])


def _hmget(data: ServerData, words: Words) -> Any:
    there = _read(data, words[0])
    return [there.get(field) for field in words[1:]]


def _hgetall(data: ServerData, words: Words) -> Any:
    return flat([*_read(data, words[0]).items()])


def _hkeys(data: ServerData, words: Words) -> Any:
    return [*_read(data, words[0])]


def _hvals(data: ServerData, words: Words) -> Any:
    return [*_read(data, words[0]).values()]


def _hlen(data: ServerData, words: Words) -> Any:
    return len(_read(data, words[0]))


def _hexists(data: ServerData, words: Words) -> Any:
    return int(words[1] in _read(data, words[0]))


def _hdel(data: ServerData, words: Words) -> Any:
    there = _read(data, words[0])
    fields = {field for field in words[1:] if field in there}
    if fields:
        data.touch(words[0])
        for field in fields:
            del there[field]
        data.remove_if_empty(words[0], there)
    return len(fields)


def _hincrby(data: ServerData, words: Words) -> Any:
    key, field, by = words[0], words[1], parse_integer(words[2])
    number = parse_integer(_read(data, key).get(field, b"0"), "ERR hash value is not an integer")
    if not LEAST <= number + by <= MOST:
        fail("ERR increment or decrement would overflow")
    data.own(key, dict)[field] = format_integer(number + by)
    return number + by


def _hscan(data: ServerData, words: Words) -> Any:
    parse_cursor(words[1:])
    there = _read(data, words[0])
    if not there:
        return [b"0", []]
    options = parse_scan(words[1:])
    small = len(there) <= _SMALL and all(len(each) <= _SHORT for each in (*there, *there.values()))
    cursor, fields = scan_step(there, options, at_once=small)
    return [format_integer(cursor), flat([(field, there[field]) for field in fields])]


HASH_COMMANDS: dict[bytes, ModelCommand] = {
    b"HSET": takes_in(_hset, -4),
    b"HSETNX": takes_in(_hsetnx, 4),
    b"HGET": reads(_hget, 3),
    b"HMGET": reads(_hmget, -3),
    b"HGETALL": reads(_hgetall, 2),
    b"HKEYS": reads(_hkeys, 2),
    b"HVALS": reads(_hvals, 2),
    b"HLEN": reads(_hlen, 2),
    b"HEXISTS": reads(_hexists, 3),
    b"HDEL": writes(_hdel, -3),
    b"HINCRBY": takes_in(_hincrby, 4),
    b"HSCAN": reads(_hscan, -3),
}
