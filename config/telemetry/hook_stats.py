"""How is each endpoint of hooks: does a process have it, may it be called, and how far behind is it? As Redis alone has it.

It is asked in the two round trips of redis_stats.py: first what is known of each endpoint, then, of the shards whose streams
have gone on since its position, the first entry that it has not got. Of an endpoint MAX_SHARDS_ASKED shards are asked at the
most, of all together MAX_ENTRIES_READ, those that it is furthest behind in; of the others it is known from the first trip how
old their last entry is, which is as much as the lag is at least. Endpoints that are as far as each other ask once.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, Self

import msgspec

from config.store import keyspace
from config.store.channel_readings import ActivePause, parse_pause
from config.store.endpoint_health import EndpointHealth, decode_circuit
from config.store.entry_id import EntryId
from config.store.function_calls import Command
from config.store.pauses import StoredPause
from config.store.stored_values import parse_lock

MAX_SHARDS_ASKED, MAX_ENTRIES_READ = 64, 2_048
"""Streams that are asked for an endpoint, and entries that are read in one reading, of all endpoints together."""


class HookStats(msgspec.Struct, frozen=True, kw_only=True):
    """`owner` is the process that has the endpoint, empty if none has. `lag_ms` is the age of the oldest entry of the event
    streams that it has not got, at the least: what has left them meanwhile is as old as what followed. `is_begun`: it
    has a position. `pause_left_ms` is 0 for a pause without end."""

    owner: str = ""
    is_begun: bool = False
    lag_ms: int = 0
    pause: StoredPause | None = None
    pause_left_ms: int = 0
    circuit: EndpointHealth = EndpointHealth()


class StreamEnd(NamedTuple):
    """The last id that a stream has given out, as it is written and read. `is_deleted`: that entry was deleted by itself, as
    of a person who is erased, and not trimmed."""

    written: bytes
    last: EntryId
    is_deleted: bool

    @classmethod
    def from_fields(cls, shown: Mapping[bytes, Any]) -> Self:
        """Of what XINFO STREAM answers, by name."""
        written = shown.get(b"last-generated-id", b"0-0")
        last = EntryId.parse(written)
        return cls(written, last, EntryId.parse(shown.get(b"max-deleted-entry-id", b"0-0")) >= last)


def reading_commands(hook: str) -> tuple[Command, ...]:
    """Ask for what `HookFirstTrip.from_answers` reads."""
    pause = keyspace.hook_pause_key(hook)
    return (
        ("HGETALL", keyspace.hook_positions_key(hook)),
        ("GET", keyspace.hook_lease_key(hook)),
        ("GET", keyspace.hook_circuit_key(hook)),
        ("GET", pause),
        ("PTTL", pause),
    )


class HookFirstTrip(msgspec.Struct, frozen=True):
    """What is known of an endpoint, as it was stored."""

    positions: Mapping[bytes, bytes]
    lease: bytes | None
    circuit: bytes | None
    pause: ActivePause | None

    @classmethod
    def from_answers(cls, answers: Iterator[Any]) -> Self:
        """Take the answers to `reading_commands`."""
        return cls(next(answers), next(answers), next(answers), parse_pause(next(answers), next(answers)))

    def find_behind(self, ends: Sequence[StreamEnd]) -> list[tuple[EntryId, int]]:
        """The shards whose streams have gone on since, each with the position in it; the oldest positions first."""
        found = []
        for k, end in enumerate(ends):
            stored = self.positions.get(b"%d" % k, end.written)
            if stored != end.written and (at := EntryId.parse(stored)) < end.last:
                found.append((at, k))
        return sorted(found)

    def hook_stats(self, now: int, lag_ms: int) -> HookStats:
        lease = parse_lock(self.lease) if self.lease else None
        return HookStats(
            owner=lease.owner.partition(";")[0] if lease and lease.until > now else "",
            is_begun=bool(self.positions),
            lag_ms=lag_ms,
            pause=self.pause.pause if self.pause else None,
            pause_left_ms=self.pause.left_ms or 0 if self.pause else 0,
            circuit=decode_circuit(self.circuit or b""),
        )


class LagQuestions:
    """Which first entries are asked for in the second trip, for all endpoints of a deployment."""

    def __init__(self, firsts: Mapping[str, HookFirstTrip], ends: Sequence[StreamEnd]) -> None:
        self._ends = ends
        self._behind = {name: first.find_behind(ends) for name, first in firsts.items()}
        late = sum(map(bool, self._behind.values()))
        most = min(MAX_SHARDS_ASKED, max(1, MAX_ENTRIES_READ // max(1, late)))
        asked = dict.fromkeys(place for places in self._behind.values() for place in places[:most])
        self._asked = list(islice(asked, MAX_ENTRIES_READ))

    def commands(self) -> Iterator[Command]:
        for at, k in self._asked:
            yield ("XRANGE", keyspace.events_key(k), f"({at}", "+", "COUNT", 1)

    def lags_ms(self, now: int, answers: Iterator[Any]) -> dict[str, int]:
        """Take the answers to `commands`: the lag of each endpoint, at `now` (ms)."""
        at_least = [0 if end.is_deleted else max(0, now - end.last.ms) for end in self._ends]
        asked = {}
        for at, k in self._asked:
            first = next(answers)
            asked[at, k] = max(0, now - EntryId.parse(first[0][0]).ms) if first else at_least[k]
        return {
            name: max((asked.get((at, k), at_least[k]) for at, k in behind), default=0)
            for name, behind in self._behind.items()
        }
