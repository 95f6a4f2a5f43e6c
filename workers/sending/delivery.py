"""Delivers SMS by the steps of send_steps.py. Each channel has slots of its own, for as many tries at once; what has none looks
again later, so that no channel waits for another.

Told to stop, a process begins nothing more: what it has taken goes back, and what is under way has IN_FLIGHT_TIMEOUT_S to end.
After that it is left as by a kill: its lease ends, and the provider is asked, or told the same id again.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from queue import Empty, SimpleQueue
from threading import Condition, Thread

import redis
import structlog

from config.host import THIS_HOST, Host
from config.store import keyspace
from config.store.missing_rights import failure_words
from config.telemetry.supervision import LoopRounds
from workers.sending.bulkhead import ChannelBulkhead
from workers.sending.http_client import TRY_TIMEOUT_S
from workers.sending.send_policy import SendAttempt
from workers.sending.send_steps import SendableSms, SendSteps
from workers.turns.committing import WorkerWaker

log = structlog.get_logger()

IN_FLIGHT_TIMEOUT_S = TRY_TIMEOUT_S + 0.1
"""How long tries may go on once the process is told to stop: as long as one takes that began just before."""

UPDATE_RETRY_S = 0.5
"""How often it is tried to write what could not be written."""

LAST_UPDATE_TIMEOUT_S = 0.3
"""And how long it may then take to settle the last of them; together less than a process has (worker_process.FORCED_EXIT_S)."""


class DeliveryRunner:
    """One worker's deliveries. `handle_wakeup` is called with the senders of a wake-up, by one thread; `stop` lets nothing more
    begin, and `close` ends what is under way. The channels' event loops are among `rounds`.

    Whoever runs it takes SMS, each channel's event loop tries them, and one thread settles: tries that end while a settlement is
    under way share the next one.
    """

    def __init__(
        self, steps: SendSteps, waker: WorkerWaker, rounds: LoopRounds, host: Host = THIS_HOST
    ) -> None:
        self._steps = steps
        self._waker = waker
        self._host = host
        self._changed = Condition()
        self._bulkheads = {
            name: ChannelBulkhead(name, self._changed, rounds, host=host) for name in steps.channel_names
        }
        self._stop_deadline_s: float | None = None
        self._ended_attempts: SimpleQueue[SendAttempt | None] = SimpleQueue()
        self._update_thread = Thread(target=self._update_outboxes_until_closed, name="settle", daemon=True)
        self._update_thread.start()

    def handle_wakeup(self, _queue: str, senders: Sequence[str]) -> None:
        """Begin a try for every one of these senders whose next SMS may leave."""
        while senders and (room := self._wait_for_free_slots()):
            sendable = self._steps.lease_sendable(senders[:room], self._bulkheads)
            for channel, of_channel in groupby(sendable, lambda each: each.sms.channel):
                self._begin_attempts(self._bulkheads[channel], list(of_channel))
            senders = senders[room:]
        if senders:
            self._waker.wake(keyspace.OUTBOUND_QUEUE, senders)

    def stop(self) -> None:
        """Begin nothing more."""
        with self._changed:
            if self._stop_deadline_s is None:
                self._stop_deadline_s = self._host.monotonic_s() + IN_FLIGHT_TIMEOUT_S
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
        for slots in self._bulkheads.values():
            slots.close()

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
        return max(0.0, (self._stop_deadline_s or 0.0) - self._host.monotonic_s())

    def _begin_attempts(self, slots: ChannelBulkhead, sendable: Sequence[SendableSms]) -> None:
        """Begin tries of SMS that were leased together."""
        slots.run_in_slots(sendable[0].leased_s, [partial(self._run_attempt, each) for each in sendable])

    async def _run_attempt(self, sendable: SendableSms) -> None:
        self._ended_attempts.put(await self._steps.run_attempt(sendable, self._is_stopping))

    def _is_stopping(self) -> bool:
        return self._stop_deadline_s is not None

    def _update_outboxes_until_closed(self) -> None:
        """Settle tries as they are made, until None comes."""
        last = False
        while not last:
            waiting = self._wait_for_ended_attempts()
            tries = [made for made in waiting if made is not None]
            last = len(tries) < len(waiting)
            try:
                self._steps.write_again()
                self._steps.settle_attempts(tries)
            except redis.RedisError as e:
                log.warning("tries are unsettled; their leases end by themselves", error=failure_words(e))
            except Exception:
                log.exception("tries are unsettled; their leases end by themselves")
            finally:
                for made in tries:
                    self._bulkheads[made.sms.channel].release_slot(made.slot_taken_s)

    def _wait_for_ended_attempts(self) -> list[SendAttempt | None]:
        """Return those that have ended, once there is one, or after UPDATE_RETRY_S."""
        with suppress(Empty):
            ended = [self._ended_attempts.get(timeout=UPDATE_RETRY_S)]
            while not self._ended_attempts.empty():
                ended.append(self._ended_attempts.get())
            return ended
        return []
