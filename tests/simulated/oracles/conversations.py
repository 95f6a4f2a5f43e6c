"""At the end of a run: was everything that was acknowledged applied once and in order, did each decision leave at most once and
in order, and is it said of each what came of it?

What a failover takes back is excused where PARLEY_REPLICAS does not keep it, and nothing else: each exemption is the sentence
of workers/README.md that says so.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from config.connections.redis_connections import COMMAND_RETRIES
from engine.model.events import (
    InboundSms,
    OpeningRefused,
    PersonOptedIn,
    PersonOptedOut,
    SmsDecided,
    SmsNotSent,
    SmsReceived,
    SmsSent,
)
from tests.simulated.oracles.letter_watcher import LetterLife, LetterWatcher
from tests.simulated.oracles.stream_watcher import SeenRecord, StreamWatcher, of_type
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.world.faults import Fault, Place
from tests.simulated.world.ledger import Acceptance, Arrival
from tests.simulated.world.simulated_world import SimulatedWorld
from workers.store.dead_letter_store import DeadLetter

TRY_US = 8_100_000
"""How long an SMS may still leave that was taken before a STOP: 5 s, or 8 s if it was looked up."""

TAKEN_LATE_US = 10_000_000
"""How much later a provider may take an SMS than it was sent."""


LISTED_LATE_US = 25_000_000
"""How long after a try began its SMS may be missing at the provider still: a lease, and what the deployment waits after it."""


_COSTING_CLAIMS = ("hang", "full", "restart", "fail_over", "fail_over_behind")


def count_lost_calls(met: Iterable[Fault]) -> int:
    """Return of how many calls all replies may have been lost: a call whose reply is lost is made again, and "gets the same
    answer" (workers/README.md)."""
    return sum(fault.kind == "lose_reply" for fault in met) // (COMMAND_RETRIES + 1)


FAULTS_OF_FIVE_DEATHS = 4
"""With fewer faults no lane can lose its worker five times: a server that hangs may cost a claim twice."""


