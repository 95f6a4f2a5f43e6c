"""After each call: whatever waits has an alarm, or nobody would ever come."""

from collections.abc import Iterable

from config.store import keyspace
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.world.simulated_world import SimulatedWorld

MOST_WAIT_MS = 5_301
"""How far ahead the alarm of a lane with mail is: a lease, or until a clock rings again, by the clock of a server that was
promoted since."""


class AlarmOracle:
    """Looks at the lanes and outboxes of these people."""

    def __init__(self, world: SimulatedWorld, senders: Iterable[str]) -> None:
        self._world = world
        shards = world.settings.shards
        self._lanes = [
            (
                sender,
                keyspace.lane_alarms_key(k),
                keyspace.outbox_alarms_key(k),
                keyspace.mailbox_key(k, sender),
                keyspace.lane_key(k, sender),
                keyspace.outbox_key(k, sender),
            )
            for sender in senders
            for k in (keyspace.shard_of(sender, shards),)
        ]
        self._version = (-1, 0)
        world.scheduler.observers.append(self.look)

    def look(self) -> None:
        server, view = self._world.lanes, self._world.lanes.view
        if server.version == self._version:
            return
        self._version = server.version
        for sender, lane_alarms, outbox_alarms, mailbox, lane, outbox in self._lanes:
            if view.exists(mailbox) and view.score(lane_alarms, sender) is None:
                raise PromiseBroken(
                    "waits_with_alarm", f"mail of {sender} waits, and no alarm will ring for it"
                )
            if view.exists(mailbox) and not server.was_set_back:
                self._judge_alarm_of_mail(sender, view.score(lane_alarms, sender))
            if view.exists(outbox) and view.score(outbox_alarms, sender) is None:
                raise PromiseBroken(
                    "waits_with_alarm", f"an SMS to {sender} waits, and no alarm will ring for it"
                )
            if view.score(lane_alarms, sender) is None and self._deadline(lane):
                raise PromiseBroken("waits_with_alarm", f"a deadline of {sender} has no alarm")

    def _judge_alarm_of_mail(self, sender: str, alarm: float | None) -> None:
        wait_ms = (alarm or 0.0) - self._world.lanes.now_ms
        if wait_ms > MOST_WAIT_MS:
            raise PromiseBroken(
                "waits_with_alarm", f"mail of {sender} waits, and is looked at in {wait_ms:.0f} ms"
            )

    def _deadline(self, lane: str) -> int:
        stored = self._world.lanes.view.string(lane)
        return int(stored.split(b" ", 2)[1]) if stored else 0
