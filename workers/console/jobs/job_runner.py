"""Does what takes long in a thread of its own, tells Redis how far it is, and ends it when someone asks, or the process stops."""

from collections.abc import Callable
from contextlib import suppress
from threading import Event, Lock, Thread

import msgspec
import redis
import structlog

from config.host import Host
from engine.model.errors import ParleyError
from workers.console.jobs.job_store import (
    MAX_RESULTS_KEPT,
    JobKind,
    JobOrder,
    JobProgress,
    JobState,
    JobStore,
)
from workers.dead_letters.letter_result import LetterResult

log = structlog.get_logger()

MAX_JOBS = 4
"""At once, in one process."""

WEB_JOBS: tuple[JobKind, ...] = ("check", "invite")
MAX_WEB_JOBS = 2
"""Of them, those that wait for `web`: while it hangs there is room for erasures and replays."""

SAVED_EVERY_S = 0.5
LOOK_S = 2.0
"""So often a job says that it lives, and looks whether it is to end."""

FINAL_TRIES = 30
"""How often it is tried to say how a job ended, LOOK_S apart, while Redis does not answer."""

END_S = 3.0
"""How long the end of the process waits for jobs to end."""


class JobHand:
    """What a job's work is given: to tell how far it is, and to know whether it is to end. `host` rests no longer than until then."""

    def __init__(self, store: JobStore, order: JobOrder, host: Host) -> None:
        self.order = order
        self.progress = JobProgress()
        self._store = store
        self._clock = host.monotonic_s
        self._saved_s = host.monotonic_s()
        self._stopping = Event()
        self.host = msgspec.structs.replace(host, sleep=self._rest)

    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def stop(self) -> None:
        self._stopping.set()

    def count(self, result: LetterResult, *, is_told: bool) -> None:
        """Count what came of one letter, and keep which one it was, if that is told. What was said stays out of it, as it would
        outlive an erasure; the letter's own page has it."""
        progress = self.progress
        progress.counts[result.outcome] = progress.counts.get(result.outcome, 0) + 1
        if is_told and len(progress.results) < MAX_RESULTS_KEPT:
            why = "" if result.outcome == "failing" else result.why
            progress.results.append(LetterResult(result.id, result.outcome, why))
        if self._clock() - self._saved_s >= SAVED_EVERY_S:
            self.save()

    def save(self) -> None:
        """Raises redis.RedisError."""
        self._saved_s = self._clock()
        self._store.save(self.order.id, self.progress)

    def _rest(self, seconds: float) -> None:
        self._stopping.wait(seconds)


JobWork = Callable[[JobHand], None]


class JobFailedError(ParleyError):
    """The work cannot be done, or not all of it. The text says why."""


class JobRunner:
    """Runs jobs. `open_store` are in Redis; times are of `host`."""

    def __init__(self, store: JobStore, host: Host) -> None:
        self.store = store
        self._host = host
        self._hands: dict[str, tuple[JobHand, Thread]] = {}
        self._lock = Lock()
        self._is_closed = False

    def start(
        self, kind: JobKind, subject: str, by: str, work: JobWork, *, letter: str = "", upload: str = ""
    ) -> str | None:
        """Begin a job, and return its id; None if there are too many already. Raises redis.RedisError."""
        order = JobOrder(
            id=self._host.token_hex(8),
            kind=kind,
            subject=subject,
            by=by,
            at=self._host.wall_ms(),
            letter=letter,
            upload=upload,
        )
        hand = JobHand(self.store, order, self._host)
        thread = Thread(target=self._do, args=(hand, work), name=f"job-{kind}", daemon=True)
        with self._lock:
            if self._is_closed or not self._has_room(kind):
                return None
            self._hands[order.id] = hand, thread
        try:
            self.store.add(order)
        except redis.RedisError:
            self._forget(order.id)
            raise
        thread.start()
        return order.id

    def close(self) -> None:
        """End what is under way, after the step that it is at."""
        with self._lock:
            self._is_closed = True
            under_way = [*self._hands.values()]
        for hand, _ in under_way:
            hand.stop()
        for _, thread in under_way:
            with suppress(RuntimeError):  # one that has not begun yet
                thread.join(END_S)

    def _do(self, hand: JobHand, work: JobWork) -> None:
        over = Event()
        Thread(target=self._keep_alive, args=(hand, over), name="job-alive", daemon=True).start()
        state: JobState = "done"
        try:
            work(hand)
            if hand.is_stopping() and hand.progress.counted < hand.progress.total:
                state = "stopped"
        except JobFailedError as e:
            state, hand.progress.why = "failed", str(e)
        except redis.RedisError as e:
            state, hand.progress.why = "failed", f"Redis failed ({type(e).__name__})."
        except Exception as e:
            log.exception("what the console was asked for failed", kind=hand.order.kind, job=hand.order.id)
            state, hand.progress.why = "failed", f"{type(e).__name__}: the console's log says more."
        hand.progress.state = state
        self._save_last(hand)
        over.set()
        self._forget(hand.order.id)

    def _save_last(self, hand: JobHand) -> None:
        for _ in range(FINAL_TRIES):
            with suppress(redis.RedisError):
                hand.save()
                return
            self._host.sleep(LOOK_S)

    def _keep_alive(self, hand: JobHand, over: Event) -> None:
        while not over.wait(LOOK_S):
            with suppress(redis.RedisError):
                if self.store.stay_alive(hand.order.id):
                    hand.stop()

    def _has_room(self, kind: JobKind) -> bool:
        web_jobs = sum(hand.order.kind in WEB_JOBS for hand, _ in self._hands.values())
        return len(self._hands) < MAX_JOBS and (kind not in WEB_JOBS or web_jobs < MAX_WEB_JOBS)

    def _forget(self, job: str) -> None:
        with self._lock:
            self._hands.pop(job, None)
