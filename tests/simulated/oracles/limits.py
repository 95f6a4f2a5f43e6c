"""At the end of a run: did no more begin, and no more leave, than a channel's limits let through? Counted by what happened, not by
the counters that the limits themselves keep."""

from collections.abc import Collection, Sequence

from config.settings.channels import Channel
from config.store import keyspace
from engine.model.events import SessionInvited, SessionOpened, SmsDecided
from tests.simulated.oracles.stream_watcher import StreamWatcher, of_type
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.world.faults import Fault
from tests.simulated.world.simulated_world import SimulatedWorld

PERMIT_LASTS_US = 5_000_000
"""How long after it was given a permit may still be used: a lane's lease."""

TRY_BEGINS_US = 2_000_000
"""How long after it was taken the try of an SMS may begin; and how late a permit that was booked is good."""

_UNCOUNTED_KINDS = (
    "die_before",
    "die_after",
    "freeze_before",
    "freeze_after",
    "lose_request",
    "lose_reply",
    "lose_rest",
    "late",
    "hang",
    "refuse",
    "full",
    "restart",
)
"""Faults that may keep a worker from counting what it has committed."""


class LimitOracle:
    """Judges a channel by these people, who are all that it has. If anything fails, an SMS may leave so much later than it was let
    through as `held_up_us` says."""

    def __init__(
        self,
        world: SimulatedWorld,
        watcher: StreamWatcher,
        senders: Sequence[str],
        channel: Channel,
        met: Collection[Fault],
        held_up_us: int = TRY_BEGINS_US,
    ) -> None:
        self._world = world
        self._held_up_us = held_up_us
        self._watcher = watcher
        self._senders = senders
        self._channel = channel
        self._met = met
        self._held: set[bytes] = set()
        self._released: list[tuple[int, str]] = []
        """When (us) invitations were held no more, and which."""
        self._version = (-1, 0)
        world.scheduler.observers.append(self.look)

    def look(self) -> None:
        """Note which invitations were released."""
        server = self._world.lanes
        if server.version == self._version:
            return
        self._version = server.version
        held = {
            identity
            for k in range(self._world.settings.shards)
            for identity in server.view.hash_fields(keyspace.held_invitations_key(k))
        }
        self._released += [(self._world.scheduler.now_us, each.decode()) for each in self._held - held]
        self._held = held

    def judge(self) -> None:
        """Raise PromiseBroken for the first limit that was passed."""
        limits = self._channel.limits
        by_person = {sender: self._openings(sender) for sender in self._senders}
        invited = {
            record.session
            for sender in self._senders
            for record, _ in of_type(self._watcher.records(sender), SessionInvited)
        }
        if limits.new_sessions_per_minute:
            begun = [
                entry.at_us
                for sender in self._senders
                for record, entry in of_type(self._watcher.records(sender), SessionOpened)
                if record.session not in invited
            ]
            begun += [at for at, session in self._released if session in invited]
            self._judge_rate(
                "new_sessions",
                begun,
                limits.new_sessions_per_minute,
                limits.new_sessions_per_minute / 60,
                PERMIT_LASTS_US,
            )
        if limits.sms_per_second:
            sent = [
                each.at_us
                for each in self._world.ledger.arrivals
                if each.sms.id not in self._world.ledger.taken_late
            ]
            self._judge_rate(
                "sms_per_second",
                sent,
                max(1, limits.sms_per_second),
                limits.sms_per_second,
                self._held_up_us if self._met else TRY_BEGINS_US,
            )
        for sender, openings in by_person.items():
            own = [at for at, session in openings if session not in invited]
            if limits.sessions_per_sender_per_day and len(own) > limits.sessions_per_sender_per_day:
                raise PromiseBroken("limits", f"{sender} has begun {len(own)} sessions in a day")
            if limits.start_burst:
                self._judge_rate(
                    f"start of {sender}", own, limits.start_burst, limits.start_per_minute / 60, 0
                )
        if limits.sms_per_day:
            self._judge_day(limits.sms_per_day, invited)

    def _openings(self, sender: str) -> list[tuple[int, str]]:
        """When (us) somebody's sessions opened, by when their START was accepted, and which."""
        return [
            (record.at * 1_000, record.session)
            for record, _ in of_type(self._watcher.records(sender), SessionOpened)
        ]

    def _judge_rate(
        self, what: str, moments: list[int], burst: float, rate_per_s: float, late_us: int
    ) -> None:
        """In any span no more than the burst, and the rate's for that span, which may begin so much later than it was let through."""
        ordered = sorted(moments)
        for first, begin in enumerate(ordered):
            for last in range(first, len(ordered)):
                span_s = (ordered[last] - begin + late_us) / 1_000_000
                if last - first + 1 > burst + rate_per_s * span_s + 0.01:
                    raise PromiseBroken("limits", f"{what}: {last - first + 1} in {span_s:.1f} s")

    def _judge_day(self, cap: int, invited: set[str]) -> None:
        """The day's SMS hold back new sessions: none opens once they are decided, but of one worker's batch beside another's."""
        if any(fault.kind in _UNCOUNTED_KINDS for fault in self._met):
            return
        decided = sorted(
            entry.at_us
            for sender in self._senders
            for _, entry in of_type(self._watcher.records(sender), SmsDecided)
        )
        for sender in self._senders:
            for record, entry in of_type(self._watcher.records(sender), SessionOpened):
                before = sum(at_us < entry.at_us - PERMIT_LASTS_US for at_us in decided)
                if before >= cap and record.session not in invited:
                    raise PromiseBroken("limits", f"{record.session} opened when {before} SMS were decided")
        opened = [session for _, session in self._released if session in invited]
        if len(opened) > cap:
            raise PromiseBroken("limits", f"{len(opened)} invitations were released for {cap} SMS")
