"""Tells one endpoint what happens, while this process has it.

Law. Each shard is told in order, one request after the other, and its position moves when a request has come to its end: what
a position is behind was taken by the endpoint, refused by it for good, or not wanted. So a process that dies repeats a request
or none, and leaves none out; and a person's events, which are all of one shard, come in order. Shards go side by side. An
endpoint that fails holds up nobody but itself.

A position is behind a whole entry, or several, whose events may take several requests. One that was begun is told to its end
also by a runner that is stopped, so that nothing of it comes again; one that dies, or that is not done in time, repeats all of
it that was told.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeVar

import redis
import structlog

from config.host import THIS_HOST, Host
from config.settings.hooks import Hook
from config.store.endpoint_health import decode_circuit, encode_circuit
from config.store.entry_id import EntryId
from config.telemetry import faults, metrics
from engine.hooks.hook_events import HookEvent
from engine.model.errors import ParleyError
from workers.archiving.stream_reader import StreamTips
from workers.hooks.circuit import EndpointCircuit
from workers.hooks.endpoint_client import EndpointClient, HookReply, RenderedEvent
from workers.hooks.event_source import EventPage, EventSource
from workers.hooks.hook_store import HOOK_LEASE_MS, HookLease, HookMarks, HookStore

log = structlog.get_logger()

FIRST_RETRY_S, LONGEST_RETRY_S = 0.25, 5.0
"""How long a request rests that failed, while the circuit is closed: at first, and after many tries."""

COMMIT_RETRY_S = 0.2
"""How soon positions are stored again that Redis did not take."""

LEASE_MARGIN_S = 1.0
"""How long before the end of its lease a process begins nothing more."""

SKIPPED_COMMIT_INTERVAL_S = 1.0
"""How often positions are stored that have moved over what the endpoint does not want: by them it is seen how far it is."""

Result = TypeVar("Result")


class RunnerStoppedError(ParleyError):
    """The runner was told to stop, or the endpoint is another process's, or its positions were put elsewhere."""


class PutOffError(ParleyError):
    """No request may be made now, or one has failed: what it was to tell is told later."""


class RunnerServices(Protocol):
    """What a runner needs of its process."""

    source: EventSource
    store: HookStore
    client: EndpointClient

    async def call(self, function: Callable[[], Result]) -> Result:
        """Run what blocks, in a thread."""

    def now_ms(self) -> int:
        """The time, by the clock of Redis."""

    def note_unread(self, error: Exception) -> None:
        """Log that a shard could not be read, or told, now and then."""

    def render(self, hook: Hook, event: HookEvent) -> RenderedEvent: ...

    async def put_aside(
        self, hook: Hook, event: HookEvent, rendered: RenderedEvent, reply: HookReply
    ) -> None:
        """Make a dead letter of it. Raises redis.RedisError."""


