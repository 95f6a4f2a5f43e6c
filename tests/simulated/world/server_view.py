"""What lies on a simulated server, as who looks on sees it without asking it anything."""

from collections.abc import Mapping, Sequence

from tests.simulated.server.server_model import ServerModel


class ServerView:
    def __init__(self, model: ServerModel) -> None:
        self._values = model.values

    def exists(self, key: str) -> bool:
        return key.encode() in self._values

    def string(self, key: str) -> bytes | None:
        found: bytes | None = self._values.get(key.encode())
        return found

    def items(self, key: str) -> Sequence[bytes]:
        """The items of a list."""
        found: Sequence[bytes] = self._values.get(key.encode(), ())
        return found

    def hash_fields(self, key: str) -> Mapping[bytes, bytes]:
        """The fields of a hash."""
        found: Mapping[bytes, bytes] = self._values.get(key.encode(), {})
        return found

    def score(self, key: str, member: str) -> float | None:
        """The score of a member of a sorted set."""
        found = self._values.get(key.encode())
        score: float | None = None if found is None else found.scores.get(member.encode())
        return score

    def lowest_score(self, key: str) -> float | None:
        """The lowest score of a sorted set."""
        found = self._values.get(key.encode())
        return found.order[0][0] if found else None

    def last_entry(self, key: str) -> tuple[int, int] | None:
        """The id of the last entry of a stream, be it there still or not."""
        found = self._values.get(key.encode())
        last: tuple[int, int] | None = None if found is None else found.last
        return last

    def first_entry(self, key: str) -> tuple[int, int] | None:
        """The id of the first entry that is in a stream."""
        found = self._values.get(key.encode())
        first: tuple[int, int] | None = found.entries[0][0] if found is not None and found.entries else None
        return first

    def has_entry(self, key: str, entry: tuple[int, int]) -> bool:
        """Whether an entry is in a stream."""
        found = self._values.get(key.encode())
        if found is None:
            return False
        at = found.position(entry)
        return at < len(found) and found.entries[at][0] == entry

    def fields(self, key: str) -> dict[bytes, bytes]:
        """What is in a hash."""
        return dict(self._values.get(key.encode(), {}))
