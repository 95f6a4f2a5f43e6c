"""How many tries may be under way on a channel? Each channel of a process has its own slots, so that a provider which
hangs takes none from another.

The tries of a channel share an event loop in a thread of their own, so that what holds that up holds up no other channel either.
"""

from collections.abc import Sequence
from threading import Condition

from config.host import THIS_HOST, Host
from config.telemetry.supervision import LoopRounds
from workers.sending.loop_thread import AsyncWork, LoopThread

SLOTS_PER_CHANNEL = 32
"""Tries under way at once on one channel, in one process."""

MIN_SLOT_WAIT_MS, MAX_SLOT_WAIT_MS = 50, 10_000
"""How soon, and how late, an SMS looks again for which there was no slot."""

ASSUMED_ATTEMPT_S = 0.1
"""How long a try is taken to last before one has ended."""


class ChannelBulkhead:
    """One channel's. `changed` is notified when one is free again, and guards them; all channels may share it. Its loop is one of `rounds`.

    Only one thread may call `run_in_slots` and `slot_wait_ms`.
    """

    def __init__(
        self,
        channel: str,
        changed: Condition,
        rounds: LoopRounds,
        most: int = SLOTS_PER_CHANNEL,
        host: Host = THIS_HOST,
    ) -> None:
        self._changed = changed
        self._slot_count = most
        self._host = host
        self._begun_s: list[float] = []
        loop = f"tries {channel}"
        self._tries = LoopThread(loop, rounds.count_loop(loop))
        self._usual_s = ASSUMED_ATTEMPT_S
        self._next_s = 0.0

    @property
    def taken_slots(self) -> int:
        return len(self._begun_s)

    @property
    def free_slots(self) -> int:
        return self._slot_count - len(self._begun_s)

    def run_in_slots(self, begun_s: float, works: Sequence[AsyncWork]) -> None:
        """Do these in a slot each, of which so many must be free. Each stays taken until `release_slot` is called with the same."""
        with self._changed:
            self._begun_s += [begun_s] * len(works)
        self._tries.begin(works)

    def release_slot(self, begun_s: float) -> None:
        """Free a slot that was taken at `begun_s`."""
        with self._changed:
            self._begun_s.remove(begun_s)
            self._usual_s += (self._host.monotonic_s() - begun_s - self._usual_s) / 8
            self._changed.notify_all()

    def slot_wait_ms(self) -> int:
        """In how many ms one more SMS should look for a slot. Each that asks has its turn behind those before it, as fast
        as tries end: so a long queue looks seldom."""
        now = self._host.monotonic_s()
        with self._changed:
            longest_s = now - self._begun_s[0] if self._begun_s else 0.0
            self._next_s = max(self._next_s, now) + max(self._usual_s, longest_s) / self._slot_count
            return round(min(MAX_SLOT_WAIT_MS, max(MIN_SLOT_WAIT_MS, (self._next_s - now) * 1000)))

    def close(self) -> None:
        """Leave what is under way."""
        self._tries.close()
