"""What is said of Redis servers that do not keep what the deployment is configured to promise: for `parley status` and `parley
check`. No I/O.
"""

from collections.abc import Collection, Iterator, Sequence

from config.telemetry.process_registry import CLOCK_TOLERANCE_MS
from config.telemetry.redis_stats import RedisStats
from config.telemetry.server_stats import FULL_COVERAGE, NEEDED_RELEASE, NodeStats, ServerStats
from engine.model.durations import format_duration
from engine.model.plurals import pluralize

MOST_NAMED = 8
"""Shards, or servers, that a sentence names."""

ALL_SLOTS = 16_384


def cluster_problems(found: RedisStats) -> Iterator[str]:
    """What is wrong with a cluster, worst first; nothing of one server."""
    for which, server in (("lanes", found.lanes), ("wake-ups", found.broker)):
        yield from away_problems(which, server)
    if found.unread:
        yield f"not known, as it lies on such a server: {', '.join(found.unread)}"
    for which, server in (("lanes", found.lanes), ("wake-ups", found.broker)):
        yield from coverage_problems(which, server)
        yield from _clock_problems(which, server)


def away_problems(which: str, server: ServerStats) -> Iterator[str]:
    """Slots without a server that answers."""
    if not server.uncovered:
        return
    away = [f"{node.address} ({node.why})" for node in server.nodes if not node.up]
    said = f": {_named(away)}" if away else ""
    shards = server.away_shards
    what = f"what is in {_shards_clause(shards)}" if shards else "what is there"
    yield (
        f"{server.uncovered} of {ALL_SLOTS} slots of the Redis cluster of the {which} have no server that "
        f"answers{said}: {what} waits until one has them"
    )


def coverage_problems(which: str, server: ServerStats) -> Iterator[str]:
    """Servers that answer nobody once any slot has none."""
    if strict := [node.address for node in server.nodes if node.needs_all_slots]:
        yield (
            f"if one server of the Redis cluster of the {which} is lost, none answers any more: "
            f"{FULL_COVERAGE} is 'yes' at {_named(strict)}; set it to no (CONFIG SET {FULL_COVERAGE} no "
            "there, and in its file)"
        )


def missing_replica_problems(found: RedisStats) -> Iterator[str]:
    """Fewer replicas than are to have what is acknowledged."""
    lanes = found.lanes
    if not lanes.up or lanes.replicas >= found.replicas_wanted:
        return
    there = pluralize(lanes.replicas, "replica follows", "replicas follow")
    if not lanes.nodes:
        yield (
            f"{there} the Redis of the lanes, and PARLEY_REPLICAS is {found.replicas_wanted}: nothing is "
            "accepted but what the spool takes, and no SMS leaves"
        )
        return
    lacking = [node for node in lanes.nodes if node.up and node.replicas < found.replicas_wanted]
    shards = sorted(k for node in lacking for k in node.shards)
    yield (
        f"{there} {_named([node.address for node in lacking])} of the Redis cluster of the lanes, and "
        f"PARLEY_REPLICAS is {found.replicas_wanted}: for {_shards_clause(shards)} nothing is accepted but "
        "what the spool takes, and no SMS leaves"
    )


def cluster_notes(found: RedisStats) -> Iterator[str]:
    """What a cluster does not promise, though nobody has asked for it."""
    lanes = found.lanes
    bare = [node.address for node in lanes.nodes if node.up and not node.replicas]
    if bare and not found.replicas_wanted:
        yield (
            f"{_named(bare)} of the Redis cluster of the lanes has no replica: if it is lost, what it has "
            "is, and its shards wait until it is back"
        )


def release_problems(old_releases: Sequence[str]) -> Iterator[str]:
    """Servers that are too old, each with its release."""
    if old_releases:
        needed = ".".join(map(str, NEEDED_RELEASE))
        yield (
            f"the Redis of the lanes is too old ({_named(old_releases)}): expected Redis {needed} or Valkey "
            "8, or later"
        )


def _clock_problems(which: str, server: ServerStats) -> Iterator[str]:
    """Servers of one cluster whose clocks are apart."""
    if not (told := [node for node in server.nodes if node.now]):
        return
    first, last = min(told, key=_time_of), max(told, key=_time_of)
    if last.now - first.now > CLOCK_TOLERANCE_MS:
        yield (
            f"the clocks of servers of the Redis cluster of the {which} are apart: that of {last.address} is "
            f"{format_duration(last.now - first.now)} ahead of that of {first.address}, and one of them is "
            "wrong"
        )


def _time_of(node: NodeStats) -> int:
    return node.now


def _shards_clause(shards: Sequence[int]) -> str:
    return f"shard {shards[0]}" if len(shards) == 1 else f"shards {_named([str(k) for k in shards])}"


def _named(names: Collection[str]) -> str:
    """A list of them, with those that are one too many counted."""
    first = [*names][:MOST_NAMED]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(first)}{more}"
