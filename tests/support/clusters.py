"""A cluster of real Valkeys: primaries that share the slots, and replicas of each. Nodes can be killed, frozen and come back, lie
on machines that can be cut off, or join later; slots can be moved while all goes on.

Nobody's word about another is taken for it where it matters: which node has a slot is told by the node itself, and of two that
claim it, the one of the later epoch is right.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from config.connections.cluster_client import HELD_UP_S, ClusterClient
from config.store import redis_client
from tests.support.closing import Closing
from tests.support.machines import Machine
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, free_port, until

SLOTS = 16_384
NODE_TIMEOUT_MS = 1_000

START_S = 20.0
FAIL_OVER_S = 20.0
MOVE_S = 60.0

ANSWER_S = 0.5
"""How soon a node answers that can be reached."""

KEYS_A_MOVE = 100

NODE_SETTINGS = {
    "cluster_enabled": "yes",
    "cluster_node_timeout": str(NODE_TIMEOUT_MS),
    "cluster_allow_replica_migration": "no",  # whoever gives its last slot away stays a primary, without any
    "cluster_require_full_coverage": "no",  # the slots of a node that is lost are no other's trouble
}

_TROUBLES = {"fail", "fail?", "handshake", "noaddr"}


class Portrait(NamedTuple):
    """What a node says of one: itself, or another. `slots` are those that it has, none if it is a replica of `primary_id`."""

    id: str
    flags: frozenset[str]
    primary_id: str
    epoch: int
    slots: frozenset[int]

    @classmethod
    def of(cls, line: str) -> "Portrait":
        """Of a line of CLUSTER NODES."""
        node_id, _, flags, primary_id, _, _, epoch, _, *ranges = line.split(" ")
        slots = frozenset(slot for each in ranges if not each.startswith("[") for slot in _slots_of(each))
        return cls(node_id, frozenset(flags.split(",")), primary_id.strip("-"), int(epoch), slots)


class ValkeyNode(Valkey):
    """One of a cluster, which it joins by `meet`."""

    def __init__(self, machine: Machine | None = None, **settings: str) -> None:
        self.bus_port = free_port()
        super().__init__(None, machine, **NODE_SETTINGS | settings, cluster_port=str(self.bus_port))
        self.id = str(self.ask("CLUSTER", "MYID").decode())

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def ask(self, *words: str | int, within_s: float = ANSWER_S) -> Any:
        """Its answer to one command. Raises redis.RedisError, soon if it cannot be reached."""
        with redis.Redis(
            self.host, self.port, protocol=2, retry=Retry(NoBackoff(), 0),
            socket_timeout=within_s, socket_connect_timeout=ANSWER_S,
        ) as client:  # fmt: skip
            return client.execute_command(*words)

    def announce(self, port: int) -> None:
        """Name this port to clients as its own, also after a start; 0 for the one that it has."""
        self._settings["cluster-announce-client-port"] = str(port)
        self.ask("CONFIG", "SET", "cluster-announce-client-port", port)

    def names(self, other: "ValkeyNode", port: int) -> bool:
        """Does it name this port to clients as the other's?"""
        lines = self.ask("CLUSTER", "NODES").decode().splitlines()
        return any(line.startswith(f"{other.id} {other.host}:{port}@") for line in lines)

    def meet(self, other: "ValkeyNode") -> None:
        self.ask("CLUSTER", "MEET", other.host, other.port, other.bus_port)

    def portraits(self) -> dict[str, Portrait]:
        """Of all nodes that it knows, by id; none while it does not answer."""
        try:
            lines = self.ask("CLUSTER", "NODES").decode().splitlines()
        except redis.RedisError:
            return {}
        return {each.id: each for each in map(Portrait.of, lines)}

    def portrait(self) -> Portrait | None:
        """Of itself."""
        return self.portraits().get(self.id)

    def is_ok(self) -> bool:
        """Does it say that the cluster is?"""
        with suppress(redis.RedisError):
            return bool(b"cluster_state:ok" in self.ask("CLUSTER", "INFO"))
        return False

    def follows(self) -> bool:
        """Is it a primary, or a replica that has what its primary has?"""
        with suppress(redis.RedisError):
            said = self.ask("INFO", "replication")
            return bool(said["role"] == "master" or said["master_link_status"] == "up")
        return False


