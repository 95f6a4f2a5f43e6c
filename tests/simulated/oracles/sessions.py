"""At the end of a run: did every session end, when its time had come, and not because a clock was wrong?"""

from collections.abc import Sequence

from engine.model.events import SessionEnded, SessionOpened, SmsReceived
from tests.simulated.oracles.stream_watcher import SeenRecord, StreamWatcher, of_type
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.world.simulated_world import SimulatedWorld

TOLERANCE_US = 32_000_000
"""By how much the server's clock may be wrong while deadlines go by it."""


class SessionOracle:
    """Judges the sessions of these people, of surveys whose sessions are over after so many us of silence. Where nothing waits any
    more, none is open.

    "What a worker that started meanwhile has decided goes by the server's clock, and comes early or late once that is set right":
    early only if the server's was behind then."""

    def __init__(
        self, world: SimulatedWorld, watcher: StreamWatcher, senders: Sequence[str], idle_us: int
    ) -> None:
        self._world = world
        self._watcher = watcher
        self._senders = senders
        self._idle_us = idle_us

    def judge(self) -> None:
        for sender in self._senders:
            records = self._watcher.records(sender)
            self._judge_open(sender, records)
            if not (self._world.began_while_clock_was_wrong and self._world.clock_was_behind):
                self._judge_idle(sender, records)

    @staticmethod
    def _judge_open(sender: str, records: Sequence[SeenRecord]) -> None:
        ended = {record.session for record, _ in of_type(records, SessionEnded)}
        for record, _ in of_type(records, SessionOpened):
            if record.session not in ended:
                raise PromiseBroken("sessions_end", f"nothing says how {record.session} of {sender} ended")

    def _judge_idle(self, sender: str, records: Sequence[SeenRecord]) -> None:
        accepted_us: dict[str, int] = {}
        for each in self._world.ledger.acceptances:
            accepted_us.setdefault(each.event.id, each.at_us)
        heard_us = {
            record.session: min(accepted_us.get(record.id, entry.at_us), entry.at_us)
            for record, entry in of_type(records, SmsReceived)
        }
        for record, entry in of_type(records, SessionEnded):
            silent_us = entry.at_us - heard_us.get(record.session, 0)
            if record.how == "idle" and silent_us < self._idle_us - TOLERANCE_US:
                raise PromiseBroken(
                    "ends_in_time",
                    f"{record.session} of {sender} ended after {silent_us // 1_000_000} s of silence",
                )
