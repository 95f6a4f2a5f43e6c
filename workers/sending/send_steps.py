"""An SMS is sent in three steps: its sender's oldest is leased and permitted by its channel, tried once, and settled.

A sender's next SMS is not touched before the last one is settled, and nothing sleeps: what must wait rests in Redis
until its alarm. What a try means for its SMS is decided in send_policy.py, what it means for its channel in
channel_state.py. The first and the last step are plain calls; tries share an event loop, which delivery.py has.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar

import msgspec
import redis
import structlog

from config.host import THIS_HOST, Host
from config.store import keyspace, redis_client
from config.store.counts.answer_record import AnswerNotes
from config.store.missing_rights import failure_words
from config.telemetry import faults, metrics
from config.telemetry.logs import hash_sender
from engine.model import segments
from engine.model.events import OutboundSms, decode_outbound
from engine.providers import ChannelFault, OutcomeUnknown, RetryLater, SendAccepted, SendOutcome, SmsNotFound
from workers.sending.http_client import ProviderClient, try_deadline
from workers.sending.loop_thread import call_in_thread
from workers.sending.send_policy import (
    SendAttempt,
    SendDecision,
    decide_after_attempt,
    decide_before_attempt,
    ended_at_ms,
    first_tried_s,
    give_up_untried,
    leave_untried,
    outbox_update,
    provider_health,
    rest_after_failover_ms,
)
from workers.store.channel_state import ChannelStore, CircuitState, PermitRequest
from workers.store.outboxes import (
    MAX_BROUGHT_FORWARD,
    OUTBOX_LEASE_MS,
    LeasedSms,
    OutboxLease,
    OutboxStore,
    OutboxUpdate,
)
from workers.turns.committing import WorkerWaker

log = structlog.get_logger()

Answer = TypeVar("Answer")

MAX_START_DELAY_S = 2.0
"""A try that could not begin this soon after its SMS was taken is left: a STOP may have withdrawn the SMS."""

MAX_START_DELAY_AFTER_LOOK_UP_S = 5.0
"""The same for an SMS that is looked up first, and until when an answer to that is waited for: so much that the lease lasts
for a whole try after it."""


PERMIT_RETRY_MS = 1_000
"""How long an SMS rests whose channel's keys could not be asked."""


class SendableSms(msgspec.Struct, frozen=True):
    """An SMS that may be tried now, once: leased at `leased_s` of the host's monotonic clock. `probe`: its channel's circuit
    waits for what comes of it."""

    lease: OutboxLease
    sms: OutboundSms
    probe: bool
    leased_s: float


class ChannelSlots(Protocol):
    """How many tries may begin on a channel now, and in how many ms one more SMS should look for a slot."""

    @property
    def free_slots(self) -> int: ...

    def slot_wait_ms(self) -> int: ...


class ThreadCaller(Protocol):
    """Makes a call that takes its time, and answers what it returns or raises."""

    def __call__(self, call: Callable[[], Answer]) -> Awaitable[Answer]: ...


