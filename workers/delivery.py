"""An SMS is sent: taken from its outbox, permitted by its channel, tried once, and settled.

A sender's next SMS is not touched before the last one is settled, and nothing sleeps: what must wait rests in Redis
until its alarm. As many tries run at once as there are slots; a wake-up is not begun before there is a slot for it.
"""

import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore
from time import monotonic
from typing import assert_never

import msgspec
import requests
import structlog

from config import faults, metrics
from config.logs import hash_sender
from engine.events import Outbound, ProviderStop, Record, Sent, Unsent, decode_outbound, encode
from engine.providers import Accepted, ChannelFault, OptedOutThere, Outcome, Provider, Rejected, RetryLater
from workers.channels import Channels
from workers.lanes import Lanes, Letter
from workers.letters import DeadLetter, Reason, seal
from workers.outboxes import Outboxes, Take, Verdict

log = structlog.get_logger()

SLOTS = 32
"""Tries under way at once in one process."""

CONNECT_S, READ_S = 3.0, 8.0
LEASE_MS = 15_000
"""Longer than a try can take, so that nobody else begins one meanwhile."""

MAX_TRIES = 20
"""Some three hours; Octopush forgets a request_id after 24 (facts: send-sms page), and then could double an SMS."""

BACKOFF_FIRST_MS, BACKOFF_MOST_MS = 1_000, 900_000

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


def decide(outcome: Outcome, tries: int, pause_ms: int, jitter: float) -> Settlement:
    """What follows from `outcome` of the try number `tries`. `jitter` is in 0..1, `pause_ms` the channel's pause."""
    match outcome:
        case Accepted():
            return Settlement("done", pause_ms, "accepted")
        case RetryLater(code, why) if tries >= MAX_TRIES:
            return Settlement("done", 0, "tries_exhausted", code, why, "tries_exhausted")
        case RetryLater(code, why):
            return Settlement("again", backoff_ms(tries, jitter), "retry", code, why)
        case Rejected(code, why):
            return Settlement("done", 0, "rejected", code, why, "rejected")
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


class Wire:
    """HTTP to one provider: kept-alive connections; proxies and CA bundle of the environment looked up once."""

    def __init__(self, provider: Provider, url: str) -> None:
        self._provider = provider
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=SLOTS))
        self._options = self._session.merge_environment_settings(url, {}, None, None, None)

    def post(self, sms: Outbound) -> Outcome:
        """Try once. A try without a readable answer is to be repeated: the id keeps the SMS from being doubled."""
        request = self._provider.write(sms)
        prepared = requests.Request("POST", request.url, headers=request.headers, data=request.body).prepare()
        try:
            reply = self._session.send(
                prepared, timeout=(CONNECT_S, READ_S), allow_redirects=False, **self._options
            )
        except requests.RequestException as e:
            return RetryLater(type(e).__name__, "the provider gave no answer")
        return self._provider.outcome(reply.status_code, reply.content)


class Delivery:
    """One worker's deliveries. `run` is called with the senders of a wake-up, `close` ends what is under way."""

    def __init__(
        self, outboxes: Outboxes, lanes: Lanes, channels: Channels, wires: Mapping[str, Wire], log_key: bytes
    ) -> None:
        self._outboxes = outboxes
        self._lanes = lanes
        self._channels = channels
        self._wires = wires
        self._log_key = log_key
        self._slots = Semaphore(SLOTS)
        self._pool = ThreadPoolExecutor(SLOTS, "delivery")

    def run(self, _queue: str, senders: Sequence[str]) -> None:
        """Begin a try for every one of these senders whose next SMS may leave."""
        while senders:
            slots = self._seize(len(senders))
            begun = 0
            try:
                for take, sms in self._permitted(self._outboxes.take(senders[:slots])):
                    self._pool.submit(self._converse, take, sms)
                    begun += 1
            finally:
                if slots > begun:
                    self._slots.release(slots - begun)
            senders = senders[slots:]

    def close(self) -> None:
        self._pool.shutdown(wait=True)

    def _seize(self, wanted: int) -> int:
        """Wait for one slot, and take as many more as are free."""
        self._slots.acquire()
        slots = 1
        while slots < wanted and self._slots.acquire(blocking=False):
            slots += 1
        return slots

    def _converse(self, take: Take, sms: Outbound) -> None:
        """Send this SMS, and those behind it while nothing makes them wait."""
        try:
            while self._try(take, sms):
                following = self._permitted(self._outboxes.take([take.sender]))
                if not following:
                    return
                take, sms = following[0]
        except Exception:
            log.exception("a try was left unsettled; its lease ends by itself", channel=sms.channel)
        finally:
            self._slots.release()

    def _permitted(self, takes: Sequence[Take]) -> list[tuple[Take, Outbound]]:
        """The takes whose channel lets them leave now; the others rest until it does."""
        by_channel: dict[str, list[tuple[Take, Outbound]]] = {}
        for take in takes:
            sms = decode_outbound(take.sms)
            by_channel.setdefault(sms.channel, []).append((take, sms))
        paused = self._channels.paused(list(by_channel)) if by_channel else {}
        permitted = []
        for name, pairs in by_channel.items():
            if name in paused:
                for take, _ in pairs:
                    self._outboxes.settle(take, "untried", rest_ms=paused[name])
            else:
                permitted += self._booked(name, pairs)
        return permitted

    def _booked(self, name: str, pairs: Sequence[tuple[Take, Outbound]]) -> list[tuple[Take, Outbound]]:
        ready = [pair for pair in pairs if pair[0].booked]
        others = [pair for pair in pairs if not pair[0].booked]
        for pair, wait_ms in zip(
            others, self._channels.book(name, len(others)) if others else [], strict=True
        ):
            if wait_ms:
                self._outboxes.settle(pair[0], "booked", rest_ms=wait_ms)
            else:
                ready.append(pair)
        return ready

    def _try(self, take: Take, sms: Outbound) -> bool:
        """One try and what follows from it. True if the sender's next SMS may be taken at once."""
        begun = monotonic()
        faults.reach("before_send")
        outcome = self._wires[sms.channel].post(sms)
        faults.reach("after_send")
        took = monotonic() - begun
        pause_ms = round(self._channels[sms.channel].limits.pause_s * 1000)
        settlement = decide(outcome, take.attempts + 1, pause_ms, random.random())  # noqa: S311 (jitter)
        at = take.now + round(took * 1000)
        metrics.SENDS.labels(sms.channel, settlement.label).inc()
        metrics.SEND_SECONDS.observe(took)
        self._heed(sms, outcome)
        self._report(sms, settlement)
        return self._outboxes.settle(
            take,
            settlement.verdict,
            rest_ms=settlement.rest_ms,
            records=_records(sms, outcome, settlement, at),
            dead=_letter(take, sms, settlement, at),
        )

    def _heed(self, sms: Outbound, outcome: Outcome) -> None:
        """What an outcome means beyond its SMS, done before it is settled, since both may be done twice."""
        match outcome:
            case ChannelFault(code, why):
                if self._channels.pause(sms.channel, f"{code}: {why}", PAUSE_MS):
                    log.error(
                        "channel paused", channel=sms.channel, code=code, why=why, pause_s=PAUSE_MS // 1000
                    )
                metrics.CHANNEL_PAUSED.labels(sms.channel).set(1)
            case OptedOutThere():
                self._lanes.accept(sms.to, ProviderStop(f"{sms.id}s", sms.channel))
            case Accepted():
                metrics.CHANNEL_PAUSED.labels(sms.channel).set(0)
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


def _records(sms: Outbound, outcome: Outcome, settlement: Settlement, at: int) -> bytes:
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
