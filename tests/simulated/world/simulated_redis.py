"""Redis as a simulated process reaches it: clients whose commands are calls of the scheduler, to a server that may fail.

The clients are redis-py's but for the way to the server: so replies are read as redis-py reads them, and a call whose reply
is lost is repeated as often as config/store/redis_client.py says.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Any, NamedTuple

import redis
import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError, WatchError
from redis.exceptions import TimeoutError as RedisTimeoutError

from config.connections.cluster_routing import ServerAwayError, key_of, slot_of_key
from config.connections.redis_connections import COMMAND_RETRIES, SOCKET_TIMEOUT_S
from config.connections.server_connections import NotPrimaryError
from config.store.function_calls import Command
from tests.simulated.server.server_model import Connection, ServerModel
from tests.simulated.world import faults
from tests.simulated.world.faults import Fault
from tests.simulated.world.scheduler import AnswerLater, Call, Process, Scheduler
from tests.simulated.world.server_view import ServerView

BACKOFF_US = 50_000
"""Before the first repetition of a call, and twice as much before each further one."""

ASYNC_RETRIES = 1

AT_ONCE_US = 3_000_000
"""Two steps of a clock so near to each other may be seen by nobody."""

_SEEING = ("take_due_alarms", "claim", "claim_for_replay", "lease_sms")
"""Calls of which one between two steps shows the first: it is `clock` that makes it, or it draws a fencing token."""

_SERVER_FAULTS = (*faults.NETWORK, *faults.SERVER)


class SimulatedServer:
    """A Redis server and the ways to it. `menu` are the faults that may meet a call. Before a failover takes changes back,
    `losing` are called with their numbers."""

    def __init__(
        self,
        scheduler: Scheduler,
        name: str,
        menu: Sequence[Fault] = _SERVER_FAULTS,
        seed: int = 0,
    ) -> None:
        self.name = name
        self.scheduler = scheduler
        self.menu = menu
        self._is_parted = any(fault in menu for fault in faults.CLUSTER)
        self.clock_ahead_us = 0
        self.model = ServerModel(lambda: scheduler.now_us + self.clock_ahead_us, seed)
        self.view = ServerView(self.model)
        self.losing: list[Callable[[Collection[int]], None]] = []
        self._changes = 0
        self._kept_changes: list[int] = []
        self.losses = 0
        self.was_set_ahead = self.was_set_back = False
        self.was_set_twice_at_once = False
        self._was_seen = False
        self.set_at_us: list[int] = []
        self.promotion_was_unseen = False
        self._is_newly_promoted = False
        self.stepped: Callable[[], None] = lambda: None
        self._awaited_keys: dict[str, object] = {}
        self._away_until_us = 0
        self._nodes_gone_until_us = [0, 0]
        self._hangs_until_us = 0
        self._lags_until_us = 0
        self._confirmation = object()

    @property
    def has_lost(self) -> bool:
        """Whether it has ever failed over."""
        return self.losses > 0

    @property
    def version(self) -> tuple[int, int]:
        """Another whenever anything on it is."""
        return self.model.changes, self.losses

    @property
    def now_ms(self) -> int:
        return (self.scheduler.now_us + self.clock_ahead_us) // 1_000

    def perform(
        self,
        commands: Sequence[Command],
        timeout_us: int,
        fault: Fault | None,
        connection: "ServerConnection | None" = None,
    ) -> list[Any]:
        """Work on commands that come in one request, meeting a fault or none. Answers what the server answers to each, with its
        errors among them; raises what a client raises that does not hear of it. What nobody hears of was not waited for."""
        now = self.scheduler.now_us
        kind, amount = (fault.kind, fault.amount) if fault is not None else ("", 0)
        match kind:
            case "step_clock":
                self.set_clock(self.clock_ahead_us + amount * 1_000)
            case "fail_over":
                self._fail_over(amount)
            case "fail_over_behind":
                self._fail_over(amount)
                self.clock_ahead_us -= faults.BEHIND_MS * 1_000
            case "restart":
                self.promotion_was_unseen |= self._is_newly_promoted
                self.model.restart()
                self._away_until_us = now + amount * 1_000
            case "hang":
                self._hangs_until_us = now + amount * 1_000
            case "lag":
                self._begin_lag(now + amount * 1_000)
            case "node_gone":
                self._nodes_gone_until_us[amount > 0] = now + abs(amount) * 1_000
            case "full":
                self.model.is_full = True
                self.scheduler.at(now + amount * 1_000, self._empty)
            case _:
                pass
        if self._is_parted and any(map(_crosses_slots, commands)):
            raise AssertionError(f"keys of one call are of one slot in a cluster: {commands}")
        if now < self._away_until_us:
            raise RedisConnectionError("connection refused")
        if now < self._hangs_until_us:
            return self._answer_late(commands, self._hangs_until_us - now, timeout_us, connection)
        gone = [node for node, until_us in enumerate(self._nodes_gone_until_us) if now < until_us]
        if gone or kind == "node_away":
            return self._execute_without(gone or [amount], commands, connection)
        match kind:
            case "lose_request":
                raise RedisConnectionError("connection reset")
            case "lose_rest":
                self._execute_all(commands[: len(commands) // 2])
                raise RedisConnectionError("connection reset")
            case "lose_reply":
                self._execute_all(_without_wait(commands))
                raise RedisConnectionError("connection reset")
            case "late":
                return self._answer_late(commands, amount * 1_000, timeout_us, connection)
            case "node_unheard":
                answers = self._execute_all(commands, connection)
                return [
                    _AWAY if _node_of(command) == amount else answer
                    for command, answer in zip(commands, answers, strict=True)
                ]
            case "refuse":
                return [ReadOnlyError("You can't write against a read only replica.") for _ in commands]
            case _:
                return self._execute_all(commands, connection)

    def set_clock(self, ahead_us: int) -> None:
        """Set the clock, to be ahead of what is right by so much."""
        self.was_set_ahead |= ahead_us > self.clock_ahead_us
        self.was_set_back |= ahead_us < self.clock_ahead_us
        self.clock_ahead_us = ahead_us
        last_us = self.set_at_us[-1] if self.set_at_us else 0
        is_unseen = bool(self.set_at_us) and not self._was_seen
        self.was_set_twice_at_once |= is_unseen or self.scheduler.now_us - last_us < AT_ONCE_US
        self.set_at_us.append(self.scheduler.now_us)
        self._was_seen = False
        self.stepped()

    def be_away(self, ms: int) -> None:
        """Answer nobody for so many ms, and keep everything."""
        self._away_until_us = max(self._away_until_us, self.scheduler.now_us + ms * 1_000)

    def execute(self, commands: Sequence[Command]) -> list[Any]:
        """Work on commands as if nobody could fail: for whoever looks on."""
        return self._execute_all(commands)

    def _empty(self) -> None:
        self.model.is_full = False

    def wait_for_replicas(
        self, connection: "ServerConnection", found: int, wanted: int, timeout_ms: int
    ) -> int:
        """Let others run until so many replicas have what the connection has changed, or for so long. Answers how many have;
        `found` did at first. Raises what a client raises whose connection ends meanwhile."""
        if found >= wanted:
            return found
        self.scheduler.wait(self._confirmation, timeout_ms * 1_000)
        if connection.run_id != self.model.run_id:
            raise RedisConnectionError("connection reset")
        return self.model.count_confirming(connection)

    def _begin_lag(self, until_us: int) -> None:
        """Let replicas follow no more, until then."""
        self._lags_until_us = max(self._lags_until_us, until_us)
        self.model.cut_off()
        self.scheduler.at(until_us, self._end_lag)

    def _end_lag(self) -> None:
        if self.scheduler.now_us >= self._lags_until_us:
            self.model.catch_up()
            self.scheduler.notify(self._confirmation)

    def _fail_over(self, calls: int) -> None:
        kept = len(self._kept_changes) - self.model.count_losable(calls)
        lost, self._kept_changes = self._kept_changes[kept:], self._kept_changes[:kept]
        for losing in self.losing:
            losing(lost)
        self.model.lose_last(calls)
        self.model.promote()
        self.scheduler.notify(self._confirmation)
        self._is_newly_promoted = True
        self.losses += 1
        self._away_until_us = self.scheduler.now_us + 500_000

    def _answer_late(
        self,
        commands: Sequence[Command],
        late_us: int,
        timeout_us: int,
        connection: "ServerConnection | None",
    ) -> list[Any]:
        answers: list[Any] = []
        heard = commands if late_us < timeout_us else _without_wait(commands)

        def work() -> None:
            answers.extend(self._execute_all(heard, connection))
            for observe in self.scheduler.observers:
                observe()

        self.scheduler.at(self.scheduler.now_us + late_us, work)
        if late_us < timeout_us:
            raise AnswerLater(late_us + 1, answers)
        raise AnswerLater(timeout_us, error=RedisTimeoutError("Timeout reading from socket"))

    def _execute_all(
        self, commands: Sequence[Command], connection: "ServerConnection | None" = None
    ) -> list[Any]:
        connection = connection or ServerConnection()
        connection.run_id = self.model.run_id
        answers: list[Any] = []
        self._is_newly_promoted = False
        for command in commands:
            try:
                is_transaction = command[0] == _TRANSACTION
                answers.append(
                    self._transact(*command[1:])
                    if is_transaction
                    else self.model.execute(command, connection)
                )
            except ResponseError as e:
                answers.append(e)
            if self.model.changes != self._changes:
                self._changes = self.model.changes
                self._kept_changes.append(self._changes)
        self._was_seen = self._was_seen or any(_short_name(each) in _SEEING for each in commands)
        for key in [key for key in self._awaited_keys if self.view.exists(key)]:
            self.scheduler.notify(self._awaited_keys.pop(key))
        return answers

    def _execute_without(
        self, gone: Sequence[int], commands: Sequence[Command], connection: "ServerConnection | None"
    ) -> list[Any]:
        """Work on what is of the other nodes. The answers to the rest are errors."""
        worked = [command for command in commands if _node_of(command) not in gone]
        answers = iter(self._execute_all(worked, connection))
        return [_AWAY if _node_of(command) in gone else next(answers) for command in commands]

    def _transact(self, watched: "_Watched", commands: Sequence[Command]) -> Any:
        is_valid = watched.losses == self.losses or not watched.keys
        if not is_valid or any(self.model.has_changed(key, watched.change) for key in watched.keys):
            return WatchError("Watched variable changed.")
        return self.model.transact(commands)

    def wait_for_key(self, key: str) -> None:
        """Let others run until there is something at a key."""
        if not self.view.exists(key):
            self.scheduler.wait(self._awaited_keys.setdefault(key, object()))


class ServerConnection(Connection):
    """A connection to the process of a server that has this id."""

    run_id = ""


_AWAY = ServerAwayError("the server that has this does not answer")


def _node_of(command: Command) -> int | None:
    """Which of the two nodes has a command's keys; None if it is for any."""
    key = key_of(command[2][0] if command[0] == _TRANSACTION else command)
    return None if key is None else slot_of_key(key) % 2


