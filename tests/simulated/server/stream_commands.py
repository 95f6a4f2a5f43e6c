"""Commands on streams."""

from collections.abc import Callable
from typing import Any

from tests.simulated.server.command_table import ModelCommand, Words, reads, takes_in, writes, wrong_number
from tests.simulated.server.server_data import ServerData
from tests.simulated.server.stored_types import LAST_NUMBER, NO_ENTRY, EntryNumber, EntryStream
from tests.simulated.server.wire_words import (
    NO_KEY,
    OK,
    SYNTAX,
    ServerError,
    fail,
    format_entry_id,
    parse_entry_id,
    parse_integer,
)

_TOO_SMALL = "ERR The ID specified in XADD is equal or smaller than the target stream top item"
_EXHAUSTED = "ERR The stream has exhausted the last possible ID, unable to add more items"

_TRIM_LIMIT = 10_000
"""So many entries go at the most, where about as many are asked for and nothing else is said."""


def _read(data: ServerData, key: bytes) -> EntryStream:
    stream = data.read(key, EntryStream)
    return EntryStream() if stream is None else stream


def _shown(stream: EntryStream, start: int, stop: int) -> list[Any]:
    return [[format_entry_id(number), [*fields]] for number, fields in stream.entries[start:stop]]


# Trimming: about as many as may be is as many as may be, which a server does whose nodes have an entry each.


class _Trim:
    """What is to be trimmed: to `most` entries, or to those from `least` on; of which `limit` go at the most."""

    def __init__(self, words: Words, at: int) -> None:
        """`words[at]` is MAXLEN or MINID; `after` is where the next word is then."""
        by_length = words[at].upper() == b"MAXLEN"
        at += 1
        about = at < len(words) - 1 and words[at] == b"~"
        if about or (at < len(words) - 1 and words[at] == b"="):
            at += 1
        if at >= len(words):
            fail(SYNTAX)
        self.most: int | None = None
        self.least: EntryNumber = NO_ENTRY
        if by_length:
            self.most = parse_integer(words[at])
            if self.most < 0:
                fail("ERR The MAXLEN argument must be >= 0.")
        else:
            self.least = parse_entry_id(words[at], 0, strict=True)
        at += 1
        self.limit = _TRIM_LIMIT if about else 0
        self.limits_exactly = False
        if at + 1 < len(words) and words[at].upper() == b"LIMIT":
            self.limit = parse_integer(words[at + 1])
            if self.limit < 0:
                fail("ERR The LIMIT argument must be >= 0.")
            self.limits_exactly = not about
            at += 2
        self.after = at

    def check(self) -> None:
        if self.limits_exactly:
            fail("ERR syntax error, LIMIT cannot be used without the special ~ option")

    def count(self, stream: EntryStream) -> int:
        length = len(stream)
        gone = stream.position(self.least) if self.most is None else max(0, length - self.most)
        return min(gone, self.limit) if self.limit else gone


def _trim(stream: EntryStream, count: int) -> None:
    del stream.entries[:count]


def _xtrim(data: ServerData, words: Words) -> Any:
    if words[1].upper() not in (b"MAXLEN", b"MINID"):
        fail(SYNTAX)
    trim = _Trim(words, 1)
    if trim.after < len(words):
        fail(SYNTAX)
    trim.check()
    stream = _read(data, words[0])
    count = trim.count(stream)
    if count:
        data.touch(words[0])
        _trim(stream, count)
    return count


# Adding