class ConversationOracle:
    """Judges the conversations of these people, once a run is at rest."""

    def __init__(
        self,
        world: SimulatedWorld,
        watcher: StreamWatcher,
        letters: LetterWatcher,
        senders: Sequence[str],
        met: Mapping[Place, Fault],
    ) -> None:
        self._world = world
        self._met = met
        self._watcher = watcher
        self._letters = letters
        self._senders = senders

    def judge(self) -> None:
        """Raise PromiseBroken for the first promise that does not hold."""
        for sender in self._senders:
            records = self._watcher.records(sender)
            letters = self._letters.of_sender(sender)
            aside = {each.subject for each in letters}
            heard_late = {each.subject for each in letters if each.letter.stopped}
            self._applied_once(sender, records, aside, heard_late)
            self._in_order(sender, records, aside)
            self._sent_once(sender, records, letters)
            self._sent_in_order(sender, records, aside)
            self._stopped(sender, records)

    def judge_blame(self) -> None:
        """Raise PromiseBroken if an event was given up for its workers' deaths before five have died: where no event kills, each
        death takes a fault of a worker or of the server."""
        costly = count_lost_calls(self._met.values()) + sum(
            fault.kind in _COSTING_CLAIMS
            or (place.actor.startswith(("ratelimit", "conversation")) and fault.kind != "lose_reply")
            for place, fault in self._met.items()
        )
        for sender in self._senders:
            for each in self._letters.of_sender(sender):
                if each.letter.reason == "worker_died" and costly < FAULTS_OF_FIVE_DEATHS:
                    raise PromiseBroken(
                        "poison_alone", f"{each.letter.id} of {sender} was given up: {each.letter.why}"
                    )

    # Applied once, and in order

    def _applied_once(
        self,
        sender: str,
        records: Sequence[SeenRecord],
        aside: Collection[str],
        heard_late: Collection[str],
    ) -> None:
        """`heard_late` are STOPs whose lane could not be read: "only the list of opt-outs changes" (drafts.py), so the lane knows no
        copy of them, and "must get it once it can be read" (replay_decision.py)."""
        applied = Counter(_applied_ids(records))
        for identity, times in applied.items():
            if times > 1 and identity not in heard_late:
                raise PromiseBroken("applied_once", f"{identity} of {sender} was applied {times} times")
        for each in self._acceptances(sender):
            known = each.event.id in applied or each.event.id in aside
            if not known and not self._world.ledger.may_be_lost(each.change):
                raise PromiseBroken(
                    "nothing_lost", f"{each.event.id} of {sender} was acknowledged and never applied"
                )

    def _acceptances(self, sender: str) -> list[Acceptance]:
        return [
            each
            for each in self._world.ledger.acceptances
            if each.sender == sender and isinstance(each.event, InboundSms)
        ]

    def _in_order(self, sender: str, records: Sequence[SeenRecord], aside: Collection[str]) -> None:
        """One that was acknowledged before another was offered is applied before it, but for dead letters: "a replay is a turn of
        its own", on the lane as it is then."""
        place: dict[str, int] = {}
        for at, identity in enumerate(_applied_ids(records)):
            place.setdefault(identity, at)
        first: dict[str, Acceptance] = {}
        for each in self._acceptances(sender):
            if each.event.id not in aside:
                first.setdefault(each.event.id, each)
        if self._world.has_lost_promised:
            return
        for earlier in first.values():
            for later in first.values():
                if earlier.at_us < later.offered_us and place.get(earlier.event.id, -1) > place.get(
                    later.event.id, 1 << 30
                ):
                    raise PromiseBroken(
                        "in_order", f"{earlier.event.id} of {sender} was applied after {later.event.id}"
                    )

    # Sent at most once, in order, and it is said what came of it

    def _sent_once(self, sender: str, records: Sequence[SeenRecord], letters: Sequence[LetterLife]) -> None:
        arrivals = self._arrivals(sender)
        sent = {record.id for record, _ in of_type(records, SmsSent)}
        unsent = {record.id: record.code for record, _ in of_type(records, SmsNotSent)}
        letter_of = {each.subject: each.letter for each in letters if each.letter.kind == "sms"}
        decided = Counter(record.id for record, _ in of_type(records, SmsDecided))
        for identity, times in decided.items():
            if times > 1:
                raise PromiseBroken("decided_once", f"{identity} to {sender} was decided {times} times")
            arrived = len(arrivals.get(identity, ()))
            if arrived > 1 and not self._may_come_twice(
                sender, identity, arrivals[identity], letter_of.get(identity)
            ):
                raise PromiseBroken("sent_once", f"{identity} reached {sender} {arrived} times")
            if identity in sent and not arrived and not self._is_taken_for_another(sender, identity, records):
                raise PromiseBroken(
                    "sent_is_sent", f"{identity} is recorded as sent to {sender}, and never was"
                )
            if identity not in sent and identity not in unsent:
                raise PromiseBroken("said_what_came", f"nothing says what came of {identity} to {sender}")
            if (
                arrived
                and identity not in sent
                and not self._is_doubted(unsent.get(identity, ""), letter_of.get(identity))
                and not self._may_come_twice(sender, identity, arrivals[identity])
            ):
                raise PromiseBroken(
                    "said_what_came",
                    f"{identity} reached {sender}, and is recorded as {unsent.get(identity)}",
                )
        for identity in arrivals:
            if identity not in decided and not self._world.has_lost_promised:
                raise PromiseBroken(
                    "remember_then_speak", f"{identity} reached {sender}, and was never decided"
                )

    @staticmethod
    def _is_doubted(code: str, letter: DeadLetter | None) -> bool:
        """Whether what is recorded of an SMS says that the provider may have it: a dead letter does, and so does one that was
        withdrawn, which may have been taken before."""
        return code in WITHDRAWN_CODES or (letter is not None and letter.uncertain)

    def _may_come_twice(
        self, sender: str, sms: str, arrivals: Sequence[Arrival], letter: DeadLetter | None = None
    ) -> bool:
        """Whether a sentence of workers/README.md says that an SMS may."""
        if letter is not None and letter.id in self._world.ledger.may_repeat:
            return True  # "`--uncertain` replays it: the person may get it twice"
        lanes = self._world.lanes
        if self._world.providers[arrivals[0].channel].recourse == "look_up":
            # "Set ahead: leases and rests end early", so that the provider is asked before it lists the SMS; "set back": the
            # provider is asked for later ones
            apart_us = arrivals[-1].at_us - arrivals[0].at_us
            if lanes.was_set_back or (lanes.was_set_ahead and apart_us < LISTED_LATE_US):
                return True
        # "Before" a failover is told by the server's clock; one that nobody saw before the next start is none
        return lanes.promotion_was_unseen or (
            self._world.has_lost_promised
            and (
                lanes.was_set_back
                or self._is_another_decision(sender, sms)
                or self._is_of_event_sent_again(sms)
            )
        )

    def _is_taken_for_another(self, sender: str, sms: str, records: Sequence[SeenRecord]) -> bool:
        """ "One that says the same is taken for it": for one that reached the person, though nothing has told so."""
        said = {record.text for record, _ in of_type(records, SmsDecided) if record.id == sms}
        told = {record.ticket for record, _ in of_type(records, SmsSent) if record.id != sms}
        return any(
            each.sms.to == sender and each.sms.text in said and each.ticket not in told
            for each in self._world.ledger.arrivals
        )

    def _is_another_decision(self, sender: str, sms: str) -> bool:
        """Whether an SMS was decided because of one event, which a failover took back, and because of another after it: what is
        decided then is another SMS, though it bears the number that is free again."""
        causes = {
            tuple(each.id for each in entry.records if isinstance(each, SmsReceived))
            for record, entry in of_type(self._watcher.records(sender, with_lost=True), SmsDecided)
            if record.id == sms
        }
        return len(causes) > 1

    def _is_of_event_sent_again(self, identity: str) -> bool:
        """ "What cannot be known, and may let an SMS leave twice" after a failover: "a webhook accepted which its provider sends
        again"."""
        of_event = [each for each in self._world.ledger.acceptances if identity.startswith(each.event.id)]
        return any(self._world.ledger.may_be_lost(each.change) for each in of_event[:-1])

    def _arrivals(self, sender: str) -> Mapping[str, list[Arrival]]:
        found: dict[str, list[Arrival]] = {}
        for each in self._world.ledger.arrivals:
            if each.sms.to == sender:
                found.setdefault(each.sms.id, []).append(each)
        return found

    def _sent_in_order(self, sender: str, records: Sequence[SeenRecord], aside: Collection[str]) -> None:
        place = {record.id: at for at, (record, _) in enumerate(of_type(records, SmsDecided))}
        if self._world.has_lost_promised:
            return
        last: dict[str, int] = {}
        for each in self._world.ledger.arrivals:
            if each.sms.to != sender or each.sms.id in self._world.ledger.taken_late or each.sms.id in aside:
                continue
            at = place.get(each.sms.id, -1)
            if at < last.get(each.channel, -1):
                raise PromiseBroken("sent_in_order", f"{each.sms.id} reached {sender} after a later SMS")
            last[each.channel] = at

    # STOP

    def _stopped(self, sender: str, records: Sequence[SeenRecord]) -> None:
        """From the acknowledgement of a STOP on nothing leaves but what had been taken, and the confirmation, until the person
        opts in again. "An SMS that was queued may leave before a STOP that is still" in the spool (ingest/README.md)."""
        for stop in self._acceptances(sender):
            if not (isinstance(stop.event, InboundSms) and stop.event.may_be_stop):
                continue
            if self._world.ledger.may_be_lost(stop.change):
                continue
            applied = next(
                (
                    at
                    for at, (record, _) in enumerate(records)
                    if isinstance(record, PersonOptedOut) and record.id == stop.event.id
                ),
                None,
            )
            if applied is None:
                continue
            until_us = next(
                (entry.at_us for record, entry in records[applied:] if isinstance(record, PersonOptedIn)),
                None,
            )
            for each in self._world.ledger.arrivals:
                if (
                    each.sms.to != sender
                    or each.channel != stop.event.channel
                    or each.sms.id in self._world.ledger.taken_late
                ):
                    continue
                after = each.at_us > max(stop.at_us, stop.mailbox_us) + TRY_US and (
                    until_us is None or each.at_us < until_us
                )
                if after and not each.sms.id.startswith(stop.event.id):
                    raise PromiseBroken(
                        "stop", f"{each.sms.id} reached {sender} after their STOP {stop.event.id}"
                    )


WITHDRAWN_CODES = ("stopped", "cancelled", "unreachable", "session_ended")


def _applied_ids(records: Sequence[SeenRecord]) -> list[str]:
    """The ids of events in the order in which they were applied. A START that opens nothing is recorded as refused, and may be
    as heard besides."""
    heard = [record.id for record, _ in records if isinstance(record, SmsReceived)]
    return heard + [record.id for record, _ in of_type(records, OpeningRefused) if record.id not in heard]
