"""Shares the endpoints out among the processes, and tells those that this one has.

Each process takes as many as are its share, and gives back what is more; one that dies has its endpoints until their leases
end. What fails is tried again: Redis away, and a database that is. On a cluster, an endpoint whose keys lie on a server that is
away waits by itself, and so does a shard whose events do.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import ceil
from typing import TypeVar

import redis
import structlog
from sqlalchemy.exc import SQLAlchemyError

from config.archive.pseudonyms import Pseudonyms
from config.connections.cluster_routing import ServerAwayError
from config.host import THIS_HOST, Host
from config.settings.hooks import Hook
from config.store import redis_client
from config.store.entry_id import BEGINNING
from config.store.missing_rights import failure_words
from config.telemetry import faults, process_registry
from engine.hooks.cloud_events import render_event
from engine.hooks.hook_events import HookEvent
from workers.archiving.stream_reader import StreamTips, read_tips
from workers.hooks.archive_questions import ArchiveBusyError
from workers.hooks.endpoint_client import EndpointClient, HookReply, RenderedEvent
from workers.hooks.endpoint_runner import EndpointRunner
from workers.hooks.event_source import EventSource
from workers.hooks.hook_store import HookLease, HookStore
from workers.hooks.refused_events import put_aside, refused_event_letter

log = structlog.get_logger()

Result = TypeVar("Result")

POLL_INTERVAL_S = 0.25
"""How often streams are looked at: so long, at the most, does an event wait while nothing is wrong."""

SHARING_INTERVAL_S = 1.0
"""How often leases are renewed, and endpoints taken and given back."""

COUNTING_INTERVAL_S = 5.0
"""How often it is asked how many processes share the endpoints."""

LOG_INTERVAL_S = 30.0
"""How often it is logged that the same is in the way."""

STOP_TIMEOUT_S = 6.0
"""How long requests may take that are under way when the process is told to stop."""

THREADS = 12
"""For what blocks: Redis, and the archive."""


class HookProcess:
    """Tells the endpoints `hooks` of the deployment whose lanes `client` reaches. Entered in a loop."""

    def __init__(
        self,
        hooks: Mapping[str, Hook],
        client: redis.Redis,
        shards: int,
        source: EventSource,
        store: HookStore,
        endpoints: EndpointClient,
        pseudonyms: Pseudonyms | None,
        public_url: str,
        host: Host = THIS_HOST,
    ) -> None:
        self.source, self.store, self.client = source, store, endpoints
        self._hooks = hooks
        self._redis = client
        self._shards = shards
        self._pseudonyms = pseudonyms
        self._public_url = public_url
        self._host = host
        self._threads = ThreadPoolExecutor(THREADS, "hooks")
        self._runners: dict[str, EndpointRunner] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._processes = 1
        self._counted_s = self._shared_s = float("-inf")
        self._clock_ahead_ms = 0.0
        self._logged_s: dict[str, float] = {}

    async def run_round(self) -> None:
        """Wake what has something to tell. Raises redis.RedisError."""
        now_s = self._host.monotonic_s()
        if now_s - self._shared_s >= SHARING_INTERVAL_S:
            await self._share()
            self._shared_s = now_s
        tips = await self.call(partial(read_tips, self._redis, range(self._shards)))
        since_s = self._host.monotonic_s()
        self._note_time(tips)
        for runner in self._runners.values():
            runner.wake(tips, since_s)

    async def stop(self) -> None:
        """Give all endpoints back."""
        for name in list(self._runners):
            self._give_back(name)
        await asyncio.gather(*self._leaving.values())
        self._threads.shutdown(wait=False, cancel_futures=True)

    # What runners need

    async def call(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def now_ms(self) -> int:
        return round(self._host.monotonic_s() * 1_000 + self._clock_ahead_ms)

    def note_unread(self, error: Exception) -> None:
        kind = failure_words(error)
        if self._host.monotonic_s() - self._logged_s.get(kind, float("-inf")) >= LOG_INTERVAL_S:
            self._logged_s[kind] = self._host.monotonic_s()
            is_away = isinstance(error, redis.RedisError | SQLAlchemyError | ArchiveBusyError)
            trace = None if is_away else error
            log.warning("endpoints are not told; it is tried again", error=kind, exc_info=trace)

    def render(self, hook: Hook, event: HookEvent) -> RenderedEvent:
        pseudonym = self._pseudonyms.of(event.sender) if self._pseudonyms is not None else ""
        number = event.sender if hook.numbers else ""
        return RenderedEvent(event.id, render_event(event, pseudonym, number, self._public_url))

    async def put_aside(
        self, hook: Hook, event: HookEvent, rendered: RenderedEvent, reply: HookReply
    ) -> None:
        letter = refused_event_letter(hook.name, event, rendered, reply, self.now_ms())
        await self.call(partial(put_aside, self._redis, self._shards, letter))
        log.warning(
            "an endpoint refuses an event; it is a dead letter",
            hook=hook.name,
            letter=letter.id,
            why=reply.why,
        )

    # Sharing out

    def _note_time(self, tips: StreamTips) -> None:
        """By how much the clock of Redis is ahead of the host's monotonic one, which is never set."""
        self._clock_ahead_ms = tips.now_ms - self._host.monotonic_s() * 1_000

    async def _share(self) -> None:
        """Renew the leases, and have as many endpoints as are this process's share."""
        await self._renew_leases()
        ended = [name for name, runner in self._runners.items() if runner.is_ended]
        for name in ended:
            del self._runners[name]
        await self._count_processes()
        share = ceil(len(self._hooks) / self._processes)
        for name in list(self._runners)[share:]:
            self._give_back(name)
        if (room := share - len(self._runners)) > 0:
            ours = {*self._runners, *ended, *self._leaving}
            others = [name for name in self._hooks if name not in ours]
            free = await self.call(partial(self.store.find_free, others))
            await self._take((ended + free)[:room])
        marks = await self.call(partial(self.store.read_marks, list(self._runners)))
        for name, marked in marks.items():
            self._runners[name].note_marks(marked)

    def _give_back(self, name: str) -> None:
        """Begin to: what is under way may take its time, and the other endpoints do not wait for it."""
        task = asyncio.get_running_loop().create_task(_stop_runner(self._runners.pop(name)))
        self._leaving[name] = task
        task.add_done_callback(lambda _: self._leaving.pop(name))

    async def _count_processes(self) -> None:
        if self._host.monotonic_s() - self._counted_s >= COUNTING_INTERVAL_S:
            self._counted_s = self._host.monotonic_s()
            try:
                living = await self.call(partial(process_registry.living_processes, self._redis))
            except redis.RedisError as e:
                if not redis_client.is_alone(self._redis, e):
                    raise
                return  # they are as many as they were, as far as anybody knows
            ready = {name: each for name, each in living.items() if each.is_ready}
            self._processes = max(1, process_registry.count_by_role(ready)["hooks"])

    async def _renew_leases(self) -> None:
        """A runner whose token is another's, or a new one, ends; the endpoint is taken anew from where it is then. One whose keys
        lie on a server that is away begins nothing more once its lease may have ended."""
        names = list(self._runners)
        asked_s = self._host.monotonic_s()
        tokens = await self.call(partial(self.store.take, names))
        for name, token in zip(names, tokens, strict=True):
            if token == self._runners[name].token:
                self._runners[name].note_lease(asked_s)
            elif token is not None:
                self._runners[name].lose()

    async def _take(self, names: Sequence[str]) -> None:
        for name in names:
            try:
                await self._take_one(name)
            except redis.RedisError as e:
                if not redis_client.is_alone(self._redis, e):
                    raise
                self.note_unread(e)

    async def _take_one(self, name: str) -> None:
        asked_s = self._host.monotonic_s()
        (token,) = await self.call(partial(self.store.take, [name]))
        if token:
            faults.reach("after_take_hook")
            lease = await self.call(partial(self._load, self._hooks[name], token))
            self._runners[name] = EndpointRunner(self._hooks[name], lease, self, self._host)
            self._runners[name].note_lease(asked_s)

    def _load(self, hook: Hook, token: int) -> HookLease:
        """What is known of an endpoint that was taken. A new one begins."""
        self.source.forget_pages()
        lease = self.store.load(hook.name, token)
        if any(k not in lease.positions for k in range(self._shards)):
            tips = read_tips(self._redis, range(self._shards))
            if tips.away and hook.begin != "beginning":
                raise ServerAwayError("an endpoint begins once the servers of all shards are there")
            is_old = hook.begin == "beginning"
            begin = [BEGINNING if is_old else tips.last_ids[k] for k in range(self._shards)]
            self.store.begin(hook.name, begin)
            lease = self.store.load(hook.name, token)
        return lease


async def _stop_runner(runner: EndpointRunner) -> None:
    try:
        await runner.stop(STOP_TIMEOUT_S)
    except Exception as e:  # noqa: BLE001 (whatever it is, the lease ends by itself)
        log.warning(
            "an endpoint is not given back; its lease ends", hook=runner.hook.name, error=type(e).__name__
        )