class ValkeyCluster(Closing):
    """So many primaries with equal parts of the slots, and `replicas` of each, who know each other once this is made; and a server
    of its own for the wake-ups. On `machines`, if there are some, in turn: a primary and its replicas each on another; the
    server of the wake-ups on the last."""

    def __init__(
        self, primaries: int = 3, replicas: int = 1, machines: Sequence[Machine] = (), **settings: str
    ) -> None:
        self.settings = settings
        self.nodes: list[ValkeyNode] = []
        self.broker = Valkey(machine=machines[-1] if machines else None)
        self._clients: list[redis.Redis] = []
        try:
            self._form(primaries, replicas, machines or (None,))
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Where the lanes go."""
        return f"redis+cluster://{','.join(each.address for each in self.nodes)}"

    @property
    def broker_url(self) -> str:
        """Where the wake-ups go."""
        return self.broker.url

    @property
    def folder(self) -> Path:
        """Of the first node."""
        return self.nodes[0].folder

    def client(self, url: str = "") -> redis.Redis:
        """A client as Parley's own, closed by `close_clients` or with the cluster; of the wake-ups, by their URL, a plain one."""
        if url == self.broker_url:
            return self.broker.client()
        client = _EveryNode.of(redis_client.connect(url or self.url))
        self._clients.append(client)
        return client

    def announce(self, ports: Mapping[ValkeyNode, int]) -> None:
        """Have clients told that nodes are at these ports, for good. Raises redis.RedisError if a node does not answer."""
        for node, port in ports.items():
            node.announce(port)
        until(lambda: self._name(ports), START_S, "all nodes name these ports")

    def primary_of(self, slot: int | str) -> ValkeyNode:
        """The node that has this slot, or the slot of this key."""
        number = key_slot(slot.encode()) if isinstance(slot, str) else slot
        owner = until(lambda: self.owners().get(number), START_S, f"slot {number} has a node")
        assert owner is not None
        return owner

    def owners(self) -> dict[int, ValkeyNode]:
        """Slot -> the node that has it, of those that answer."""
        said = [(portrait.epoch, node, portrait) for node in self.nodes if (portrait := node.portrait())]
        said.sort(key=lambda each: each[0])
        return {slot: node for _, node, portrait in said for slot in portrait.slots}

    @property
    def primaries(self) -> list[ValkeyNode]:
        """Those that have slots, in the order of these."""
        return [*dict.fromkeys(owner for _, owner in sorted(self.owners().items(), key=lambda each: each[0]))]

    def replicas_of(self, primary: ValkeyNode) -> list[ValkeyNode]:
        said = {node: node.portrait() for node in self.nodes}
        return [node for node, each in said.items() if each and each.primary_id == primary.id]

    def wait_complete(self) -> None:
        """Until every node answers, finds nothing wrong with any, and follows its primary."""
        until(self._is_complete, START_S, "the cluster is complete")

    def wait_failed_over(self, old: ValkeyNode) -> None:
        """Until most of the others, who agree that all is well, give `old` no slots any more, and whoever has them says so."""
        until(lambda: self._is_without(old), FAIL_OVER_S, f"another node than {old.address} has its slots")

    def be_patient(self, ms: int) -> None:
        """Have the nodes take each other for gone only after so long."""
        for each in self.nodes:
            each.ask("CONFIG", "SET", "cluster-node-timeout", ms)

    def fail_over(self, replica: ValkeyNode) -> None:
        """Let it and its primary change places, as before an upgrade: nothing is lost."""
        portrait = replica.portrait()
        assert portrait is not None
        replica.ask("CLUSTER", "FAILOVER")
        old = next(node for node in self.nodes if node.id == portrait.primary_id)
        self.wait_failed_over(old)
        until(
            lambda: self._all_say_follower(old, replica),
            FAIL_OVER_S,
            "all know that they have changed places",
        )

    def add_node(self, machine: Machine | None = None) -> ValkeyNode:
        """One that has nothing: no slots, no keys, no functions."""
        node = self._make(machine)
        node.meet(self.nodes[0])
        until(self._are_acquainted, START_S, "all nodes know the new one")
        until(node.is_ok, START_S, "it is a part of the cluster")
        return node

    def replicate(self, node: ValkeyNode, primary: ValkeyNode) -> None:
        """Let a node without slots follow `primary`."""
        node.ask("CLUSTER", "REPLICATE", primary.id)
        until(node.follows, START_S, "it replicates")

    def move_slots(self, first: int, last: int, target: ValkeyNode) -> None:
        """From the one node that has them all, at once: as Valkey 9 does, which refuses nobody meanwhile."""
        source = self.primary_of(first)
        source.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", first, last, "NODE", target.id, within_s=MOVE_S)
        until(lambda: _moved(source) and _moved(target), MOVE_S, f"slots {first} to {last} are moved")
        until(lambda: self._all_say(target, range(first, last + 1)), START_S, "all know it")

    def move_slot(self, slot: int, target: ValkeyNode) -> None:
        """The same, of one."""
        self.move_slots(slot, slot, target)

    def move_slot_by_keys(
        self, slot: int, target: ValkeyNode, pause: Callable[[], object] = lambda: None
    ) -> None:
        """As servers before Valkey 9 do, some keys after the other, with a `pause` between: who asks for a key that is under way is
        told to ask the other node, or again."""
        source = self.primary_of(slot)
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, KEYS_A_MOVE):
            source.ask("MIGRATE", target.host, target.port, "", 0, 5_000, "KEYS", *keys, within_s=MOVE_S)
            pause()
        for node in (target, source, *(each for each in self.nodes if each not in (source, target))):
            with suppress(redis.ResponseError):  # a replica is told by its primary
                node.ask("CLUSTER", "SETSLOT", slot, "NODE", target.id)
        until(lambda: self._all_say(target, (slot,)), START_S, "all know it")

    def start(self) -> None:
        """Start all nodes that `stop` or `kill9` ended, and wait until they are a cluster."""
        for each in self.nodes:
            if not each.is_running:
                each.start()
        self.wait_complete()

    def restore(self) -> None:
        """Have all nodes run, whatever was done to them, and take away all keys."""
        for each in self.nodes:
            if each.is_running:
                each.sigcont()
        self.start()
        self.empty()

    def stop(self) -> None:
        """End all nodes. The server of the wake-ups goes on."""
        for each in self._replicas_first():
            each.stop()

    def kill9(self) -> None:
        for each in self._replicas_first():
            each.kill9()

    def sigstop(self) -> None:
        """Freeze all nodes."""
        for each in self._replicas_first():
            each.sigstop()

    def sigcont(self) -> None:
        for each in self.nodes:
            each.sigcont()

    def empty(self) -> None:
        """Take away all keys."""
        for node in self.primaries:
            node.ask("FLUSHALL", within_s=START_S)
        self.broker.empty()

    def close_clients(self) -> None:
        """Close every connection that `client` opened."""
        while self._clients:
            self._clients.pop().close()
        self.broker.close_clients()

    def close(self) -> None:
        self.close_clients()
        for each in (*self.nodes, self.broker):
            each.close()

    def _form(self, primaries: int, replicas: int, places: Sequence[Machine | None]) -> None:
        ranks = [(rank, number) for rank in range(replicas + 1) for number in range(primaries)]
        for rank, number in ranks:
            self._make(places[(number + rank) % len(places)])
        for number, node in enumerate(self.nodes[:primaries]):
            begin, end = number * SLOTS // primaries, (number + 1) * SLOTS // primaries - 1
            node.ask("CLUSTER", "ADDSLOTSRANGE", begin, end)
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            node.meet(self.nodes[0])
        until(self._are_acquainted, START_S, "all nodes know each other")
        for place, node in enumerate(self.nodes[primaries:]):
            node.ask("CLUSTER", "REPLICATE", self.nodes[place % primaries].id)
        self.wait_complete()

    def _make(self, machine: Machine | None) -> ValkeyNode:
        node = ValkeyNode(machine, **self.settings)
        self.nodes.append(node)
        return node

    def _replicas_first(self) -> list[ValkeyNode]:
        """Or one of them would take the place of another."""
        primaries = self.primaries
        return [*(each for each in self.nodes if each not in primaries), *primaries]

    def _are_acquainted(self) -> bool:
        """Each knows all, and has shaken hands with each."""
        ids = {node.id for node in self.nodes}
        return all(
            said.keys() >= ids and not any(said[each].flags & _TROUBLES for each in ids)
            for said in (node.portraits() for node in self.nodes)
        )

    def _is_complete(self) -> bool:
        return (
            all(node.is_ok() and node.follows() for node in self.nodes)
            and len(self.owners()) == SLOTS
            and self._are_acquainted()
            and self._are_agreed()
        )

    def _are_agreed(self) -> bool:
        """Does each know of each what that says of itself?"""
        views = [node.portraits() for node in self.nodes]
        own = [said.get(node.id) for node, said in zip(self.nodes, views, strict=True)]
        return all(
            said
            and each
            and said[each.id].slots == each.slots
            and said[each.id].primary_id == each.primary_id
            for said in views
            for each in own
        )

    def _is_without(self, old: ValkeyNode) -> bool:
        others = [node for node in self.nodes if node is not old]
        agreeing = [
            node
            for node in others
            if (said := node.portraits())
            and not said[old.id].slots
            and sum(len(each.slots) for each in said.values()) == SLOTS
        ]
        taken = {slot for node in others if (own := node.portrait()) for slot in own.slots}
        return (
            len(taken) == SLOTS and 2 * len(agreeing) > len(others) and all(node.is_ok() for node in agreeing)
        )

    def _name(self, ports: Mapping[ValkeyNode, int]) -> bool:
        return all(each.names(node, port or node.port) for node, port in ports.items() for each in self.nodes)

    def _all_say(self, owner: ValkeyNode, slots: Sequence[int]) -> bool:
        wanted = frozenset(slots)
        views = (node.portraits() for node in self.nodes)
        return all(said[owner.id].slots >= wanted for said in views if said)

    def _all_say_follower(self, node: ValkeyNode, primary: ValkeyNode) -> bool:
        views = (each.portraits() for each in self.nodes)
        return all(said[node.id].primary_id == primary.id for said in views if said)


