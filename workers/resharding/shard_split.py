"""Where does it go? A shard is split into several, of which it is the first: with `new` a multiple of `old`, whoever is in
shard k of `old` is in one of k, k + old, k + 2·old … of `new`.
"""

from typing import NamedTuple

from config.settings.settings import MAX_SHARDS
from config.store import keyspace
from engine.model.errors import ParleyError


class UnsplittableError(ParleyError):
    """The shards cannot be split into so many. `str` says why."""


class ShardSplit(NamedTuple):
    """`old` shards become `new` ones."""

    old: int
    new: int

    @property
    def factor(self) -> int:
        """How many shards one becomes."""
        return self.new // self.old

    def parts(self, k: int) -> range:
        """The shards that shard `k` becomes; itself is the first."""
        return range(k, self.new, self.old)

    def part_of(self, k: int, owner: str) -> int:
        """Which of its parts has what lies in shard `k` of `old` and is `owner`'s. What does not lie there by its owner stays."""
        return keyspace.shard_of(owner, self.new) if keyspace.shard_of(owner, self.old) == k else k


def require_split(old: int, new: int) -> ShardSplit:
    """Raise UnsplittableError unless `old` shards can become `new` ones."""
    if new % old or not old < new <= MAX_SHARDS:
        largest = ", ".join(str(old * 2**power) for power in range(1, 5) if old * 2**power <= MAX_SHARDS)
        why = "opt-outs are known by hashes, of which nobody knows where among fewer, or others, they belong"
        raise UnsplittableError(
            f"{old} shards cannot become {new}: expected a multiple of {old}, {MAX_SHARDS} at the most, "
            f"such as {largest or 'none'} ({why})"
        )
    return ShardSplit(old, new)