def _crosses_slots(command: Command) -> bool:
    """Whether a call has keys that may lie on several servers."""
    return command[0] == "FCALL" and len({slot_of_key(key) for key in command[3 : 3 + command[2]]}) > 1


def _without_wait(commands: Sequence[Command]) -> Sequence[Command]:
    return [command for command in commands if command[0] != "WAIT"]


class _Watched(NamedTuple):
    """Keys that are watched since a change of the server."""

    keys: Sequence[str] = ()
    change: int = 0
    losses: int = 0


_TRANSACTION = "EXEC"
"""What stands for commands that are sent as one MULTI, with what is watched meanwhile."""


def _request(server: SimulatedServer, commands: Sequence[Command], timeout_us: int) -> list[Any]:
    """Make one request as the actor that runs, on a connection of its own: whichever a pool gives may have written nothing. One
    to what is not the primary is left, as after any failure."""
    if not server.scheduler.runs_actor:
        return server.execute(commands)
    connection = ServerConnection()
    what = f"{server.name} {' '.join(_short_name(each) for each in commands[:4])}"
    answers: list[Any] = server.scheduler.call(
        Call(
            what,
            lambda fault: server.perform(commands, timeout_us, fault, connection),
            server.menu,
            _WEIGHTS.get(commands[0][0], 0.5),
            _short_name(commands[0]) in _TAKING,
        )
    )
    for answer in answers:
        if isinstance(answer, ReadOnlyError):
            raise NotPrimaryError(str(answer)) from answer
    name, *options = commands[-1]
    if name == "WAIT" and isinstance(answers[-1], int):
        answers[-1] = server.wait_for_replicas(connection, answers[-1], *options)
    return answers


