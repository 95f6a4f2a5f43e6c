"""How many tries may be under way on a channel? Each channel of a process has its own slots, so that a provider which
hangs takes none from another.

Threads are made as they are needed and kept. They are daemons: a request that outlasts everyone's patience does not keep
the process from ending.
"""

from collections.abc import Callable
from queue import SimpleQueue
from threading import Condition, Thread

from config.host import THIS_HOST, Host

SLOTS_PER_CHANNEL = 32
"""Tries under way at once on one channel, in one process."""

MIN_SLOT_WAIT_MS, MAX_SLOT_WAIT_MS = 50, 10_000
"""How soon, and how late, an SMS looks again for which there was no slot."""

ASSUMED_ATTEMPT_S = 0.1
"""How long a try is taken to last before one has ended."""


class ChannelBulkhead:
    """One channel's. `changed` is notified when one is free again, and guards them; all channels may share it.

    Only one thread may call `run_in_slot` and `slot_wait_ms`.
    """

    def __init__(
        self,
        channel: str,
        changed: Condition,
        most: int = SLOTS_PER_CHANNEL,
        host: Host = THIS_HOST,
    ) -> None:
        self._channel = channel
        self._changed = changed
        self._slot_count = most
        self._host = host
        self._begun_s: list[float] = []
        self._threads = 0
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._usual_s = ASSUMED_ATTEMPT_S
        self._next_s = 0.0

    @property
    def taken_slots(self) -> int:
        return len(self._begun_s)

    @property
    def free_slots(self) -> int:
        return self._slot_count - len(self._begun_s)

    def run_in_slot(self, begun_s: float, work: Callable[[], None]) -> None:
        """Do this in a slot, of which at least one must be free. It stays taken until `release_slot` is called with the same."""
        with self._changed:
            self._begun_s.append(begun_s)
            if self._threads < len(self._begun_s):
                self._threads += 1
                Thread(
                    target=self._work_forever, name=f"try {self._channel} {self._threads}", daemon=True
                ).start()
        self._work.put(work)

    def release_slot(self, begun_s: float) -> None:
        """Free the slot that was taken at `slot_taken_s`."""
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

    def _work_forever(self) -> None:
        while True:
            self._work.get()()
