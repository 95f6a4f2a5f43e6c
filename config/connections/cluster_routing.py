"""Which server of a cluster has what a command is about, and what becomes of the answers: the route of one batch of commands.

Law: every command has one answer, and what one server does not answer changes nothing of another's. A command that is
answered by "not here" goes to where that answer says; one whose server fails goes to another if the table names one by then,
and else its answer is the error. Nothing waits: whoever asks knows best what to do meanwhile. A batch that one server has held
up waits for no other's replicas either: who takes the place of one that was lost often has none yet.

Nothing here sends anything: cluster_client.py (threads) and async_cluster_client.py (asyncio) do.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import count, groupby
from operator import itemgetter
from typing import Any

import redis
from redis.crc import key_slot

from config.connections.replication import (
    SHORT_WAIT_MS,
    Command,
    Shortfalls,
    mark_in_cluster,
    with_wait,
    without_wait,
)
from config.connections.watched_servers import Address
from engine.model.errors import ParleyError

MAX_ROUNDS = 5
"""How often a command may be sent on, or again."""

TRY_AGAIN_S = 0.02
"""After how long a command is sent again of whose keys some are on their way to another server."""

EVERY_PRIMARY = frozenset({"FUNCTION LOAD", "FUNCTION DELETE", "PING"})
"""Commands that go to all primaries; the answer is one error, if there is any."""

BLOCKING = frozenset({"BZMPOP", "XREAD"})
"""Commands that may wait for something to come: they say nothing of a server that is silent."""

_KEYLESS = frozenset(
    {"TIME", "INFO", "CONFIG", "FUNCTION", "SCAN", "ROLE", "DBSIZE", "ACL", "LATENCY", "CLIENT"}
)
"""Commands that go to any primary; to the same, as long as it answers."""

_SLOTS = 16_384


class ServerAwayError(ParleyError, redis.exceptions.ConnectionError):
    """A server of the cluster does not answer, or none is known that has what is asked for."""


def words_of(command: Command) -> Command:
    """Return a command with one word in each place: ("CONFIG GET", "a") -> ("CONFIG", "GET", "a")."""
    return (*command[0].split(), *command[1:]) if " " in command[0] else command


def name_of(command: Command) -> str:
    """Return a command's name, of two words for those of FUNCTION: `FUNCTION LOAD`."""
    first, *rest = words_of(command)[:2]
    return f"{first} {rest[0]}" if first == "FUNCTION" else str(first)


def key_of(command: Command) -> str | bytes | None:
    """Return the first key of a command; None if it has none. All that it has are of one slot."""
    key: str | bytes | None
    words = words_of(command)
    match words:
        case ("FCALL" | "EVAL", _, keys, *rest):
            key = rest[0] if int(keys) else None
        case ("XREAD", *rest):
            key = rest[next(at for at, word in enumerate(rest) if word in ("STREAMS", b"STREAMS")) + 1]
        case ("BZMPOP", _, _, first, *_):
            key = first
        case ("XINFO" | "OBJECT" | "MEMORY", _, second, *_):
            key = second
        case _:
            first, *rest = words
            key = None if first in _KEYLESS or first == "PING" else rest[0]
    return key


def slot_of_key(key: str | bytes) -> int:
    """Return the slot of a key."""
    return _slot_of_tag(_tag_of(key))


def _tag_of(key: str | bytes) -> str:
    name = key if isinstance(key, str) else key.decode(errors="surrogateescape")
    _, opened, rest = name.partition("{")
    tag, closed, _ = rest.partition("}")
    return tag if opened and closed and tag else name


@lru_cache(8_192)
def _slot_of_tag(tag: str) -> int:
    return key_slot(tag.encode(errors="surrogateescape"))


class SlotTable:
    """Which primary has which slot, as a server has told, at its `epoch`; and of which replicas fell short."""

    def __init__(self, shortfalls: Shortfalls) -> None:
        self.epoch = -1
        self.shortfalls = shortfalls
        self._owners: list[Address | None] = [None] * _SLOTS
        self._tags: dict[Address, str] = {}
        self._primaries: list[Address] | None = []

    def owner(self, slot: int) -> Address | None:
        return self._owners[slot]

    def primaries(self) -> list[Address]:
        """Return all that have slots, in the order of these."""
        found = self._primaries
        if found is None:
            found = self._primaries = list(dict.fromkeys(owner for owner in self._owners if owner))
        return found

    def uncovered(self) -> int:
        """Return how many slots no server has."""
        return self._owners.count(None)

    def slots_by_primary(self) -> dict[Address, int]:
        """Return how many slots each has."""
        return dict(Counter(owner for owner in self._owners if owner))

    def slots_of(self, owner: Address | None) -> str:
        """Return the slots of a server, or those of none: `0-99,200-5460`."""
        places = enumerate(self._owners)
        runs = [list(run) for each, run in groupby(places, itemgetter(1)) if each == owner]
        return ",".join(f"{run[0][0]}-{run[-1][0]}" for run in runs)

    def replace(self, epoch: int, told: Iterable[Sequence[Any]], asked: Address) -> None:
        """Take what `asked` has told to CLUSTER SLOTS. Where it names no host it means itself."""
        owners: list[Address | None] = [None] * _SLOTS
        for first, last, (host, port, *_), *_ in told:
            name = host.decode() if isinstance(host, bytes) else host
            owners[first : last + 1] = [(name or asked[0], int(port))] * (last + 1 - first)
        self.epoch, self._owners, self._tags, self._primaries = epoch, owners, {}, None

    def move(self, slot: int, owner: Address) -> None:
        """Take what a server has told of one slot."""
        self._owners[slot] = owner
        self._tags, self._primaries = {}, None

    def tag_on(self, owner: Address) -> str:
        """Return a hash tag that lies on this server, which has slots."""
        if owner not in self._tags:
            self._tags[owner] = next(
                tag for tag in map(str, count()) if self._owners[_slot_of_tag(tag)] == owner
            )
        return self._tags[owner]


