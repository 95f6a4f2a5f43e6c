"""At the end of a run: did anybody wait longer than the protocol allows, with what went wrong meanwhile?

The model: somebody looks within seconds, unless a lease, a rest or a frozen process is in the way; each fault may cost its own
time and a lease on top. A server's clock that is set costs no more than that: nobody waits for it to come back to where it was.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from engine.model.events import InboundSms, SmsDecided, SmsNotSent, SmsReceived, SmsSent
from tests.simulated.oracles.stream_watcher import SeenRecord, StreamWatcher, of_type
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.world.faults import LONGEST_OVERSLEEP_MS, Fault, Place
from tests.simulated.world.simulated_world import SimulatedWorld

CALM_WAIT_US = 12_000_000
"""How long an event or an SMS may wait where nothing fails: a lost race costs a lease and a tick."""

FAULT_COST_US = 22_000_000
"""What a fault may cost beside its own time: the longest lease, a restart, a tick."""

SEND_FAULT_COST_US = 95_000_000
"""What a failed try, or a failover, may cost: a circuit's pause of a minute, and a look-up."""

LASTING = (
    "freeze_before",
    "freeze_after",
    "late",
    "full",
    "hang",
    "restart",
    "taken_late",
    "lag",
    "node_gone",
)
_OF_SENDING = (
    "unavailable",
    "account",
    "unknown_taken",
    "unknown_lost",
    "taken_late",
    "fail_over",
    "fail_over_behind",
)


class DelayOracle:
    """Judges how long these people waited, by the faults that a run has met: with what they said that `concerns` it, and for
    SMS, of which those that say one of `texts`; all, if there are none."""

    def __init__(
        self,
        world: SimulatedWorld,
        watcher: StreamWatcher,
        senders: Sequence[str],
        met: Mapping[Place, Fault],
        concerns: Callable[[InboundSms], bool] = lambda event: True,
        texts: Collection[str] = (),
    ) -> None:
        self._world = world
        self._watcher = watcher
        self._senders = senders
        self._met = met
        self._concerns = concerns
        self._texts = texts

    def judge(self) -> None:
        if self._world.lanes.was_set_twice_at_once:
            return
        faults = list(self._met.values())
        lasting_us = sum(lasts_ms(fault) * 1_000 for fault in faults)
        event_us = CALM_WAIT_US + FAULT_COST_US * len(faults) + lasting_us
        sending = sum(fault.kind in _OF_SENDING for fault in faults)
        for sender in self._senders:
            records = self._watcher.records(sender)
            self._judge_events(sender, records, event_us)
            self._judge_sms(sender, records, event_us + SEND_FAULT_COST_US * sending)

    def _judge_events(self, sender: str, records: Sequence[SeenRecord], most_us: int) -> None:
        applied = {record.id: entry.at_us for record, entry in reversed(list(of_type(records, SmsReceived)))}
        for each in self._world.ledger.acceptances:
            at_us = applied.get(each.event.id, each.at_us)
            if self._world.ledger.may_be_lost(each.change):
                continue
            is_judged = (
                each.sender == sender and isinstance(each.event, InboundSms) and self._concerns(each.event)
            )
            if is_judged and at_us - each.at_us > most_us:
                raise PromiseBroken(
                    "not_too_late",
                    f"{each.event.id} of {sender} waited {(at_us - each.at_us) // 1_000_000} s to be applied",
                )

    def _judge_sms(self, sender: str, records: Sequence[SeenRecord], most_us: int) -> None:
        """Each SMS waits for its own tries, from when the one before it was done with."""
        decided = {record.id: entry.at_us for record, entry in of_type(records, SmsDecided)}
        judged = {
            record.id
            for record, _ in of_type(records, SmsDecided)
            if record.text in (self._texts or (record.text,))
        }
        done = {record.id: entry.at_us for record, entry in of_type(records, SmsNotSent)}
        done |= {record.id: entry.at_us for record, entry in of_type(records, SmsSent)}
        free_us = 0
        for identity, at_us in decided.items():
            waited_us = done.get(identity, at_us) - max(at_us, free_us)
            if identity in judged and waited_us > most_us:
                raise PromiseBroken(
                    "not_too_late", f"{identity} to {sender} waited {waited_us // 1_000_000} s to leave"
                )
            free_us = max(free_us, done.get(identity, at_us))


def lasts_ms(fault: Fault) -> int:
    """Return for how long whom a fault meets may stand still, or is not heard."""
    if fault.kind in ("oversleep_before", "oversleep_after"):
        return LONGEST_OVERSLEEP_MS
    return abs(fault.amount) if fault.kind in LASTING else 0
