"""At the end of a run: was an SMS taken for one that may have left, though what decided it came after every loss?

"All that is accepted afterwards is as ever" (workers/README.md, "After a failover"): an SMS that is decided because of it is queued
without a mark. One that has a mark from the start is asked for instead of sent, or is a dead letter where nobody can be asked.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from config.store import keyspace, stored_values
from engine.model.events import SmsDecided, SmsReceived, decode_outbound
from tests.simulated.oracles.stream_watcher import StreamWatcher, of_type
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.world.simulated_world import SimulatedWorld


class _Doubt(NamedTuple):
    """An SMS was queued with a mark, when the last failover had been at `lost_us`."""

    sender: str
    sms: str
    lost_us: int


class DoubtOracle:
    """Looks at the outboxes of these people after each call."""

    def __init__(self, world: SimulatedWorld, watcher: StreamWatcher, senders: Sequence[str]) -> None:
        self._world = world
        self._watcher = watcher
        shards = world.settings.shards
        self._outboxes = {
            sender: keyspace.outbox_key(keyspace.shard_of(sender, shards), sender) for sender in senders
        }
        self._waiting: dict[str, set[str]] = {}
        self._doubts: list[_Doubt] = []
        self._lost_us = -1
        self._version = (-1, 0)
        world.lanes.losing.append(self._note_loss)
        world.scheduler.observers.append(self.look)

    def look(self) -> None:
        server = self._world.lanes
        if server.version == self._version:
            return
        self._version = server.version
        for sender, outbox in self._outboxes.items():
            waiting = [
                decode_outbound(stored_values.outbox_sms(entry)) for entry in server.view.items(outbox)
            ]
            before = self._waiting.get(sender, set())
            self._doubts += [
                _Doubt(sender, sms.id, self._lost_us)
                for sms in waiting
                if sms.uncertain and sms.id not in before
            ]
            self._waiting[sender] = {sms.id for sms in waiting}

    def judge(self) -> None:
        """Raise PromiseBroken for the first SMS of which there was nothing to doubt. By a clock that is set back, mail of before comes
        later than what followed it."""
        if self._world.lanes.was_set_back:
            return
        offered = {each.event.id: each.offered_us for each in reversed(self._world.ledger.acceptances)}
        for doubt in self._doubts:
            causes = self._causes(doubt)
            if causes and all(offered.get(each, -1) > doubt.lost_us for each in causes):
                raise PromiseBroken(
                    "as_ever",
                    f"{doubt.sms} to {doubt.sender} is uncertain, though what it answers came after the failover",
                )

    def _causes(self, doubt: _Doubt) -> set[str]:
        """The events that an SMS was decided with, each time that it was; none of one that a deadline decided."""
        return {
            each.id
            for record, entry in of_type(self._watcher.records(doubt.sender, with_lost=True), SmsDecided)
            if record.id == doubt.sms
            for each in entry.records
            if isinstance(each, SmsReceived)
        }

    def _note_loss(self, _changes: Collection[int]) -> None:
        self._lost_us = self._world.scheduler.now_us
