"""An SMS is sent: taken from its outbox, permitted by its channel, tried once, and settled.

A sender's next SMS is not touched before the last one is settled, and nothing sleeps: what must wait rests in Redis
until its alarm. As many tries run at once as there are slots, and an SMS is not taken before there is one for it.
What a try means for its SMS is decided in verdicts.py.
"""

import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Semaphore, Thread
from time import monotonic

import msgspec
import redis
import structlog

from config import faults, keyspace, metrics
from config.logs import hash_sender
from engine.events import Outbound, decode_outbound
from engine.providers import ChannelFault, NotFound, Outcome, RetryLater, Unknown
from workers.channels import Channels
from workers.outboxes import Outboxes, Settled, Take, Taken
from workers.turns import Bell
from workers.verdicts import CERTAIN_MS, PAUSE_MS, Settlement, Try, buried, decide, hopeless, left, settled
from workers.wires import Wire

log = structlog.get_logger()

SLOTS = 32
"""Tries under way at once in one process."""

LEASE_MS = 15_000
"""Longer than a try can take (wires.CONNECT_S + READ_S), so that nobody else begins one meanwhile."""

FRESH_S = 2.0
"""A try that could not begin this soon after its SMS was taken is left: a STOP may have withdrawn the SMS."""

LOOKED_UP_FRESH_S = 5.0
"""The same for an SMS that was looked up first; so much that the lease lasts until it is sent."""


