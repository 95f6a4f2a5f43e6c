"""What is an entry of a stream called? A moment of Redis' clock, and a number within it. Ids are compared as pairs of
numbers, never as they are spelt: `9-0` is before `10-0`.
"""

from typing import NamedTuple, Self


class EntryId(NamedTuple):
    """The id of an entry of a stream: ms, and which of that ms."""

    ms: int
    seq: int

    @classmethod
    def parse(cls, written: bytes) -> Self:
        """Read an id as Redis answers it."""
        ms, _, seq = written.partition(b"-")
        return cls(int(ms), int(seq))

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"

    @property
    def following(self) -> "EntryId":
        """The smallest id after it."""
        return self._replace(seq=self.seq + 1)


BEGINNING = EntryId(0, 0)
"""Before every entry."""
