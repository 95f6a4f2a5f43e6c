"""An SMS is sent: taken from its outbox, permitted by its channel, tried once, and settled.

A sender's next SMS is not touched before the last one is settled, and nothing sleeps: what must wait rests in Redis
until its alarm. As many tries run at once as there are slots, and an SMS is not taken before there is one for it.

A provider may have an SMS though it did not say so: the connection broke, or the worker died. One that knows repeats is
sent it again under the same id. Any other is asked first, and where that cannot be done either, the SMS is not sent again.
"""

import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Semaphore, Thread
from time import monotonic
from typing import assert_never

import msgspec
import redis
import structlog

from config import faults, keyspace, metrics
from config.logs import hash_sender
from engine.events import (
    Inbound,
    Outbound,
    ProviderStop,
    Receipt,
    Record,
    Sent,
    Unsent,
    decode_outbound,
    encode,
)
from engine.providers import (
    Accepted,
    ChannelFault,
    NotFound,
    OptedOutThere,
    Outcome,
    Rejected,
    RetryLater,
    Unknown,
    Unreachable,
)
from workers.channels import Channels
from workers.lanes import Letter
from workers.letters import DeadLetter, Reason, seal
from workers.outboxes import Outboxes, Settled, Take, Verdict
from workers.turns import Bell
from workers.wires import Recourse, Wire

log = structlog.get_logger()

SLOTS = 32
"""Tries under way at once in one process."""

LEASE_MS = 15_000
"""Longer than a try can take (wires.CONNECT_S + READ_S), so that nobody else begins one meanwhile."""

MAX_TRIES = 20
"""Some three hours, by BACKOFF_FIRST_MS and BACKOFF_MOST_MS."""

BACKOFF_FIRST_MS, BACKOFF_MOST_MS = 1_000, 900_000

CERTAIN_MS = 23 * 3_600_000
"""How long after its first try an SMS that the provider may have is tried again: Octopush knows its id for 24 hours."""

UNSURE_MS = 10_000
"""How long an SMS rests that the provider may have, before it is asked: so that it has it by then, if at all."""

FRESH_S = 2.0
"""A try that could not begin this soon after its SMS was taken is left: a STOP may have withdrawn the SMS."""

LOOKED_UP_FRESH_S = 5.0
"""The same for an SMS that was looked up first; so much that the lease lasts until it is sent."""

PAUSE_MS = 60_000
"""How long a channel whose account is at fault rests before one SMS tries again."""


class Settlement(msgspec.Struct, frozen=True):
    """What a try's outcome means for the SMS. `reason` is why it goes to the dead letters, if it does."""

    verdict: Verdict
    rest_ms: int
    label: str
    code: str = ""
    why: str = ""
    reason: Reason | None = None


def decide(outcome: Outcome, tries: int, pause_ms: int, jitter: float, recourse: Recourse) -> Settlement:
    """What follows from `outcome` of the try number `tries`. `jitter` is in 0..1, `pause_ms` the channel's pause."""
    match outcome:
        case Accepted():
            return Settlement("done", pause_ms, "accepted")
        case RetryLater(code, why) if tries >= MAX_TRIES:
            return Settlement("done", 0, "tries_exhausted", code, why, "tries_exhausted")
        case RetryLater(code, why):
            return Settlement("again", backoff_ms(tries, jitter), "retry", code, why)
        case Unknown(code, why) if recourse == "none":
            return Settlement("done", 0, "uncertain", code, why, "uncertain")
        case Unknown(code, why) if tries >= MAX_TRIES:
            reason: Reason = "tries_exhausted" if recourse == "repeat" else "uncertain"
            return Settlement("done", 0, reason, code, why, reason)
        case Unknown(code, why):
            rest_ms = backoff_ms(tries, jitter)
            return Settlement(
                "again", rest_ms if recourse == "repeat" else max(UNSURE_MS, rest_ms), "unknown", code, why
            )
        case Rejected(code, why):
            return Settlement("done", 0, "rejected", code, why, "rejected")
        case Unreachable(code, why):
            return Settlement("done", 0, "unreachable", code, why)
        case ChannelFault(code, why):
            return Settlement("untried", PAUSE_MS, "channel_fault", code, why)
        case OptedOutThere(code, why):
            return Settlement("done", 0, "opted_out", code, why)
        case _:
            assert_never(outcome)


def backoff_ms(tries: int, jitter: float) -> int:
    """Doubling from a second to a quarter of an hour, give or take a half."""
    longest: int = min(BACKOFF_MOST_MS, BACKOFF_FIRST_MS * 2 ** (tries - 1))
    return round(longest * (0.5 + jitter))


