"""After each call: has nobody taken a lane whose holder's lease lasts? "The lane's lock" (workers/README.md) has no such change:
a lane that is held becomes another's once it was committed, or once time has ended the lease."""

from collections.abc import Iterable

from config.store import keyspace
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.world.simulated_world import SimulatedWorld


class LaneLeaseOracle:
    """Looks at the locks of these people's lanes."""

    def __init__(self, world: SimulatedWorld, senders: Iterable[str]) -> None:
        self._world = world
        shards = world.settings.shards
        self._keys = {
            sender: keyspace.lane_lock_key(keyspace.shard_of(sender, shards), sender) for sender in senders
        }
        self._leases = dict.fromkeys(self._keys, (0, 0))
        """By sender, the fencing token and the end (ms); zeros if there is no lock."""
        self._version = (-1, 0)
        world.scheduler.observers.append(self.look)

    def look(self) -> None:
        server = self._world.lanes
        if server.version == self._version:
            return
        has_lost_some = server.losses != self._version[1]
        self._version = server.version
        for sender, key in self._keys.items():
            (fence, ends_ms), self._leases[sender] = self._leases[sender], self._lease(key)
            taker = self._leases[sender][0]
            if fence and taker not in (0, fence) and ends_ms > server.now_ms and not has_lost_some:
                raise PromiseBroken(
                    "one_holder",
                    f"the lane of {sender} was taken {ends_ms - server.now_ms} ms before its holder's lease ended",
                )

    def _lease(self, key: str) -> tuple[int, int]:
        stored = self._world.lanes.view.string(key)
        if not stored:
            return 0, 0
        fence, ends_ms, _ = stored.split(b" ", 2)
        return int(fence), int(ends_ms)
