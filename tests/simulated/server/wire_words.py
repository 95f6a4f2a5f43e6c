"""How numbers, ids and errors are written in commands and replies."""

import math
import re
import string
from collections.abc import Sequence
from typing import Any, NoReturn

from redis._parsers.base import BaseParser
from redis.exceptions import ResponseError

from tests.simulated.server.stored_types import LAST_NUMBER, EntryNumber

LEAST, MOST = -(1 << 63), (1 << 63) - 1
"""Of an integer."""

_INTEGER = re.compile(rb"0|-?[1-9][0-9]*")
_FLOAT = re.compile(
    rb"[+-]?([0-9]+\.?[0-9]*([eE][+-]?[0-9]+)?|\.[0-9]+([eE][+-]?[0-9]+)?|inf(inity)?)", re.IGNORECASE
)
_MOST_THOUSANDTHS = 4e12
"""Up to here, thousandths have been compared: moments in ms."""

_DIGITS = re.compile(rb"[0-9]{1,20}")


class ServerError(Exception):
    """An error as it stands on the wire, its code first."""


class Status(bytes):
    """A simple string: bytes for Python, a table for Lua."""


OK = Status(b"OK")

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
NOT_INTEGER = "ERR value is not an integer or out of range"
NOT_FLOAT = "ERR value is not a valid float"
SYNTAX = "ERR syntax error"
NO_KEY = "ERR no such key"
OUT_OF_MEMORY = "OOM command not allowed when used memory > 'maxmemory'."
READ_ONLY = "READONLY You can't write against a read only replica."
BAD_ENTRY_ID = "ERR Invalid stream ID specified as stream command argument"


def fail(text: str) -> NoReturn:
    raise ServerError(text)


def response_error(text: str) -> ResponseError:
    """Return what redis-py raises for an error on the wire."""
    return BaseParser.parse_error(text.replace("\r", " ").replace("\n", " "))  # type: ignore[no-untyped-call,no-any-return]


def encode_word(word: Any) -> bytes:
    """Return a word of a command, as redis-py encodes it."""
    kind = type(word)
    if kind is bytes:
        return word  # type: ignore[no-any-return]
    if kind is str:
        return word.encode()  # type: ignore[no-any-return]
    if kind is int:
        return b"%d" % word
    if kind is float:
        return repr(word).encode()
    if isinstance(word, str):
        return word.encode()
    raise NotImplementedError(f"redis-py may take {word!r} in a command, and the model does not")


def parse_integer(word: bytes, error: str = NOT_INTEGER) -> int:
    if not _INTEGER.fullmatch(word) or not LEAST <= (number := int(word)) <= MOST:
        raise ServerError(error)
    return number


def parse_float(word: bytes, error: str = NOT_FLOAT) -> float:
    if not _FLOAT.fullmatch(word):
        if word[:2].lower() == b"0x" or b"0x" in word.lower():
            raise NotImplementedError(f"{word!r}: hexadecimal numbers are not modelled")
        raise ServerError(error)
    return float(word)


def format_integer(number: int) -> bytes:
    return b"%d" % number


def format_double(number: float) -> bytes:
    """Write a number as Valkey's replies have it. Raises NotImplementedError for one that is neither whole nor of thousandths:
    Valkey's digits are not always the fewest that tell it apart."""
    if math.isinf(number):
        return b"inf" if number > 0 else b"-inf"
    if abs(number) <= 1 << 62 and number == int(number):
        return b"%d" % int(number)
    if abs(number) < _MOST_THOUSANDTHS and number == round(number, 3):
        return f"{number:.3f}".rstrip("0").encode()
    raise NotImplementedError(f"how Valkey writes {number!r} is not modelled")


# Ids of streams


def format_entry_id(number: EntryNumber) -> bytes:
    return b"%d-%d" % number


def parse_entry_id(word: bytes, missing: int, *, strict: bool = False) -> EntryNumber:
    """`missing`: what follows ms that are alone. `strict`: neither `-` nor `+` is taken."""
    if not strict and word == b"-":
        return 0, 0
    if not strict and word == b"+":
        return LAST_NUMBER, LAST_NUMBER
    ms, dash, sequence = word.partition(b"-")
    if not _DIGITS.fullmatch(ms) or (dash and not _DIGITS.fullmatch(sequence)):
        raise ServerError(BAD_ENTRY_ID)
    number = int(ms), int(sequence) if dash else missing
    if max(number) > LAST_NUMBER:
        raise ServerError(BAD_ENTRY_ID)
    return number


# Patterns


def glob_pattern(pattern: bytes) -> "re.Pattern[bytes]":
    """Compile a pattern of MATCH: `*`, `?`, `[...]` and a backslash before what stands for itself."""
    written, at = [], 0
    while at < len(pattern):
        sign = pattern[at : at + 1]
        if sign == b"*":
            written.append(b".*")
        elif sign == b"?":
            written.append(b".")
        elif sign == b"[":
            raise NotImplementedError(f"{pattern!r}: classes of signs are not modelled")
        else:
            if sign == b"\\" and at + 1 < len(pattern):
                at += 1
            written.append(re.escape(pattern[at : at + 1]))
        at += 1
    return re.compile(b"".join(written), re.DOTALL)


def flat(pairs: Sequence[tuple[Any, Any]]) -> list[Any]:
    return [each for pair in pairs for each in pair]


IDENTIFIER = frozenset(string.ascii_letters.encode() + string.digits.encode() + b"_")