class NodeRequest:
    """What one server is asked in one go: the commands in the places `at` of the batch."""

    def __init__(self, address: Address, *, asking: bool = False) -> None:
        self.address = address
        self.asking = asking
        self.at: list[int] = []
        self.sent: list[Command] = []


class RoutedBatch:
    """Commands on their way, and their `answers`. Ask for `next_requests` until there are none; give `take` what became of each,
    and before the next ones, if `stale`, a table that was told anew."""

    def __init__(
        self, table: SlotTable, commands: Sequence[Command], *, transaction: bool = False, replicas: int = 0
    ) -> None:
        self.answers: list[Any] = [None] * len(commands)
        self.stale = False
        self.pause_s = 0.0
        self._table = table
        self._commands = commands
        self._keys = [key_of(command) for command in commands]
        self._transaction = transaction and len(commands) > 1
        self._replicas = replicas
        self._todo = list(range(len(commands)))
        self._asked: dict[int, Address] = {}
        self._failed_at: dict[int, set[Address]] = {}
        self._rounds = 0

    def next_requests(self) -> list[NodeRequest]:
        """Return what is to be sent now. What has no server, or was sent too often, keeps its error."""
        self.stale, self.pause_s = False, 0.0
        self._rounds += 1
        todo, self._todo = self._todo, []
        if self._rounds > MAX_ROUNDS:
            return []
        requests: dict[Any, NodeRequest] = {}
        for at in todo:
            self._route(at, requests)
        for request in requests.values():
            request.sent = self._words(request)
        return list(requests.values())

    def take(self, request: NodeRequest, outcome: list[Any] | Exception) -> None:
        """Take a server's replies, with errors among them, or why there are none."""
        if isinstance(outcome, Exception):
            for at in request.at:
                self._fail(at, request.address, outcome)
            return
        for at, answer in zip(request.at, self._answers_of(request, outcome), strict=True):
            self._take_answer(at, request.address, answer)

    def _route(self, at: int, requests: dict[Any, NodeRequest]) -> None:
        asked = self._asked.pop(at, None)
        owner = asked or self._owner_of(at)
        if owner is None:
            self.answers[at] = ServerAwayError("no server of the cluster has what is asked for")
            return
        if asked is None and owner in self._failed_at.get(at, ()):
            return  # the table has no other: the error stays
        together = (owner, asked is not None, self._slot(at) if self._transaction else None)
        requests.setdefault(together, NodeRequest(owner, asking=asked is not None)).at.append(at)

    def _slot(self, at: int) -> int | None:
        key = self._keys[at]
        return None if key is None else slot_of_key(key)

    def _owner_of(self, at: int) -> Address | None:
        slot = self._slot(at)
        if slot is not None:
            return self._table.owner(slot)
        primaries = self._table.primaries()
        failed = self._failed_at.get(at, ())
        return next((each for each in primaries if each not in failed), primaries[0] if primaries else None)

    def _words(self, request: NodeRequest) -> list[Command]:
        commands = [words_of(self._commands[at]) for at in request.at]
        if request.asking:
            commands = [word for command in commands for word in (("ASKING",), command)]
        elif self._transaction:
            commands = [("MULTI",), *commands, ("EXEC",)]
        if not self._replicas:
            return commands
        if request.asking:
            commands.append(("ASKING",))
        key = self._keys[request.at[0]]
        tag = self._table.tag_on(request.address) if key is None else _tag_of(key)
        wait_ms = SHORT_WAIT_MS if self._failed_at else self._table.shortfalls.wait_ms(request.address)
        return list(with_wait(commands, self._replicas, mark_in_cluster(tag), wait_ms))

    def _answers_of(self, request: NodeRequest, replies: list[Any]) -> list[Any]:
        """Return the answers to the commands, of all that a server replied."""
        answers = without_wait(replies, self._replicas)
        if self._replicas:
            self._table.shortfalls.take(request.address, request.sent, replies)
        if request.asking:
            return answers[1 : 2 * len(request.at) : 2]
        if not self._transaction:
            return answers
        *queued, executed = answers[1:]
        if isinstance(executed, list):
            return executed
        refused = next((each for each in queued if isinstance(each, redis.RedisError)), executed)
        return [refused] * len(request.at)

    def _take_answer(self, at: int, address: Address, answer: Any) -> None:
        self.answers[at] = answer
        if not isinstance(answer, redis.RedisError):
            return
        if isinstance(answer, redis.exceptions.MovedError):
            self._table.move(answer.slot_id, (answer.host or address[0], answer.port))
            self.stale = True
            self._todo.append(at)
        elif isinstance(answer, redis.exceptions.AskError):
            self._asked[at] = (answer.host or address[0], answer.port)
            self._todo.append(at)
        elif isinstance(answer, redis.exceptions.TryAgainError):
            self.pause_s = TRY_AGAIN_S
            self._todo.append(at)
        elif isinstance(answer, AWAY_ERRORS):
            self._fail(at, address, answer)

    def _fail(self, at: int, address: Address, error: Exception) -> None:
        self.answers[at] = error
        self.stale = True
        self._failed_at.setdefault(at, set()).add(address)
        self._todo.append(at)


AWAY_ERRORS = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.MasterDownError,
    redis.exceptions.ReadOnlyError,
)
"""What a server says, or is said of it, that has its slots no more, or not yet."""
