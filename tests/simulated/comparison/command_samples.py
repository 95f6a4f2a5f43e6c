"""Commands at random, over few keys: each that the model knows, with what is usual and what is odd."""

from collections.abc import Callable
from random import Random
from typing import Any

KEYS = {
    "string": ("s1", "s2"), "hash": ("h1", "h2"), "list": ("l1", "l2"), "set": ("z1", "z2"), "stream": ("x1", "x2"),
}  # fmt: skip
ALL_KEYS = tuple(key for keys in KEYS.values() for key in keys)

SCAN_ALL = 10_000

Command = tuple[Any, ...]
Drawer = Callable[["CommandSamples"], Command]


class CommandSamples:
    """What it draws follows from the seed and the clock."""

    def __init__(self, chance: Random, now_ms: int) -> None:
        self.chance = chance
        self.now_ms = now_ms

    def command(self, name: str | None = None) -> Command:
        drawn = COMMANDS[name or self.chance.choice([*COMMANDS])](self)
        if self.chance.random() < 0.02:
            drawn = drawn[:-1] if len(drawn) > 1 and drawn[0] != "BZMPOP" else drawn
        if self.chance.random() < 0.02:
            drawn = (*drawn, self.one(b"x", 1, "WITHSCORES")) if drawn[0] not in _FEWER_OPTIONS else drawn
        return drawn

    def one(self, *values: Any) -> Any:
        return self.chance.choice(values)

    def some(self, draw: Callable[[], Any], least: int = 1, most: int = 4) -> list[Any]:
        return [draw() for _ in range(self.chance.randint(least, most))]

    def key(self, kind: str) -> str:
        return str(self.one(*(ALL_KEYS if self.chance.random() < 0.05 else KEYS[kind])))

    def any_key(self) -> str:
        return str(self.one(*ALL_KEYS))

    def value(self) -> Any:
        return self.one(b"a", b"b", b"", b"\x00\xff\r\n", "é", 7, -3, "10", 1.5, "x" * 40, 2**40)

    def number(self) -> Any:
        return self.one(
            0, 1, 2, -1, 5, 100, self.chance.randint(-1000, 1000), 1.0e15, "x", "", " 1", 2**63 - 1, -(2**63)
        )

    def whole(self) -> Any:
        return self.one(0, 1, 2, 3, -1, -2, -3, 5, -10, 10, *self.rarely("x", "1.5", 2**70))

    def rarely(self, *values: Any) -> tuple[Any, ...]:
        return values if self.chance.random() < 0.05 else ()

    def count(self) -> Any:
        return self.one(1, 2, 3, 10, *self.rarely(0, -1, "x"))

    def field(self) -> str:
        return str(self.one("f", "g", "h", "i"))

    def member(self) -> Any:
        return self.one("a", "b", "c", "d", b"\xff", b"")

    def score(self) -> Any:
        return self.one(
            0, 1, 2, 0, 1, 2, -1, 1.5, -0.001, self.now_ms, f"{self.now_ms}.5", "inf", "-inf", "+3", ".5", "5.", "1e17",
            2**62, round(self.chance.uniform(-1e6, 1e6), 3), self.chance.randint(-10**9, 10**9) / 8,
            f"{self.now_ms + self.chance.randint(0, 9)}.{self.chance.randint(0, 999):03}",
            *self.rarely("nan", "x", "", "1,5", " 1"),
        )  # fmt: skip

    def end(self) -> Any:
        score = self.score() if self.chance.random() < 0.5 else self.one(0, 1, 2)
        return f"({score}" if self.chance.random() < 0.3 else score

    def ends(self) -> list[Any]:
        return ["-inf", "+inf"] if self.chance.random() < 0.3 else [self.end(), self.end()]

    def duration_ms(self) -> Any:
        return self.one(1, 5, 10, 100, 10_000, *self.rarely(0, -1, "x", 2**62, 2**63, 2**64))

    def moment_ms(self) -> Any:
        return self.one(
            self.now_ms, self.now_ms + 1, self.now_ms + 10, self.now_ms + 10_000, self.now_ms - 1,
            *self.rarely(0, -5, 5, "x", 2**63 - 1),
        )  # fmt: skip

    def entry_id(self) -> str:
        ms = self.chance.choice((self.now_ms, self.now_ms - 1, self.now_ms + 5, 1, 0, self.now_ms - 100))
        written = self.one(f"{ms}", f"{ms}-0", f"{ms}-1", f"{ms}-{self.chance.randint(0, 9)}")
        return str(
            self.one(written, written, written, *self.rarely("x", "1-x", "", "-", "+", "1-2-3", f"{2**64}-1"))
        )

    def span_end(self) -> str:
        return str(self.one("-", "+", self.entry_id(), f"({self.entry_id()}", *self.rarely("(-", "(+")))


