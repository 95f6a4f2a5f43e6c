"""At the end of a run: was nobody refused for a limit that nobody had used up?"""

from collections.abc import Sequence

from engine.model.events import OpeningRefused, SessionOpened
from tests.simulated.oracles.stream_watcher import StreamWatcher, of_type
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.world.simulated_world import SimulatedWorld

TURN_US = 1_000_000
"""How long before its commit a turn may have looked at the permits."""

REFILLS_US = 62_000_000
"""In a minute there are permits for all new sessions of a minute again, and a turn takes a moment."""


class RefusedStartOracle:
    """Judges a channel that lets so many new sessions begin in a minute, by these people, who are all that it has. Set back, "a
    token bucket is no emptier than it can be": whoever looks first may find nothing in it, and a minute later it is full."""

    def __init__(
        self, world: SimulatedWorld, watcher: StreamWatcher, senders: Sequence[str], a_minute: int
    ) -> None:
        self._world = world
        self._watcher = watcher
        self._senders = senders
        self._a_minute = a_minute

    def judge(self) -> None:
        """Raise PromiseBroken for the first START that was refused for nothing."""
        records = [each for sender in self._senders for each in self._watcher.records(sender)]
        opened = [entry.at_us for _, entry in of_type(records, SessionOpened)]
        refused = [
            (start, entry.at_us)
            for start, entry in of_type(records, OpeningRefused)
            if start.reason == "new_sessions"
        ]
        looks = sorted([*opened, *(at_us for _, at_us in refused)])
        emptied = [
            (set_us, REFILLS_US + next((at_us for at_us in looks if at_us > set_us + TURN_US), set_us))
            for set_us in self._world.lanes.set_at_us
        ]
        for start, refused_us in refused:
            since_us = refused_us - REFILLS_US
            before = sum(since_us < at_us <= refused_us for at_us in opened)
            is_refilled = not any(set_us <= refused_us <= full_us for set_us, full_us in emptied)
            if is_refilled and before < self._a_minute:
                raise PromiseBroken(
                    "refused_for_a_reason",
                    f"{start.id} was refused, though only {before} sessions had begun in the minute before",
                )