_TAKING = ("claim", "lease_sms", "claim_for_replay", "take_hook", "reserve_outbox")
"""Functions that give a lease."""

_WEIGHTS = {"FCALL": 1.0, "ZMPOP": 0.1}


def _short_name(command: Command) -> str:
    if command[0] == _TRANSACTION:
        return "+".join(map(_short_name, command[2]))
    return command[1].split("_", 2)[2].removeprefix("joined_") if command[0] == "FCALL" else str(command[0])


_RETRIED = (RedisConnectionError, RedisTimeoutError)


@cache
def _pool(host: str) -> redis.ConnectionPool:
    """A pool that nobody connects by: clients ask it for their server's address and protocol."""
    return redis.ConnectionPool(host=host, protocol=2)


@cache
def _async_pool(host: str) -> redis.asyncio.ConnectionPool:
    return redis.asyncio.ConnectionPool(host=host, protocol=2)


class SimulatedRedis(redis.Redis):
    """A client for threads."""

    def __init__(self, server: SimulatedServer, retries: int = COMMAND_RETRIES) -> None:
        super().__init__(connection_pool=_pool(server.name))
        self._server = server
        self._retries = retries

    def execute_command(self, *args: Any, **options: Any) -> Any:
        if args[0] == "BZMPOP":
            return self._pop_when_there(args)
        return self.read_reply(args, self.send([args])[0], options)

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> "_Pipeline":  # type: ignore[override]
        return _Pipeline(self, transaction=transaction)

    @property
    def version(self) -> tuple[int, int]:
        return self._server.version

    def send_once(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands, whose answers may be lost."""
        return _request(self._server, commands, round(SOCKET_TIMEOUT_S * 1_000_000))

    def send(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands, and again if their answers are lost."""
        timeout_us = round(SOCKET_TIMEOUT_S * 1_000_000)
        for repeated in range(self._retries):
            try:
                return _request(self._server, commands, timeout_us)
            except _RETRIED:
                self._server.scheduler.sleep_us(BACKOFF_US * 2**repeated)
        return _request(self._server, commands, timeout_us)

    def _pop_when_there(self, args: Command) -> Any:
        """BZMPOP, as who waits for as long as it takes: a consumer that comes back with nothing only asks again."""
        command = ("ZMPOP", *args[2:])
        while (popped := self.read_reply(command, self.send([command])[0], {})) is None:
            self._server.wait_for_key(args[3])
        return popped

    def read_reply(self, command: Command, answer: Any, options: dict[str, Any]) -> Any:
        if isinstance(answer, Exception):
            raise answer
        read = self.response_callbacks.get(command[0])
        options.pop("keys", None)
        return read(answer, **options) if read is not None else answer


class _Pipeline(redis.client.Pipeline):
    """Commands of one request, and with `transaction` of one moment."""

    def __init__(self, client: SimulatedRedis, *, transaction: bool) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction, None)
        self._client = client
        self._watched = _Watched()

    def watch(self, *names: Any) -> bool:
        self._client.execute_command("PING")
        change, losses = self._client.version
        self._watched = _Watched([str(name) for name in names], change, losses)
        return True

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        stack, self.command_stack = self.command_stack, []
        watched, self._watched = self._watched, _Watched()
        self.explicit_transaction = False
        answers = self._send([command for command, _ in stack], watched)
        read = [
            answer if isinstance(answer, Exception) else self._client.read_reply(command, answer, options)
            for (command, options), answer in zip(stack, answers, strict=True)
        ]
        errors = [answer for answer in read if isinstance(answer, Exception)]
        if errors and raise_on_error:
            raise errors[0]
        return read

    def _send(self, commands: Sequence[Command], watched: _Watched) -> list[Any]:
        """Send what is watched for once: whether it was made nobody knows whose connection is lost."""
        if not self.transaction:
            return self._client.send(commands)
        request = [(_TRANSACTION, watched, commands)]
        try:
            (answer,) = self._client.send_once(request) if watched.keys else self._client.send(request)
        except _RETRIED as e:
            if watched.keys:
                raise WatchError("the connection was lost") from e
            raise
        if isinstance(answer, Exception):
            raise answer
        answers: list[Any] = answer
        return answers