class ParleysCluster(ValkeyCluster):
    """One whose clients are Parley's own, with nothing that tests ask besides, and try once."""

    def client(self, url: str = "") -> redis.Redis:
        return super().client(url) if url else redis_client.connect(self.url, retries=0)


class _EveryNode(ClusterClient):
    """Parley's client, with what tests ask besides: of all primaries, and in pipelines. Only who is of the tests has that: when
    Parley's own code is given one, it is as any other."""

    @classmethod
    def of(cls, client: redis.Redis) -> "_EveryNode":
        assert isinstance(client, ClusterClient)
        patient = {"socket_connect_timeout": HELD_UP_S * PATIENCE}  # a node of a busy machine does not hang
        return cls(client.seeds, client._class, {**client._options, **patient})

    def execute_command(self, *args: Any, **options: Any) -> Any:
        name = " ".join(str(each) for each in args[:2]).upper()
        if not name.startswith(_EVERYWHERE) or _is_asked_by_parley():
            return super().execute_command(*args, **options)
        answers = [each.execute_command(*args, **options) for each in self.servers()]  # type: ignore[no-untyped-call]
        match answers[0]:
            case list():
                return [part for answer in answers for part in answer]
            case int() if not isinstance(answers[0], bool):
                return sum(answers)
            case _:
                return answers[0]

    def pipeline(self, *args: Any, **named: Any) -> Any:
        return super().pipeline(*args, **named) if _is_asked_by_parley() else _Batch(self)


