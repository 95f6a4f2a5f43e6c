"""After each call: while mail waits that may be a STOP, no SMS is taken to be sent, nor put into a webhook's answer."""

from collections.abc import Sequence

from config.store import keyspace, stored_values
from engine.model.events import InboundSms, decode_inbound
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.world.simulated_world import SimulatedWorld


class WaitingStopOracle:
    """Looks at the outboxes of these people. What a failover brings back was taken before."""

    def __init__(self, world: SimulatedWorld, senders: Sequence[str]) -> None:
        self._world = world
        shards = world.settings.shards
        self._keys = [
            (sender, keyspace.outbox_lock_key(k, sender), keyspace.mailbox_key(k, sender))
            for sender in senders
            for k in (keyspace.shard_of(sender, shards),)
        ]
        self._holders: dict[str, str] = {}
        self._version = (-1, 0)
        self._losses = 0
        world.scheduler.observers.append(self.look)

    def look(self) -> None:
        server, view = self._world.lanes, self._world.lanes.view
        if server.version == self._version:
            return
        self._version = server.version
        is_older, self._losses = server.losses != self._losses, server.losses
        for sender, lock, mailbox in self._keys:
            holder = _holder(view.string(lock))
            is_new = bool(holder) and holder != self._holders.get(sender) and not is_older
            if is_new and any(map(_may_be_stop, view.items(mailbox))):
                raise PromiseBroken(
                    "stop", f"an SMS to {sender} is taken by {holder}, while their STOP waits"
                )
            self._holders[sender] = holder


def _holder(lock: bytes | None) -> str:
    """Who has the SMS of an outbox by this lock: a delivery worker by its fence, or a webhook by its token; empty if nobody."""
    words = lock.decode().split() if lock else []
    if "entrusted" in words:
        return words[-1]
    return words[0] if words and words[0] != "0" and words[-1] != "gone" else ""


def _may_be_stop(mail: bytes) -> bool:
    event = decode_inbound(stored_values.parse_mail(mail)[1])
    return isinstance(event, InboundSms) and event.may_be_stop
