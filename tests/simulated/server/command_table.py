"""What a command is: the file of each kind of value has a table of them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tests.simulated.server.server_data import ServerData
from tests.simulated.server.wire_words import SYNTAX, fail, parse_integer

Words = Sequence[bytes]
"""What follows the name of a command."""


class ModelCommand(NamedTuple):
    """`arity` counts words with the name, as Redis does: if it is negative, there may be more. `writes`: a replica refuses
    it; `takes_in`: a full server does."""

    answer: Callable[[ServerData, Words], Any]
    arity: int
    writes: bool = False
    takes_in: bool = False


def reads(answer: Callable[[ServerData, Words], Any], arity: int) -> ModelCommand:
    return ModelCommand(answer, arity)


def writes(answer: Callable[[ServerData, Words], Any], arity: int) -> ModelCommand:
    return ModelCommand(answer, arity, writes=True)


def takes_in(answer: Callable[[ServerData, Words], Any], arity: int) -> ModelCommand:
    return ModelCommand(answer, arity, writes=True, takes_in=True)


def pairs_after(words: Words, first: int, error: str) -> list[tuple[bytes, bytes]]:
    """Return the words from `first` on by twos. Raises ServerError if one is alone."""
    rest = words[first:]
    if len(rest) % 2:
        fail(error)
    return [*zip(rest[::2], rest[1::2], strict=True)]


class ScanOptions(NamedTuple):
    """The options of SCAN and its like."""

    cursor: int
    pattern: bytes
    count: int
    kind: bytes


def parse_cursor(words: Words) -> int:
    if not words[0].isdigit() or int(words[0]) >= 1 << 64:
        fail("ERR invalid cursor")
    return int(words[0])


def parse_scan(words: Words) -> ScanOptions:
    pattern, count, kind = b"*", 10, b""
    cursor, at = parse_cursor(words), 1
    while at < len(words):
        option, value = words[at].upper(), words[at + 1] if at + 1 < len(words) else None
        if value is None:
            fail(SYNTAX)
        if option == b"MATCH":
            pattern = value
        elif option == b"COUNT":
            count = parse_integer(value)
            if count < 1:
                fail(SYNTAX)
        elif option == b"TYPE":
            kind = value.lower()
        else:
            fail(SYNTAX)
        at += 2
    return ScanOptions(cursor, pattern, count, kind)


def clamp(words: Words, at: int, length: int) -> tuple[int, int]:
    """Return where a range of a list begins, and where it is over, of words that count from its ends."""
    start, stop = parse_integer(words[at]), parse_integer(words[at + 1])
    start = max(0, start + length if start < 0 else start)
    stop = stop + length if stop < 0 else min(stop, length - 1)
    return start, stop + 1


def wrong_number(name: bytes) -> str:
    return f"ERR wrong number of arguments for '{name.decode().lower()}' command"