def _is_asked_by_parley() -> bool:
    """Whether the code that called a client's method is Parley's, and not a test's."""
    frame = inspect.currentframe()
    while frame and (_module_of(frame) == __name__ or _room_of(frame) == "redis"):
        frame = frame.f_back
    return frame is not None and _room_of(frame) in _ROOMS


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals["__name__"])


def _room_of(frame: FrameType) -> str:
    return _module_of(frame).partition(".")[0]


_ROOMS = ("config", "engine", "ingest", "workers")

_EVERYWHERE = (
    "KEYS",
    "FLUSHALL",
    "FLUSHDB",
    "DBSIZE",
    "CONFIG SET",
    "CONFIG RESETSTAT",
    "FUNCTION FLUSH",
    "CLIENT PAUSE",
)


class _Batch(redis.client.Pipeline):
    """As a pipeline, in which each command goes to the node of its keys."""

    def __init__(self, client: _EveryNode) -> None:
        super().__init__(client.connection_pool, {}, transaction=False, shard_hint=None)
        self._client = client

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        commands = [command for command, _ in self.command_stack]
        self.reset()
        if raise_on_error:
            return redis_client.run_commands(self._client, commands)
        return redis_client.try_commands(self._client, commands)


def _slots_of(written: str) -> Iterator[int]:
    """Of `5` or `5-9`."""
    first, _, last = written.partition("-")
    yield from range(int(first), int(last or first) + 1)


def _moved(node: ValkeyNode) -> bool:
    """Is the last migration over that this node has to do with? Raises RuntimeError if it failed."""
    latest, *_ = node.ask("CLUSTER", "GETSLOTMIGRATIONS")
    told = {str(name.decode()): value for name, value in zip(latest[::2], latest[1::2], strict=True)}
    state = told["state"].decode()
    if state in ("failed", "cancelled"):
        raise RuntimeError(f"the migration {state}: {told['message'].decode()}")
    return bool(state == "success")
