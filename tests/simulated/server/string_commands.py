"""Commands on strings."""

from collections.abc import Callable
from typing import Any

from tests.simulated.server.command_table import ModelCommand, Words, reads, takes_in, writes
from tests.simulated.server.server_data import ServerData
from tests.simulated.server.wire_words import LEAST, MOST, OK, SYNTAX, fail, format_integer, parse_integer

_ENDS = {b"EX": (1000, True), b"PX": (1, True), b"EXAT": (1000, False), b"PXAT": (1, False)}
"""The ms of a unit, and whether it counts from now."""


def _get(data: ServerData, words: Words) -> Any:
    return data.read(words[0], bytes)


def _set(data: ServerData, words: Words) -> Any:
    key, value = words[0], words[1]
    end, keeps, condition, answers_old = None, False, b"", False
    at = 2
    while at < len(words):
        option = words[at].upper()
        if option in (b"NX", b"XX") and not condition:
            condition = option
        elif option == b"GET":
            answers_old = True
        elif option == b"KEEPTTL" and end is None:
            keeps = True
        elif option in _ENDS and end is None and not keeps and at + 1 < len(words):
            at += 1
            end = option, words[at]
        else:
            if option == b"IFEQ":
                raise NotImplementedError("SET IFEQ is not modelled")
            fail(SYNTAX)
        at += 1
    end_ms = None if end is None else _parse_end(data, *end)
    old = data.read(key, bytes) if answers_old else None
    if condition and (key in data.values) == (condition == b"NX"):
        return old
    (data.keep if keeps else data.store)(key, value)
    if end_ms is not None:
        data.end_at(key, end_ms)
    return old if answers_old else OK


def _parse_end(data: ServerData, option: bytes, word: bytes) -> int:
    unit, from_now = _ENDS[option]
    given = parse_integer(word)
    end = given * unit + (data.now_ms if from_now else 0)
    if given <= 0 or end > MOST:
        fail("ERR invalid expire time in 'set' command")
    return end


def _mget(data: ServerData, words: Words) -> Any:
    values = [data.values.get(key) for key in words]
    return [value if type(value) is bytes else None for value in values]


def _getdel(data: ServerData, words: Words) -> Any:
    value = data.read(words[0], bytes)
    data.remove(words[0])
    return value


def _add(data: ServerData, key: bytes, by: int) -> int:
    value = data.read(key, bytes)
    number = 0 if value is None else parse_integer(value)
    if not LEAST <= number + by <= MOST:
        fail("ERR increment or decrement would overflow")
    data.keep(key, format_integer(number + by))
    return number + by


def _incrby(data: ServerData, words: Words) -> Any:
    return _add(data, words[0], parse_integer(words[1]))


def _decrby(data: ServerData, words: Words) -> Any:
    by = parse_integer(words[1])
    if by == LEAST:
        fail("ERR decrement would overflow")
    return _add(data, words[0], -by)


def _by(number: int) -> Callable[[ServerData, Words], Any]:
    return lambda data, words: _add(data, words[0], number)


STRING_COMMANDS: dict[bytes, ModelCommand] = {
    b"GET": reads(_get, 2),
    b"SET": takes_in(_set, -3),
    b"MGET": reads(_mget, -2),
    b"GETDEL": writes(_getdel, 2),
    b"INCR": takes_in(_by(1), 2),
    b"DECR": takes_in(_by(-1), 2),
    b"INCRBY": takes_in(_incrby, 3),
    b"DECRBY": takes_in(_decrby, 3),
}
