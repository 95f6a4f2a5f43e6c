"""Commands on sorted sets."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tests.simulated.server.command_table import (
    ModelCommand,
    Words,
    clamp,
    pairs_after,
    parse_cursor,
    parse_scan,
    reads,
    takes_in,
    writes,
)
from tests.simulated.server.scanning import scan_step
from tests.simulated.server.server_data import ServerData
from tests.simulated.server.stored_types import SortedSet
from tests.simulated.server.wire_words import (
    SYNTAX,
    fail,
    format_double,
    format_integer,
    parse_float,
    parse_integer,
)

_SMALL = 128
"""So many members a sorted set has at the most that ZSCAN answers all at once, if none is longer than 64 bytes."""

_SHORT = 64

_NOT_POSITIVE = "ERR value is out of range, must be positive"

_BAD_RANGE = "ERR min or max is not a float"

_OPTIONS = (b"NX", b"XX", b"GT", b"LT", b"CH", b"INCR")

_NOT_A_NUMBER = "ERR resulting score is not a number (NaN)"


def _read(data: ServerData, key: bytes) -> SortedSet:
    return data.read(key, SortedSet) or SortedSet()


# Writing


def _zadd(data: ServerData, words: Words) -> Any:
    at, options = 1, set[bytes]()
    while at < len(words) and (option := words[at].upper()) in _OPTIONS:
        options.add(option)
        at += 1
    if at == len(words):
        fail(SYNTAX)
    pairs = pairs_after(words, at, SYNTAX)
    if {b"NX", b"XX"} <= options:
        fail("ERR XX and NX options at the same time are not compatible")
    if len(options & {b"NX", b"GT", b"LT"}) > 1:
        fail("ERR GT, LT, and/or NX options at the same time are not compatible")
    increments = b"INCR" in options
    if increments and len(pairs) > 1:
        fail("ERR INCR option supports a single increment-element pair")
    scored = [(parse_float(score), member) for score, member in pairs]
    there = data.read(words[0], SortedSet)
    scores = there.scores if there is not None else {}
    added = changed = 0
    answer = None
    for given, member in scored:
        known = scores.get(member)
        if b"XX" in options if known is None else b"NX" in options:
            continue
        score = given + known if increments and known is not None else given
        if math.isnan(score):
            fail(_NOT_A_NUMBER)
        format_double(score)  # one that is not modelled is not stored
        if known is not None and (
            (b"GT" in options and score <= known) or (b"LT" in options and score >= known)
        ):
            continue
        answer = score
        if known is None:
            added += 1
        elif score != known:
            changed += 1
        else:
            continue
        there = data.own(words[0], SortedSet)
        there.put(member, score)
        scores = there.scores
    if increments:
        return None if answer is None else format_double(answer)
    return added + changed if b"CH" in options else added


def _zincrby(data: ServerData, words: Words) -> Any:
    return _zadd(data, [words[0], b"INCR", words[1], words[2]])


def _remove(data: ServerData, key: bytes, there: SortedSet, members: Sequence[bytes]) -> int:
    if members:
        data.touch(key)
        for member in members:
            there.discard(member)
        data.remove_if_empty(key, there)
    return len(members)


def _zrem(data: ServerData, words: Words) -> Any:
    there = _read(data, words[0])
    return _remove(data, words[0], there, [*{member for member in words[1:] if member in there.scores}])


def _zremrangebyscore(data: ServerData, words: Words) -> Any:
    span = _parse_span(words[1], words[2])
    there = _read(data, words[0])
    start, stop = there.span(*span)
    return _remove(data, words[0], there, [member for _, member in there.order[start:stop]])


def _zremrangebyrank(data: ServerData, words: Words) -> Any:
    parse_integer(words[1]), parse_integer(words[2])
    there = _read(data, words[0])
    start, stop = clamp(words, 1, len(there))
    return _remove(data, words[0], there, [member for _, member in there.order[start : max(start, stop)]])


def _zpopmin(data: ServerData, words: Words) -> Any:
    if len(words) > 2:
        fail(SYNTAX)
    count = parse_integer(words[1], _NOT_POSITIVE) if len(words) > 1 else 1
    if count < 0:
        fail(_NOT_POSITIVE)
    there = _read(data, words[0])
    popped = there.order[:count]
    _remove(data, words[0], there, [member for _, member in popped])
    return [each for score, member in popped for each in (member, format_double(score))]


def _bzmpop(data: ServerData, words: Words) -> Any:
    """Whoever schedules waits: this answers at once."""
    timeout = parse_float(words[0], "ERR timeout is not a float or out of range")
    if timeout < 0:
        fail("ERR timeout is negative")
    return _zmpop(data, words[1:])


def _zmpop(data: ServerData, words: Words) -> Any:
    number = parse_integer(words[0], "ERR numkeys should be greater than 0")
    if number < 1:
        fail("ERR numkeys should be greater than 0")
    keys, rest = words[1 : 1 + number], words[1 + number :]
    if len(keys) < number or not rest or (side := rest[0].upper()) not in (b"MIN", b"MAX"):
        fail(SYNTAX)
    count = 1
    for at in range(1, len(rest), 2):
        if at > 1 or at + 1 == len(rest) or rest[at].upper() != b"COUNT":
            fail(SYNTAX)
        count = parse_integer(rest[at + 1], "ERR count should be greater than 0")
        if count < 1:
            fail("ERR count should be greater than 0")
    for key in keys:
        if there := data.read(key, SortedSet):
            popped = there.order[:count] if side == b"MIN" else there.order[: -count - 1 : -1]
            _remove(data, key, there, [member for _, member in popped])
            return [key, [[member, format_double(score)] for score, member in popped]]
    return None


# Reading


class _Range(NamedTuple):
    """What a command of ranges asks for."""

    by_score: bool = False
    backwards: bool = False
    with_scores: bool = False
    offset: int = 0
    count: int = -1


def _parse_span(low: bytes, high: bytes) -> tuple[float, bool, float, bool]:
    """Read the ends of a range of scores, each with whether it is left out."""
    ends = []
    for word in (low, high):
        is_open = word[:1] == b"("
        written = word[1:] if is_open else word
        ends.append((parse_float(written, _BAD_RANGE) if written else 0.0, is_open))
    return *ends[0], *ends[1]


def _parse_range(words: Words, known: _Range, *, extended: bool) -> _Range:
    at, limited = 0, False
    while at < len(words):
        option = words[at].upper()
        if option == b"WITHSCORES":
            known = known._replace(with_scores=True)
        elif option == b"LIMIT" and at + 2 < len(words):
            known = known._replace(offset=parse_integer(words[at + 1]), count=parse_integer(words[at + 2]))
            limited = True
            at += 2
        elif extended and option == b"REV":
            known = known._replace(backwards=True)
        elif extended and option == b"BYSCORE":
            known = known._replace(by_score=True)
        elif extended and option == b"BYLEX":
            raise NotImplementedError("BYLEX is not modelled")
        else:
            fail(SYNTAX)
        at += 1
    if limited and not known.by_score:
        fail("ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX")
    return known


def _ranged(known: _Range, *, extended: bool = False) -> Callable[[ServerData, Words], Any]:
    def answer(data: ServerData, words: Words) -> Any:
        key, first, last = words[:3]
        asked = _parse_range(words[3:], known, extended=extended)
        if asked.by_score:
            span = _parse_span(*((last, first) if asked.backwards else (first, last)))
            there = _read(data, key)
            start, stop = there.span(*span)
            found = there.order[start : max(start, stop)]
            if asked.backwards:
                found.reverse()
            found = [] if asked.offset < 0 else found[asked.offset :]
            found = found if asked.count < 0 else found[: asked.count]
        else:
            parse_integer(first), parse_integer(last)
            there = _read(data, key)
            order = there.order[::-1] if asked.backwards else there.order
            start, stop = clamp(words, 1, len(order))
            found = order[start : max(start, stop)]
        if not asked.with_scores:
            return [member for _, member in found]
        return [each for score, member in found for each in (member, format_double(score))]

    return answer


def _zcount(data: ServerData, words: Words) -> Any:
    span = _parse_span(words[1], words[2])
    start, stop = _read(data, words[0]).span(*span)
    return max(0, stop - start)


def _zcard(data: ServerData, words: Words) -> Any:
    return len(_read(data, words[0]))


def _shown(score: float | None) -> bytes | None:
    return None if score is None else format_double(score)


def _zscore(data: ServerData, words: Words) -> Any:
    return _shown(_read(data, words[0]).scores.get(words[1]))


def _zmscore(data: ServerData, words: Words) -> Any:
    scores = _read(data, words[0]).scores
    return [_shown(scores.get(member)) for member in words[1:]]


def _zrank(data: ServerData, words: Words) -> Any:
    if len(words) > 2:
        raise NotImplementedError("ZRANK WITHSCORE is not modelled")
    return _read(data, words[0]).rank(words[1])


def _zscan(data: ServerData, words: Words) -> Any:
    parse_cursor(words[1:])
    there = _read(data, words[0])
    if not there:
        return [b"0", []]
    options = parse_scan(words[1:])
    small = len(there) <= _SMALL and all(len(member) <= _SHORT for member in there.scores)
    cursor, members = scan_step((member for _, member in there.order), options, at_once=small)
    found = [each for member in members for each in (member, format_double(there.scores[member]))]
    return [format_integer(cursor), found]


SORTED_SET_COMMANDS: dict[bytes, ModelCommand] = {
    b"ZADD": takes_in(_zadd, -4),
    b"ZINCRBY": takes_in(_zincrby, 4),
    b"ZREM": writes(_zrem, -3),
    b"ZREMRANGEBYSCORE": writes(_zremrangebyscore, 4),
    b"ZREMRANGEBYRANK": writes(_zremrangebyrank, 4),
    b"ZPOPMIN": writes(_zpopmin, -2),
    b"ZMPOP": writes(_zmpop, -4),
    b"BZMPOP": writes(_bzmpop, -5),
    b"ZRANGE": reads(_ranged(_Range(), extended=True), -4),
    b"ZREVRANGE": reads(_ranged(_Range(backwards=True)), -4),
    b"ZRANGEBYSCORE": reads(_ranged(_Range(by_score=True)), -4),
    b"ZREVRANGEBYSCORE": reads(_ranged(_Range(by_score=True, backwards=True)), -4),
    b"ZCOUNT": reads(_zcount, 4),
    b"ZCARD": reads(_zcard, 2),
    b"ZSCORE": reads(_zscore, 3),
    b"ZMSCORE": reads(_zmscore, -3),
    b"ZRANK": reads(_zrank, -3),
    b"ZSCAN": reads(_zscan, -3),
}