def _xadd(data: ServerData, words: Words) -> Any:
    key, at, makes, trim = words[0], 1, True, None
    while at < len(words):
        option = words[at].upper()
        if option == b"NOMKSTREAM":
            makes = False
            at += 1
        elif option in (b"MAXLEN", b"MINID"):
            trim = _Trim(words, at)
            at = trim.after
        else:
            break
    if at == len(words):
        fail(wrong_number(b"XADD"))
    wanted, fields = words[at], [*words[at + 1 :]]
    if wanted != b"*":
        _check_wanted(wanted)
    if trim is not None:
        trim.check()
    if len(fields) < 2 or len(fields) % 2:
        fail(wrong_number(b"XADD"))
    if wanted != b"*" and not wanted.endswith(b"-*") and parse_entry_id(wanted, 0, strict=True) == NO_ENTRY:
        fail("ERR The ID specified in XADD must be greater than 0-0")
    stream = data.read(key, EntryStream)
    if stream is None and not makes:
        return None
    number = _next_number(data.now_ms, NO_ENTRY if stream is None else stream.last, wanted)
    stream = data.own(key, EntryStream)
    stream.append(number, fields)
    if trim is not None:
        _trim(stream, trim.count(stream))
    return format_entry_id(number)


def _check_wanted(wanted: bytes) -> None:
    if wanted.endswith(b"-*"):
        parse_entry_id(wanted[:-2], 0, strict=True)
    else:
        parse_entry_id(wanted, 0, strict=True)


def _next_number(now_ms: int, last: EntryNumber, wanted: bytes) -> EntryNumber:
    """By the clock, and never before the last."""
    if last == (LAST_NUMBER, LAST_NUMBER):
        fail(_EXHAUSTED)
    if wanted == b"*":
        return (now_ms, 0) if now_ms > last[0] else (last[0], last[1] + 1)
    if wanted.endswith(b"-*"):
        ms = parse_entry_id(wanted[:-2], 0, strict=True)[0]
        if ms < last[0] or (ms == last[0] and last[1] == LAST_NUMBER):
            fail(_TOO_SMALL)
        return ms, last[1] + 1 if ms == last[0] else 0
    number = parse_entry_id(wanted, 0, strict=True)
    if number <= last:
        fail(_TOO_SMALL)
    return number


# Reading


def _ranged(*, backwards: bool) -> Callable[[ServerData, Words], Any]:
    def answer(data: ServerData, words: Words) -> Any:
        low, high = (words[2], words[1]) if backwards else (words[1], words[2])
        start, stop, count = _parse_span(words, low, high)
        stream = data.read(words[0], EntryStream)
        if stream is None:
            return []
        if count is not None and count <= 0:
            return None
        first, after = stream.position(start), stream.position(_following(stop))
        if count is not None:
            first, after = (
                (max(first, after - count), after) if backwards else (first, min(after, first + count))
            )
        found = _shown(stream, first, after)
        return found[::-1] if backwards else found

    return answer


def _parse_span(words: Words, low: bytes, high: bytes) -> tuple[EntryNumber, EntryNumber, int | None]:
    """Read a range, both ends in it, and how many entries of it are asked for. Raises ServerError."""
    start = parse_entry_id(low.removeprefix(b"("), 0, strict=low[:1] == b"(")
    if low[:1] == b"(":
        if start == (LAST_NUMBER, LAST_NUMBER):
            fail("ERR invalid start ID for the interval")
        start = _following(start)
    stop = parse_entry_id(high.removeprefix(b"("), LAST_NUMBER, strict=high[:1] == b"(")
    if high[:1] == b"(":
        if stop == NO_ENTRY:
            fail("ERR invalid end ID for the interval")
        stop = (stop[0], stop[1] - 1) if stop[1] else (stop[0] - 1, LAST_NUMBER)
    count = None
    for at in range(3, len(words), 2):
        if words[at].upper() != b"COUNT" or at + 1 == len(words):
            fail(SYNTAX)
        count = parse_integer(words[at + 1])
    return start, stop, count


def _following(number: EntryNumber) -> EntryNumber:
    return (number[0], number[1] + 1) if number[1] < LAST_NUMBER else (number[0] + 1, 0)


