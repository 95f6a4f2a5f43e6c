"""Commands on lists."""

from typing import Any

from tests.simulated.server.command_table import ModelCommand, Words, clamp, reads, takes_in, writes
from tests.simulated.server.server_data import ServerData
from tests.simulated.server.wire_words import NO_KEY, OK, fail, parse_integer

_NOTHING: list[bytes] = []


def _read(data: ServerData, key: bytes) -> list[bytes]:
    return data.read(key, list) or _NOTHING


def _rpush(data: ServerData, words: Words) -> Any:
    there: list[bytes] = data.own(words[0], list)
    there.extend(words[1:])
    return len(there)


def _lpush(data: ServerData, words: Words) -> Any:
    there: list[bytes] = data.own(words[0], list)
    there[:0] = words[:0:-1]
    return len(there)


def _llen(data: ServerData, words: Words) -> Any:
    return len(_read(data, words[0]))


def _lindex(data: ServerData, words: Words) -> Any:
    there = _read(data, words[0])
    at = parse_integer(words[1]) if there else 0
    return there[at] if -len(there) <= at < len(there) else None


def _lrange(data: ServerData, words: Words) -> Any:
    parse_integer(words[1]), parse_integer(words[2])
    there = _read(data, words[0])
    start, stop = clamp(words, 1, len(there))
    return there[start : max(start, stop)]


def _lset(data: ServerData, words: Words) -> Any:
    there = _read(data, words[0])
    if not there:
        fail(NO_KEY)
    at = parse_integer(words[1])
    if not -len(there) <= at < len(there):
        fail("ERR index out of range")
    data.touch(words[0])
    there[at] = words[2]
    return OK


def _lrem(data: ServerData, words: Words) -> Any:
    count, value = parse_integer(words[1]), words[2]
    there = _read(data, words[0])
    found = [at for at, each in enumerate(there) if each == value]
    gone = found if count == 0 else found[:count] if count > 0 else found[count:]
    if gone:
        data.touch(words[0])
        for at in reversed(gone):
            del there[at]
        data.remove_if_empty(words[0], there)
    return len(gone)


def _ltrim(data: ServerData, words: Words) -> Any:
    parse_integer(words[1]), parse_integer(words[2])
    there = _read(data, words[0])
    if there:
        start, stop = clamp(words, 1, len(there))
        data.touch(words[0])
        there[:] = there[start : max(start, stop)]
        data.remove_if_empty(words[0], there)
    return OK


LIST_COMMANDS: dict[bytes, ModelCommand] = {
    b"RPUSH": takes_in(_rpush, -3),
    b"LPUSH": takes_in(_lpush, -3),
    b"LLEN": reads(_llen, 2),
    b"LINDEX": reads(_lindex, 3),
    b"LRANGE": reads(_lrange, 4),
    b"LSET": takes_in(_lset, 4),
    b"LREM": writes(_lrem, 4),
    b"LTRIM": writes(_ltrim, 4),
}
