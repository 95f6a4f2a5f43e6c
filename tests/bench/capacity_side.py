"""What a turn costs, measured for `parley capacity`: the Procfile's processes, a server for the lanes and one for the wake-ups, a
fake provider, and people who talk at a rate that leaves the machine idle for most of the time.

CPU is each process's own, by /proc, so that what else the machine does counts less. It is measured at two rates, and a line
through both says what a process takes anyway, and for each turn. Memory is the server's `used_memory`, of conversations that
have ended and of open ones: parts of it are deleted, and what that frees is theirs.
"""

import os
import platform
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from threading import Event, Thread
from time import monotonic, process_time
from typing import Any

import dramatiq
import msgspec

from config.store import keyspace, redis_client
from config.store.function_calls import function_call, wake_command
from config.store.server_functions import AcquirePermits
from tests.bench.archive_side import archiving_rate, fill_streams
from tests.bench.hooks_side import telling_rate, waiting_events
from tests.bench.parley_side import SHARDS
from tests.support import clinic
from tests.support.octopush import FakeOctopush
from tests.support.person import Crowd, Person
from tests.support.processes import SURVEYS, Deployment
from tests.support.valkey import Valkey
from tests.support.waiting import until
from workers.capacity.capacity_plan import US_PER_S, cpu_per_turn
from workers.capacity.turn_costs import ByteCosts, CpuCosts, StandingCosts, TurnCosts
from workers.capacity.workload import Workload
from workers.runtime.wakeup_broker import WakeupBroker
from workers.store.outboxes import OUTBOX_LEASE_MS

CONNECTIONS = 32
DEADLINE_S = 300.0
THINK_S = 0.2
TURNS = 4
"""Of one conversation, each answered by one SMS; the first is a START."""

FILLER = " so that a doctor may be told of it and calls you" * 2
"""What a question is longer by, to see what text costs; and what is synced."""

REACHED = 0.8
"""Of a rate, what has to go through."""

SYNC_EVERY_S = 0.1
HOOK_BATCH = 100
PERMITS, PIPELINED = 40_000, 16
WOKEN = 16_000
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SERVERS = ("lanes", "broker")

HTTP_WEBHOOK, HTTP_SEND = 1_500, 2_500
"""Bytes of a request and its answer by TLS, on a connection that is kept: assumed, as headers are each provider's own."""


class CostScale(msgspec.Struct, frozen=True):
    """How much is measured: turns a second, for how long, how often; and whose memory."""

    rates: tuple[float, float] = (100, 600)
    seconds: float = 15
    repeats: int = 3
    people: int = 2_000
    told_sessions: int = 1_500
    checked_rates: tuple[float, float] = (300, 800)
    checked_people: tuple[int, int] = (1_000, 5_000)


class Usage(msgspec.Struct):
    """What was taken until a moment: µs of CPU by process and server, µs of the lanes' server in its append-only file, and bytes
    of the servers' network."""

    at_s: float
    cpu_us: Mapping[str, float]
    append_only_us: float
    network: Mapping[str, float]


class RateRun(msgspec.Struct):
    """People who talked at a rate: what that took."""

    seconds: float
    turns: int
    cpu_us: Mapping[str, float]
    append_only_us: float
    network: Mapping[str, float]
    fsync_us: float

    @property
    def rate(self) -> float:
        return self.turns / self.seconds

    def per_second(self, name: str) -> float:
        return self.cpu_us[name] / self.seconds


class MemoryRun(msgspec.Struct):
    """Of so many conversations of so many turns: bytes for each of what they left, `text` in each of their turns."""

    people: int
    turns: int
    text: float
    used: float  # by all of them
    empty: float  # by the server without them
    lane: float
    session_index: float
    stream_turn: float
    append_only_turn: float
    archive_turn: float
    events_per_turn: float
    entries_per_turn: float