class SendSteps:
    """The steps of a deployment's deliveries; `clients` are those of its channels' providers. Tries may be under way in several event
    loops, each channel's in one; what would hold these up is done `in_thread`. Each of the other two steps is one thread's."""

    def __init__(
        self,
        outboxes: OutboxStore,
        channels: ChannelStore,
        clients: Mapping[str, ProviderClient],
        waker: WorkerWaker,
        log_key: bytes,
        notes: AnswerNotes,
        host: Host = THIS_HOST,
        in_thread: ThreadCaller = call_in_thread,
    ) -> None:
        self._outboxes = outboxes
        self._channels = channels
        self._clients = clients
        self._waker = waker
        self._log_key = log_key
        self._notes = notes
        self._host = host
        self._in_thread = in_thread
        self._unwritten: deque[tuple[float, OutboxUpdate]] = deque()
        self._failing_channels: set[str] = set()  # channels whose circuit must be told also of what works

    @property
    def channel_names(self) -> Collection[str]:
        return self._clients.keys()

    def lease_sendable(self, senders: Sequence[str], slots: Mapping[str, ChannelSlots]) -> list[SendableSms]:
        """Lease these senders' oldest SMS. Returns those whose channel lets them leave now, and has a slot; the others go back
        to rest until it does. Raises RedisError if nothing could be leased."""
        leased_s = self._host.monotonic_s()
        by_channel, resting = self._decode_leases(
            self._outboxes.lease_oldest(senders, self._asked_channels())
        )
        sendable: list[SendableSms] = []
        for name, pairs in by_channel.items():
            pairs.sort(key=lambda pair: pair[1].unasked)
            free = slots[name].free_slots
            resting += [
                leave_untried(take, "untried", slots[name].slot_wait_ms()) for take, _ in pairs[free:]
            ]
            ready, later = self._acquire_permits_or_rest(name, pairs[:free], leased_s) if free else ([], [])
            sendable += ready
            resting += later
        self._apply_updates(resting)
        return sendable

    async def run_attempt(self, sendable: SendableSms, is_stopping: Callable[[], bool]) -> SendAttempt:
        """Try an SMS once, unless it is too late for that or `is_stopping`. Raises nothing: whatever happens is what came of
        it."""
        take, sms, begun_s = sendable.lease, sendable.sms, self._host.monotonic_s()
        faults.reach("before_send")
        outcome: SendOutcome | None = None
        uncertain = take.uncertain
        try:
            if not is_stopping() and begun_s - sendable.leased_s < MAX_START_DELAY_S:
                outcome, uncertain = await self._look_up_or_send(sendable, begun_s, is_stopping)
        except redis.RedisError as e:
            log.warning("a try was not made: Redis failed", id=sms.id, error=failure_words(e))
        except Exception as e:
            log.exception("a try failed in our own code", id=sms.id, channel=sms.channel)
            outcome = RetryLater(type(e).__name__, "Parley could not make the request", this_sms_only=True)
        faults.reach("after_send")
        took_s = self._host.monotonic_s() - begun_s
        return SendAttempt(take, sms, outcome, took_s, uncertain, sendable.probe, sendable.leased_s)

    def settle_attempts(self, attempts: Sequence[SendAttempt]) -> None:
        """Tell the channels' circuits and the outboxes what came of these. What cannot be written, as a server is away, is kept for
        `write_again`. Raises RedisError: the leases of those that are not settled end by themselves."""
        names = {made.sms.channel for made in attempts}
        circuits = {
            name: self._report_to_circuit(name, [m for m in attempts if m.sms.channel == name])
            for name in names
        }
        self._apply_updates(
            [self._decide_update(made, circuits[made.sms.channel].rest_ms) for made in attempts]
        )

    def _asked_channels(self) -> list[str]:
        return [name for name, client in self._clients.items() if client.recourse == "look_up"]

    def _decode_leases(
        self, takes: Sequence[OutboxLease]
    ) -> tuple[dict[str, list[LeasedSms]], list[OutboxUpdate]]:
        """The takes that may be tried, each with its SMS, by channel; and what settles the others."""
        by_channel: dict[str, list[LeasedSms]] = {}
        resting: list[OutboxUpdate] = []
        for take in takes:
            match self._decode_or_give_up(take):
                case OutboundSms() as sms:
                    by_channel.setdefault(sms.channel, []).append((take, sms))
                case given_up:
                    resting.append(given_up)
        return by_channel, resting

    def write_again(self) -> None:
        """Write what could not be written when it came, as a server was away: its lease need not end first. Whoever comes too late
        changes nothing, as another has the lease by then."""
        waiting = [self._unwritten.popleft() for _ in range(len(self._unwritten))]
        if not waiting:
            return
        now_s = self._host.monotonic_s()
        fresh = [(until_s, update) for until_s, update in waiting if now_s < until_s]
        kept = self._write([update for _, update in fresh])
        self._unwritten.extend(each for each in fresh if each[1] in kept)

    def _apply_updates(self, updates: Sequence[OutboxUpdate]) -> None:
        kept = self._write(updates)
        if kept:
            log.warning(
                "tries are unsettled, as Redis is away; they are settled once it is back", tries=len(kept)
            )
            until_s = self._host.monotonic_s() + OUTBOX_LEASE_MS / 1_000
            self._unwritten.extend((until_s, update) for update in kept)

    def _write(self, updates: Sequence[OutboxUpdate]) -> list[OutboxUpdate]:
        """Write updates, and wake workers for the SMS that follow. Return those whose server is away."""
        try:
            answers: Sequence[int | Exception] = self._outboxes.try_updates(updates)
        except redis.RedisError as e:
            if not redis_client.is_away(e):
                raise
            answers = [e] * len(updates)
        pairs = list(zip(updates, answers, strict=True))
        if following := [
            update.lease.sender for update, answer in pairs if answer and not isinstance(answer, Exception)
        ]:
            self._waker.wake(keyspace.OUTBOUND_QUEUE, following)
        return [update for update, answer in pairs if isinstance(answer, Exception)]

    def _decode_or_give_up(self, take: OutboxLease) -> OutboundSms | OutboxUpdate:
        """The SMS, or what settles one that must not be tried, or not yet."""
        try:
            sms = decode_outbound(take.sms_bytes)
        except msgspec.MsgspecError as e:
            sms = OutboundSms(f"{take.fence}", "", take.sender, "")
            return self._give_up(take, sms, give_up_untried("undecodable", f"the SMS cannot be read: {e}"))
        wire = self._clients.get(sms.channel)
        if wire is None:
            return self._give_up(
                take, sms, give_up_untried("unknown_channel", "its channel is no longer configured")
            )
        if given_up := decide_before_attempt(take, sms, wire.recourse):
            return self._give_up(take, sms, given_up)
        rest_ms = rest_after_failover_ms(take, sms, wire.recourse)
        return OutboxUpdate(take, "untried", rest_ms=rest_ms, uncertain=True) if rest_ms else sms

    def _give_up(self, take: OutboxLease, sms: OutboundSms, given_up: SendDecision) -> OutboxUpdate:
        self._log_unaccepted(sms, given_up)
        earlier = self._outboxes.failed_attempts(take.sender, sms.id)
        return outbox_update(SendAttempt(take, sms, None, 0.0), given_up, earlier=earlier)

    def _acquire_permits_or_rest(
        self, name: str, pairs: Sequence[LeasedSms], leased_s: float
    ) -> tuple[list[SendableSms], list[OutboxUpdate]]:
        """The same as `_acquire_permits`, but a channel whose keys cannot be used keeps only its own SMS back."""
        try:
            return self._acquire_permits(name, pairs, leased_s)
        except redis.RedisError as e:
            log.warning("a channel gives no send permits: Redis failed", channel=name, error=failure_words(e))
            return [], [leave_untried(take, "untried", PERMIT_RETRY_MS) for take, _ in pairs]

    def _acquire_permits(
        self, name: str, pairs: Sequence[LeasedSms], leased_s: float
    ) -> tuple[list[SendableSms], list[OutboxUpdate]]:
        """Ask for send permits. Returns the SMS that may leave now, and the outbox updates of those that rest."""
        found = self._channels.acquire_send_permits(name, [_permit_request(take, sms) for take, sms in pairs])
        (self._failing_channels.add if found.failing or found.probe else self._failing_channels.discard)(name)
        if found.reopened:
            rate = self._channels[name].limits.sms_per_second
            self._outboxes.bring_forward(name, rate, MAX_BROUGHT_FORWARD)
        ready: list[SendableSms] = []
        later: list[OutboxUpdate] = []
        for (take, sms), wait_ms in zip(pairs, found.waits_ms, strict=True):
            if wait_ms == 0:
                ready.append(SendableSms(take, sms, found.probe and not ready, leased_s))
            elif wait_ms > 0:
                later.append(leave_untried(take, "booked", wait_ms, found.epoch))
            else:
                later.append(leave_untried(take, "untried", -wait_ms))
        return ready, later

    async def _look_up_or_send(
        self, sendable: SendableSms, begun_s: float, is_stopping: Callable[[], bool]
    ) -> tuple[SendOutcome | None, bool]:
        """What a try came to (None: it was left), and whether the provider may have the SMS after it, from this try or from an
        earlier one that may be under way still. However long the process stands still in between: the moment that was looked
        at last is the one that the send counts from."""
        take, sms = sendable.lease, sendable.sms
        wire = self._clients[sms.channel]
        may_be_there = take.uncertain or sms.uncertain
        if wire.recourse == "look_up" and may_be_there:
            latest_s = sendable.leased_s + MAX_START_DELAY_AFTER_LOOK_UP_S
            found = await self._look_up(wire, take, sms, latest_s)
            faults.reach("after_look_up")
            if not isinstance(found, SmsNotFound):
                return found, isinstance(found, OutcomeUnknown | ChannelFault)
            begun_s = self._host.monotonic_s()
            if is_stopping() or begun_s > latest_s:
                return None, True
        outcome = await wire.send(sms, try_deadline(begun_s))
        says_nothing_of_earlier = outcome is None or wire.recourse == "repeat"
        return outcome, isinstance(outcome, OutcomeUnknown) or (may_be_there and says_nothing_of_earlier)

    async def _look_up(
        self, wire: ProviderClient, take: OutboxLease, sms: OutboundSms, answer_by_s: float
    ) -> SendOutcome | SmsNotFound:
        """Whether the provider has an SMS that it may have. An answer about anything but the SMS leaves that open."""
        since = first_tried_s(take, sms, self._host.wall_s())
        known = await self._in_thread(partial(self._outboxes.recent_tickets, take.sender))
        found = await wire.look_up(sms, since, known, answer_by_s)
        if isinstance(found, RetryLater):
            found = OutcomeUnknown(found.code, found.why, found.this_sms_only)
        match found:
            case SmsNotFound():
                outcome = "not_found"
            case OutcomeUnknown() | ChannelFault():
                outcome = "unknown"
            case _:
                outcome = "found"
        metrics.LOOKUPS.labels(sms.channel, outcome).inc()
        return found

    def _report_to_circuit(self, name: str, tries: Sequence[SendAttempt]) -> CircuitState:
        """Report these attempts to the channel's circuit and return its state. While the channel is healthy and all
        attempts worked, nothing is sent to Redis."""
        news = list(_circuit_reports(tries))
        if not news or (name not in self._failing_channels and all(how == "works" for how, _, _ in news)):
            return CircuitState()
        try:
            circuit = self._channels.report_results(name, news)
        except redis.RedisError as e:
            log.warning("a circuit was not told of tries: Redis failed", channel=name, error=failure_words(e))
            return CircuitState()
        if circuit.rest_ms:
            self._failing_channels.add(name)
        if circuit.opened:
            why = next((why for how, _, why in reversed(news) if not how.endswith("works")), "")
            log.error("channel paused", channel=name, by=circuit.opened, why=why, pause_ms=circuit.rest_ms)
            if circuit.opened == "circuit":
                metrics.CIRCUITS_OPENED.labels(name).inc()
        if circuit.closed:
            log.warning("channel works again", channel=name)
        return circuit

    def _decide_update(self, made: SendAttempt, open_ms: int) -> OutboxUpdate:
        """What follows from a try, after which its channel's circuit is open for `open_ms`."""
        take, sms = made.lease, made.sms
        if made.outcome is None:
            return OutboxUpdate(take, "untried", uncertain=made.uncertain)
        pause_ms = round(self._channels[sms.channel].limits.pause_s * 1000)
        recourse = self._clients[sms.channel].recourse
        jitter = self._host.random()
        settlement = decide_after_attempt(
            made.outcome, take.attempts + 1, pause_ms, jitter, recourse, open_ms
        )
        self._count_attempt(made, settlement)
        self._log_unaccepted(sms, settlement)
        earlier = self._outboxes.failed_attempts(take.sender, sms.id) if settlement.dead_letter_reason else ()
        return outbox_update(made, settlement, recourse, earlier)

    def _count_attempt(self, made: SendAttempt, settlement: SendDecision) -> None:
        name, sms = made.sms.channel, made.sms
        metrics.SENDS.labels(name, settlement.outcome_label).inc()
        metrics.SEND_SECONDS.labels(name).observe(made.took_s)
        if not isinstance(made.outcome, SendAccepted):
            metrics.SEND_ERRORS.labels(name, self._clients[name].metric_code(settlement.code)).inc()
            return
        metrics.SEGMENTS.labels(name).inc(segments.count_segments(sms.text).segments)
        if made.outcome.credit is not None:
            metrics.CREDIT.labels(name).set(made.outcome.credit)
        ended_ms = ended_at_ms(made)
        for since, seconds in ((sms.decided, metrics.OUTBOX_SECONDS), (sms.heard, metrics.REPLY_SECONDS)):
            if since:
                seconds.labels(name).observe(max(0, ended_ms - since) / 1000)
        if not sms.uncertain:  # else it was in a webhook's answer, and was noted then
            self._notes.note(name, ended_ms, ended_ms - sms.heard if sms.heard else None)

    def _log_unaccepted(self, sms: OutboundSms, settlement: SendDecision) -> None:
        if settlement.outcome_label == "accepted":
            return
        if settlement.dead_letter_reason:
            metrics.DEAD_LETTERS.labels(settlement.dead_letter_reason).inc()
        (log.error if settlement.dead_letter_reason else log.warning)(
            "sms not accepted",
            id=sms.id,
            channel=sms.channel,
            session=sms.session,
            sender=hash_sender(self._log_key, sms.to),
            outcome=settlement.outcome_label,
            code=settlement.code,
            why=settlement.why,
            rest_ms=settlement.rest_ms,
        )


def _permit_request(take: OutboxLease, sms: OutboundSms) -> PermitRequest:
    """What the SMS asks its channel for."""
    if take.permit_epoch >= 0:
        return take.permit_epoch
    return "unasked" if sms.unasked else "reply"


def _circuit_reports(tries: Iterable[SendAttempt]) -> Iterable[tuple[str, int, str]]:
    """What these tries say of their provider, as ChannelStore.report_results takes it."""
    for made in tries:
        probe = "probe-" if made.probe else ""
        match made.outcome:
            case None if made.probe:
                yield f"{probe}unmade", 0, ""
            case None:
                pass
            case outcome:
                why = "" if isinstance(outcome, SendAccepted) else f"{outcome.code}: {outcome.why}"
                yield f"{probe}{provider_health(outcome)}", round(made.took_s * 1000), why