class SimulatedAsyncRedis(redis.asyncio.Redis):
    """A client for asyncio: each request is an actor of its own, since others of the process may go on meanwhile."""

    def __init__(self, server: SimulatedServer, process: Process) -> None:
        super().__init__(connection_pool=_async_pool(server.name))
        self._server = server
        self._process = process
        self._life = process.lives

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        answer = (await self.send([args]))[0]
        if isinstance(answer, Exception):
            raise answer
        read = self.response_callbacks.get(args[0])
        return read(answer, **options) if read is not None else answer

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> "_AsyncPipeline":  # type: ignore[override]
        return _AsyncPipeline(self)

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        if self._process.lives != self._life:  # a coroutine of a dead process, which ends as it is forgotten
            raise RedisConnectionError("the process is dead")
        loop = asyncio.get_running_loop()
        answered = loop.create_future()

        def ask() -> None:
            try:
                answers = self._ask(commands)
            except Exception as e:  # noqa: BLE001 (whoever waits is told)
                error = e
                loop.call_soon_threadsafe(lambda: answered.done() or answered.set_exception(error))
            else:
                loop.call_soon_threadsafe(lambda: answered.done() or answered.set_result(answers))

        self._process.spawn("request", ask)
        result: list[Any] = await answered
        return result

    def _ask(self, commands: Sequence[Command]) -> list[Any]:
        never_us = 10**12  # whoever awaits a reply bounds the wait
        for repeated in range(ASYNC_RETRIES):
            try:
                return _request(self._server, commands, never_us)
            except _RETRIED:
                self._server.scheduler.sleep_us(BACKOFF_US * 2**repeated)
        return _request(self._server, commands, never_us)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        pass


class _AsyncPipeline:
    def __init__(self, client: SimulatedAsyncRedis) -> None:
        self._client = client
        self._commands: list[Command] = []

    def execute_command(self, *args: Any) -> None:
        self._commands.append(args)

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        return await self._client.send(self._commands)