def _xread(data: ServerData, words: Words) -> Any:
    at, count = 0, None
    while at < len(words) and (option := words[at].upper()) != b"STREAMS":
        if option == b"BLOCK":
            at += 2  # whoever schedules waits: this answers at once
        elif option == b"COUNT" and at + 1 < len(words):
            count = parse_integer(words[at + 1])
            at += 2
        else:
            fail(SYNTAX)
    named = words[at + 1 :]
    if at >= len(words) or not named:
        fail(SYNTAX)
    if len(named) % 2:
        fail("ERR Unbalanced 'xread' list of streams: for each stream key an ID or '$' must be specified.")
    keys, marks = named[: len(named) // 2], named[len(named) // 2 :]
    answers = []
    for key, mark in zip(keys, marks, strict=True):
        if mark in (b"+", b">"):
            raise NotImplementedError(f"XREAD from {mark!r} is not modelled")
        stream = _read(data, key)
        after = stream.last if mark == b"$" else parse_entry_id(mark, 0, strict=True)
        first = stream.position(_following(after))
        if found := _shown(stream, first, first + count if count is not None and count > 0 else len(stream)):
            answers.append([key, found])
    return answers or None


def _xlen(data: ServerData, words: Words) -> Any:
    return len(_read(data, words[0]))


def _xinfo(data: ServerData, words: Words) -> Any:
    if len(words) != 2 or words[0].upper() != b"STREAM":
        raise NotImplementedError("of XINFO, only STREAM is modelled, without FULL")
    stream = data.read(words[1], EntryStream)
    if stream is None:
        raise ServerError(NO_KEY)
    entries = _shown(stream, 0, 1), _shown(stream, max(0, len(stream) - 1), len(stream))
    return [
        b"length", len(stream),
        b"radix-tree-keys", len(stream),
        b"radix-tree-nodes", len(stream) + 1,
        b"last-generated-id", format_entry_id(stream.last),
        b"max-deleted-entry-id", format_entry_id(stream.greatest_deleted),
        b"entries-added", stream.added,
        b"recorded-first-entry-id", entries[0][0][0] if entries[0] else b"0-0",
        b"groups", 0,
        b"first-entry", entries[0][0] if entries[0] else None,
        b"last-entry", entries[1][0] if entries[1] else None,
    ]  # fmt: skip


# Changing


def _xdel(data: ServerData, words: Words) -> Any:
    stream = data.read(words[0], EntryStream)
    if stream is None:
        return 0
    numbers = [parse_entry_id(word, 0, strict=True) for word in words[1:]]
    deleted = 0
    for number in numbers:
        at = stream.position(number)
        if at < len(stream) and stream.entries[at][0] == number:
            data.touch(words[0])
            del stream.entries[at]
            stream.greatest_deleted = max(stream.greatest_deleted, number)
            stream.deletions += 1
            deleted += 1
    return deleted


def _xsetid(data: ServerData, words: Words) -> Any:
    if len(words) > 2:
        raise NotImplementedError("options of XSETID are not modelled")
    number = parse_entry_id(words[1], 0, strict=True)
    stream = data.read(words[0], EntryStream)
    if stream is None:
        raise ServerError(NO_KEY)
    if number < stream.greatest_deleted:
        fail("ERR The ID specified in XSETID is smaller than current max_deleted_entry_id")
    if stream.entries and number < stream.entries[-1][0]:
        fail("ERR The ID specified in XSETID is smaller than the target stream top item")
    data.touch(words[0])
    stream.last = number
    return OK


STREAM_COMMANDS: dict[bytes, ModelCommand] = {
    b"XADD": takes_in(_xadd, -5),
    b"XTRIM": writes(_xtrim, -4),
    b"XRANGE": reads(_ranged(backwards=False), -4),
    b"XREVRANGE": reads(_ranged(backwards=True), -4),
    b"XREAD": reads(_xread, -4),
    b"XLEN": reads(_xlen, 2),
    b"XINFO": reads(_xinfo, -2),
    b"XDEL": writes(_xdel, -3),
    b"XSETID": takes_in(_xsetid, -3),
}
