"""Providers that tell what became of each SMS: `sent`, then `delivered`, each as often as the carriers bring it."""

from hashlib import blake2b

from engine.model.events import DeliveryReceipt, OutboundSms, SmsState
from tests.simulated.actors.web import Carriers
from tests.simulated.world.simulated_world import SimulatedWorld


class Receipts:
    """Listens to what people get."""

    def __init__(self, world: SimulatedWorld, carriers: Carriers) -> None:
        self._world = world
        self._carriers = carriers
        self._hear = world.hear
        world.hear = self._tell

    def _tell(self, sms: OutboundSms) -> None:
        self._hear(sms)
        scheduler, chance = self._world.scheduler, self._world.chance
        states: tuple[SmsState, ...] = ("sent", "delivered")
        for state in states:
            for _ in range(chance.choice((1, 1, 2))):
                at_us = scheduler.now_us + round(chance.uniform(0.01, 3) * 1_000_000)
                scheduler.at(at_us, lambda state=state: self._bring(sms, state))

    def _bring(self, sms: OutboundSms, state: SmsState) -> None:
        tickets = [each.ticket for each in self._world.ledger.arrivals if each.sms.id == sms.id]
        identity = blake2b(f"{sms.id} {state}".encode(), digest_size=8).hexdigest()
        self._carriers.bring(
            sms.to, DeliveryReceipt(identity, sms.channel, tickets[-1], state, state, sms=sms.id)
        )