class Stage:
    """Servers, a provider and a deployment, for one run."""

    def __init__(self, octopush: FakeOctopush, lanes: Valkey, broker: Valkey, deployment: Deployment) -> None:
        self.octopush = octopush
        self.servers = {"lanes": lanes, "broker": broker}
        self.deployment = deployment
        self.client = lanes.client()
        self._clients = {name: server.client() for name, server in self.servers.items()}

    def usage(self) -> Usage:
        pids = {process.name: process.pid for process in self.deployment.processes}
        pids |= {name: server.pid for name, server in self.servers.items()}
        infos = {name: client.info("stats") | client.info("debug") for name, client in self._clients.items()}
        return Usage(
            monotonic(),
            {name: cpu_us(pid) for name, pid in pids.items()},
            float(infos["lanes"]["eventloop_duration_aof_sum"]),
            {
                name: float(info["total_net_input_bytes"]) + float(info["total_net_output_bytes"])
                for name, info in infos.items()
            },
        )

    def memory(self) -> float:
        """What is used for data: buffers of clients come and go."""
        info = self.client.info("memory")
        return float(info["used_memory"] - info["mem_clients_normal"] - info["mem_aof_buffer"])

    def append_only_bytes(self) -> float:
        return float(self.client.info("persistence")["aof_current_size"])

    def archive_bytes(self) -> float:
        """Of its file, once the log is in it."""
        path = self.deployment.folder / "var" / "archive.db"
        with closing(sqlite3.connect(path, timeout=DEADLINE_S)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return float(path.stat().st_size)

    def converse(self, plays: Mapping[str, clinic.Play], rate: float = 0.0, hears: int = TURNS) -> None:
        """Let all of these talk, at so many turns a second if there is a rate, until each has heard so much."""
        crowd = Crowd(self.deployment.webhook, self.octopush, CONNECTIONS)
        people = (Person(number, play.says[0], _replies(play, hears)) for number, play in plays.items())
        every_s, think_s = (TURNS / rate, THINK_S) if rate else (0.0, 0.0)
        for person in crowd.talk(people, DEADLINE_S, every_s=every_s, think_s=think_s):
            assert person.heard == plays[person.number].hears[:hears], person.heard
        self.octopush.reset()

    def remove(self, pattern: str) -> float:
        """Delete these keys; answer the memory that this freed."""
        before = self.memory()
        names = list(self.client.scan_iter(pattern, count=1_000))
        for place in range(0, len(names), 500):
            self.client.delete(*names[place : place + 500])
        return before - self.memory()

    def wait_archived(self) -> None:
        until(self._is_archived, DEADLINE_S, "the archive has all")

    def _is_archived(self) -> bool:
        lanes: Any = self.client
        for k in range(SHARDS):
            done = lanes.get(keyspace.archived_key(k)) or b""
            if any(at not in done for at, _ in lanes.xrevrange(keyspace.events_key(k), count=1)):
                return False
        return True


def cpu_us(pid: int) -> float:
    """CPU that a process and its children have taken, their own and the kernel's for them."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own_us = (int(fields[11]) + int(fields[12])) * 1_000_000 / TICKS_PER_S
    return own_us + sum(cpu_us(int(child)) for child in children)


def _replies(play: clinic.Play, hears: int) -> Callable[[str], str | None]:
    answers, heard = play.answers(), iter(range(1, hears + 1))

    def reply(text: str) -> str | None:
        return answers.get(text) if next(heard) < hears else None

    return reply


@contextmanager
def stage(octopush: FakeOctopush, filler: str = "", **environment: str) -> Iterator[Stage]:
    """All processes of a deployment but `console` on servers of its own, whose survey asks for a fever with so many more words."""
    octopush.reset()
    with TemporaryDirectory() as folder:
        survey = (SURVEYS / "clinic.yaml").read_text().replace(clinic.FEVER, _longer(clinic.FEVER, filler))
        (Path(folder) / "clinic.yaml").write_text(survey)
        with (
            Valkey(auto_aof_rewrite_percentage="0", lazyfree_lazy_user_del="no") as lanes,
            Valkey() as broker,
            Deployment(
                lanes.url, broker.url, octopush, surveys=Path(folder), environment=environment, forked=False
            ) as deployment,
        ):
            yield Stage(octopush, lanes, broker, deployment.start())


def _longer(question: str, filler: str) -> str:
    return question.removesuffix("?") + filler + "?"


def talkers(people: int, first: int, filler: str = "") -> dict[str, clinic.Play]:
    """What they say and hear, by number."""
    plays = {clinic.number(first + i): clinic.feverish(f"Ada{i}") for i in range(people)}
    asked = {clinic.FEVER: _longer(clinic.FEVER, filler)}
    return {
        number: clinic.Play(play.says, [asked.get(text, text) for text in play.hears])
        for number, play in plays.items()
    }


def run_rate(octopush: FakeOctopush, rate: float, seconds: float) -> RateRun:
    """Let people talk at `rate` turns a second."""
    with stage(octopush) as on, TemporaryDirectory(dir=on.servers["lanes"].folder) as folder:
        on.converse(talkers(20, 0))
        on.wait_archived()
        people = talkers(max(1, round(rate * seconds / TURNS)), 1_000)
        begun = on.usage()
        with syncing(Path(folder)) as synced_us:
            on.converse(people, rate)
        ended = on.usage()
    return RateRun(
        ended.at_s - begun.at_s,
        TURNS * len(people),
        {name: ended.cpu_us[name] - begun.cpu_us[name] for name in ended.cpu_us},
        ended.append_only_us - begun.append_only_us,
        {name: ended.network[name] - begun.network[name] for name in ended.network},
        mean(synced_us),
    )


@contextmanager
def syncing(folder: Path) -> Iterator[list[float]]:
    """Meanwhile, let a thread append to a file and sync it, as the lanes' server does; yields how long each took."""
    taken_us: list[float] = []
    over = Event()

    def sync() -> None:
        with (folder / "synced").open("ab", buffering=0) as file:
            while not over.wait(SYNC_EVERY_S):
                begun_s = monotonic()
                file.write(FILLER.encode())
                os.fdatasync(file.fileno())
                taken_us.append((monotonic() - begun_s) * 1_000_000)

    thread = Thread(target=sync)
    thread.start()
    try:
        yield taken_us
    finally:
        over.set()
        thread.join()


def run_memory(octopush: FakeOctopush, people: int, turns: int = TURNS, filler: str = "") -> MemoryRun:
    """Let people talk for so many turns, then take the parts of what they left away."""
    plays = talkers(people, 1_000, filler)
    with stage(octopush, filler) as on:
        on.client.config_set("appendfsync", "no")  # how long it takes is not what is measured
        on.converse(plays, hears=turns)
        on.wait_archived()
        many = turns * people
        written, filed = on.append_only_bytes() / many, on.archive_bytes() / many
        for process in on.deployment.processes:
            process.kill9()
        events = len(waiting_events(on.client)) / many
        entries = sum(on.client.xlen(keyspace.events_key(k)) for k in range(SHARDS)) / many
        full = on.memory()
        stream, sessions = on.remove("*:events"), on.remove("*:session:*")
        on.client.execute_command("FLUSHALL", "SYNC")  # type: ignore[no-untyped-call]
        empty = on.memory()
    said = [
        len(text.encode()) for play in plays.values() for text in (*play.says[:turns], *play.hears[:turns])
    ]
    used = full - empty
    return MemoryRun(
        people, turns, sum(said) / many, used, empty, (used - stream - sessions) / people,
        sessions / people, stream / many, written, filed, events, entries,
    )  # fmt: skip


def measure_costs(octopush: FakeOctopush, endpoint: str, scale: CostScale) -> TurnCosts:
    """All that a file of costs has, of this machine. `endpoint` takes what hooks tell it."""
    slow, fast = (
        [run_rate(octopush, rate, scale.seconds) for _ in range(scale.repeats)] for rate in scale.rates
    )
    require_rates(slow, scale.rates[0])
    require_rates(fast, scale.rates[1])
    closed, longer = (run_memory(octopush, scale.people, filler=filler) for filler in ("", FILLER))
    opened = run_memory(octopush, scale.people, TURNS - 1)
    lines = {name: _line(slow, fast, name) for name in StandingCosts.__struct_fields__}
    turn_us = {name: each for name, (_, each) in lines.items()}
    (alone_us, lanes_hook_us), (batched_us, _) = _measure_hooks(endpoint, scale.told_sessions)
    event_us = max(0.0, (HOOK_BATCH * batched_us - alone_us) / (HOOK_BATCH - 1))
    return TurnCosts(
        machine=_machine(),
        measured=datetime.now(UTC).strftime("%Y-%m"),
        turns_per_second=scale.rates[1],
        events_per_turn=closed.events_per_turn,
        syncs_per_turn=median(run.append_only_us / run.turns / run.fsync_us for run in fast),
        fsync_us=median(run.fsync_us for run in fast),
        cpu_us=CpuCosts(
            web=turn_us["web"],
            ratelimit=turn_us["ratelimit"] * TURNS,
            conversation=turn_us["conversation"] * TURNS / (TURNS - 1),
            delivery=turn_us["delivery"],
            clock=turn_us["clock"],
            archive=closed.entries_per_turn * _archive_entry_us(scale.told_sessions),
            lanes=turn_us["lanes"],
            broker=turn_us["broker"],
            broker_full=broker_full_us(),
            channel=_channel_us(),
            hooks_request=alone_us - event_us,
            hooks_event=event_us,
            lanes_hooks_event=lanes_hook_us,
        ),
        standing_us=StandingCosts(**{name: standing for name, (standing, _) in lines.items()}),
        bytes=ByteCosts(
            empty_server=closed.empty,
            open_lane=opened.lane,
            closed_lane=closed.lane,
            session_index=median([closed.session_index, longer.session_index, opened.session_index]),
            **_by_text("stream", closed.stream_turn, longer.stream_turn, closed, longer),
            **_by_text("append_only", closed.append_only_turn, longer.append_only_turn, closed, longer),
            **_by_text("archive", closed.archive_turn, longer.archive_turn, closed, longer),
            lanes_network_turn=median(run.network["lanes"] / run.turns for run in fast),
            broker_network_turn=median(run.network["broker"] / run.turns for run in fast),
            http_webhook=HTTP_WEBHOOK,
            http_send=HTTP_SEND,
        ),
    )


def require_rates(runs: Sequence[RateRun], rate: float) -> None:
    """Raises AssertionError if people waited for the machine: turns that wait share wake-ups, and so cost less."""
    reached = median(run.rate for run in runs)
    assert reached > REACHED * rate, (
        f"{reached:.0f} turns/s went through of {rate:g}: this machine is too busy with other things"
    )


def _line(slow: Sequence[RateRun], fast: Sequence[RateRun], name: str) -> tuple[float, float]:
    """The line through the medians at both rates: µs a second at rate 0, and µs for each turn."""
    (few, few_us), (many, many_us) = (
        (median(run.rate for run in runs), median(run.per_second(name) for run in runs))
        for runs in (slow, fast)
    )
    each = min(max(0.0, (many_us - few_us) / (many - few)), many_us / many)
    return many_us - each * many, each


def _by_text(what: str, short: float, long: float, closed: MemoryRun, longer: MemoryRun) -> dict[str, float]:
    each = max(0.0, (long - short) / (longer.text - closed.text))
    return {f"{what}_turn": max(0.0, short - each * closed.text), f"{what}_text": each}


def _measure_hooks(endpoint: str, sessions: int) -> list[tuple[float, float]]:
    """For an event that is told alone, and in a batch of HOOK_BATCH: µs of CPU of who tells, and of Redis."""
    costs = []
    with Valkey() as valkey, closing(redis_client.connect(valkey.url)) as client:
        fill_streams(client, sessions)
        events = len(waiting_events(client))
        for batch in (1, HOOK_BATCH):
            mine, server = process_time(), cpu_us(valkey.pid)
            telling_rate(client, endpoint, batch, events)
            costs.append(
                ((process_time() - mine) * 1_000_000 / events, (cpu_us(valkey.pid) - server) / events)
            )
    return costs


def _archive_entry_us(sessions: int) -> float:
    """µs of CPU for an entry of many that wait. One that keeps up does more for each, by a transaction that few share."""
    with Valkey() as valkey, closing(redis_client.connect(valkey.url)) as client:
        entries = fill_streams(client, sessions)
        mine = process_time()
        archiving_rate(client, None, entries)
        return (process_time() - mine) * 1_000_000 / entries


def _channel_us() -> float:
    """µs of CPU of a server that answers whether one SMS may leave."""
    with Valkey() as valkey, redis_client.connect(valkey.url) as client:
        redis_client.load_functions(client)
        call = function_call(
            AcquirePermits(
                pause=keyspace.pause_key(clinic.CHANNEL), circuit_state=keyspace.circuit_state_key(clinic.CHANNEL),
                sms_bucket=keyspace.sms_bucket_key(clinic.CHANNEL), rate_per_s=1_000_000, burst=1_000_000,
                probe_lease_ms=OUTBOX_LEASE_MS, wanted=["reply"],
            )
        )  # fmt: skip
        before = cpu_us(valkey.pid)
        for _ in range(PERMITS // PIPELINED):
            redis_client.run_commands(client, [call] * PIPELINED)
        return (cpu_us(valkey.pid) - before) / PERMITS


def broker_full_us() -> float:
    """µs of CPU of the wake-ups' server for a turn when it is full, so that commands wait for it and none for the next: PIPELINED
    webhooks ring at once, each on a connection of its own for its own sender; workers take as many, and ring for them."""
    people = [clinic.number(each) for each in range(PIPELINED)]
    with Valkey(appendonly="no") as valkey, redis_client.connect(valkey.url) as client:
        redis_client.load_functions(client)
        bells = WakeupBroker(client, PIPELINED)
        turns, sends = keyspace.REPLIES_QUEUE, keyspace.OUTBOUND_QUEUE
        for queue in (turns, sends):
            dramatiq.actor(broker=bells, actor_name=queue, queue_name=queue)(print)
        consumers = [bells.consume(queue) for queue in (turns, sends)]
        connections = [client.connection_pool.get_connection() for _ in people]
        before = cpu_us(valkey.pid)
        for _ in range(WOKEN // PIPELINED):
            valkey.sigstop()
            for connection, each in zip(connections, people, strict=True):
                connection.send_command(*wake_command(turns, [each]))
            valkey.sigcont()
            for connection in connections:
                connection.read_response()
            bells.wake(sends, people)
            for consumer in consumers:
                woken = next(consumer)
                assert woken is not None
                assert len(woken.args[0]) == PIPELINED
                consumer.ack(woken)
        return (cpu_us(valkey.pid) - before) / WOKEN


def _machine() -> str:
    """What it was measured on, as far as it matters: no names of its own."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(models)} cores of {models[0]}, Python {platform.python_version()}"


def predicted_memory(costs: ByteCosts, run: MemoryRun) -> float:
    """What `run` should have used, by the costs of a turn: conversations that have ended."""
    stream = costs.stream_turn + run.text * costs.stream_text
    return run.people * (costs.closed_lane + costs.session_index + run.turns * stream)


def predicted_cpu(costs: TurnCosts, rate: float) -> dict[str, float]:
    """Cores that one process of each role, and the servers, should have been busy at so many turns a second."""
    standing = msgspec.structs.asdict(costs.standing_us)
    work = Workload(
        turns_per_second=rate, open_conversations=0, turns_per_conversation=TURNS, replicas=0, endpoints=0
    )
    each_us = cpu_per_turn(work, costs)
    return {name: (standing[name] + rate * each_us[name]) / US_PER_S for name in each_us}
