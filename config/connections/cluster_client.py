"""A client of a Redis Cluster, for threads: `run_commands` of redis_client.py, each command on the server that has its keys.

Law: one server that is dead, hung or cut off holds up nobody who asks others. One that hangs while others answer is waited for
no longer than HELD_UP_S, also by whoever asks it alone, as there is more to do than that; and once one has
failed, whatever is of its slots fails at once, until a thread that looks sees it answer. The others are asked meanwhile whether
they have its slots.

A stock client is not used as none has one answer for each command: one dead primary fails all, and for FCALL they ask the
server for each command's keys.
"""

import select
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from time import monotonic, sleep
from typing import Any

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.client import EMPTY_RESPONSE, NEVER_DECODE
from redis.retry import Retry

from config.connections import cluster_routing
from config.connections.cluster_routing import (
    BLOCKING,
    NodeRequest,
    RoutedBatch,
    ServerAwayError,
    SlotTable,
)
from config.connections.cluster_view import (
    LOOK_INTERVAL_S,
    REFRESH_COMMANDS,
    Absences,
    RefreshLimit,
    epoch_told,
    take_view,
)
from config.connections.replication import Command, Shortfalls, mark_in_cluster, with_wait, without_wait
from config.connections.watched_servers import Address

HELD_UP_S = 0.3
"""How long a server may take longer than another that was asked at the same time; at least. It may take HELD_UP_FACTOR times
as long as that one."""

HELD_UP_FACTOR = 3

REPLICATED_BESIDE_OTHERS_MS = round(HELD_UP_S * 1_000)
"""How long a server's replicas may take, by the same reason."""

COMPARED_WITHIN_S = 0.1
"""How soon another server answers if it is not the machine, or the network, that is slow."""

LOOK_COMMANDS = (("CLUSTER", "INFO"),)
"""What a server is asked to see whether it answers: each user of ours may ask that."""

REFRESH_TIMEOUT_S = 0.5
"""How long a server may take to say who has which slots."""


