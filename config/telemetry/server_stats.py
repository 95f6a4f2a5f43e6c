"""How does each Redis server do: does it answer, how full is it, how many replicas follow it? Of a cluster, of each primary; and
what they say together: which slots no server answers for, and which server has which shard."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import redis

from config.connections.cluster_client import ClusterClient
from config.connections.cluster_routing import SlotTable, slot_of_key
from config.connections.cluster_view import cluster_facts
from config.connections.watched_servers import Address
from config.store import keyspace, redis_client
from config.store.function_calls import Command

NEEDED_RELEASE = (7, 2)
"""As Redis counts; a Valkey says by which Redis it is to be taken."""

FULL_COVERAGE = "cluster-require-full-coverage"

SERVER_COMMANDS: tuple[Command, ...] = (("TIME",), ("INFO", "memory"), ("INFO", "replication"))
"""Ask a server for what `server_stats` reads."""

_NODE_COMMANDS: tuple[Command, ...] = (
    *SERVER_COMMANDS,
    ("INFO", "server"),
    ("CLUSTER", "INFO"),
    ("CONFIG", "GET", FULL_COVERAGE),
)


class NodeStats(msgspec.Struct, frozen=True, kw_only=True):
    """A primary of a cluster: `slots` that it has, and `shards` in them. `why` it does not answer, or answers nobody. Times, memory
    and `replicas` as in ServerStats. `release` is as Redis counts; empty if it does not tell. `needs_all_slots`: it answers nobody
    while any slot has no server (cluster-require-full-coverage); None if it does not tell."""

    address: str
    slots: int
    shards: Sequence[int] = ()
    up: bool
    why: str = ""
    now: int = 0
    memory: int = 0
    most_memory: int = 0
    replicas: int = 0
    release: str = ""
    needs_all_slots: bool | None = None

    @property
    def fullness(self) -> tuple[float, int]:
        """Of two servers that with the greater one is fuller."""
        return (self.memory / self.most_memory if self.most_memory else 0.0, self.memory)


class ServerStats(msgspec.Struct, frozen=True, kw_only=True):
    """`why` it does not answer, or refuses us (`is_refusing`). `now` is its time (ms), `most_memory` 0 without a limit; both in bytes. `replicas` follow it,
    and are not behind by more than what is under way. Of a cluster: its `nodes`; it is up if one of them is; memory is the
    fullest one's, `replicas` are the fewest that one has; `uncovered` slots have no server that answers."""

    up: bool
    why: str = ""
    is_refusing: bool = False
    now: int = 0
    memory: int = 0
    most_memory: int = 0
    replicas: int = 0
    nodes: Sequence[NodeStats] = ()
    uncovered: int = 0

    def now_of_shard(self, k: int) -> int:
        """The time of the server that has this shard."""
        return next((node.now for node in self.nodes if node.now and k in node.shards), self.now)

    @property
    def away_shards(self) -> list[int]:
        """Shards whose server does not answer."""
        return sorted(k for node in self.nodes if not node.up for k in node.shards)


def server_stats(answers: Iterator[Any]) -> ServerStats:
    """Take the answers to SERVER_COMMANDS."""
    now = redis_client.time_reply_ms(next(answers))
    known = _shown_fields(next(answers))
    replication = _shown_fields(next(answers))
    return ServerStats(
        up=True,
        now=now,
        memory=int(known.get("used_memory", 0)),
        most_memory=int(known.get("maxmemory", 0)),
        replicas=count_replicas(replication),
    )


def read_cluster(client: redis.Redis, shards: int = 0) -> ServerStats | None:
    """Read a cluster, whose lanes are divided into so many shards; None of one server. Raises redis.RedisError if none of its
    servers answers."""
    if not isinstance(client, ClusterClient):
        return None
    table, told = client.ask_primaries(_NODE_COMMANDS)
    nodes = [
        _node_stats(address, table, shards_on, told[address])
        for address, shards_on in _shards_by_server(table, told, shards).items()
    ]
    up = [node for node in nodes if node.up]
    if not up:
        raise next(each for each in told.values() if isinstance(each, Exception))
    fullest = max(up, key=lambda node: node.fullness)
    return ServerStats(
        up=True,
        now=max(node.now for node in up),
        memory=fullest.memory,
        most_memory=fullest.most_memory,
        replicas=min(node.replicas for node in up),
        nodes=nodes,
        uncovered=table.uncovered() + sum(node.slots for node in nodes if not node.up),
    )


def count_replicas(replication: Mapping[str, Any]) -> int:
    """Return how many replicas follow the server, of what it answers to INFO replication."""
    return sum(isinstance(each, Mapping) and each.get("state") == "online" for each in replication.values())


def is_too_old(release: str) -> bool:
    """Whether a server of this release lacks what we need; not if it does not tell."""
    numbers = [int(part) for part in release.split(".") if part.isdigit()]
    return bool(numbers) and tuple(numbers) < NEEDED_RELEASE


def find_old_releases(client: redis.Redis) -> list[str]:
    """Return the releases of servers that are too old, each with where it is in a cluster. Raises redis.RedisError."""
    found = []
    for address, (told,) in redis_client.ask_each(client, [("INFO", "server")]).items():
        release = str(_shown_fields(told).get("redis_version", ""))
        if is_too_old(release):
            found.append(f"{release} at {address}" if address else release)
    return found


def _shards_by_server(table: SlotTable, told: Mapping[Address, Any], shards: int) -> dict[Address, list[int]]:
    found: dict[Address, list[int]] = {address: [] for address in told}
    for k in range(shards):
        owner = table.owner(slot_of_key(keyspace.server_key(k)))
        if owner in found:
            found[owner].append(k)
    return found


def _node_stats(
    address: Address, table: SlotTable, shards: Sequence[int], told: list[Any] | Exception
) -> NodeStats:
    away = NodeStats(
        address=f"{address[0]}:{address[1]}",
        slots=table.slots_by_primary().get(address, 0),
        shards=shards,
        up=False,
    )
    error = told if isinstance(told, Exception) else told[0]
    if isinstance(told, Exception) or isinstance(error, Exception):
        return msgspec.structs.replace(away, why=_shown_error(error))
    time, memory, replication, server, info, config = told
    stats = server_stats(iter((time, memory, replication)))
    is_working = isinstance(info, Exception) or cluster_facts(info).get("cluster_state") == "ok"
    return msgspec.structs.replace(
        away,
        up=is_working,
        why=""
        if is_working
        else "it answers nobody: it is cut off from most others, or slots have no server",
        now=stats.now,
        memory=stats.memory,
        most_memory=stats.most_memory,
        replicas=stats.replicas,
        release=str(_shown_fields(server).get("redis_version", "")),
        needs_all_slots=_is_yes(config),
    )


def _is_yes(config: Any) -> bool | None:
    """Read the answer to CONFIG GET of one setting."""
    if isinstance(config, Exception) or not config:
        return None
    return bool(config[1] == b"yes")


def _shown_fields(info: Any) -> Mapping[str, Any]:
    """What INFO answers; nothing of a server that does not tell."""
    return info if isinstance(info, Mapping) else {}


def _shown_error(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__
