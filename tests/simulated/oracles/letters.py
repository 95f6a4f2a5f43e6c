"""At the end of a run: did what the audit says of each dead letter come true, and did only what kills bury anything?"""

from collections.abc import Collection, Iterable, Sequence

from config.store import keyspace
from engine.model.events import (
    InboundSms,
    OpeningRefused,
    SmsNotSent,
    SmsReceived,
    SmsSent,
)
from tests.simulated.actors.dangers import Dangers, is_deadly
from tests.simulated.actors.web import REPOST_US
from tests.simulated.oracles.conversations import WITHDRAWN_CODES, count_lost_calls
from tests.simulated.oracles.letter_watcher import LetterLife, LetterWatcher
from tests.simulated.oracles.stream_watcher import SeenRecord, StreamWatcher, of_type
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.world.faults import Fault
from tests.simulated.world.simulated_world import SimulatedWorld
from workers.turns.drafts import MAX_CLAIM_ATTEMPTS, decode_mail

_DEADLY_KINDS = (
    "die_before",
    "die_after",
    "freeze_before",
    "freeze_after",
    "late",
    "hang",
    "restart",
)
"""Faults by which a claim may never come back."""


class LetterOracle:
    """Judges the dead letters of these people."""

    def __init__(
        self,
        world: SimulatedWorld,
        watcher: StreamWatcher,
        letters: LetterWatcher,
        senders: Sequence[str],
        met: Iterable[Fault],
        dangers: Dangers | None = None,
    ) -> None:
        self._world = world
        self._watcher = watcher
        self._letters = letters
        self._senders = senders
        self._met = met
        self._dangers = dangers
        k = keyspace.shard_of(senders[0], world.settings.shards)
        self._mailbox = keyspace.mailbox_key(k, senders[0])
        self._waiting: list[bytes] = []
        self._written = 0
        self._version = (-1, 0)

    def judge(self) -> None:
        """Raise PromiseBroken for the first promise that does not hold."""
        for sender in self._senders:
            records = self._watcher.records(sender)
            for life in self._letters.of_sender(sender):
                self._judge_life(life, records)
                if life.letter.reason == "worker_died" and life.letter.kind == "event":
                    self._judge_death(life)
            self._judge_unsent(sender, records)

    def _judge_unsent(self, sender: str, records: Sequence[SeenRecord]) -> None:
        """What could not be sent is a dead letter, unless it was withdrawn."""
        aside = {life.subject for life in self._letters.of_sender(sender)}
        for record, _ in of_type(records, SmsNotSent):
            if record.code not in WITHDRAWN_CODES and record.id not in aside:
                raise PromiseBroken(
                    "unsent_is_aside",
                    f"{record.id} to {sender} is unsent ({record.code}), and no dead letter",
                )

    def look(self) -> None:
        """Raise PromiseBroken once an answer has killed more processes than it may. After the last of 5 attempts it becomes a
        dead letter; it is not remembered by "the commit that applies it", so a copy of it may kill as many. Besides, it dies
        with each of its person's events that is claimed with it, be they acknowledged or copies of one."""
        self._count_written()
        deaths = self._dangers.deaths if self._dangers is not None else {}
        for text, times in deaths.items():
            buried = sum(life.letter.reason == "worker_died" for life in self._letters.lives)
            if times > MAX_CLAIM_ATTEMPTS * (1 + buried) + self._written:
                raise PromiseBroken("poison_ends", f"'{text}' has killed {times} processes")

    def _count_written(self) -> None:
        """Count what has come into the mailbox of the first of these people, whose answers are dangerous. What goes is taken
        from its head."""
        server = self._world.lanes
        if server.version == self._version:
            return
        self._version = server.version
        before, self._waiting = self._waiting, list(server.view.items(self._mailbox))
        left = next(
            left
            for left in range(len(before), -1, -1)
            if before[len(before) - left :] == self._waiting[:left]
        )
        self._written += len(self._waiting) - left

    def _judge_life(self, life: LetterLife, records: Sequence[SeenRecord]) -> None:
        letter = life.letter
        if not life.went or not life.subject:
            return
        if life.outcome == "dropped":
            self._judge_dropped(life, records)
        elif life.outcome == "advanced" and letter.kind == "sms":
            told = [
                entry.change
                for kind in (SmsSent, SmsNotSent)
                for record, entry in of_type(records, kind)  # type: ignore[type-var]
                if record.id == life.subject
            ]
            if max(told, default=0) <= life.went:
                raise PromiseBroken(
                    "replayed_is_sent", f"nothing says what came of {life.subject}, which was replayed"
                )
        elif (
            life.outcome == "advanced"
            and isinstance(decode_mail(letter.what).event, InboundSms)
            and life.subject not in _ids_applied_from(life.went, records)
        ):
            raise PromiseBroken("replayed_is_applied", f"{life.subject} was replayed, and not applied")

    def _judge_dropped(self, life: LetterLife, records: Sequence[SeenRecord]) -> None:
        if life.letter.kind == "event":
            applied = _ids_applied_from(life.went, records)
            if not life.letter.stopped and life.subject in applied and not self._has_copies(life.subject):
                raise PromiseBroken(
                    "dropped_is_dropped", f"{life.subject} was dropped, and applied afterwards"
                )
            return
        again = min(
            (
                each.fell
                for each in self._letters.lives
                if each.subject == life.subject and each.fell > life.went
            ),
            default=1 << 60,
        )
        for each in self._world.ledger.arrivals:
            late = each.sms.id in self._world.ledger.taken_late
            if each.sms.id == life.subject and life.went < each.change < again and not late:
                raise PromiseBroken("dropped_is_dropped", f"{life.subject} was dropped, and sent afterwards")

    def _has_copies(self, event: str) -> bool:
        """Whether an event was posted more than once: what was put aside is not remembered as applied, so a copy of it is news."""
        accepted = [each for each in self._world.ledger.acceptances if each.event.id == event]
        return len(accepted) > 1 or any(each.at_us - each.offered_us > REPOST_US for each in accepted)

    def _judge_death(self, life: LetterLife) -> None:
        """`worker_died`: every worker that took it up was gone before it was done."""
        met = list(self._met)
        chance = count_lost_calls(met) + sum(fault.kind in _DEADLY_KINDS for fault in met)
        if chance < MAX_CLAIM_ATTEMPTS and not self._is_deadly(life.letter.what):
            raise PromiseBroken(
                "poison_alone", f"{life.subject} killed nobody, and is a dead letter as if it had"
            )

    def _is_deadly(self, what: bytes) -> bool:
        event = decode_mail(what).event if what else None
        return isinstance(event, InboundSms) and is_deadly(event.text)


def _ids_applied_from(change: int, records: Sequence[SeenRecord]) -> Collection[str]:
    return {
        record.id
        for record, entry in records
        if isinstance(record, (SmsReceived, OpeningRefused)) and entry.change >= change
    }
