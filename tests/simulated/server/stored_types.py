"""What lies at a key: bytes, a dict (hash), a list, a SortedSet or an EntryStream. Each but bytes has a `copy`, which an undo
keeps."""

from bisect import bisect_left, bisect_right, insort
from typing import Any

EntryNumber = tuple[int, int]
"""An id of a stream: ms, and a number within it."""

NO_ENTRY: EntryNumber = (0, 0)
LAST_NUMBER = (1 << 64) - 1


class SortedSet:
    """Members in the order of their scores, and of their bytes where those are equal."""

    __slots__ = ("order", "scores")

    def __init__(self) -> None:
        self.scores: dict[bytes, float] = {}
        self.order: list[tuple[float, bytes]] = []

    def __len__(self) -> int:
        return len(self.order)

    def copy(self) -> "SortedSet":
        same = SortedSet()
        same.scores, same.order = self.scores.copy(), self.order.copy()
        return same

    def put(self, member: bytes, score: float) -> None:
        self.discard(member)
        self.scores[member] = score
        insort(self.order, (score, member))

    def discard(self, member: bytes) -> bool:
        score = self.scores.pop(member, None)
        if score is None:
            return False
        del self.order[bisect_left(self.order, (score, member))]
        return True

    def rank(self, member: bytes) -> int | None:
        score = self.scores.get(member)
        return None if score is None else bisect_left(self.order, (score, member))

    def span(self, low: float, low_open: bool, high: float, high_open: bool) -> tuple[int, int]:
        """Where in `order` the scores of a range are: from, and up to."""
        at = bisect_right if low_open else bisect_left
        upto = bisect_left if high_open else bisect_right
        return at(self.order, low, key=_score), upto(self.order, high, key=_score)


def _score(pair: tuple[float, bytes]) -> float:
    return pair[0]


class EntryStream:
    """Entries by their ids, each with its fields as they are answered. `deletions` are those that XDEL took, which a server does
    not tell."""

    __slots__ = ("added", "deletions", "entries", "greatest_deleted", "last")

    def __init__(self) -> None:
        self.entries: list[tuple[EntryNumber, list[bytes]]] = []
        self.last = NO_ENTRY
        self.greatest_deleted = NO_ENTRY
        self.deletions = 0
        self.added = 0

    def __len__(self) -> int:
        return len(self.entries)

    def copy(self) -> "EntryStream":
        same = EntryStream()
        same.entries, same.last = self.entries.copy(), self.last
        same.greatest_deleted, same.added = self.greatest_deleted, self.added
        same.deletions = self.deletions
        return same

    def position(self, number: EntryNumber) -> int:
        """Where the first entry is that has this id, or a later one."""
        return bisect_left(self.entries, number, key=_number)

    def append(self, number: EntryNumber, fields: list[bytes]) -> None:
        self.entries.append((number, fields))
        self.last = number
        self.added += 1


def _number(entry: tuple[EntryNumber, Any]) -> EntryNumber:
    return entry[0]


def copied(value: Any) -> Any:
    """Return what a change of `value` in its place leaves alone."""
    return value if value is None or type(value) is bytes else value.copy()
