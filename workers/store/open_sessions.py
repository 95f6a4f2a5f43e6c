"""How many sessions are open, on which version of which survey, and where do they wait? Counted lane by lane: nothing
else knows for certain."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import redis

from config.store import keyspace, redis_client, stored_values
from engine.model import lane as lane_format
from engine.model.lane import Lane, UnreadableLaneError

LANE_SCAN_COUNT = 1_000


class SessionPosition(NamedTuple):
    """Where a session waits. `step` is an index into the steps of the version."""

    survey: str
    version: str
    step: int


class OpenSessions(msgspec.Struct):
    """Open sessions by place. `unreadable` lanes may have some more."""

    by_position: Counter[SessionPosition]
    unreadable: int = 0

    def count_by_version(self) -> Counter[str]:
        """Open sessions by version."""
        found: Counter[str] = Counter()
        for place, count in self.by_position.items():
            found[place.version] += count
        return found


def count_open_sessions(client: redis.Redis) -> OpenSessions:
    """Every open session that was there before this began, and is still."""
    found = OpenSessions(Counter())
    for state in _scan_lane_states(client):
        try:
            found.by_position.update(_session_positions(lane_format.decode_lane(state)))
        except UnreadableLaneError:
            found.unreadable += 1
    return found


def _session_positions(lane: Lane) -> Iterator[SessionPosition]:
    for line in lane.lines.values():
        if (session := line.session) is not None:
            yield SessionPosition(session.survey, session.version, session.step)


def _scan_lane_states(client: redis.Redis) -> Iterator[bytes]:
    """Each lane's state once, though SCAN may name a lane twice."""
    names = list(set(client.scan_iter(keyspace.lane_key_pattern(), count=LANE_SCAN_COUNT)))
    for at in range(0, len(names), LANE_SCAN_COUNT):
        for stored in redis_client.run_commands(
            client, [("GET", name) for name in names[at : at + LANE_SCAN_COUNT]]
        ):
            if stored:
                yield stored_values.lane_state(stored)