class Delivery:
    """One worker's deliveries. `run` is called with the senders of a wake-up; `close` ends what is under way.

    Whoever runs it takes SMS, a pool of threads tries them, and one thread settles: tries that end while a settlement
    is under way share the next one.
    """

    def __init__(
        self,
        outboxes: Outboxes,
        channels: Channels,
        wires: Mapping[str, Wire],
        bell: Bell,
        log_key: bytes,
    ) -> None:
        self._outboxes = outboxes
        self._channels = channels
        self._wires = wires
        self._bell = bell
        self._log_key = log_key
        self._slots = Semaphore(SLOTS)
        self._pool = ThreadPoolExecutor(SLOTS, "try")
        self._made: SimpleQueue[Try | None] = SimpleQueue()
        self._settler = Thread(target=self._settle_all, name="settle")
        self._settler.start()

    def run(self, _queue: str, senders: Sequence[str]) -> None:
        """Begin a try for every one of these senders whose next SMS may leave."""
        while senders:
            slots = self._seize(len(senders))
            begun = 0
            try:
                taken_s = monotonic()
                for take, sms in self._permitted(self._outboxes.take(senders[:slots])):
                    self._pool.submit(self._try, take, sms, taken_s)
                    begun += 1
            finally:
                self._free(slots - begun)
            senders = senders[slots:]

    def close(self) -> None:
        """Wait for the tries under way, and settle them."""
        self._pool.shutdown(wait=True)
        self._made.put(None)
        self._settler.join()

    def _seize(self, wanted: int) -> int:
        """Wait for one slot, and take as many more as are free."""
        self._slots.acquire()
        slots = 1
        while slots < wanted and self._slots.acquire(blocking=False):
            slots += 1
        return slots

    def _free(self, slots: int) -> None:
        if slots:
            self._slots.release(slots)

    def _permitted(self, takes: Sequence[Take]) -> list[Taken]:
        """The takes whose channel lets them leave now; the others go back to rest until it does."""
        by_channel: dict[str, list[Taken]] = {}
        resting: list[Settled] = []
        for take in takes:
            match self._read(take):
                case Outbound() as sms:
                    by_channel.setdefault(sms.channel, []).append((take, sms))
                case given_up:
                    resting.append(given_up)
        paused = self._channels.paused(list(by_channel)) if by_channel else {}
        permitted: list[Taken] = []
        for name, pairs in by_channel.items():
            if name in paused:
                resting += [left(take, "untried", paused[name]) for take, _ in pairs]
            else:
                ready, booked = self._booked(name, pairs)
                permitted += ready
                resting += booked
        if following := self._outboxes.settle(resting):
            self._bell.ring(keyspace.OUTBOUND, following)
        return permitted

    def _read(self, take: Take) -> Outbound | Settled:
        """The SMS, or what settles one that must not be tried."""
        try:
            sms = decode_outbound(take.sms)
        except msgspec.MsgspecError as e:
            sms = Outbound(f"{take.fence}", "", take.sender, "")
            return self._bury(take, sms, buried("undecodable", f"the SMS cannot be read: {e}"))
        wire = self._wires.get(sms.channel)
        if wire is None:
            return self._bury(take, sms, buried("unknown_channel", "its channel is no longer configured"))
        given_up = hopeless(take, sms, wire.recourse)
        return self._bury(take, sms, given_up) if given_up else sms

    def _bury(self, take: Take, sms: Outbound, given_up: Settlement) -> Settled:
        self._report(sms, given_up)
        return settled(Try(take, sms, None, 0.0), given_up)

    def _booked(self, name: str, pairs: Sequence[Taken]) -> tuple[list[Taken], list[Settled]]:
        """Those that have a permit for now, and those that got one for later."""
        ready = [pair for pair in pairs if pair[0].booked]
        others = [pair for pair in pairs if not pair[0].booked]
        later = []
        for pair, wait_ms in zip(others, self._channels.book(name, len(others)), strict=True):
            if wait_ms:
                later.append(left(pair[0], "booked", wait_ms))
            else:
                ready.append(pair)
        return ready, later

    def _try(self, take: Take, sms: Outbound, taken_s: float) -> None:
        begun = monotonic()
        faults.reach("before_send")
        outcome: Outcome | None = None
        uncertain = take.unknown
        try:
            if monotonic() - taken_s < FRESH_S:
                outcome, uncertain = self._attempt(take, sms, taken_s)
        except redis.RedisError as e:
            log.warning("a try was not made: Redis failed", id=sms.id, error=type(e).__name__)
        except Exception as e:
            log.exception("a try failed in our own code", id=sms.id, channel=sms.channel)
            outcome = RetryLater(type(e).__name__, "Parley could not make the request")
        faults.reach("after_send")
        self._made.put(Try(take, sms, outcome, monotonic() - begun, uncertain))

    def _attempt(self, take: Take, sms: Outbound, taken_s: float) -> tuple[Outcome | None, bool]:
        """What a try came to (None: it was left), and whether the provider may have the SMS after it."""
        wire = self._wires[sms.channel]
        if wire.recourse == "look_up" and (take.unknown or sms.uncertain):
            found = self._look_up(wire, take, sms)
            faults.reach("after_look_up")
            if not isinstance(found, NotFound):
                return found, isinstance(found, Unknown | ChannelFault)
            if monotonic() - taken_s > LOOKED_UP_FRESH_S:
                return None, True
        outcome = wire.send(sms)
        return outcome, isinstance(outcome, Unknown)

    def _look_up(self, wire: Wire, take: Take, sms: Outbound) -> Outcome | NotFound:
        """Whether the provider has an SMS that it may have. An answer about anything but the SMS leaves that open."""
        since = (take.since or take.now - CERTAIN_MS) / 1000
        found = wire.look_up(sms, since, self._outboxes.tickets(take.sender))
        if isinstance(found, RetryLater):
            found = Unknown(found.code, found.why)
        match found:
            case NotFound():
                outcome = "not_found"
            case Unknown() | ChannelFault():
                outcome = "unknown"
            case _:
                outcome = "found"
        metrics.LOOKUPS.labels(sms.channel, outcome).inc()
        return found

    def _settle_all(self) -> None:
        """Settle tries as they are made, until None comes."""
        last = False
        while not last:
            waiting = [self._made.get()]
            while not self._made.empty():
                waiting.append(self._made.get())
            tries = [made for made in waiting if made is not None]
            last = len(tries) < len(waiting)
            try:
                self._settle(tries)
            except redis.RedisError as e:
                log.warning("tries are unsettled; their leases end by themselves", error=type(e).__name__)
            except Exception:
                log.exception("tries are unsettled; their leases end by themselves")
            finally:
                self._free(len(tries))

    def _settle(self, tries: Sequence[Try]) -> None:
        settled = [self._judge(made) for made in tries]
        more = self._outboxes.settle(settled)
        if more:
            self._bell.ring(keyspace.OUTBOUND, more)

    def _judge(self, made: Try) -> Settled:
        """What follows from a try; what it means beyond its SMS is done here, before, since both may be done twice."""
        take, sms = made.take, made.sms
        if made.outcome is None:
            return Settled(take, "untried", uncertain=made.uncertain)
        pause_ms = round(self._channels[sms.channel].limits.pause_s * 1000)
        recourse = self._wires[sms.channel].recourse
        settlement = decide(made.outcome, take.attempts + 1, pause_ms, random.random(), recourse)  # noqa: S311 (jitter)
        metrics.SENDS.labels(sms.channel, settlement.label).inc()
        metrics.SEND_SECONDS.labels(sms.channel).observe(made.took_s)
        self._heed(sms, made.outcome)
        self._report(sms, settlement)
        return settled(made, settlement, recourse)

    def _heed(self, sms: Outbound, outcome: Outcome) -> None:
        """A fault of the account concerns the channel's other SMS too."""
        if isinstance(outcome, ChannelFault):
            code, why = outcome.code, outcome.why
            if self._channels.pause(sms.channel, f"{code}: {why}", PAUSE_MS):
                log.error("channel paused", channel=sms.channel, code=code, why=why, pause_s=PAUSE_MS // 1000)

    def _report(self, sms: Outbound, settlement: Settlement) -> None:
        if settlement.label == "accepted":
            return
        if settlement.reason:
            metrics.DEAD_LETTERS.labels(settlement.reason).inc()
        (log.error if settlement.reason else log.warning)(
            "sms not accepted",
            id=sms.id, channel=sms.channel, session=sms.session, sender=hash_sender(self._log_key, sms.to),
            outcome=settlement.label, code=settlement.code, why=settlement.why, rest_ms=settlement.rest_ms,
        )  # fmt: skip
