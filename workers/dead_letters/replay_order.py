"""Whose dead letter is replayed next, and when? One of a person at a time, oldest first, and so many a second."""

from collections import deque
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from itertools import islice

import msgspec

from config.host import THIS_HOST, Host

BUSY_WAITS_S = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 3.2)
"""How long a letter that is held up is left alone, again and again: together longer than a lease and a tick."""


class LetterReference(msgspec.Struct, frozen=True):
    """A letter that is to be replayed, by what is needed to find it again."""

    id: str
    sender: str
    reason: str = ""


class ReplayQueue:
    """The letters to replay, one of a sender at a time, oldest first. A sender whose letter is held up rests before
    the next try."""

    def __init__(self, chosen: Sequence[LetterReference], host: Host = THIS_HOST) -> None:
        self._host = host
        self._waiting: dict[str, deque[LetterReference]] = {}
        for each in chosen:
            self._waiting.setdefault(each.sender, deque()).append(each)
        self._ready = deque(self._waiting)
        self._resting: list[tuple[float, str]] = []
        self._put_off: dict[str, int] = {}

    def next_batch(self, most: int) -> list[LetterReference] | None:
        """The oldest letters of at most so many people whose turn it is; None if nobody is left."""
        if not self._ready and self._resting:
            self._host.sleep(max(0.0, self._resting[0][0] - self._host.monotonic_s()))
        while self._resting and self._resting[0][0] <= self._host.monotonic_s():
            self._ready.append(heappop(self._resting)[1])
        if not self._ready:
            return [] if self._resting else None
        return [self._waiting[self._ready.popleft()][0] for _ in range(min(most, len(self._ready)))]

    def mark_done(self, each: LetterReference) -> None:
        """Remove the sender's oldest letter; the next one, if any, becomes ready."""
        line = self._waiting[each.sender]
        line.popleft()
        self._put_off.pop(each.sender, None)
        if line:
            self._ready.append(each.sender)

    def put_off(self, each: LetterReference) -> bool:
        """Try it again a little later; False if it has been often enough."""
        times = self._put_off.get(each.sender, 0)
        if times == len(BUSY_WAITS_S):
            return False
        self._put_off[each.sender] = times + 1
        heappush(self._resting, (self._host.monotonic_s() + BUSY_WAITS_S[times], each.sender))
        return True

    def later_letters(self, each: LetterReference) -> Iterator[LetterReference]:
        """The person's later letters, which are not tried."""
        return islice(self._waiting[each.sender], 1, None)


class ReplayPacer:
    """So many letters a second, of which at most a second's are made up for; 0: as many as there are."""

    def __init__(self, rate: float, host: Host = THIS_HOST) -> None:
        self._host = host
        self._rate = rate
        self._next_s = self._host.monotonic_s()

    def wait_for_permits(self, most: int) -> int:
        """How many may be tried now: at least one, which is waited for."""
        if not self._rate:
            return most
        self._host.sleep(max(0.0, self._next_s - self._host.monotonic_s()))
        self._next_s = max(self._next_s, self._host.monotonic_s() - 1.0)
        return min(most, int((self._host.monotonic_s() - self._next_s) * self._rate) + 1)

    def count_tried(self, tried: int) -> None:
        if self._rate:
            self._next_s += tried / self._rate