class Try(msgspec.Struct, frozen=True):
    """A try and how many seconds it took; without an outcome, it was not made. `uncertain`: the provider may have the
    SMS after it."""

    take: Take
    sms: Outbound
    outcome: Outcome | None
    took_s: float
    uncertain: bool = False


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

    def _permitted(self, takes: Sequence[Take]) -> list[tuple[Take, Outbound]]:
        """The takes whose channel lets them leave now; the others go back to rest until it does."""
        by_channel: dict[str, list[tuple[Take, Outbound]]] = {}
        resting: list[Settled] = []
        for take in takes:
            if given_up := self._hopeless(take):
                resting.append(given_up)
            else:
                sms = decode_outbound(take.sms)
                by_channel.setdefault(sms.channel, []).append((take, sms))
        paused = self._channels.paused(list(by_channel)) if by_channel else {}
        permitted: list[tuple[Take, Outbound]] = []
        for name, pairs in by_channel.items():
            metrics.CHANNEL_PAUSED.labels(name).set(name in paused)
            if name in paused:
                resting += [_left(take, "untried", paused[name]) for take, _ in pairs]
            else:
                ready, booked = self._booked(name, pairs)
                permitted += ready
                resting += booked
        if following := self._outboxes.settle(resting):
            self._bell.ring(keyspace.OUTBOUND, following)
        return permitted

    def _hopeless(self, take: Take) -> Settled | None:
        """An SMS that must not be tried, on its way to the dead letters."""
        try:
            sms = decode_outbound(take.sms)
        except msgspec.MsgspecError as e:
            sms = Outbound(f"{take.fence}", "", take.sender, "")
            return self._bury(take, sms, "undecodable", f"the SMS cannot be read: {e}")
        if sms.channel not in self._wires:
            return self._bury(take, sms, "unknown_channel", "its channel is no longer configured")
        recourse = self._wires[sms.channel].recourse
        uncertain = recourse == "repeat" or take.unknown or sms.uncertain
        if uncertain and recourse == "none":
            why = "an earlier try may have been accepted, and the provider cannot be asked"
            return self._bury(take, sms, "uncertain", why)
        if uncertain and take.since and take.now - take.since > CERTAIN_MS:
            return self._bury(
                take, sms, "uncertain", "a try of more than 23 hours ago may have been accepted"
            )
        if take.attempts >= MAX_TRIES:
            reason: Reason = "worker_died" if recourse == "repeat" else "uncertain"
            return self._bury(take, sms, reason, "the workers that tried it never came back")
        return None

    def _bury(self, take: Take, sms: Outbound, reason: Reason, why: str) -> Settled:
        settlement = Settlement("done", 0, reason, why=why, reason=reason)
        self._report(sms, settlement)
        return self._settled(Try(take, sms, None, 0.0), settlement)

    def _booked(
        self, name: str, pairs: Sequence[tuple[Take, Outbound]]
    ) -> tuple[list[tuple[Take, Outbound]], list[Settled]]:
        """Those that have a permit for now, and those that got one for later."""
        ready = [pair for pair in pairs if pair[0].booked]
        others = [pair for pair in pairs if not pair[0].booked]
        later = []
        for pair, wait_ms in zip(others, self._channels.book(name, len(others)), strict=True):
            if wait_ms:
                later.append(_left(pair[0], "booked", wait_ms))
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
        metrics.SEND_SECONDS.observe(made.took_s)
        self._heed(sms, made.outcome)
        self._report(sms, settlement)
        return self._settled(made, settlement)

    def _settled(self, made: Try, settlement: Settlement) -> Settled:
        at = made.take.now + round(made.took_s * 1000)
        return Settled(
            made.take,
            settlement.verdict,
            rest_ms=settlement.rest_ms,
            records=_records(made.sms, made.outcome, settlement, at),
            dead=_letter(made.take, made.sms, settlement, at),
            uncertain=made.uncertain and settlement.verdict != "done",
            ticket=self._ticket(made),
            mail=_news(made.sms, made.outcome),
        )

    def _ticket(self, made: Try) -> str:
        """The ticket, if it may have to be told apart from those of later SMS."""
        if isinstance(made.outcome, Accepted) and self._wires[made.sms.channel].recourse == "look_up":
            return made.outcome.ticket
        return ""

    def _heed(self, sms: Outbound, outcome: Outcome) -> None:
        match outcome:
            case ChannelFault(code, why):
                if self._channels.pause(sms.channel, f"{code}: {why}", PAUSE_MS):
                    log.error(
                        "channel paused", channel=sms.channel, code=code, why=why, pause_s=PAUSE_MS // 1000
                    )
            case _:
                pass

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


def _left(take: Take, verdict: Verdict, rest_ms: int) -> Settled:
    """An SMS that is not tried now; what is not known of it stays so."""
    return Settled(take, verdict, rest_ms=rest_ms, uncertain=take.unknown)


def _news(sms: Outbound, outcome: Outcome | None) -> Inbound | None:
    """What the lane must hear of it."""
    match outcome:
        case OptedOutThere():
            return ProviderStop(f"{sms.id}s", sms.channel)
        case Unreachable(code, why):
            return Receipt(
                f"{sms.id}u",
                sms.channel,
                "",
                code,
                state="failed",
                code=code,
                why=why,
                permanent=True,
                sms=sms.id,
            )
        case _:
            return None


def _records(sms: Outbound, outcome: Outcome | None, settlement: Settlement, at: int) -> bytes:
    """What the archive should know: an acceptance, or that the SMS will never leave."""
    record: Record
    if isinstance(outcome, Accepted):
        record = Sent(at, sms.channel, sms.session, sms.id, outcome.ticket)
    elif settlement.verdict == "done":
        record = Unsent(at, sms.channel, sms.session, sms.id, settlement.code, settlement.why)
    else:
        return b""
    return encode([record])


def _letter(take: Take, sms: Outbound, settlement: Settlement, at: int) -> Letter | None:
    if not settlement.reason:
        return None
    return seal(
        DeadLetter(
            id=f"s{sms.id}",
            kind="sms",
            reason=settlement.reason,
            sender=sms.to,
            at=at,
            attempts=take.attempts + 1,
            what=take.sms,
            channel=sms.channel,
            session=sms.session,
            version=take.fence,
            code=settlement.code,
            why=settlement.why,
        )
    )
