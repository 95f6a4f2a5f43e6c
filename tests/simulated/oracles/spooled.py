"""At the end of a run: was what `web` spooled handed over whole, and applied at the time at which it was acknowledged?"""

from collections.abc import Iterable, Sequence

from engine.model.events import InboundSms, SmsReceived
from tests.simulated.actors.web import SpoolDisk
from tests.simulated.oracles.delays import lasts_ms
from tests.simulated.oracles.stream_watcher import StreamWatcher, of_type
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.world.faults import Fault
from tests.simulated.world.simulated_world import SimulatedWorld

TOLERANCE_US = 3_000_000
"""How much later an event may seem to have come, where nothing is late: it is as old as it was when its hand-over began."""


class SpoolOracle:
    def __init__(
        self,
        world: SimulatedWorld,
        watcher: StreamWatcher,
        senders: Sequence[str],
        disk: SpoolDisk,
        met: Iterable[Fault],
    ) -> None:
        self._world = world
        self._watcher = watcher
        self._senders = senders
        self._disk = disk
        self._met = met

    def judge(self) -> None:
        if self._disk.damaged:
            raise PromiseBroken(
                "nothing_put_aside", f"{self._disk.damaged!r} was put aside, and no disk failed"
            )
        faults = list(self._met)
        if any(fault.kind == "step_clock" for fault in faults) or self._world.lanes.has_lost:
            return
        late_us = TOLERANCE_US + sum(lasts_ms(fault) * 1_000 for fault in faults)
        for sender in self._senders:
            self._judge_times(sender, late_us)

    def _judge_times(self, sender: str, late_us: int) -> None:
        acknowledged = {
            each.event.id: each
            for each in reversed(self._world.ledger.acceptances)
            if each.sender == sender and isinstance(each.event, InboundSms)
        }
        for record, _ in of_type(self._watcher.records(sender), SmsReceived):
            at_us, acceptance = record.at * 1_000, acknowledged.get(record.id)
            if acceptance is None:
                continue
            if not acceptance.offered_us - late_us <= at_us <= acceptance.at_us + late_us:
                after_s = (at_us - acceptance.at_us) / 1_000_000
                raise PromiseBroken(
                    "applied_as_of_acknowledgement",
                    f"{record.id} of {sender} was applied as if it had come {after_s:.1f} s after its acknowledgement",
                )
