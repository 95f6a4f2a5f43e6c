"""At the end of a run: did a provider's outage bury nothing, did one SMS at a time probe, and did all that waited leave once it
was over?"""

from collections.abc import Collection, Sequence
from itertools import pairwise

from engine.model.events import SmsDecided, SmsNotSent, SmsSent
from tests.simulated.actors.outages import Outage, VainTry
from tests.simulated.oracles.delays import CALM_WAIT_US
from tests.simulated.oracles.letter_watcher import LetterWatcher
from tests.simulated.oracles.stream_watcher import StreamWatcher, of_type
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.world.faults import Fault
from workers.sending.send_steps import MAX_START_DELAY_AFTER_LOOK_UP_S
from workers.store.outboxes import UNCERTAIN_REST_MS

BEGINS_LATE_US = round(MAX_START_DELAY_AFTER_LOOK_UP_S * 1_000_000)
"""How long after a circuit opened a try may begin that was let through before."""

RESTS_US = UNCERTAIN_REST_MS * 1_000 + 8_000_000
"""What an SMS rests for by itself: until it is asked for, and for a few tries that it made before the circuit opened."""

LOST_TURN_US = 95_000_000
"""What a fault may cost: a lease, or that nobody is brought forward, who then looks a minute later."""

_TELLS_LATE = (
    "lose_reply",
    "lose_request",
    "lose_rest",
    "late",
    "hang",
    "restart",
    "freeze_before",
    "freeze_after",
    "oversleep_before",
    "oversleep_after",
    "full",
    "refuse",
)
"""Faults that keep what came of a probe from being told before its pause ends."""


class OutageOracle:
    """Judges an outage by these people, who are all that its channel has."""

    def __init__(
        self,
        outage: Outage,
        rate_per_s: float,
        watcher: StreamWatcher,
        letters: LetterWatcher,
        senders: Sequence[str],
        met: Collection[Fault],
    ) -> None:
        self.outage = outage
        self._rate_per_s = rate_per_s
        self._watcher = watcher
        self._letters = letters
        self._senders = senders
        self._met = met

    def judge(self) -> None:
        self._judge_letters()
        self._judge_probes()
        self._judge_recovery()

    def _judge_letters(self) -> None:
        """ "While the circuit is open, an SMS at which the provider failed loses no try"."""
        for sender in self._senders:
            for each in self._letters.of_sender(sender):
                if each.letter.kind == "sms":
                    raise PromiseBroken(
                        "outage_buries_nothing", f"{each.subject} to {sender}: {each.letter.reason}"
                    )

    def _judge_probes(self) -> None:
        """ "That one probes, of all processes"."""
        if any(fault.kind in _TELLS_LATE for fault in self._met):
            return
        probes = [
            each
            for each in self.outage.tries
            if each.open_us and each.began_us > each.open_us + BEGINS_LATE_US
        ]
        for one, other in pairwise(probes):
            if _are_at_once(one, other):
                raise PromiseBroken(
                    "one_probes", f"{one.sms} and {other.sms} probed {self.outage.channel} at once"
                )

    def _judge_recovery(self) -> None:
        """ "The probe worked: what waits is brought forward, at the channel's rate"."""
        decided: dict[str, int] = {}
        sent: dict[str, int] = {}
        ended: dict[str, int] = {}
        for sender in self._senders:
            records = self._watcher.records(sender)
            decided |= {record.id: entry.at_us for record, entry in of_type(records, SmsDecided)}
            sent |= {record.id: entry.at_us for record, entry in of_type(records, SmsSent)}
            ended |= {record.id: entry.at_us for record, entry in of_type(records, SmsNotSent)}
        down_us = max(self.outage.until_us, self.outage.last_opened_us + BEGINS_LATE_US)
        works_us = min((at for at in sent.values() if at > down_us), default=0)
        waiting = [each for each, at in decided.items() if at <= works_us <= (sent | ended).get(each, at)]
        paced_us = round(len(decided) / self._rate_per_s * 1_000_000) if self._rate_per_s else 0
        most_us = CALM_WAIT_US + RESTS_US + paced_us + LOST_TURN_US * len(self._met)
        for each in waiting:
            waited_us = (sent | ended)[each] - works_us
            if waited_us > most_us:
                raise PromiseBroken(
                    "outage_ends", f"{each} waited {waited_us // 1_000_000} s when the provider worked again"
                )


def _are_at_once(one: VainTry, other: VainTry) -> bool:
    return one.sms != other.sms and one.open_us == other.open_us and other.began_us < one.ended_us