class ClusterClient(redis.Redis):
    """All primaries of a cluster, which `seeds` tell of. `node_options` are those of a connection to any of them, but for its
    host and port."""

    def __init__(
        self, seeds: Sequence[Address], connection_class: type, node_options: Mapping[str, Any]
    ) -> None:
        self.seeds = tuple(seeds)
        self._class = connection_class
        self._options = {**node_options, "retry": Retry(NoBackoff(), 0)}
        self._pools: dict[Address, redis.ConnectionPool] = {}
        self._pools_lock = threading.Lock()
        self._is_closed = False
        self._table = SlotTable(Shortfalls(self._watch_replicas, REPLICATED_BESIDE_OTHERS_MS))
        self._absences = Absences(self._watch)
        self._refresh_limit = RefreshLimit()
        super().__init__(connection_pool=self._pool(self.seeds[0]))

    def try_commands(
        self, commands: Sequence[Command], *, transaction: bool = False, replicas: int = 0
    ) -> list[Any]:
        """Return the answers to `commands`, with errors in the places of answers: of servers, and of those that are away."""
        answers = self._routed(commands, transaction=transaction, replicas=replicas)
        return self._parsed(commands, answers)

    def _routed(self, commands: Sequence[Command], *, transaction: bool, replicas: int) -> list[Any]:
        if self._table.epoch < 0:
            self._refresh()
        batch = RoutedBatch(self._table, commands, transaction=transaction, replicas=replicas)
        while requests := batch.next_requests():
            for request, outcome in zip(requests, self._exchange(requests), strict=True):
                batch.take(request, outcome)
            if batch.stale:
                self._refresh()
            if batch.pause_s:
                sleep(batch.pause_s)
        return batch.answers

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Return the answer to one command, as redis-py's own methods ask. Raises redis.RedisError."""
        if cluster_routing.name_of(args) in cluster_routing.EVERY_PRIMARY:
            servers: list[Any] = self.servers()
            answers = [each.execute_command(*args, **options) for each in servers]
            return answers[0]
        (answer,) = self._routed([args], transaction=False, replicas=0)
        if isinstance(answer, Exception):
            raise answer
        return parse_answer(self.response_callbacks, args, answer, options)

    def servers(self) -> list[redis.Redis]:
        """Return a client of each primary. Raises ServerAwayError if no server tells which there are."""
        if self._table.epoch < 0:
            self._refresh()
        if not (primaries := self._table.primaries()):
            raise nobody_answers(self.seeds)
        return [redis.Redis(connection_pool=self._pool(address)) for address in primaries]

    def server_of(self, key: str) -> redis.Redis:
        """Return a client of the primary that has this key. Raises ServerAwayError if none is known."""
        if self._table.epoch < 0:
            self._refresh()
        owner = self._table.owner(cluster_routing.slot_of_key(key))
        if owner is None:
            raise ServerAwayError("no server of the cluster has what is asked for")
        return redis.Redis(connection_pool=self._pool(owner))

    def ask_primaries(
        self, commands: Sequence[Command], *, replicas: int = 0
    ) -> tuple[SlotTable, dict[Address, list[Any] | Exception]]:
        """Return who has which slots, as is told now, and what each primary answers to `commands`, with errors among it, or why it
        does not. Raises ServerAwayError if no server tells which there are."""
        self._refresh()
        if not (primaries := self._table.primaries()):
            raise nobody_answers(self.seeds)
        requests = [NodeRequest(address) for address in primaries]
        for request in requests:
            words = [cluster_routing.words_of(command) for command in commands]
            request.sent = list(
                with_wait(words, replicas, mark_in_cluster(self._table.tag_on(request.address)))
            )
        told: dict[Address, list[Any] | Exception] = {}
        for request, outcome in zip(requests, self._exchange(requests), strict=True):
            told[request.address] = outcome
            if not isinstance(outcome, Exception):
                told[request.address] = self._parsed(commands, without_wait(outcome, replicas))
        return self._table, told

    def scan_iter(self, *args: Any, **named: Any) -> Iterator[Any]:
        """Yield the names of keys of all servers. One that moves meanwhile may come twice."""
        for server in self.servers():
            yield from server.scan_iter(*args, **named)

    def pipeline(self, *_: Any, **__: Any) -> Any:
        """Not here: what is asked of a cluster goes by `try_commands`."""
        raise NotImplementedError(
            "a pipeline of redis-py's goes to one server; use redis_client.run_commands"
        )

    def close(self) -> None:
        self._is_closed = True
        with self._pools_lock:
            pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            pool.disconnect()

    # One round

    def _exchange(self, requests: Sequence[NodeRequest]) -> list[list[Any] | Exception]:
        """Send all requests, then read what each server replies."""
        begun_s = monotonic()
        outcomes: dict[int, list[Any] | Exception] = {}
        waiting: dict[int, redis.Connection] = {}
        try:
            for at, request in enumerate(requests):
                try:
                    waiting[at] = self._send(request)
                except (redis.RedisError, OSError) as e:
                    outcomes[at] = e
            answering = (
                self._as_they_answer(waiting, begun_s) if len(waiting) > 1 else self._alone(requests, waiting)
            )
            for at in answering:
                outcomes[at] = self._read(requests[at], waiting.pop(at))
            for at, connection in list(waiting.items()):
                self._leave(requests[at].address, waiting.pop(at))
                outcomes[at] = redis.exceptions.TimeoutError(
                    f"no answer from {connection.host}:{connection.port}"
                )
        finally:
            for at, connection in waiting.items():  # whoever is interrupted leaves no replies to others
                self._leave(requests[at].address, connection)
        return [outcomes[at] for at in range(len(requests))]

    def _send(self, request: NodeRequest) -> redis.Connection:
        self._absences.require_present(request.address)
        pool = self._pool(request.address)
        try:
            connection = pool.get_connection()
        except (redis.RedisError, OSError):
            self._absences.failed(request.address)
            raise
        try:
            packed = b"".join([hiredis.pack_command(command) for command in request.sent])
            connection.send_packed_command([packed], check_health=False)  # type: ignore[no-untyped-call]
        except BaseException:
            self._leave(request.address, connection)
            raise
        return connection

    def _as_they_answer(self, waiting: Mapping[int, redis.Connection], begun_s: float) -> Iterator[int]:
        """Yield who has begun to answer; not those who take much longer than another. What has come is yielded however long those
        before it were read."""
        poller = select.poll()
        places: dict[int, int] = {}
        for at, connection in waiting.items():
            sock: Any = connection._sock  # noqa: SLF001
            places[sock.fileno()] = at
            poller.register(sock, select.POLLIN)
        until_s = begun_s + self._options["socket_timeout"]
        first = True
        while places and (ready := poller.poll(max(0.0, until_s - monotonic()) * 1_000)):
            for descriptor, _ in ready:
                poller.unregister(descriptor)
                yield places.pop(descriptor)
                if first:
                    first = False
                    took_s = monotonic() - begun_s
                    until_s = min(until_s, monotonic() + max(HELD_UP_S, HELD_UP_FACTOR * took_s))

    def _alone(
        self, requests: Sequence[NodeRequest], waiting: Mapping[int, redis.Connection]
    ) -> Iterator[int]:
        """Yield the only one who was asked, unless it hangs while another would answer."""
        for at, connection in list(waiting.items()):
            blocks = requests[at].sent[0][0] in BLOCKING
            if blocks or _has_begun(connection) or not self._another_answers(requests[at].address):
                yield at

    def _another_answers(self, than: Address) -> bool:
        others = [each for each in self._absences.present_first(self._table.primaries()) if each != than]
        if not others:
            return False
        try:
            connection = self._pool(others[0]).get_connection()
            try:
                ask: Any = connection.send_command
                ask(*LOOK_COMMANDS[0], check_health=False)
                answers = connection.can_read(COMPARED_WITHIN_S)
            finally:
                connection.disconnect()  # type: ignore[no-untyped-call]
                self._pool(others[0]).release(connection)
        except (redis.RedisError, OSError):
            return False
        return answers

    def _read(self, request: NodeRequest, connection: redis.Connection) -> list[Any] | Exception:
        replies: list[Any] = []
        try:
            for _ in request.sent:
                try:
                    replies.append(connection.read_response())
                except redis.ResponseError as e:
                    replies.append(e)
        except (redis.RedisError, OSError) as e:
            self._leave(request.address, connection)
            return e
        except BaseException:
            self._leave(request.address, connection)
            raise
        self._pool(request.address).release(connection)
        return replies

    def _leave(self, address: Address, connection: redis.Connection) -> None:
        """Give up a connection whose replies nobody knows, and its server until it is seen to answer."""
        connection.disconnect()  # type: ignore[no-untyped-call]
        self._pool(address).release(connection)
        self._absences.failed(address)

    # Who is away

    def look_around(self) -> None:
        """See which servers hang, and whether others have taken their slots, so that whoever asks them next need not wait for it."""
        requests = [NodeRequest(address) for address in self._table.primaries()]
        for request in requests:
            request.sent = list(LOOK_COMMANDS)
        if any(self._brings_news(outcome) for outcome in self._exchange(requests)):
            self._refresh()

    def _brings_news(self, outcome: list[Any] | Exception) -> bool:
        if isinstance(outcome, Exception):
            return True
        (info,) = outcome
        return isinstance(info, bytes) and epoch_told(info) > self._table.epoch

    def _watch(self, address: Address) -> None:
        _run_aside(self._look_until_present, address)

    def _look_until_present(self, address: Address) -> None:
        """Look at a server until it answers, or is none of the cluster's primaries any more."""
        while not self._is_closed and address in self._table.primaries():
            with suppress(redis.RedisError, OSError):
                self._ask(address, LOOK_COMMANDS)
                break
            sleep(LOOK_INTERVAL_S)
        self._absences.answered(address)

    def _watch_replicas(self, address: Address) -> None:
        _run_aside(self._look_until_replicated, address)

    def _look_until_replicated(self, address: Address) -> None:
        """Write to a server until its replicas have what is written, or it is none of the cluster's primaries any more."""
        shortfalls = self._table.shortfalls
        while not self._is_closed and shortfalls.is_short(address) and address in self._table.primaries():
            mark, wait = shortfalls.looking_commands(address)
            with suppress(redis.RedisError, OSError):
                _, found = self._ask(address, (mark, wait), REFRESH_TIMEOUT_S + HELD_UP_S)
                if found >= wait[1]:
                    break
            sleep(LOOK_INTERVAL_S)
        shortfalls.forget(address)

    # Who has what

    def _refresh(self) -> None:
        """Ask a server which others there are, unless that was asked just now."""
        with self._refresh_limit.turn() as ours:
            if not ours:
                return
            for asked in self._absences.in_turns([*self._table.primaries(), *self.seeds]):
                if self._take_view_of(asked):
                    return

    def _take_view_of(self, asked: Sequence[Address]) -> bool:
        """Take what the first of these tells that is believed. Return False if none is."""
        pool = ThreadPoolExecutor(len(asked), "cluster")
        try:
            asking = {pool.submit(self._ask, each, REFRESH_COMMANDS): each for each in asked}
            for told in as_completed(asking):
                with suppress(redis.RedisError, OSError):
                    if take_view(self._table, asking[told], told.result()):
                        return True
            return False
        finally:
            pool.shutdown(wait=False)

    def _ask(
        self, address: Address, commands: Sequence[Command], within_s: float = REFRESH_TIMEOUT_S
    ) -> list[Any]:
        timeouts = {"socket_timeout": within_s, "socket_connect_timeout": REFRESH_TIMEOUT_S}
        connection = self._class(host=address[0], port=address[1], **self._options | timeouts)
        try:
            for command in commands:
                connection.send_command(*command)
            return [connection.read_response() for _ in commands]
        finally:
            connection.disconnect()

    def _pool(self, address: Address) -> redis.ConnectionPool:
        pool = self._pools.get(address)
        if pool is None:
            with self._pools_lock:
                pool = self._pools.setdefault(
                    address,
                    redis.ConnectionPool(
                        connection_class=self._class, host=address[0], port=address[1], **self._options
                    ),
                )
        return pool

    def _parsed(self, commands: Sequence[Command], answers: Sequence[Any]) -> list[Any]:
        return [
            parse_answer(self.response_callbacks, command, answer, {})
            for command, answer in zip(commands, answers, strict=True)
        ]


def _run_aside(look: Callable[[Address], None], address: Address) -> None:
    threading.Thread(target=look, args=(address,), name="cluster", daemon=True).start()


def parse_answer(callbacks: Any, command: Command, answer: Any, options: Mapping[str, Any]) -> Any:
    """Return an answer as redis-py reads that to such a command, by the `options` that its own methods give; an error as it is."""
    parse = callbacks.get(command[0])
    if parse is None or isinstance(answer, Exception):
        return answer
    return parse(answer, **{name: value for name, value in options.items() if name not in _OF_NO_PARSER})


_OF_NO_PARSER = (EMPTY_RESPONSE, NEVER_DECODE, "keys")
"""What redis-py's methods say besides: how an answer is read from a connection, and whose it is."""


def _has_begun(connection: redis.Connection) -> bool:
    """Wait for the first of a server's answer. True also if the connection fails, as whoever reads it will see."""
    try:
        return connection.can_read(HELD_UP_S)
    except (redis.RedisError, OSError):
        return True


def nobody_answers(seeds: Sequence[Address]) -> ServerAwayError:
    """Return the error for a cluster of which nobody tells."""
    return ServerAwayError(
        f"no server of {', '.join(f'{host}:{port}' for host, port in seeds)} answers for the cluster"
    )
