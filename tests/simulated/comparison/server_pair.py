"""The model beside a real Valkey: both are sent the same commands at the same time, and must answer the same."""

import json
import re
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import Any

from redis.exceptions import ExecAbortError, ResponseError

from tests.simulated.comparison.frozen_clock import START_US, FrozenClock
from tests.simulated.server.server_model import ServerModel
from tests.support.closing import Closing
from tests.support.valkey import Valkey
from tests.support.waiting import HANG_S

SETTINGS = {"appendfsync": "no", "stream_node_max_entries": "1"}
"""A stream of nodes with an entry each trims as many as it is asked for, and no fewer."""

_PLACE = re.compile(r"^user_function:\d+: | script: on @user_function:\d+\.$")
"""Where an error of a function is from: the model does not know if it is that of the call with which a function ends."""

_BLOCKING = ("BZMPOP", "WAIT")

_IN_NO_ORDER = ("KEYS", "CONFIG")

_OF_A_TREE = (b"radix-tree-keys", b"radix-tree-nodes")


class ServerPair(Closing):
    """A context manager, which ends the real server."""

    def __init__(self) -> None:
        self._clock = FrozenClock()
        self._valkey = Valkey(self._clock, **SETTINGS)  # type: ignore[arg-type]
        self._client = self._valkey.client()
        self._client.response_callbacks.clear()
        self._connection = self._client.connection_pool.get_connection()
        self.begin()

    def close(self) -> None:
        self._connection.disconnect()
        self._valkey.close()
        self._clock.close()

    def begin(self) -> None:
        """Forget all, and be of the same name."""
        self.move_to(START_US)
        self.set_faults()
        self._real([("FLUSHALL",), ("FUNCTION", "FLUSH")])
        self.model = ServerModel(lambda: self._clock.now_us)
        self.model.config |= {"appendfsync": "no"}
        for section, field in (("server", "run_id"), ("replication", "replid"), ("replication", "replid2")):
            (told,) = self._real([("INFO", section)])
            name = b"master_" + field.encode() if section == "replication" else field.encode()
            setattr(
                self.model,
                field,
                dict(line.split(b":", 1) for line in told.split(b"\r\n") if b":" in line)[name].decode(),
            )

    @property
    def now_ms(self) -> int:
        return self._clock.now_us // 1000

    def step(self, by_ms: int) -> None:
        """Set the clock ahead, or back. What has ended is looked at, or Valkey might find it alive once the clock is set back."""
        known = [*self.model.values]
        self.move_to(self._clock.now_us + by_ms * 1000)
        if known:
            self.compare([("EXISTS", *known)])

    def move_to(self, now_us: int) -> None:
        """Set the clock, to a whole ms. Valkey looks at it once a ms, and adds what it measures itself until then."""
        self._clock.set(now_us // 1000 * 1000)
        end_s = monotonic() + HANG_S
        while not self._is_seen():
            assert monotonic() < end_s, "Valkey does not see its clock"

    def _is_seen(self) -> bool:
        ((seconds, us),) = self._real([("TIME",)])
        return 0 <= int(seconds) * 1_000_000 + int(us) - self._clock.now_us < 1000

    def set_faults(self, *, full: bool = False, read_only: bool = False) -> None:
        primary = ("127.0.0.1", 1) if read_only else ("NO", "ONE")
        self._real([("CONFIG", "SET", "maxmemory", 1 if full else 0), ("REPLICAOF", *primary)])
        if hasattr(self, "model"):
            self.model.is_full, self.model.is_read_only = full, read_only
            self.model.config["maxmemory"] = str(int(full))

    def compare(self, commands: Iterable[Sequence[Any]]) -> list[Any]:
        """Send to both what the model knows. Answers what both answered. Raises AssertionError if they differ."""
        known, here = list[Sequence[Any]](), list[Any]()
        for command in commands:
            try:
                here.append(self._modelled(command))
            except NotImplementedError:
                continue
            known.append(command)
        for command, ours, theirs in zip(known, here, self._real(known), strict=True):
            assert _comparable(command, ours) == _comparable(command, theirs), command
        return here

    def compare_state(self) -> None:
        """Raises AssertionError if the keys, their values or their ends differ."""
        (keys,) = self._real([("KEYS", "*")])
        found = {key: (_without_order(self._real_value(key)), self._real_end(key)) for key in keys}
        assert {key: (_without_order(value), end) for key, (value, end) in self.model.dump().items()} == found
        assert self.model.keys() == sorted(keys)

    def _real_end(self, key: bytes) -> int | None:
        (end,) = self._real([("PEXPIRETIME", key)])
        return None if end == -1 else int(end)

    def _real_value(self, key: bytes) -> Any:
        (kind,) = self._real([("TYPE", key)])
        if kind == b"stream":
            return self._real_stream(key)
        read = {
            b"string": ("GET", key), b"hash": ("HGETALL", key), b"list": ("LRANGE", key, 0, -1),
            b"zset": ("ZRANGE", key, 0, -1, "WITHSCORES"),
        }  # fmt: skip
        (value,) = self._real([read[kind]])
        if kind == b"hash":
            return dict(zip(value[::2], value[1::2], strict=True))
        if kind == b"zset":
            return [(float(score), member) for member, score in zip(value[::2], value[1::2], strict=True)]
        return value

    def _real_stream(self, key: bytes) -> Any:
        entries, told = self._real([("XRANGE", key, "-", "+"), ("XINFO", "STREAM", key)])
        fields = dict(zip(told[::2], told[1::2], strict=True))
        return {
            "entries": [(_number(written), values) for written, values in entries],
            "last": _number(fields[b"last-generated-id"]),
            "added": fields[b"entries-added"],
            "greatest_deleted": _number(fields[b"max-deleted-entry-id"]),
        }

    def _modelled(self, command: Sequence[Any]) -> Any:
        try:
            return self.model.execute(command)
        except ResponseError as e:
            return e

    def _real(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send all of them at once. One that would block is sent as a transaction, where it does not."""
        sent: list[Sequence[Any]] = []
        for command in commands:
            sent += [("MULTI",), command, ("EXEC",)] if command[0] in _BLOCKING else [command]
        self._connection.send_packed_command(self._connection.pack_commands(sent))
        return [self._transacted() if command[0] in _BLOCKING else self._reply() for command in commands]

    def _transacted(self) -> Any:
        _, queued, done = self._reply(), self._reply(), self._reply()
        return queued if isinstance(done, ExecAbortError) else done[0]

    def _reply(self) -> Any:
        try:
            return self._connection.read_response()
        except ResponseError as e:
            return e


def _number(written: bytes) -> tuple[int, int]:
    ms, _, sequence = written.partition(b"-")
    return int(ms), int(sequence)


def _without_order(value: Any) -> Any:
    """Return a value with a JSON object, which has none, as one whose keys are sorted: Lua's tables have none either."""
    match value:
        case bytes() if value.startswith(b"{"):
            try:
                return json.dumps(json.loads(value), sort_keys=True)
            except ValueError:
                return value
        case list():
            return [_without_order(each) for each in value]
        case dict():
            return {key: _without_order(each) for key, each in value.items()}
        case _:
            return value


def _comparable(command: Sequence[Any], answer: Any) -> Any:
    """Return an answer without what is Valkey's own affair, such as the order of what has none."""
    if isinstance(answer, ResponseError):
        return type(answer), _PLACE.sub("", str(answer))
    if isinstance(answer, bytes) and answer.startswith(b"user_function:"):
        return _PLACE.sub("", answer.decode(errors="replace")).encode()
    if isinstance(answer, list):
        answer = [_comparable((), each) for each in answer]
    match command:
        case ["TIME"] if isinstance(answer, list):
            return answer[0], int(answer[1]) // 1000
        case ["INFO", *_]:
            return type(answer)
        case ["FUNCTION", "LIST", *_] if isinstance(answer, list):
            return sorted([*each[:5], sorted(each[5], key=repr), *each[6:]] for each in answer)
        case ["SCAN", *_] if isinstance(answer, list):
            return answer[0], sorted(answer[1])
        case ["ZSCAN" | "HSCAN", *_] if isinstance(answer, list):
            return answer[0], sorted(zip(answer[1][::2], answer[1][1::2], strict=True))
        case ["XINFO", "STREAM", *_] if isinstance(answer, list):
            pairs = zip(answer[::2], answer[1::2], strict=True)
            return [pair for pair in pairs if pair[0] not in _OF_A_TREE]
        case [name, *_] if name in _IN_NO_ORDER and isinstance(answer, list):
            return sorted(answer)
        case _:
            return _without_order(answer)