def _after(name: str, *drawers: Callable[[CommandSamples], Any]) -> Drawer:
    """A command of words of which each is drawn; a list is several."""

    def draw(samples: CommandSamples) -> Command:
        words: list[Any] = [name]
        for drawer in drawers:
            drawn = drawer(samples)
            words += drawn if isinstance(drawn, list) else [drawn]
        return tuple(words)

    return draw


def _key(kind: str) -> Callable[[CommandSamples], str]:
    return lambda samples: samples.key(kind)


_S = CommandSamples


def _draw_set(s: CommandSamples) -> Command:
    end: Any = s.one(
        (), (), ("KEEPTTL",), ("PX", s.duration_ms()), ("PXAT", s.moment_ms()), ("EX", s.one(1, 5, 0)),
        ("EXAT", s.now_ms // 1000 + s.one(-1, 0, 1, 5)), *s.rarely(("PX",), ("PX", 5, "KEEPTTL"), ("FOO",)),
    )  # fmt: skip
    options = [*end, *s.one((), (), ("NX",), ("XX",), ("GET",), ("nx", "GET"), *s.rarely(("NX", "XX")))]
    return "SET", s.key("string"), s.value(), *options


def _draw_zadd(s: CommandSamples) -> Command:
    options = s.one((), (), ("NX",), ("XX",), ("GT",), ("LT",), ("CH",), ("XX", "LT", "CH"), ("XX", "GT"))
    if s.chance.random() < 0.1:
        return "ZADD", s.key("set"), *options, "INCR", s.score(), s.member()
    odd = s.rarely(("NX", "GT"), ("NX", "XX"), ("GT", "LT"))
    pairs = [each for _ in range(s.chance.randint(1, 4)) for each in (s.score(), s.member())]
    return "ZADD", s.key("set"), *s.one(options, *odd), *pairs


def _limit(s: CommandSamples) -> list[Any]:
    return s.one([], ["LIMIT", s.whole(), s.whole()])


def _with_scores(s: CommandSamples) -> list[Any]:
    return s.one([], ["WITHSCORES"])


def _draw_zrange(s: CommandSamples) -> Command:
    way = s.one("rank", "rank", "score", "backwards")
    if way == "rank":
        return "ZRANGE", s.key("set"), s.whole(), s.whole(), *s.one((), ("REV",)), *_with_scores(s)
    options = ["BYSCORE", *(["REV"] if way == "backwards" else []), *_limit(s), *_with_scores(s)]
    return "ZRANGE", s.key("set"), *s.ends(), *options


def _fields(s: CommandSamples) -> list[Any]:
    return [each for _ in range(s.chance.randint(1, 3)) for each in (s.field(), s.value())]


def _trim(s: CommandSamples) -> list[Any]:
    about = s.one([], ["="], ["~"])
    what = s.one(["MAXLEN", *about, s.count()], ["MINID", *about, s.entry_id()])
    return what + s.one([], [], *([["LIMIT", s.one(0, 1, 5)]] if about == ["~"] else s.rarely(["LIMIT", 5])))


def _draw_xadd(s: CommandSamples) -> Command:
    wanted = s.one("*", "*", "*", s.entry_id(), f"{s.now_ms}-*")
    options = [*s.one((), (), ("NOMKSTREAM",)), *s.one([], [], _trim(s))]
    return "XADD", s.key("stream"), *options, wanted, *_fields(s)


def _draw_xread(s: CommandSamples) -> Command:
    keys = s.some(lambda: s.key("stream"), 1, 2)
    marks = [s.one("0", "$", s.entry_id()) for _ in keys]
    return "XREAD", *s.one((), ("COUNT", s.count())), "STREAMS", *keys, *marks


def _scan_options(s: CommandSamples) -> list[Any]:
    return [0, *s.one((), ("MATCH", s.one("*", "?1", "s*", "f", "\\f", "[", "a?"))), "COUNT", SCAN_ALL]


def _draw_pop(s: CommandSamples) -> Command:
    keys = s.some(lambda: s.key("set"), 1, 2)
    number = s.one(len(keys), len(keys), len(keys), *s.rarely(0, 5, "x"))
    return "ZMPOP", number, *keys, s.one("MIN", "MAX", *s.rarely("FOO")), *s.one((), ("COUNT", s.count()))


def _expire(name: str, drawn: Callable[[CommandSamples], Any]) -> Drawer:
    def options(s: CommandSamples) -> list[Any]:
        return s.one(
            [], [], [], ["NX"], ["XX"], ["GT"], ["LT"], *s.rarely(["NX", "XX"], ["GT", "LT"], ["FOO"])
        )

    return _after(name, _S.any_key, drawn, options)


COMMANDS: dict[str, Drawer] = {
    "GET": _after("GET", _key("string")),
    "SET": _draw_set,
    "MGET": _after("MGET", lambda s: s.some(s.any_key)),
    "GETDEL": _after("GETDEL", _key("string")),
    "INCR": _after("INCR", _key("string")),
    "DECR": _after("DECR", _key("string")),
    "INCRBY": _after("INCRBY", _key("string"), _S.number),
    "DECRBY": _after("DECRBY", _key("string"), _S.number),
    "HSET": _after("HSET", _key("hash"), _fields),
    "HSETNX": _after("HSETNX", _key("hash"), _S.field, _S.value),
    "HGET": _after("HGET", _key("hash"), _S.field),
    "HMGET": _after("HMGET", _key("hash"), lambda s: s.some(s.field)),
    "HGETALL": _after("HGETALL", _key("hash")),
    "HKEYS": _after("HKEYS", _key("hash")),
    "HVALS": _after("HVALS", _key("hash")),
    "HLEN": _after("HLEN", _key("hash")),
    "HEXISTS": _after("HEXISTS", _key("hash"), _S.field),
    "HDEL": _after("HDEL", _key("hash"), lambda s: s.some(s.field)),
    "HINCRBY": _after("HINCRBY", _key("hash"), _S.field, _S.number),
    "HSCAN": _after("HSCAN", _key("hash"), _scan_options),
    "RPUSH": _after("RPUSH", _key("list"), lambda s: s.some(s.value)),
    "LPUSH": _after("LPUSH", _key("list"), lambda s: s.some(s.value)),
    "LLEN": _after("LLEN", _key("list")),
    "LINDEX": _after("LINDEX", _key("list"), _S.whole),
    "LRANGE": _after("LRANGE", _key("list"), _S.whole, _S.whole),
    "LSET": _after("LSET", _key("list"), _S.whole, _S.value),
    "LREM": _after("LREM", _key("list"), _S.whole, _S.value),
    "LTRIM": _after("LTRIM", _key("list"), lambda s: s.one([0, -1], [1, -1], [s.whole(), s.whole()])),
    "SELECT": _after("SELECT", lambda _: 0),
    "DEL": _after("DEL", lambda s: s.some(s.any_key, 1, 2)),
    "UNLINK": _after("UNLINK", _S.any_key),
    "EXISTS": _after("EXISTS", lambda s: s.some(s.any_key)),
    "TYPE": _after("TYPE", _S.any_key),
    "EXPIRE": _expire("EXPIRE", lambda s: s.one(1, 5, 100, *s.rarely(0, -1, 2**62))),
    "PEXPIRE": _expire("PEXPIRE", _S.duration_ms),
    "EXPIREAT": _expire("EXPIREAT", lambda s: s.now_ms // 1000 + s.one(1, 5, 0, -1)),
    "PEXPIREAT": _expire("PEXPIREAT", _S.moment_ms),
    "PERSIST": _after("PERSIST", _S.any_key),
    "TTL": _after("TTL", _S.any_key),
    "PTTL": _after("PTTL", _S.any_key),
    "EXPIRETIME": _after("EXPIRETIME", _S.any_key),
    "PEXPIRETIME": _after("PEXPIRETIME", _S.any_key),
    "SCAN": _after("SCAN", _scan_options, lambda s: s.one([], ["TYPE", s.one("zset", "string", "stream")])),
    "KEYS": _after("KEYS", lambda s: s.one("*", "s?", "*1")),
    "DBSIZE": _after("DBSIZE"),
    "FLUSHALL": _after("FLUSHALL"),
    "FLUSHDB": _after("FLUSHDB"),
    "ZADD": _draw_zadd,
    "ZINCRBY": _after("ZINCRBY", _key("set"), _S.score, _S.member),
    "ZREM": _after("ZREM", _key("set"), lambda s: s.some(s.member)),
    "ZREMRANGEBYSCORE": _after("ZREMRANGEBYSCORE", _key("set"), _S.end, _S.end),
    "ZREMRANGEBYRANK": _after("ZREMRANGEBYRANK", _key("set"), _S.whole, _S.whole),
    "ZPOPMIN": _after("ZPOPMIN", _key("set"), lambda s: s.one([], [s.count()])),
    "ZMPOP": _draw_pop,
    "BZMPOP": lambda s: ("BZMPOP", s.one(0, 0.01, 5), *_draw_pop(s)[1:]),
    "ZRANGE": _draw_zrange,
    "ZREVRANGE": _after("ZREVRANGE", _key("set"), _S.whole, _S.whole, _with_scores),
    "ZRANGEBYSCORE": _after("ZRANGEBYSCORE", _key("set"), _S.ends, _with_scores, _limit),
    "ZREVRANGEBYSCORE": _after(
        "ZREVRANGEBYSCORE", _key("set"), lambda s: s.ends()[::-1], _with_scores, _limit
    ),
    "ZCOUNT": _after("ZCOUNT", _key("set"), _S.ends),
    "ZCARD": _after("ZCARD", _key("set")),
    "ZSCORE": _after("ZSCORE", _key("set"), _S.member),
    "ZMSCORE": _after("ZMSCORE", _key("set"), lambda s: s.some(s.member)),
    "ZRANK": _after("ZRANK", _key("set"), _S.member),
    "ZSCAN": _after("ZSCAN", _key("set"), _scan_options),
    "XADD": _draw_xadd,
    "XTRIM": _after("XTRIM", _key("stream"), _trim),
    "XRANGE": _after(
        "XRANGE", _key("stream"), _S.span_end, _S.span_end, lambda s: s.one([], ["COUNT", s.count()])
    ),
    "XREVRANGE": _after(
        "XREVRANGE", _key("stream"), _S.span_end, _S.span_end, lambda s: s.one([], ["COUNT", s.count()])
    ),
    "XREAD": _draw_xread,
    "XLEN": _after("XLEN", _key("stream")),
    "XINFO": _after("XINFO", lambda s: ["STREAM", s.key("stream")]),
    "XDEL": _after("XDEL", _key("stream"), lambda s: s.some(s.entry_id, 1, 2)),
    "XSETID": _after("XSETID", _key("stream"), _S.entry_id),
    "TIME": _after("TIME"),
    "PING": _after("PING", lambda s: s.one([], ["x"])),
    "ECHO": _after("ECHO", _S.value),
    "CLUSTER": _after("CLUSTER", lambda s: ["MYID"]),
    "CONFIG": _after(
        "CONFIG", lambda s: ["GET", s.one("appendfsync", "maxmemory", "maxmemory-policy", "no-such-thing")]
    ),
    "INFO": _after("INFO", lambda s: s.one("server", "replication", "memory")),
    "SPUBLISH": _after("SPUBLISH", _S.any_key, _S.value),
    "WAIT": _after("WAIT", _S.whole, lambda s: s.one(0, 1, 50, *s.rarely(-1, "x", 1.5))),
    "FCALL": _after(
        "FCALL", lambda s: s.one(["no_such_function", 0], ["no_such_function", "x"], ["no_such_function"])
    ),
    "FUNCTION": _after(
        "FUNCTION", lambda s: s.one(["LIST"], ["LIST", "LIBRARYNAME", "no_such*"], ["DELETE", "no_such"])
    ),
}

_FEWER_OPTIONS = {
    "FLUSHALL",
    "FLUSHDB",
    "XINFO",
    "ZRANK",
    "XSETID",
    "FUNCTION",
    "BZMPOP",
    "INFO",
    "CONFIG",
    "SCAN",
}
"""Commands of which the model has fewer options than Valkey."""
