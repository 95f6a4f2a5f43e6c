"""At the end of a run: is what a provider told of an SMS recorded, once, and never a state that comes before one that was known?"""

from collections import Counter
from collections.abc import Sequence

from engine.model.events import DeliveryReceipt, ReceiptRecorded, SmsSent
from tests.simulated.oracles.stream_watcher import StreamWatcher, of_type
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.world.simulated_world import SimulatedWorld

_RANKS = {"sent": 1, "delivered": 2, "failed": 2}


class ReceiptOracle:
    """Judges what is recorded of the SMS to these people."""

    def __init__(self, world: SimulatedWorld, watcher: StreamWatcher, senders: Sequence[str]) -> None:
        self._world = world
        self._watcher = watcher
        self._senders = senders

    def judge(self) -> None:
        for sender in self._senders:
            records = self._watcher.records(sender)
            sent = Counter(record.id for record, _ in of_type(records, SmsSent))
            told = Counter((record.sms, record.state) for record, _ in of_type(records, ReceiptRecorded))
            for name, times in (sent | told).items():
                if times > 1:
                    raise PromiseBroken("recorded_once", f"{name} to {sender} is recorded {times} times")
            self._nothing_untold(sender, set(told))

    def _nothing_untold(self, sender: str, told: set[tuple[str, str]]) -> None:
        """An SMS's state only moves forward: a receipt of an earlier one need not be recorded."""
        reached = {sms: 0 for sms, _ in told}
        for sms, state in told:
            reached[sms] = max(reached[sms], _RANKS.get(state, 0))
        for each in self._world.ledger.acceptances:
            event = each.event
            if each.sender != sender or not isinstance(event, DeliveryReceipt):
                continue
            if reached.get(event.sms, 0) < _RANKS[event.state] and not self._world.ledger.may_be_lost(
                each.change
            ):
                raise PromiseBroken(
                    "nothing_lost",
                    f"{event.sms} to {sender} was reported {event.state}, which is not recorded",
                )


class ReceiptOrderOracle:
    """Judges whether what is recorded of SMS to these people only moves forward: never twice, nor what comes before."""

    def __init__(self, watcher: StreamWatcher, senders: Sequence[str]) -> None:
        self._watcher = watcher
        self._senders = senders

    def judge(self) -> None:
        """Raise PromiseBroken for the first that was recorded twice."""
        for sender in self._senders:
            known: dict[str, str] = {}
            for record, _ in of_type(self._watcher.records(sender), ReceiptRecorded):
                before = known.get(record.ticket, "")
                if before in (record.state, "delivered"):
                    raise PromiseBroken(
                        "applied_once", f"{record.state} of {record.ticket} was recorded after {before}"
                    )
                known[record.ticket] = record.state
