"""How many sessions are open, on which version of which survey, and where do they wait? Counted lane by lane: nothing
else knows for certain."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import redis

from config.store import keyspace, stored_values
from engine.model import lane as lane_format
from engine.model.lane import Lane, UnreadableLane

PAGE = 1_000


class Place(NamedTuple):
    """Where a session waits. `step` is an index into the steps of the version."""

    survey: str
    version: str
    step: int


class Census(msgspec.Struct):
    """Open sessions by place. `unreadable` lanes may have some more."""

    open: Counter[Place]
    unreadable: int = 0

    def versions(self) -> Counter[str]:
        """Open sessions by version."""
        found: Counter[str] = Counter()
        for place, count in self.open.items():
            found[place.version] += count
        return found


def census(client: redis.Redis) -> Census:
    """Every open session that was there before this began, and is still."""
    found = Census(Counter())
    for state in _states(client):
        try:
            found.open.update(_places(lane_format.decode(state)))
        except UnreadableLane:
            found.unreadable += 1
    return found


def _places(lane: Lane) -> Iterator[Place]:
    for line in lane.lines.values():
        if (session := line.session) is not None:
            yield Place(session.survey, session.version, session.step)


def _states(client: redis.Redis) -> Iterator[bytes]:
    """Each lane's state once, though SCAN may name a lane twice."""
    names = list(set(client.scan_iter(keyspace.lane_pattern(), count=PAGE)))
    for at in range(0, len(names), PAGE):
        for stored in keyspace.run(client, [("GET", name) for name in names[at : at + PAGE]]):
            if stored:
                yield stored_values.state_in(stored)
