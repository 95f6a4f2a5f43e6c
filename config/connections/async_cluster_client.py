"""The same as cluster_client.py, for asyncio."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

import hiredis
import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from config.connections.cluster_client import (
    HELD_UP_FACTOR,
    HELD_UP_S,
    LOOK_COMMANDS,
    REFRESH_TIMEOUT_S,
    nobody_answers,
    parse_answer,
)
from config.connections.cluster_routing import (
    EVERY_PRIMARY,
    NodeRequest,
    RoutedBatch,
    SlotTable,
    name_of,
)
from config.connections.cluster_view import (
    LOOK_INTERVAL_S,
    REFRESH_COMMANDS,
    REFRESH_INTERVAL_S,
    Absences,
    take_view,
)
from config.connections.replication import REPLICATED_WITHIN_MS, Command, Shortfalls
from config.connections.watched_servers import Address


class AsyncClusterClient(redis.asyncio.Redis):
    """All primaries of a cluster. One that hangs is waited for as long as the caller lets us, but no longer than HELD_UP_S beside
    others that have answered."""

    def __init__(
        self, seeds: Sequence[Address], connection_class: type, node_options: Mapping[str, Any]
    ) -> None:
        self._seeds = tuple(seeds)
        self._class = connection_class
        self._options = {**node_options, "retry": Retry(NoBackoff(), 0)}
        self._pools: dict[Address, redis.asyncio.ConnectionPool] = {}
        self._table = SlotTable(Shortfalls(self._watch_replicas))
        self._absences = Absences(self._watch)
        self._watches: set[asyncio.Task[None]] = set()
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed_s = -REFRESH_INTERVAL_S
        super().__init__(connection_pool=self._pool(self._seeds[0]))

    async def try_commands(self, commands: Sequence[Command], *, replicas: int = 0) -> list[Any]:
        """Return the answers to `commands`, with errors in the places of answers: of servers, and of those that are away."""
        return [
            parse_answer(self.response_callbacks, command, answer, {})
            for command, answer in zip(commands, await self._routed(commands, replicas=replicas), strict=True)
        ]

    async def _routed(self, commands: Sequence[Command], *, replicas: int) -> list[Any]:
        if self._table.epoch < 0:
            await self._refresh()
        batch = RoutedBatch(self._table, commands, replicas=replicas)
        while requests := batch.next_requests():
            for request, outcome in zip(requests, await self._exchange(requests), strict=True):
                batch.take(request, outcome)
            if batch.stale:
                await self._refresh()
            if batch.pause_s:
                await asyncio.sleep(batch.pause_s)
        return batch.answers

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Return the answer to one command, as redis-py's own methods ask. Raises redis.RedisError."""
        if name_of(args) in EVERY_PRIMARY:
            servers: list[Any] = await self.servers()
            answers = [await each.execute_command(*args, **options) for each in servers]
            return answers[0]
        (answer,) = await self._routed([args], replicas=0)
        if isinstance(answer, Exception):
            raise answer
        return parse_answer(self.response_callbacks, args, answer, options)

    async def servers(self) -> list["redis.asyncio.Redis"]:
        """Return a client of each primary. Raises ServerAwayError if no server tells which there are."""
        if self._table.epoch < 0:
            await self._refresh()
        if not (primaries := self._table.primaries()):
            raise nobody_answers(self._seeds)
        return [redis.asyncio.Redis(connection_pool=self._pool(address)) for address in primaries]

    def owner(self, slot: int) -> Address | None:
        """Return which server has a slot, as far as is known."""
        return self._table.owner(slot)

    def slots_of(self, owner: Address | None) -> str:
        """Return the slots that a server has, or that none has, as far as is known: `0-5460`."""
        return self._table.slots_of(owner)

    def pipeline(self, *_: Any, **__: Any) -> Any:
        """Not here: what is asked of a cluster goes by `try_commands`."""
        raise NotImplementedError(
            "a pipeline of redis-py's goes to one server; use redis_client.run_commands_async"
        )

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        for watch in self._watches:
            watch.cancel()
        pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            await pool.disconnect()

    # One round

    async def _exchange(self, requests: Sequence[NodeRequest]) -> list[list[Any] | Exception]:
        if len(requests) == 1:
            return [await self._ask_node(requests[0])]
        begun_s = monotonic()
        tasks = [asyncio.ensure_future(self._ask_node(request)) for request in requests]
        try:
            waiting = await self._wait_answered(tasks)
            if waiting:
                patience_s = max(HELD_UP_S, HELD_UP_FACTOR * (monotonic() - begun_s))
                await asyncio.wait(waiting, timeout=patience_s)
        finally:
            for task in tasks:
                task.cancel()
        await asyncio.wait(tasks)
        return [
            redis.exceptions.TimeoutError(f"no answer from {request.address[0]}:{request.address[1]}")
            if task.cancelled()
            else task.result()
            for request, task in zip(requests, tasks, strict=True)
        ]

    async def _wait_answered(
        self, tasks: Sequence["asyncio.Future[list[Any] | Exception]"]
    ) -> set["asyncio.Future[list[Any] | Exception]"]:
        """Wait until one has replies; return those that have not ended."""
        waiting = set(tasks)
        while waiting:
            ended, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if any(isinstance(task.result(), list) for task in ended):
                break
        return waiting

    async def _ask_node(self, request: NodeRequest) -> list[Any] | Exception:
        address = request.address
        try:
            self._absences.require_present(address)
            pool = self._pool(address)
            try:
                connection = await pool.get_connection()  # type: ignore[no-untyped-call]
            except BaseException:
                self._absences.failed(address)
                raise
            try:
                replies = await self._talk(connection, request.sent)
            except BaseException:  # whoever is interrupted leaves no replies to others
                self._absences.failed(address)
                await connection.disconnect(nowait=True)
                raise
            finally:
                await pool.release(connection)
        except (redis.RedisError, OSError) as e:
            return e
        return replies

    async def _talk(self, connection: Any, commands: Sequence[Command]) -> list[Any]:
        packed = b"".join([hiredis.pack_command(command) for command in commands])
        await connection.send_packed_command([packed], check_health=False)
        replies: list[Any] = []
        for _ in commands:
            try:
                replies.append(await connection.read_response())
            except redis.ResponseError as e:
                replies.append(e)
        return replies

    # Who is away

    def _watch(self, address: Address) -> None:
        self._run_aside(self._look_until_present(address))

    def _watch_replicas(self, address: Address) -> None:
        self._run_aside(self._look_until_replicated(address))

    def _run_aside(self, look: Coroutine[Any, Any, None]) -> None:
        watch = asyncio.ensure_future(look)
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)

    async def _look_until_present(self, address: Address) -> None:
        """Look at a server until it answers, or is none of the cluster's primaries any more."""
        while address in self._table.primaries():
            with suppress(redis.RedisError, OSError, TimeoutError):
                await self._ask(address, LOOK_COMMANDS)
                break
            await asyncio.sleep(LOOK_INTERVAL_S)
        self._absences.answered(address)

    async def _look_until_replicated(self, address: Address) -> None:
        """Write to a server until its replicas have what is written, or it is none of the cluster's primaries any more."""
        shortfalls = self._table.shortfalls
        while shortfalls.is_short(address) and address in self._table.primaries():
            mark, wait = shortfalls.looking_commands(address)
            with suppress(redis.RedisError, OSError, TimeoutError):
                within_s = REFRESH_TIMEOUT_S + REPLICATED_WITHIN_MS / 1_000
                _, found = await self._ask(address, (mark, wait), within_s)
                if isinstance(found, int) and found >= wait[1]:
                    break
            await asyncio.sleep(LOOK_INTERVAL_S)
        shortfalls.forget(address)

    # Who has what

    async def _refresh(self) -> None:
        """Ask a server which others there are, unless that was asked just now: once for all who want to know."""
        if monotonic() - self._refreshed_s < REFRESH_INTERVAL_S:
            return
        if self._refreshing is None:
            self._refreshing = asyncio.ensure_future(self._ask_around())
        await asyncio.shield(self._refreshing)

    async def _ask_around(self) -> None:
        try:
            for asked in self._absences.in_turns([*self._table.primaries(), *self._seeds]):
                if await self._take_view_of(asked):
                    return
        finally:
            self._refreshing, self._refreshed_s = None, monotonic()

    async def _take_view_of(self, asked: Sequence[Address]) -> bool:
        """Take what the first of these tells that is believed. Return False if none is."""
        asking = [asyncio.ensure_future(self._view_of(each)) for each in asked]
        try:
            for told in asyncio.as_completed(asking):
                address, view = await told
                if view and take_view(self._table, address, view):
                    return True
            return False
        finally:
            for each in asking:
                each.cancel()

    async def _view_of(self, address: Address) -> tuple[Address, list[Any]]:
        """Return what a server tells; nothing if it does not answer."""
        with suppress(redis.RedisError, OSError, TimeoutError):
            return address, await self._ask(address, REFRESH_COMMANDS)
        return address, []

    async def _ask(
        self, address: Address, commands: Sequence[Command], within_s: float = REFRESH_TIMEOUT_S
    ) -> list[Any]:
        connection = self._class(host=address[0], port=address[1], **self._options)
        try:
            async with asyncio.timeout(within_s):
                return await self._talk(connection, commands)
        finally:
            await connection.disconnect(nowait=True)

    def _pool(self, address: Address) -> redis.asyncio.ConnectionPool:
        if address not in self._pools:
            self._pools[address] = redis.asyncio.ConnectionPool(
                connection_class=self._class, host=address[0], port=address[1], **self._options
            )
        return self._pools[address]
