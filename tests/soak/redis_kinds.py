"""What the lanes of a soak may lie on."""

from typing import Literal, get_args

from tests.support.clusters import ValkeyCluster
from tests.support.replicated_valkey import ReplicatedValkey
from tests.support.stepped_clock import SteppedClock
from tests.support.valkey import Valkey

RedisKind = Literal["server", "replica", "cluster"]
REDIS_KINDS: tuple[RedisKind, ...] = get_args(RedisKind)
"""One server; one with a replica that takes its place when it is lost; three primaries with a replica each."""

SoakRedis = Valkey | ReplicatedValkey | ValkeyCluster


def redis_of(seed: int) -> RedisKind:
    """In the soak with this seed, unless it is said."""
    return REDIS_KINDS[seed // 2 % len(REDIS_KINDS)]


def make_redis(kind: RedisKind, clock: SteppedClock | None) -> SoakRedis:
    """Of a cluster, no clock can be stepped."""
    match kind:
        case "server":
            return Valkey(clock)
        case "replica":
            return ReplicatedValkey(clock)
        case "cluster":
            return ValkeyCluster()
