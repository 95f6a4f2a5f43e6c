"""An SMS is sent: taken from its outbox, permitted by its channel, tried once, and settled.

A sender's next SMS is not touched before the last one is settled, and nothing sleeps: what must wait rests in Redis
until its alarm. Each channel has slots of its own, for as many tries at once; what has none looks again later, so that no
channel waits for another. What a try means for its SMS is decided in verdicts.py, what it means for its channel in
channels.py.

Told to stop, a process begins nothing more: what it has taken goes back, and what is under way has PATIENCE_S to end.
After that it is left as by a kill: its lease ends, and the provider is asked, or told the same id again.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from queue import SimpleQueue
from threading import Condition, Thread
from time import monotonic

import msgspec
import redis
import structlog

from config.store import keyspace
from config.telemetry import faults, metrics
from config.telemetry.logs import hash_sender
from engine.model import segments
from engine.model.events import Outbound, decode_outbound
from engine.providers import Accepted, ChannelFault, NotFound, Outcome, RetryLater, Unknown
from workers.sending.bulkhead import Slots
from workers.sending.http_client import CONNECT_S, READ_S, Wire
from workers.sending.send_policy import (
    CERTAIN_MS,
    Settlement,
    Try,
    blame,
    buried,
    decide,
    ended,
    hopeless,
    left,
    settled,
)
from workers.store.channel_state import Channels, Circuit, Permit
from workers.store.outboxes import MOST_FORWARD, Outboxes, Settled, Take, Taken
from workers.turns.committing import Bell

log = structlog.get_logger()

LEASE_MS = 15_000
"""Longer than a try can take (wires.CONNECT_S + READ_S), so that nobody else begins one meanwhile."""

FRESH_S = 2.0
"""A try that could not begin this soon after its SMS was taken is left: a STOP may have withdrawn the SMS."""

LOOKED_UP_FRESH_S = 5.0
"""The same for an SMS that was looked up first; so much that the lease lasts until it is sent."""


PATIENCE_S = CONNECT_S + READ_S + 0.1
"""How long tries may go on once the process is told to stop: as long as one takes that began just before."""

SETTLED_S = 0.3
"""And how long it may then take to settle the last of them; together less than a process has (worker_process.END_S)."""


class Delivery:
    """One worker's deliveries. `run` is called with the senders of a wake-up, by one thread; `stop` lets nothing more
    begin, and `close` ends what is under way.

    Whoever runs it takes SMS, threads try them, and one thread settles: tries that end while a settlement is under way
    share the next one.
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
        self._changed = Condition()
        self._slots = {name: Slots(name, self._changed) for name in wires}
        self._failing: set[str] = set()  # channels whose circuit must be told also of what works
        self._until_s: float | None = None
        self._made: SimpleQueue[Try | None] = SimpleQueue()
        self._settler = Thread(target=self._settle_all, name="settle", daemon=True)
        self._settler.start()

    def run(self, _queue: str, senders: Sequence[str]) -> None:
        """Begin a try for every one of these senders whose next SMS may leave."""
        while senders and (room := self._room()):
            taken_s = monotonic()
            for take, sms, probe in self._permitted(self._outboxes.take(senders[:room])):
                self._slots[sms.channel].begin(taken_s, partial(self._try, take, sms, probe, taken_s))
            senders = senders[room:]
        if senders:
            self._bell.ring(keyspace.OUTBOUND, senders)

    def stop(self) -> None:
        """Begin nothing more."""
        with self._changed:
            if self._until_s is None:
                self._until_s = monotonic() + PATIENCE_S
            self._changed.notify_all()

    def close(self) -> None:
        """Stop, wait for the tries under way, and settle them."""
        self.stop()
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way(), self._patience_s())
            if unfinished := self._under_way():
                log.warning("tries are left under way; their leases end by themselves", tries=unfinished)
        self._made.put(None)
        self._settler.join(self._patience_s() + SETTLED_S)

    def _room(self) -> int:
        """How many SMS to take: as many as the channel with the most slots has free. Waits for one while there is none
        anywhere; 0 if nothing more is to begin."""
        with self._changed:
            self._changed.wait_for(lambda: self._until_s is not None or self._most_free())
            return self._most_free() if self._until_s is None else 0

    def _most_free(self) -> int:
        return max(slots.free for slots in self._slots.values())

    def _under_way(self) -> int:
        return sum(slots.taken for slots in self._slots.values())

    def _patience_s(self) -> float:
        return max(0.0, (self._until_s or 0.0) - monotonic())

    def _permitted(self, takes: Sequence[Take]) -> list[tuple[Take, Outbound, bool]]:
        """The takes whose channel lets them leave now, each with its SMS and whether it is to probe; the others go back to
        rest until it does."""
        by_channel: dict[str, list[Taken]] = {}
        resting: list[Settled] = []
        for take in takes:
            match self._read(take):
                case Outbound() as sms:
                    by_channel.setdefault(sms.channel, []).append((take, sms))
                case given_up:
                    resting.append(given_up)
        permitted: list[tuple[Take, Outbound, bool]] = []
        for name, pairs in by_channel.items():
            pairs.sort(key=lambda pair: pair[1].unasked)
            free = self._slots[name].free
            resting += [left(take, "untried", self._slots[name].wait_ms()) for take, _ in pairs[free:]]
            ready, later = self._departing(name, pairs[:free]) if free else ([], [])
            permitted += ready
            resting += later
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
        earlier = self._outboxes.tries(take.sender, sms.id)
        return settled(Try(take, sms, None, 0.0), given_up, earlier=earlier)

    def _departing(
        self, name: str, pairs: Sequence[Taken]
    ) -> tuple[list[tuple[Take, Outbound, bool]], list[Settled]]:
        """Those that may leave now, and those that rest until they may or look again."""
        found = self._channels.depart(name, [_permit(take, sms) for take, sms in pairs])
        (self._failing.add if found.failing or found.probe else self._failing.discard)(name)
        if found.reopened:
            rate = self._channels[name].limits.sms_per_second
            self._outboxes.bring_forward(name, rate, MOST_FORWARD)
        ready: list[tuple[Take, Outbound, bool]] = []
        later: list[Settled] = []
        for (take, sms), wait_ms in zip(pairs, found.waits, strict=True):
            if wait_ms == 0:
                ready.append((take, sms, found.probe and not ready))
            elif wait_ms > 0:
                later.append(left(take, "booked", wait_ms, found.epoch))
            else:
                later.append(left(take, "untried", -wait_ms))
        return ready, later

    def _try(self, take: Take, sms: Outbound, probe: bool, taken_s: float) -> None:
        begun = monotonic()
        faults.reach("before_send")
        outcome: Outcome | None = None
        uncertain = take.unknown
        try:
            if self._until_s is None and monotonic() - taken_s < FRESH_S:
                outcome, uncertain = self._attempt(take, sms, taken_s)
        except redis.RedisError as e:
            log.warning("a try was not made: Redis failed", id=sms.id, error=type(e).__name__)
        except Exception as e:
            log.exception("a try failed in our own code", id=sms.id, channel=sms.channel)
            outcome = RetryLater(type(e).__name__, "Parley could not make the request", alone=True)
        faults.reach("after_send")
        self._made.put(Try(take, sms, outcome, monotonic() - begun, uncertain, probe, taken_s))

    def _attempt(self, take: Take, sms: Outbound, taken_s: float) -> tuple[Outcome | None, bool]:
        """What a try came to (None: it was left), and whether the provider may have the SMS after it."""
        wire = self._wires[sms.channel]
        if wire.recourse == "look_up" and (take.unknown or sms.uncertain):
            found = self._look_up(wire, take, sms)
            faults.reach("after_look_up")
            if not isinstance(found, NotFound):
                return found, isinstance(found, Unknown | ChannelFault)
            if self._until_s is not None or monotonic() - taken_s > LOOKED_UP_FRESH_S:
                return None, True
        outcome = wire.send(sms)
        return outcome, isinstance(outcome, Unknown)

    def _look_up(self, wire: Wire, take: Take, sms: Outbound) -> Outcome | NotFound:
        """Whether the provider has an SMS that it may have. An answer about anything but the SMS leaves that open."""
        since = (take.since or take.now - CERTAIN_MS) / 1000
        found = wire.look_up(sms, since, self._outboxes.tickets(take.sender))
        if isinstance(found, RetryLater):
            found = Unknown(found.code, found.why, found.alone)
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
                for made in tries:
                    self._slots[made.sms.channel].end(made.begun_s)

    def _settle(self, tries: Sequence[Try]) -> None:
        names = {made.sms.channel for made in tries}
        circuits = {name: self._told(name, [m for m in tries if m.sms.channel == name]) for name in names}
        settled = [self._judge(made, circuits[made.sms.channel].rest_ms) for made in tries]
        more = self._outboxes.settle(settled)
        if more:
            self._bell.ring(keyspace.OUTBOUND, more)

    def _told(self, name: str, tries: Sequence[Try]) -> Circuit:
        """How the channel stands, now that it has been told of these tries. While all is well, it need not be told."""
        news = list(_news(tries))
        if not news or (name not in self._failing and all(how == "works" for how, _, _ in news)):
            return Circuit()
        try:
            circuit = self._channels.report(name, news)
        except redis.RedisError as e:
            log.warning("a circuit was not told of tries: Redis failed", channel=name, error=type(e).__name__)
            return Circuit()
        if circuit.rest_ms:
            self._failing.add(name)
        if circuit.opened:
            why = next((why for how, _, why in reversed(news) if not how.endswith("works")), "")
            log.error("channel paused", channel=name, by=circuit.opened, why=why, pause_ms=circuit.rest_ms)
            if circuit.opened == "circuit":
                metrics.CIRCUITS_OPENED.labels(name).inc()
        if circuit.closed:
            log.warning("channel works again", channel=name)
        return circuit

    def _judge(self, made: Try, open_ms: int) -> Settled:
        """What follows from a try, after which its channel's circuit is open for `open_ms`."""
        take, sms = made.take, made.sms
        if made.outcome is None:
            return Settled(take, "untried", uncertain=made.uncertain)
        pause_ms = round(self._channels[sms.channel].limits.pause_s * 1000)
        recourse = self._wires[sms.channel].recourse
        jitter = random.random()  # noqa: S311 (jitter)
        settlement = decide(made.outcome, take.attempts + 1, pause_ms, jitter, recourse, open_ms)
        self._count(made, settlement)
        self._report(sms, settlement)
        earlier = self._outboxes.tries(take.sender, sms.id) if settlement.reason else ()
        return settled(made, settlement, recourse, earlier)

    def _count(self, made: Try, settlement: Settlement) -> None:
        name, sms = made.sms.channel, made.sms
        metrics.SENDS.labels(name, settlement.label).inc()
        metrics.SEND_SECONDS.labels(name).observe(made.took_s)
        if not isinstance(made.outcome, Accepted):
            metrics.SEND_ERRORS.labels(name, self._wires[name].known(settlement.code)).inc()
            return
        metrics.SEGMENTS.labels(name).inc(segments.count(sms.text).segments)
        if made.outcome.credit is not None:
            metrics.CREDIT.labels(name).set(made.outcome.credit)
        for since, seconds in ((sms.decided, metrics.OUTBOX_SECONDS), (sms.heard, metrics.REPLY_SECONDS)):
            if since:
                seconds.labels(name).observe(max(0, ended(made) - since) / 1000)

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


def _permit(take: Take, sms: Outbound) -> Permit:
    """What the SMS asks its channel for."""
    if take.permit >= 0:
        return take.permit
    return "unasked" if sms.unasked else "reply"


def _news(tries: Iterable[Try]) -> Iterable[tuple[str, int, str]]:
    """What these tries say of their provider, as Channels.report takes it."""
    for made in tries:
        probe = "probe-" if made.probe else ""
        match made.outcome:
            case None if made.probe:
                yield f"{probe}unmade", 0, ""
            case None:
                pass
            case outcome:
                why = "" if isinstance(outcome, Accepted) else f"{outcome.code}: {outcome.why}"
                yield f"{probe}{blame(outcome)}", round(made.took_s * 1000), why
