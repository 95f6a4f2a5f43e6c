"""A provider that takes SMS from the answers to webhooks, and tells of each SMS what becomes of it: soon, late, twice or never."""

from collections.abc import Sequence
from hashlib import blake2b
from random import Random

from engine.model.events import DeliveryReceipt, OutboundSms, SmsState
from tests.simulated.actors.web import Carriers
from tests.simulated.world.ledger import Arrival
from tests.simulated.world.simulated_world import SimulatedWorld

TAKEN_AFTER_S = (0.01, 0.01, 1.5)
"""How long an answer may be under way. It is listed in time for who asks 20 s after it was attached, if it was given in 10."""

TOLD_AFTER_S = (0.05, 0.05, 0.05, 1.0, 9.0, 25.0)

NEVER_CHANCE = 0.3
TWICE_CHANCE = 0.2


class StatusCallbacks:
    """What the provider of one channel tells, and how it takes what answers hold."""

    def __init__(self, world: SimulatedWorld, channel: str) -> None:
        self._world = world
        self._provider = world.providers[channel]
        self._provider.watching.append(self._tell)
        self._chance = Random(f"{world.seed} {channel}")
        self.carriers: Carriers | None = None

    def take_replies(self, channel: str, replies: Sequence[OutboundSms]) -> None:
        """Take the SMS of an answer, in their order; what is sent meanwhile may be there before them."""
        if channel == self._provider.channel:
            self._world.ledger.taken_late.update(sms.id for sms in replies)
            self._after(
                self._chance.choice(TAKEN_AFTER_S), lambda: [self._provider.take(each) for each in replies]
            )

    def _tell(self, arrival: Arrival) -> None:
        if self._chance.random() < NEVER_CHANCE:
            return
        after_s = self._chance.choice(TOLD_AFTER_S)
        self._bring_later(arrival, "sent", after_s)
        if self._chance.random() < NEVER_CHANCE:
            return
        self._bring_later(arrival, "delivered", after_s if self._chance.random() < 0.5 else after_s + 2)

    def _bring_later(self, arrival: Arrival, state: SmsState, after_s: float) -> None:
        identity = blake2b(f"{arrival.ticket} {state}".encode(), digest_size=8).hexdigest()
        receipt = DeliveryReceipt(identity, arrival.channel, arrival.ticket, state, state, sms=arrival.sms.id)
        for _ in range(2 if self._chance.random() < TWICE_CHANCE else 1):
            self._after(after_s, lambda: self._bring(arrival.sms.to, receipt))

    def _bring(self, sender: str, receipt: DeliveryReceipt) -> None:
        assert self.carriers is not None
        self.carriers.bring(sender, receipt)

    def _after(self, seconds: float, action: object) -> None:
        scheduler = self._world.scheduler
        scheduler.at(scheduler.now_us + round(seconds * 1_000_000), action)