class EndpointRunner:
    """Tells `hook`. It is made in a running loop, and works until it is stopped or its lease is lost."""

    def __init__(
        self, hook: Hook, lease: HookLease, services: RunnerServices, host: Host = THIS_HOST
    ) -> None:
        self.hook = hook
        self.token = lease.token
        self._services = services
        self._host = host
        self._is_paused = False
        self._positions = dict(lease.positions)
        self._circuit = EndpointCircuit(decode_circuit(lease.circuit))
        # of each shard, the last id that its stream had given out when all was told
        self._told_tips: dict[int, EntryId] = {}
        self._done: dict[int, set[str]] = {}  # events beyond the position that are over
        self._alone: set[int] = (
            set()
        )  # shards whose events are sent one by one, as some were refused together
        self._failures: dict[int, int] = {}  # of requests in a row
        self._rests_until_s: dict[int, float] = {}
        self._busy: dict[int, asyncio.Task[None]] = {}
        self._tips: StreamTips | None = None
        self._tips_since_s = 0.0
        self._stopped = asyncio.Event()
        self._lost = False
        self._probing = False
        self._is_circuit_stored = bool(lease.circuit)
        self._uncommitted: dict[int, EntryId] = {}
        self._committing = asyncio.Lock()
        self._storing: asyncio.Task[None] | None = None
        self._stored_s = float("-inf")
        self._leased_until_s = 0.0
        self.note_lease(self._host.monotonic_s())

    @property
    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    @property
    def is_ended(self) -> bool:
        """Whether it is stopped, and nothing of it is under way any more."""
        is_storing = self._storing is not None and not self._storing.done()
        return self.is_stopped and not self._busy and not is_storing

    def wake(self, tips: StreamTips, since_s: float) -> None:
        """Look at the shards that have something, those that are furthest behind first. The streams were as far as `tips` at
        this moment (of the host's monotonic clock)."""
        self._tips, self._tips_since_s = tips, since_s
        if self.is_stopped:
            return
        self._store_skipped()
        if not self._may_call():
            return
        most = 1 if self._circuit.is_open else self.hook.connections
        waiting = [k for k, last in tips.last_ids.items() if k not in tips.away and self._is_waiting(k, last)]
        for k in sorted(waiting, key=lambda k: self._positions[k])[: max(0, most - len(self._busy))]:
            task = asyncio.get_running_loop().create_task(self._tell_shard(k, tips.last_ids[k], since_s))
            self._busy[k] = task
            task.add_done_callback(partial(self._note_done, k))

    def _is_waiting(self, k: int, last: EntryId) -> bool:
        """Whether shard `k`, whose last entry is `last`, may have something to tell, and nobody is about to."""
        is_told = last in (self._told_tips.get(k), self._positions[k])
        return (
            not is_told
            and k not in self._busy
            and self._rests_until_s.get(k, 0.0) <= self._host.monotonic_s()
        )

    async def stop(self, within_s: float) -> None:
        """Let the requests that are under way come to their ends, for so long, and give the endpoint back."""
        self._stopped.set()
        if self._busy:
            await asyncio.wait(list(self._busy.values()), timeout=within_s)
        late = list(self._busy.values())
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        if self._storing is not None:
            await self._storing
        with suppress(RunnerStoppedError):
            await self._commit({})
            await self._services.call(partial(self._services.store.release, self.hook.name, self.token))

    def lose(self) -> None:
        """The endpoint is another's: begin nothing more. What is under way comes to its end, and changes nothing."""
        self._lost = True
        self._stopped.set()

    def note_marks(self, marks: HookMarks) -> None:
        """An operator may have paused the endpoint, or have it called though its circuit is open."""
        self._is_paused = marks.is_paused
        if self._is_circuit_stored and not marks.has_circuit:
            self._circuit.note_success()
            self._is_circuit_stored = False

    def note_lease(self, asked_s: float) -> None:
        """The lease was asked for at this moment (of the host's monotonic clock), and is there."""
        self._leased_until_s = asked_s + HOOK_LEASE_MS / 1_000 - LEASE_MARGIN_S

    def _note_done(self, k: int, task: asyncio.Task[None]) -> None:
        self._busy.pop(k, None)
        if self._tips is not None and not task.cancelled():
            self.wake(self._tips, self._tips_since_s)

    async def _tell_shard(self, k: int, last: EntryId, since_s: float) -> None:
        """Tell a page of shard `k`, whose last entry was `last` at `since_s`."""
        try:
            page = await self._services.call(partial(self._services.source.read, k, self._positions[k]))
            self._positions[k] = page.position
            await self._tell_page(k, page)
        except RunnerStoppedError:
            self._stopped.set()
        except PutOffError:
            pass  # the page is let go of, and read again: it takes room, and may be erased meanwhile
        except Exception as e:  # noqa: BLE001 (whatever it is, it is tried again)
            self._services.note_unread(e)
            self._rests_until_s[k] = self._host.monotonic_s() + LONGEST_RETRY_S
        else:
            if page.is_all and page.read_s >= since_s:
                self._told_tips[k] = last

    async def _tell_page(self, k: int, page: EventPage) -> None:
        """Tell a page's events that are wanted, as many at once as the endpoint takes; an entry's are not parted by a commit."""
        chunk: list[HookEvent] = []
        at = page.position
        told = [
            (at, [each for each in events if self.hook.wanted.passes(each)]) for at, events in page.entries
        ]
        if any(wanted for _, wanted in told):
            await self._confirm_lease()
        for entry_id, wanted in told:
            if chunk and len(chunk) + len(wanted) > self.hook.batch:
                await self._tell_chunk(k, chunk, at)
                chunk = []
            chunk += wanted
            at = entry_id
        if chunk:
            await self._tell_chunk(k, chunk, at)
        elif at != self._positions[k]:
            self._skip_to(k, at)

    async def _tell_chunk(self, k: int, events: Sequence[HookEvent], at: EntryId) -> None:
        """Tell events, and move the position to `at`, behind all of them."""
        done = self._done.get(k, ())
        left = [each for each in events if each.id not in done]
        most = 1 if k in self._alone else self.hook.batch
        for first in range(0, len(left), most):
            is_begun = first > 0 or len(left) < len(events)
            await self._deliver(k, left[first : first + most], is_begun=is_begun)
        self._positions[k] = at
        self._done.pop(k, None)
        self._alone.discard(k)
        faults.reach("before_hook_commit")
        await self._commit({k: at})
        faults.reach("after_hook_commit")

    def _skip_to(self, k: int, at: EntryId) -> None:
        """Move over what is not wanted. That is stored now and then: whoever reads it again does not want it either."""
        self._positions[k] = at
        self._uncommitted[k] = at

    def _store_skipped(self) -> None:
        """Begin to store positions that have moved, if it is time."""
        is_storing = self._storing is not None and not self._storing.done()
        if (
            self._uncommitted
            and not is_storing
            and self._host.monotonic_s() - self._stored_s >= SKIPPED_COMMIT_INTERVAL_S
        ):
            self._stored_s = self._host.monotonic_s()
            self._storing = asyncio.get_running_loop().create_task(self._commit_skipped())

    async def _commit_skipped(self) -> None:
        try:
            await self._commit({})
        except RunnerStoppedError:
            self._stopped.set()

    async def _deliver(self, k: int, events: Sequence[HookEvent], *, is_begun: bool) -> None:
        """Send events in one request. Of several that are refused together, each is sent alone, so that those which are not at
        fault arrive. `is_begun`: others of the same commit have been told. Raises PutOffError if they are to be sent again."""
        rendered = [self._services.render(self.hook, each) for each in events]
        reply = await self._request(rendered, is_begun=is_begun)
        if reply.outcome == "failed":
            failures = self._failures.get(k, 0)
            self._failures[k] = failures + 1
            self._rests_until_s[k] = self._host.monotonic_s() + min(
                LONGEST_RETRY_S, FIRST_RETRY_S * 2 ** min(failures, 10)
            )
            raise PutOffError
        self._failures.pop(k, None)
        if reply.outcome == "delivered":
            metrics.HOOK_EVENTS.labels(self.hook.name, "delivered").inc(len(events))
        elif len(events) > 1:
            self._alone.add(k)
            for n, each in enumerate(events):
                await self._deliver(k, [each], is_begun=is_begun or n > 0)
            return
        else:
            await self._put_aside(events[0], rendered[0], reply)
        self._done.setdefault(k, set()).update(each.id for each in events)

    async def _request(self, rendered: Sequence[RenderedEvent], *, is_begun: bool) -> HookReply:
        """Make one request once the endpoint may be called, and note what came of it."""
        is_probe = self._take_permit(is_begun=is_begun)
        try:
            faults.reach("before_hook_request")
            reply = await self._services.client.post(self.hook, rendered)
            faults.reach("after_hook_request")
            self._note_reply(reply, is_probe=is_probe)
            if reply.outcome != "delivered":
                await self._commit({})  # how the endpoint does
        finally:
            if is_probe:
                self._probing = False
        metrics.HOOK_REQUESTS.labels(self.hook.name, reply.outcome).inc()
        metrics.HOOK_SECONDS.labels(self.hook.name).observe(reply.took_ms / 1_000)
        return reply

    def _note_reply(self, reply: HookReply, *, is_probe: bool) -> None:
        if self._circuit.is_open and not is_probe:
            return  # it was sent before the circuit opened: the probe will tell
        if reply.outcome == "delivered":
            if self._circuit.note_success():
                log.info("an endpoint is told again", hook=self.hook.name)
        elif self._circuit.note_failure(
            self._services.now_ms(), reply.took_ms, reply.why, reply.retry_after_ms
        ):
            metrics.HOOK_CIRCUITS_OPENED.labels(self.hook.name).inc()
            log.warning("an endpoint fails; it is left alone for a while", hook=self.hook.name, why=reply.why)

    def _take_permit(self, *, is_begun: bool) -> bool:
        """Whether the request that may be made now is a probe. Raises RunnerStoppedError once the runner is stopped, unless the
        request ends what `is_begun`, and PutOffError if none may be made."""
        if self._lost or (self.is_stopped and not is_begun):
            raise RunnerStoppedError
        if not self._may_call() or (self._circuit.is_open and self._probing):
            raise PutOffError
        self._probing = self._circuit.is_open
        return self._probing

    def _may_call(self) -> bool:
        """Whether the endpoint may be called, were it but for a probe."""
        is_leased = self._host.monotonic_s() < self._leased_until_s
        return is_leased and not self._is_paused and not self._circuit.wait_ms(self._services.now_ms())

    async def _put_aside(self, event: HookEvent, rendered: RenderedEvent, reply: HookReply) -> None:
        faults.reach("before_hook_letter")
        while True:
            try:
                await self._services.put_aside(self.hook, event, rendered, reply)
            except redis.RedisError:
                await self._rest(LONGEST_RETRY_S)
            else:
                break
        faults.reach("after_hook_letter")
        metrics.HOOK_EVENTS.labels(self.hook.name, "refused").inc()

    async def _confirm_lease(self) -> None:
        """Raises RunnerStoppedError unless the endpoint is this process's still, on the server that its positions are of: what
        was read after one of them follows it then."""
        await self._commit({})

    async def _commit(self, moves: Mapping[int, EntryId]) -> None:
        """Store positions, and how the endpoint does: what several shards have at once, in one call. Raises RunnerStoppedError if
        the endpoint is this process's no more; Redis away is waited for."""
        self._uncommitted.update(moves)
        async with self._committing:
            if moves and not any(k in self._uncommitted for k in moves):
                return  # another shard has taken them along
            taken, self._uncommitted = self._uncommitted, {}
            while not await self._try_to_move(taken):
                await self._rest(COMMIT_RETRY_S)

    async def _try_to_move(self, moves: Mapping[int, EntryId]) -> bool:
        """False if Redis is away."""
        asked_s = self._host.monotonic_s()
        circuit = encode_circuit(self._circuit.state)
        try:
            move = partial(self._services.store.move, self.hook.name, self.token, moves, circuit)
            is_ours = await self._services.call(move)
        except redis.RedisError:
            return False
        if not is_ours:
            self.lose()
            raise RunnerStoppedError
        self.note_lease(asked_s)
        self._is_circuit_stored = bool(circuit)
        return True

    async def _rest(self, seconds: float) -> None:
        """Wait, unless the runner is stopped: then raises RunnerStoppedError."""
        try:
            await asyncio.wait_for(self._stopped.wait(), seconds)
        except TimeoutError:
            return
        raise RunnerStoppedError
