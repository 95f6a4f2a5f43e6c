"""A provider's outage: for a while whatever it is asked comes to nothing."""

from typing import NamedTuple

from config.store import keyspace
from engine.model.events import OutboundSms
from tests.simulated.world.scheduler import START_US
from tests.simulated.world.simulated_provider import Trouble
from tests.simulated.world.simulated_world import SimulatedWorld


class VainTry(NamedTuple):
    """A provider was asked about an SMS at `began_us`, in vain, and answered at `ended_us`. Its channel's circuit was open then
    since `open_us`, or closed: 0."""

    sms: str
    began_us: int
    ended_us: int
    open_us: int


class Outage:
    """From `begins_s` on, for `lasts_s`, a channel's provider is in trouble."""

    def __init__(
        self, world: SimulatedWorld, channel: str, begins_s: float, lasts_s: float, trouble: Trouble
    ) -> None:
        self.begins_us = START_US + round(begins_s * 1_000_000)
        self.until_us = self.begins_us + round(lasts_s * 1_000_000)
        self.channel = channel
        self.tries: list[VainTry] = []
        self.last_opened_us = 0
        """When the channel's circuit was opened last."""
        self._world = world
        self._trouble = trouble
        world.providers[channel].trouble = self._meet
        world.scheduler.observers.append(self._look)

    def _meet(self, sms: OutboundSms) -> Trouble | None:
        now_us = self._world.scheduler.now_us
        if not self.begins_us <= now_us < self.until_us:
            return None
        ended_us = now_us + self._trouble.after_ms * 1_000
        self.tries.append(VainTry(sms.id, now_us, ended_us, self._circuit_open_us()))
        return self._trouble

    def _look(self) -> None:
        self.last_opened_us = max(self.last_opened_us, self._circuit_open_us())

    def _circuit_open_us(self) -> int:
        """Since when the channel's circuit is open, by the server's clock; 0 if it is closed."""
        state = self._world.lanes.view.hash_fields(keyspace.circuit_state_key(self.channel))
        return int(state.get(b"opened", 0)) * 1_000 if int(state.get(b"level", 0)) else 0
