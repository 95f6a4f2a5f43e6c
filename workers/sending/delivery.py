"""An SMS is sent: taken from its outbox, permitted by its channel, tried once, and settled.

A sender's next SMS is not touched before the last one is settled, and nothing sleeps: what must wait rests in Redis
until its alarm. Each channel has slots of its own, for as many tries at once; what has none looks again later, so that no
channel waits for another. What a try means for its SMS is decided in verdicts.py, what it means for its channel in
channels.py.

Told to stop, a process begins nothing more: what it has taken goes back, and what is under way has IN_FLIGHT_TIMEOUT_S to end.
After that it is left as by a kill: its lease ends, and the provider is asked, or told the same id again.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from queue import SimpleQueue
from threading import Condition, Thread
from time import monotonic, time

import msgspec
import redis
import structlog

from config.store import keyspace
from config.telemetry import faults, metrics
from config.telemetry.logs import hash_sender
from engine.model import segments
from engine.model.events import OutboundSms, decode_outbound
from engine.providers import ChannelFault, OutcomeUnknown, RetryLater, SendAccepted, SendOutcome, SmsNotFound
from workers.sending.bulkhead import ChannelBulkhead
from workers.sending.http_client import TRY_TIMEOUT_S, ProviderClient, try_deadline
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
from workers.store.outboxes import MAX_BROUGHT_FORWARD, LeasedSms, OutboxLease, OutboxStore, OutboxUpdate
from workers.turns.committing import WorkerWaker

log = structlog.get_logger()

MAX_START_DELAY_S = 2.0
"""A try that could not begin this soon after its SMS was taken is left: a STOP may have withdrawn the SMS."""

MAX_START_DELAY_AFTER_LOOK_UP_S = 5.0
"""The same for an SMS that is looked up first, and until when an answer to that is waited for: so much that the lease lasts
for a whole try after it."""

IN_FLIGHT_TIMEOUT_S = TRY_TIMEOUT_S + 0.1
"""How long tries may go on once the process is told to stop: as long as one takes that began just before."""

LAST_UPDATE_TIMEOUT_S = 0.3
"""And how long it may then take to settle the last of them; together less than a process has (worker_process.END_S)."""


class DeliveryRunner:
    """One worker's deliveries. `handle_wakeup` is called with the senders of a wake-up, by one thread; `stop` lets nothing more
    begin, and `close` ends what is under way.

    Whoever runs it takes SMS, threads try them, and one thread settles: tries that end while a settlement is under way
    share the next one.
    """

    def __init__(
        self,
        outboxes: OutboxStore,
        channels: ChannelStore,
        clients: Mapping[str, ProviderClient],
        waker: WorkerWaker,
        log_key: bytes,
    ) -> None:
        self._outboxes = outboxes
        self._channels = channels
        self._clients = clients
        self._waker = waker
        self._log_key = log_key
        self._changed = Condition()
        self._bulkheads = {name: ChannelBulkhead(name, self._changed) for name in clients}
        self._failing_channels: set[str] = set()  # channels whose circuit must be told also of what works
        self._stop_deadline_s: float | None = None
        self._ended_attempts: SimpleQueue[SendAttempt | None] = SimpleQueue()
        self._update_thread = Thread(target=self._update_outboxes_until_closed, name="settle", daemon=True)
        self._update_thread.start()

    def handle_wakeup(self, _queue: str, senders: Sequence[str]) -> None:
        """Begin a try for every one of these senders whose next SMS may leave."""
        while senders and (room := self._wait_for_free_slots()):
            taken_s = monotonic()
            takes = self._outboxes.lease_oldest(senders[:room], self._asked_channels())
            for take, sms, probe in self._select_sendable(takes):
                self._bulkheads[sms.channel].run_in_slot(
                    taken_s, partial(self._run_attempt, take, sms, probe, taken_s)
                )
            senders = senders[room:]
        if senders:
            self._waker.wake(keyspace.OUTBOUND_QUEUE, senders)

    def stop(self) -> None:
        """Begin nothing more."""
        with self._changed:
            if self._stop_deadline_s is None:
                self._stop_deadline_s = monotonic() + IN_FLIGHT_TIMEOUT_S
            self._changed.notify_all()

    def close(self) -> None:
        """Stop, wait for the tries under way, and settle them."""
        self.stop()
        with self._changed:
            self._changed.wait_for(lambda: not self._attempts_in_flight(), self._remaining_stop_s())
            if unfinished := self._attempts_in_flight():
                log.warning("tries are left under way; their leases end by themselves", tries=unfinished)
        self._ended_attempts.put(None)
        self._update_thread.join(self._remaining_stop_s() + LAST_UPDATE_TIMEOUT_S)

    def _wait_for_free_slots(self) -> int:
        """How many SMS to take: as many as the channel with the most slots has free. Waits for one while there is none
        anywhere; 0 if nothing more is to begin."""
        with self._changed:
            self._changed.wait_for(lambda: self._stop_deadline_s is not None or self._most_free_slots())
            return self._most_free_slots() if self._stop_deadline_s is None else 0

    def _most_free_slots(self) -> int:
        return max(slots.free_slots for slots in self._bulkheads.values())

    def _attempts_in_flight(self) -> int:
        return sum(slots.taken_slots for slots in self._bulkheads.values())

    def _remaining_stop_s(self) -> float:
        return max(0.0, (self._stop_deadline_s or 0.0) - monotonic())

    def _asked_channels(self) -> list[str]:
        return [name for name, client in self._clients.items() if client.recourse == "look_up"]

    def _select_sendable(self, takes: Sequence[OutboxLease]) -> list[tuple[OutboxLease, OutboundSms, bool]]:
        """The takes whose channel lets them leave now, each with its SMS and whether it is to probe; the others go back to
        rest until it does."""
        by_channel: dict[str, list[LeasedSms]] = {}
        resting: list[OutboxUpdate] = []
        for take in takes:
            match self._decode_or_give_up(take):
                case OutboundSms() as sms:
                    by_channel.setdefault(sms.channel, []).append((take, sms))
                case given_up:
                    resting.append(given_up)
        permitted: list[tuple[OutboxLease, OutboundSms, bool]] = []
        for name, pairs in by_channel.items():
            pairs.sort(key=lambda pair: pair[1].unasked)
            free = self._bulkheads[name].free_slots
            resting += [
                leave_untried(take, "untried", self._bulkheads[name].slot_wait_ms())
                for take, _ in pairs[free:]
            ]
            ready, later = self._acquire_permits(name, pairs[:free]) if free else ([], [])
            permitted += ready
            resting += later
        if following := self._outboxes.apply_updates(resting):
            self._waker.wake(keyspace.OUTBOUND_QUEUE, following)
        return permitted

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

    def _acquire_permits(
        self, name: str, pairs: Sequence[LeasedSms]
    ) -> tuple[list[tuple[OutboxLease, OutboundSms, bool]], list[OutboxUpdate]]:
        """Ask for send permits. Returns the SMS that may leave now (with whether each is the probe), and the outbox
        updates of those that rest."""
        found = self._channels.acquire_send_permits(name, [_permit_request(take, sms) for take, sms in pairs])
        (self._failing_channels.add if found.failing or found.probe else self._failing_channels.discard)(name)
        if found.reopened:
            rate = self._channels[name].limits.sms_per_second
            self._outboxes.bring_forward(name, rate, MAX_BROUGHT_FORWARD)
        ready: list[tuple[OutboxLease, OutboundSms, bool]] = []
        later: list[OutboxUpdate] = []
        for (take, sms), wait_ms in zip(pairs, found.waits_ms, strict=True):
            if wait_ms == 0:
                ready.append((take, sms, found.probe and not ready))
            elif wait_ms > 0:
                later.append(leave_untried(take, "booked", wait_ms, found.epoch))
            else:
                later.append(leave_untried(take, "untried", -wait_ms))
        return ready, later

    def _run_attempt(self, take: OutboxLease, sms: OutboundSms, probe: bool, taken_s: float) -> None:
        begun_s = monotonic()
        faults.reach("before_send")
        outcome: SendOutcome | None = None
        uncertain = take.uncertain
        try:
            if self._stop_deadline_s is None and begun_s - taken_s < MAX_START_DELAY_S:
                outcome, uncertain = self._look_up_or_send(take, sms, taken_s, begun_s)
        except redis.RedisError as e:
            log.warning("a try was not made: Redis failed", id=sms.id, error=type(e).__name__)
        except Exception as e:
            log.exception("a try failed in our own code", id=sms.id, channel=sms.channel)
            outcome = RetryLater(type(e).__name__, "Parley could not make the request", this_sms_only=True)
        faults.reach("after_send")
        self._ended_attempts.put(
            SendAttempt(take, sms, outcome, monotonic() - begun_s, uncertain, probe, taken_s)
        )

    def _look_up_or_send(
        self, take: OutboxLease, sms: OutboundSms, taken_s: float, begun_s: float
    ) -> tuple[SendOutcome | None, bool]:
        """What a try came to (None: it was left), and whether the provider may have the SMS after it. However long the
        process stands still in between: the moment that was looked at last is the one that the send counts from."""
        wire = self._clients[sms.channel]
        may_be_there = take.uncertain or sms.uncertain
        if wire.recourse == "look_up" and may_be_there:
            latest_s = taken_s + MAX_START_DELAY_AFTER_LOOK_UP_S
            found = self._look_up(wire, take, sms, latest_s)
            faults.reach("after_look_up")
            if not isinstance(found, SmsNotFound):
                return found, isinstance(found, OutcomeUnknown | ChannelFault)
            begun_s = monotonic()
            if self._stop_deadline_s is not None or begun_s > latest_s:
                return None, True
        outcome = wire.send(sms, try_deadline(begun_s))
        return outcome, may_be_there if outcome is None else isinstance(outcome, OutcomeUnknown)

    def _look_up(
        self, wire: ProviderClient, take: OutboxLease, sms: OutboundSms, answer_by_s: float
    ) -> SendOutcome | SmsNotFound:
        """Whether the provider has an SMS that it may have. An answer about anything but the SMS leaves that open."""
        since = first_tried_s(take, time())
        found = wire.look_up(sms, since, self._outboxes.recent_tickets(take.sender), answer_by_s)
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

    def _update_outboxes_until_closed(self) -> None:
        """Settle tries as they are made, until None comes."""
        last = False
        while not last:
            waiting = [self._ended_attempts.get()]
            while not self._ended_attempts.empty():
                waiting.append(self._ended_attempts.get())
            tries = [made for made in waiting if made is not None]
            last = len(tries) < len(waiting)
            try:
                self._update_outboxes(tries)
            except redis.RedisError as e:
                log.warning("tries are unsettled; their leases end by themselves", error=type(e).__name__)
            except Exception:
                log.exception("tries are unsettled; their leases end by themselves")
            finally:
                for made in tries:
                    self._bulkheads[made.sms.channel].release_slot(made.slot_taken_s)

    def _update_outboxes(self, tries: Sequence[SendAttempt]) -> None:
        names = {made.sms.channel for made in tries}
        circuits = {
            name: self._report_to_circuit(name, [m for m in tries if m.sms.channel == name]) for name in names
        }
        settled = [self._decide_update(made, circuits[made.sms.channel].rest_ms) for made in tries]
        more = self._outboxes.apply_updates(settled)
        if more:
            self._waker.wake(keyspace.OUTBOUND_QUEUE, more)

    def _report_to_circuit(self, name: str, tries: Sequence[SendAttempt]) -> CircuitState:
        """Report these attempts to the channel's circuit and return its state. While the channel is healthy and all
        attempts worked, nothing is sent to Redis."""
        news = list(_circuit_reports(tries))
        if not news or (name not in self._failing_channels and all(how == "works" for how, _, _ in news)):
            return CircuitState()
        try:
            circuit = self._channels.report_results(name, news)
        except redis.RedisError as e:
            log.warning("a circuit was not told of tries: Redis failed", channel=name, error=type(e).__name__)
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
        jitter = random.random()  # noqa: S311 (jitter)
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
        for since, seconds in ((sms.decided, metrics.OUTBOX_SECONDS), (sms.heard, metrics.REPLY_SECONDS)):
            if since:
                seconds.labels(name).observe(max(0, ended_at_ms(made) - since) / 1000)

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
