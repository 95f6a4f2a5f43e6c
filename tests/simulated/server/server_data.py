"""The keys of a server, what they were before the call under way, and when they end."""

from collections.abc import Iterator
from typing import Any, TypeVar

from tests.simulated.server.stored_types import copied
from tests.simulated.server.wire_words import WRONG_TYPE, ServerError

Before = dict[bytes, tuple[Any, int | None]]
"""What keys had before a call changed them, and when that would have ended (ms)."""

NEVER = 1 << 63

T = TypeVar("T")


class ServerData:
    """Whoever changes the value of a key in its place calls `touch` before, as `own` does."""

    def __init__(self) -> None:
        self.values: dict[bytes, Any] = {}
        self.ends: dict[bytes, int] = {}
        self.now_us = 0
        self.now_ms = 0
        self.before: Before = {}
        self._soonest = NEVER

    def set_clock(self, now_us: int) -> None:
        """What has ended by then goes: Redis would do so soon, looked at or not, and it does not come back if the clock is
        set back later."""
        self.now_us = now_us
        self.now_ms = now = now_us // 1000
        if now > self._soonest:
            for key in [key for key, end in self.ends.items() if end < now]:
                del self.values[key], self.ends[key]
            self._soonest = min(self.ends.values(), default=NEVER)

    def living(self, now_ms: int) -> Iterator[tuple[bytes, Any, int | None]]:
        """Keys, values and ends (ms)."""
        for key, value in self.values.items():
            end = self.ends.get(key)
            if end is None or end >= now_ms:
                yield key, value, end

    def touch(self, key: bytes) -> None:
        if key not in self.before:
            self.before[key] = copied(self.values.get(key)), self.ends.get(key)

    def take_back(self, before: Before) -> None:
        for key, (value, end) in before.items():
            self.ends.pop(key, None)
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value
                if end is not None:
                    self.ends[key] = end
                    self._soonest = min(self._soonest, end)

    def read(self, key: bytes, kind: type[T]) -> T | None:
        """Return what is there. Raises ServerError if it is of another kind."""
        value = self.values.get(key)
        if value is not None and type(value) is not kind:
            raise ServerError(WRONG_TYPE)
        return value

    def own(self, key: bytes, kind: type[T]) -> T:
        """Return what is there to be changed in its place: a new one if there is none."""
        value = self.read(key, kind)
        self.touch(key)
        if value is None:
            value = self.values[key] = kind()
        return value

    def store(self, key: bytes, value: Any) -> None:
        """Put something else there, without an end."""
        self.touch(key)
        self.values[key] = value
        self.ends.pop(key, None)

    def keep(self, key: bytes, value: Any) -> None:
        """Put something else there, which ends when that would have ended that was there."""
        self.touch(key)
        self.values[key] = value

    def end_at(self, key: bytes, end: int) -> None:
        """Have a key end at `end` (ms), which may have passed."""
        self.touch(key)
        if end <= self.now_ms:
            self.remove(key)
        else:
            self.ends[key] = end
            self._soonest = min(self._soonest, end)

    def end_never(self, key: bytes) -> None:
        self.touch(key)
        del self.ends[key]

    def remove(self, key: bytes) -> bool:
        if key not in self.values:
            return False
        self.touch(key)
        del self.values[key]
        self.ends.pop(key, None)
        return True

    def remove_if_empty(self, key: bytes, value: Any) -> None:
        if not value:
            self.remove(key)
