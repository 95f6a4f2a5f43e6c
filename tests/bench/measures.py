"""What is measured, and how. Every run checks that each conversation went word for word as it must, and raises if not.

Both systems run on one Valkey, append-only file and fsync always, and talk to the same fake Octopush. A measure is
repeated with the two alternating, and its medians are reported. Rates are of SMS turns: one SMS in, its answer out.
"""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from os import cpu_count, environ
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import monotonic
from typing import TypeVar

import msgspec
import redis
import requests

from config.store import keyspace, redis_client
from tests.bench.archive_side import archiving_rate, fill_streams, raw_rate
from tests.bench.capacity_side import (
    CostScale,
    broker_full_us,
    cpu_us,
    measure_costs,
    predicted_cpu,
    predicted_memory,
    run_memory,
    run_rate,
)
from tests.bench.cluster_side import BATCH, ClusterRun, busiest_us, client_us, run_cluster
from tests.bench.console_side import (
    PAGE_MS,
    crowded_console,
    looking_costs,
    page_costs,
    require_small_pages,
)
from tests.bench.crowded_side import CrowdedPipeline, crowded_pipeline
from tests.bench.engine_alone import proof_s, reading_s, survey_of, turn_us
from tests.bench.hooks_side import posting_rate, telling_rate, waiting_events
from tests.bench.load import Load
from tests.bench.many_conversations import Crowdedness
from tests.bench.parley_side import SHARDS, Lanes, bare_draft, batches
from tests.bench.signatures import signature_costs
from tests.bench.textbook_side import Textbook
from tests.support import clinic
from tests.support.inviting import LINES, Api, key_table, lines_of
from tests.support.octopush import FakeOctopush
from tests.support.person import Crowd, Person
from tests.support.postgresql import PostgreSql
from tests.support.processes import ROOT, Deployment, Process
from tests.support.valkey import Valkey
from tests.support.waiting import free_port, until
from workers.capacity.turn_costs import TurnCosts
from workers.runtime.wakeup_broker import WAKEUP_BATCH
from workers.store.lanes import LaneStore as WorkerLanes
from workers.store.optouts import open_opt_out_list

T = TypeVar("T")

CONNECTIONS = 64
AT_ONCE = 256
WARM_UP = 20
"""Conversations before those that are measured."""

DEADLINE_S = 120.0


class Scale(msgspec.Struct, frozen=True):
    """How much of everything."""

    repeats: int = 3
    lanes: int = 6_000  # of Parley's turns
    messages: int = 1_000  # of the textbook's
    load_s: float = 2.5
    conversations: int = 1_200
    counted_conversations: int = 2_500  # of which the CPU is counted
    textbook_conversations: int = 250
    idle: int = 20
    half_load_s: float = 5.0
    small: int = 1_000
    large: int = 200_000
    sessions: int = 200
    invitations: int = 100_000
    talk_s: float = 5.0  # beside a campaign
    archived_sessions: int = 15_000
    told_sessions: int = 1_500
    client_rounds: int = 4_000
    cluster_people: int = 3_840
    looked_rate: float = 100.0
    looked_s: float = 10.0
    page_rounds: int = 15
    crowd: Crowdedness = Crowdedness()
    capacity: CostScale = CostScale()


QUICK = Scale(
    repeats=1, lanes=2_000, messages=400, load_s=1.0, conversations=300, counted_conversations=300, textbook_conversations=80, idle=8,
    half_load_s=2.0, large=10_000, sessions=20, invitations=5_000, talk_s=3.0,
    archived_sessions=3_000, told_sessions=150, client_rounds=300, cluster_people=768,
    looked_rate=40.0, looked_s=4.0, page_rounds=3,
    crowd=Crowdedness(conversations=20_000, held=4_000, dead_letters=400, audited=40_000),
    capacity=CostScale(
        rates=(20, 80), seconds=8, repeats=1, people=300, told_sessions=150, checked_rates=(40, 120),
        checked_people=(200, 600),
    ),
)  # fmt: skip


class Measure(msgspec.Struct):
    """One line of the report. `parley` and `other` are medians in `unit`; `extra` is more of the same, of both."""

    measure: str
    parley: float
    other: float
    unit: str
    versus: str
    extra: dict[str, tuple[float, float]] = {}

    def row(self) -> dict[str, str | float]:
        return {
            "measure": self.measure,
            "parley": round(self.parley, 3),
            "other": round(self.other, 3),
            "ratio": round(self.parley / self.other, 4),
            "unit": self.unit,
            "versus": self.versus,
            **{name: round(ours, 3) for name, (ours, _) in self.extra.items()},
            **{f"other_{name}": round(theirs, 3) for name, (_, theirs) in self.extra.items()},
        }


MARKER = "the end of what is counted"


def _count_until_marker(monitor: redis.client.Monitor) -> int:
    sent = 0
    for line in monitor.listen():  # type: ignore[no-untyped-call]
        if MARKER in line["command"]:
            return sent
        sent += line["client_type"] != "lua"
    return sent


class Bench:
    """The servers under both systems, and how much is done. A measure begins with nothing in either."""

    def __init__(self, valkey: Valkey, octopush: FakeOctopush, scale: Scale) -> None:
        self.valkey = valkey
        self.octopush = octopush
        self.scale = scale
        self.conversations = 0  # that were checked
        self.webhooks = 0  # that were counted
        self._client = valkey.client()
        self.rates: tuple[float, float] | None = None
        self.costs: TurnCosts | None = None  # of a turn, once they are measured

    @contextmanager
    def parley(self, **environment: str) -> Iterator[Deployment]:
        self.clear()
        with Deployment(
            self.valkey.url, self.valkey.broker_url, self.octopush, environment=environment, forked=False
        ) as deployment:
            yield deployment

    @contextmanager
    def textbook(self) -> Iterator[Textbook]:
        self.clear()
        with Textbook(self.valkey, self.octopush) as textbook:
            yield textbook

    def paired(self, ours: Callable[[], T], theirs: Callable[[], T]) -> tuple[list[T], list[T]]:
        """Both, in turns."""
        pairs = [(ours(), theirs()) for _ in range(self.scale.repeats)]
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    def check(self, heard: Sequence[str], must: Sequence[str], who: str) -> None:
        """Raises AssertionError unless `who` got exactly the right SMS."""
        assert list(heard) == list(must), f"{who} heard {heard}, and should have heard {must}"
        self.conversations += 1

    def used_memory(self) -> int:
        return int(self._client.info("memory")["used_memory"])

    def server_reads(self) -> int:
        return int(self._client.info("stats")["total_reads_processed"])

    def set_fsync(self, when: str) -> None:
        self._client.config_set("appendfsync", when)

    def commands(self, work: Callable[[], object]) -> int:
        """Commands that clients send while `work` runs: MONITOR's lines, without those that it says came from within
        the server's functions and scripts. (`commandstats` and CLIENT LIST's `tot-cmds` count both alike.)"""
        with ThreadPoolExecutor(1) as pool, self._client.monitor() as monitor:  # type: ignore[no-untyped-call]
            counted = pool.submit(_count_until_marker, monitor)
            try:
                work()
            finally:
                self._client.echo(MARKER)
            return counted.result(DEADLINE_S)

    def clear(self) -> None:
        # what is freed later would count as used
        self._client.execute_command("FLUSHALL", "SYNC")  # type: ignore[no-untyped-call]
        self.octopush.reset()


def plays(people: int, first: int = 0) -> dict[str, clinic.Play]:
    """What each of so many people says and hears: the clinic's longest way, four SMS in and four out."""
    return {clinic.number(first + i): clinic.feverish(f"Ada{i}") for i in range(people)}


def _rates(name: str, ours: Sequence[float], theirs: Sequence[float], unit: str, versus: str) -> Measure:
    """Medians, and how far the runs lay apart: a shared machine is not equally fast all the time."""
    extra = {"lowest": (min(ours), min(theirs)), "highest": (max(ours), max(theirs))}
    return Measure(name, median(ours), median(theirs), unit, versus, extra)


def turns(bench: Bench) -> Measure:
    """One conversation worker process: mailboxes are filled while it is stopped; timed from its going on until
    every answer is decided. The textbook's inbound actor likewise, until every send is enqueued."""
    ours, theirs = bench.paired(lambda: _parley_turns(bench), lambda: _textbook_turns(bench))
    return _rates("turns", ours, theirs, "turns/s", "textbook, one worker")


def _parley_turns(bench: Bench) -> float:
    people = plays(bench.scale.lanes)
    senders = list(people)
    with bench.parley() as deployment:
        lanes = Lanes(bench.valkey)
        deployment.spawn("ratelimit")
        worker = deployment.spawn("conversation")
        deployment.wait_running()
        lanes.open_sessions(senders)
        heard = lanes.take_unsent(senders)
        took_s = 0.0
        for step in range(1, 4):
            worker.sigstop()
            worker.wait_stopped()
            lanes.put((sender, play.says[step]) for sender, play in people.items())
            lanes.ring(keyspace.REPLIES_QUEUE, senders)
            begun_s = monotonic()
            worker.sigcont()
            lanes.wait_spoken(len(senders))
            took_s += monotonic() - begun_s
            for sender, texts in lanes.take_unsent(senders).items():
                heard[sender] += texts
    for sender, play in people.items():
        bench.check(heard[sender], play.hears, sender)
    return 3 * len(people) / took_s


def _textbook_turns(bench: Bench) -> float:
    people = plays(bench.scale.messages)
    heard: dict[str, list[str]] = {sender: [] for sender in people}
    took_s = 0.0
    with bench.textbook() as textbook:
        worker = textbook.start_worker("--processes 1", "--queues inbound")
        for step in range(4):
            worker.sigstop()
            worker.wait_stopped()
            textbook.enqueue({sender: play.says[step] for sender, play in people.items()})
            begun_s = monotonic()
            worker.sigcont()
            until(lambda: textbook.unsent() == len(people), DEADLINE_S, "all sends are enqueued")
            took_s += monotonic() - begun_s if step else 0.0  # Parley's worker does not do START either
            for sender, texts in textbook.take_unsent().items():
                heard[sender] += texts
    for sender, play in people.items():
        bench.check(heard[sender], play.hears, sender)
    return 3 * len(people) / took_s


def turns_limit(bench: Bench) -> Measure:
    """The same against a loop that claims and commits the same lanes in the same batches, without Dramatiq and
    without an engine: what is left to gain by making those two free."""
    ours, theirs = bench.paired(lambda: _parley_turns(bench), lambda: _bare_turns(bench))
    return _rates("turns_limit", ours, theirs, "turns/s", "bare claim and commit")


def _bare_turns(bench: Bench) -> float:
    senders = list(plays(3 * bench.scale.lanes))
    with bench.parley() as deployment:
        lanes = Lanes(bench.valkey)
        deployment.spawn("ratelimit")
        deployment.wait_running()
        lanes.open_sessions(senders)
        lanes.take_unsent(senders)
        lanes.put((sender, "Ada") for sender in senders)
        client = redis_client.connect(bench.valkey.url)
        bare = WorkerLanes(client, SHARDS, open_opt_out_list(client, SHARDS, ""))
        begun_s = monotonic()
        for batch in batches(senders, WAKEUP_BATCH):
            bare.commit([bare_draft(claim) for claim in bare.claim(keyspace.REPLIES_QUEUE, batch).claimed])
        return len(senders) / (monotonic() - begun_s)


def webhooks(bench: Bench) -> Measure:
    """One `web` process, each request on disk before it is answered, against a Falcon application that does nothing."""
    ours, theirs = bench.paired(lambda: _parley_webhooks(bench), lambda: _falcon_webhooks(bench))
    return _rates("webhooks", ours, theirs, "requests/s", "Falcon answering 204")


def replicated_webhooks(bench: Bench) -> Measure:
    """The same with a replica, each request on that too before it is answered, against not waiting for it."""
    with Valkey(replicaof=f"127.0.0.1 {bench.valkey.port}") as replica:
        follows = lambda: replica.client().info("replication").get("master_link_status") == "up"  # noqa: E731
        until(follows, DEADLINE_S, "it replicates")
        ours, theirs = bench.paired(
            lambda: _parley_webhooks(bench, PARLEY_REPLICAS="1"), lambda: _parley_webhooks(bench)
        )
    return _rates("webhooks_replicated", ours, theirs, "requests/s", "the same, PARLEY_REPLICAS=0")


def _parley_webhooks(bench: Bench, **environment: str) -> float:
    with bench.parley(**environment) as deployment:
        deployment.spawn("web")
        deployment.wait_ready()
        load = _load(deployment.webhook, bench.scale.load_s)
        accepted = _mail_count(bench.valkey.client())
    assert load.refused == 0, f"{load.refused} webhooks were refused"
    assert accepted == load.acknowledged, f"{load.acknowledged} acknowledged, {accepted} in the mailboxes"
    bench.webhooks += accepted
    return load.rate


def _falcon_webhooks(bench: Bench) -> float:
    with bench.parley() as deployment, _falcon(deployment.environment) as url:
        load = _load(f"{url}?token=t", bench.scale.load_s)
        answered = int(requests.get(url, timeout=DEADLINE_S).text)
        assert answered == load.acknowledged, f"{load.acknowledged} acknowledged, {answered} answered"
        return load.rate


@contextmanager
def _falcon(environment: Mapping[str, str]) -> Iterator[str]:
    """A Falcon application that does nothing; yields where it takes what is posted."""
    port = free_port()
    with TemporaryDirectory() as folder:
        process = Process(
            "noop",
            "python -m tests.bench.noop",
            {**environment, "PORT": str(port)},
            Path(folder) / "noop.log",
        )
        try:
            until(lambda: _answers(port), DEADLINE_S, "the application answers")
            yield f"http://127.0.0.1:{port}/webhooks/clinic"
        finally:
            process.kill9()


def _load(url: str, seconds: float) -> Load:
    command = [
        sys.executable,
        "-m",
        "tests.bench.load",
        url,
        f"--connections={CONNECTIONS}",
        f"--seconds={seconds}",
    ]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return msgspec.json.decode(done.stdout, type=Load)


def _mail_count(client: redis.Redis) -> int:
    names = list(client.scan_iter("*:mail:*", count=10_000))
    return sum(
        sum(redis_client.run_commands(client, [("LLEN", name) for name in batch]))
        for batch in batches(names, 1_000)
    )


def signatures(bench: Bench) -> Measure:
    """Microseconds of CPU for checking a webhook's signature, beside those of all that the web process does for it."""
    costs = signature_costs(bench.valkey, bench.octopush)
    return Measure("signature_us", *costs["twilio"], "us", "the whole webhook, by Twilio", costs)


def pipeline(bench: Bench) -> Measure:
    """From the webhook until the provider has the answer, all processes running, 256 people talking at once. The
    textbook has one worker process of eight threads, and once more one for each core, which is Dramatiq's default."""
    cores = cpu_count() or 1
    runs = [
        (_parley_pipeline(bench), _textbook_pipeline(bench, 1), _textbook_pipeline(bench, cores))
        for _ in range(bench.scale.repeats)
    ]
    ours, one, each = (list(rates) for rates in zip(*runs, strict=True))
    bench.rates = (median(ours), median(one))
    measure = _rates("pipeline", ours, one, "turns/s", "textbook, one worker")
    measure.extra["worker_a_core"] = (median(ours), median(each))
    return measure


def _parley_pipeline(bench: Bench) -> float:
    with bench.parley() as deployment:
        return _rate(bench, deployment.start().webhook, bench.scale.conversations)


def _textbook_pipeline(bench: Bench, workers: int) -> float:
    with _whole_textbook(bench, workers) as textbook:
        return _rate(bench, textbook.webhook, bench.scale.textbook_conversations)


@contextmanager
def _whole_textbook(bench: Bench, workers: int = 1) -> Iterator[Textbook]:
    with bench.textbook() as textbook:
        textbook.start_web()
        textbook.start_worker(f"--processes {workers}", ready=workers)
        yield textbook


def _rate(bench: Bench, webhook: str, conversations: int) -> float:
    _converse(bench, webhook, plays(WARM_UP))
    begun_s = monotonic()
    _converse(bench, webhook, plays(conversations, first=1_000))
    return 4 * conversations / (monotonic() - begun_s)


def _converse(
    bench: Bench, webhook: str, people: dict[str, clinic.Play], at_once: int = AT_ONCE, every_s: float = 0.0,
    *, strangers: bool = False,
) -> list[float]:  # fmt: skip
    """Let all of these talk to their end and check what they heard. The lags of all answers, in ms. Unless there are
    `strangers`, nobody else may hear anything."""
    crowd = Crowd(webhook, bench.octopush, CONNECTIONS)
    talkers = (Person(number, play.says[0], play.answers().get) for number, play in people.items())
    ended = crowd.talk(talkers, DEADLINE_S, at_once, every_s)
    for person in ended:
        bench.check(person.heard, people[person.number].hears, person.number)
    assert strangers or not crowd.strays, f"SMS to people who had ended: {crowd.strays[:3]}"
    assert len(ended) == len(people)
    return [lag * 1000 for person in ended for lag in person.lags_s]


class TurnRun(msgspec.Struct, frozen=True):
    """SMS turns a second, and µs of CPU of each, the kernel's for a process included, by process."""

    rate: float
    cpu_us: dict[str, float]

    @property
    def whole_us(self) -> float:
        return sum(self.cpu_us.values())


def cpu_of_turns(bench: Bench) -> Measure:
    """µs of CPU of an SMS turn through the pipeline while 256 people talk at once: of all processes but `archive` and `hooks`,
    which have measures of their own, and of each, beside the whole textbook's."""
    ours, theirs = bench.paired(lambda: _parley_cpu(bench), lambda: _textbook_cpu(bench))
    whole = [[run.whole_us for run in runs] for runs in (ours, theirs)]
    measure = _rates("cpu_per_turn", whole[0], whole[1], "us/turn", "textbook, one worker")
    measure.extra |= {name: (each_us, measure.other) for name, each_us in _median_cpu(ours).items()}
    return measure


def _median_cpu(runs: Sequence[TurnRun]) -> dict[str, float]:
    return {name: median(run.cpu_us[name] for run in runs) for name in runs[0].cpu_us}


def _parley_cpu(bench: Bench) -> TurnRun:
    with bench.parley() as deployment:
        webhook = deployment.start(archive=0, hooks=0).webhook
        return _cpu_of_turns(bench, webhook, deployment.processes, bench.scale.counted_conversations)


def _textbook_cpu(bench: Bench) -> TurnRun:
    with _whole_textbook(bench) as textbook:
        return _cpu_of_turns(bench, textbook.webhook, textbook.processes, bench.scale.textbook_conversations)


def _cpu_of_turns(bench: Bench, webhook: str, processes: Sequence[Process], conversations: int) -> TurnRun:
    _converse(bench, webhook, plays(WARM_UP))
    pids = {process.name: process.pid for process in processes} | {"valkey": bench.valkey.pid}
    return _run_turns(bench, webhook, pids, plays(conversations, first=1_000))


def _run_turns(
    bench: Bench, webhook: str, pids: Mapping[str, int], people: dict[str, clinic.Play]
) -> TurnRun:
    """Let all of these talk to their end, and look at what that takes of these processes, by name."""
    turns = sum(len(play.says) for play in people.values())
    before, begun_s = {name: cpu_us(pid) for name, pid in pids.items()}, monotonic()
    _converse(bench, webhook, people)
    took_s = monotonic() - begun_s
    return TurnRun(turns / took_s, {name: (cpu_us(pid) - before[name]) / turns for name, pid in pids.items()})


def turns_million(bench: Bench) -> Measure:
    """SMS turns a second, webhook to provider, while 256 people at once go on with conversations that were open, beside a million
    others that stay open, and beside a thousand; µs of CPU for a turn, of all processes and of each. The allocator of the server
    matters (`mem_allocator` of INFO): that of the C library scatters what is small over all that was ever freed."""
    going_on = bench.scale.counted_conversations
    others = bench.scale.crowd.conversations, bench.scale.small
    many_people, few_people = (each + bench.scale.repeats * (WARM_UP + going_on) for each in others)
    with (
        crowded_pipeline(bench.octopush, many_people) as many,
        crowded_pipeline(bench.octopush, few_people) as few,
    ):
        ours, theirs = bench.paired(lambda: _crowded_turns(bench, many), lambda: _crowded_turns(bench, few))
    measure = _rates(
        "turns_million", [run.rate for run in ours], [run.rate for run in theirs],
        "turns/s", f"{others[1]:,} open; Parley has {others[0]:,}",
    )  # fmt: skip
    measure.extra["us"] = (median(run.whole_us for run in ours), median(run.whole_us for run in theirs))
    many_us, few_us = _median_cpu(ours), _median_cpu(theirs)
    measure.extra |= {f"{name}_us": (many_us[name], few_us[name]) for name in many_us if few_us[name]}
    return measure


def _crowded_turns(bench: Bench, crowded: CrowdedPipeline) -> TurnRun:
    bench.octopush.reset()
    webhook = crowded.deployment.webhook
    _converse(bench, webhook, crowded.going_on(WARM_UP))
    return _run_turns(bench, webhook, crowded.pids, crowded.going_on(bench.scale.counted_conversations))


def latency_idle(bench: Bench) -> Measure:
    """One conversation at a time: from the webhook's being sent until the provider has the answer."""
    ours, theirs = bench.paired(
        lambda: _parley_lags(bench, bench.scale.idle, at_once=1),
        lambda: _textbook_lags(bench, bench.scale.idle, at_once=1),
    )
    return _latency("latency_idle_ms", ours, theirs)


def latency_half_load(bench: Bench) -> Measure:
    """People begin at half of the rate that each system's pipeline was measured to sustain."""
    ours, theirs = _sustained(bench)
    return _latency_at("latency_half_load_ms", bench, ours / 2, theirs / 2)


def latency_same_rate(bench: Bench) -> Measure:
    """People begin at the same rate in both, half of what the textbook's pipeline was measured to sustain."""
    _, theirs = _sustained(bench)
    measure = _latency_at("latency_same_rate_ms", bench, theirs / 2, theirs / 2)
    measure.extra["turns_per_s"] = (theirs / 2, theirs / 2)
    return measure


def _sustained(bench: Bench) -> tuple[float, float]:
    """Turns a second through the pipelines of Parley and of the textbook, measured now if they were not yet."""
    if bench.rates is None:
        pipeline(bench)
    assert bench.rates is not None
    return bench.rates


def _latency_at(name: str, bench: Bench, ours: float, theirs: float) -> Measure:
    """Each system at so many turns a second."""
    ours_s, theirs_s = ours / 4, theirs / 4
    seconds = bench.scale.half_load_s
    lags = bench.paired(
        lambda: _parley_lags(bench, round(ours_s * seconds), every_s=1 / ours_s),
        lambda: _textbook_lags(bench, round(theirs_s * seconds), every_s=1 / theirs_s),
    )
    return _latency(name, *lags)


def _parley_lags(
    bench: Bench, conversations: int, at_once: int = 1_000_000, every_s: float = 0.0
) -> list[float]:
    with bench.parley() as deployment:
        webhook = deployment.start().webhook
        _converse(bench, webhook, plays(2))
        return _converse(bench, webhook, plays(conversations, first=1_000), at_once, every_s)


def _textbook_lags(
    bench: Bench, conversations: int, at_once: int = 1_000_000, every_s: float = 0.0
) -> list[float]:
    with _whole_textbook(bench) as textbook:
        _converse(bench, textbook.webhook, plays(2))
        return _converse(bench, textbook.webhook, plays(conversations, first=1_000), at_once, every_s)


def _latency(name: str, ours: Sequence[list[float]], theirs: Sequence[list[float]]) -> Measure:
    """Medians over the runs of each run's p50; the p99 is of all runs' answers together."""
    p50 = (median(map(median, ours)), median(map(median, theirs)))
    p99 = (_p99([lag for lags in ours for lag in lags]), _p99([lag for lags in theirs for lag in lags]))
    return Measure(name, *p50, "ms", "textbook, p50", {"p50": p50, "p99": p99})


def _p99(lags: list[float]) -> float:
    return sorted(lags)[len(lags) * 99 // 100]


class Size(msgspec.Struct, frozen=True):
    """With so many conversations open: bytes of Redis for each, and commands and reads of the server for each turn of others."""

    memory: float
    commands: float
    reads: float


def sizes(bench: Bench) -> list[Measure]:
    """What an open conversation costs Redis, its archive included, and whether many of them make turns dearer.

    Commands are those that clients sent while 200 others talked, from webhook to provider: see Bench.commands. How often the
    server read from a connection is how many round trips they took.
    """
    small, large = bench.scale.small, bench.scale.large
    ours = [_parley_size(bench, count) for count in (small, large)]
    theirs = [_textbook_size(bench, count) for count in (small, large)]
    memory = _sized(
        "memory_bytes",
        "bytes/conversation",
        bench.scale,
        [s.memory for s in ours],
        [s.memory for s in theirs],
    )
    memory.extra["compact"] = (_parley_size(bench, large, compacts_records=True).memory, theirs[1].memory)
    return [
        memory,
        _sized(
            "commands_per_turn",
            "commands/turn",
            bench.scale,
            [s.commands for s in ours],
            [s.commands for s in theirs],
        ),
        _sized(
            "round_trips_per_turn",
            "reads/turn",
            bench.scale,
            [s.reads for s in ours],
            [s.reads for s in theirs],
        ),
    ]


def _sized(name: str, unit: str, scale: Scale, ours: Sequence[float], theirs: Sequence[float]) -> Measure:
    extra = {
        f"at_{count}": pair
        for count, pair in zip((scale.small, scale.large), zip(ours, theirs, strict=True), strict=True)
    }
    return Measure(name, ours[1], theirs[1], unit, f"textbook, {scale.large} open", extra)


WAVE = 5_000
"""People who text START at once: the server's table of keys keeps the size that it had with all their mail and SMS in it."""

TALKERS = 200
FIRST_TALKER = 90_000_000


def _parley_size(bench: Bench, conversations: int, *, compacts_records: bool = False) -> Size:
    senders = list(plays(conversations))
    with bench.parley(PARLEY_COMPACT_RECORDS=f"{compacts_records:d}") as deployment:
        lanes = Lanes(bench.valkey, compacts_records=compacts_records)
        # without a clock, which would ring for workers that do not run yet; what `archive` and `hooks` ask for is no turn's
        deployment.start(web=0, conversation=0, delivery=0, clock=0, archive=0, hooks=0)
        before = bench.used_memory()
        bench.set_fsync("no")  # filling is not what is measured
        try:
            for wave in batches(senders, WAVE):
                lanes.open_sessions(wave)
                for sender, texts in lanes.send_all(wave).items():
                    bench.check(texts, [clinic.NAME], sender)
        finally:
            bench.set_fsync("always")
        memory = (bench.used_memory() - before) / conversations
        for name in ("web", "conversation", "delivery", "clock"):
            deployment.spawn(name)
        deployment.wait_ready()
        deployment.wait_running()
        return Size(memory, *_commands_per_turn(bench, deployment.webhook))


def _textbook_size(bench: Bench, conversations: int) -> Size:
    with _whole_textbook(bench) as textbook:
        before = bench.used_memory()
        textbook.open_sessions(plays(conversations))
        memory = (bench.used_memory() - before) / conversations
        return Size(memory, *_commands_per_turn(bench, textbook.webhook))


def _commands_per_turn(bench: Bench, webhook: str) -> tuple[float, float]:
    """Commands, and reads of the server."""
    _converse(bench, webhook, plays(WARM_UP, first=FIRST_TALKER))
    before = bench.server_reads()
    sent = bench.commands(lambda: _converse(bench, webhook, plays(TALKERS, first=FIRST_TALKER + 1_000)))
    return sent / (4 * TALKERS), (bench.server_reads() - before) / (4 * TALKERS)


INVITED_FIRST = 40_000_000
TARGET_S = 30.0
TALKS_PER_S = 20.0


def invitations(bench: Bench) -> Measure:
    """One `web` process takes them in one request, each validated and on disk before the answer says so."""
    count = bench.scale.invitations
    rates = [_accepted_rate(bench, count) for _ in range(bench.scale.repeats)]
    return _rates("invitations", rates, [100_000 / TARGET_S], "invitations/s", "100,000 in 30 s")


def _accepted_rate(bench: Bench, count: int) -> float:
    with bench.parley() as deployment:
        _give_key(deployment)
        deployment.spawn("web")
        deployment.wait_ready()
        return count / _invite(bench, deployment, count)


def _give_key(deployment: Deployment) -> None:
    config = deployment.folder / "parley.toml"
    config.write_text(config.read_text() + key_table())


def _invite(bench: Bench, deployment: Deployment, count: int) -> float:
    """Invite so many people in one request, and make sure that all of them are held. Return the seconds from the request to the
    end of its answer."""
    body = b"".join(
        b'{"identifier": "%b"}\n' % clinic.number(INVITED_FIRST + place).encode() for place in range(count)
    )
    begun_s = monotonic()
    reply = Api(deployment.base).post(body, media_type=LINES)
    took_s = monotonic() - begun_s
    assert [result["status"] for result in lines_of(reply)] == [202] * count
    assert _held(bench) == count
    return took_s


def _held(bench: Bench) -> int:
    client = bench.valkey.client()
    return sum(client.zcard(keyspace.held_ids_key(k, clinic.CHANNEL)) for k in range(SHARDS))


def campaign(bench: Bench) -> Measure:
    """People talk while a campaign drains at the pace of a channel without limits, and, in turns, alone: what is held
    is put out of the clock's sight and back. All processes run throughout; p99 and p50 are medians of the turns'."""
    alone: list[list[float]] = []
    beside: list[list[float]] = []
    with bench.parley() as deployment:
        _give_key(deployment)
        deployment.start(clock=0)
        _invite(bench, deployment, bench.scale.invitations)
        _hide(bench)
        deployment.spawn("clock")
        _converse(bench, deployment.webhook, plays(WARM_UP), strangers=True)
        for turn in range(1, 2 * bench.scale.repeats + 1):
            alone.append(_talk(bench, deployment, first=turn * 100_000))
            _show(bench)
            before = _held(bench)
            beside.append(_talk(bench, deployment, first=turn * 100_000 + 50_000))
            released = before - _held(bench)
            assert released >= bench.scale.talk_s, f"only {released} were invited meanwhile"
            _hide(bench)
    p99 = (median(map(_p99, beside)), median(map(_p99, alone)))
    p50 = (median(map(median, beside)), median(map(median, alone)))
    return Measure("campaign_ms", *p99, "ms", "without a campaign, p99", {"p50": p50})


def _hide(bench: Bench) -> None:
    """Put what is held where no clock looks."""
    _rename(bench, lambda k: (keyspace.held_ids_key(k, clinic.CHANNEL), _hidden(k)))


def _show(bench: Bench) -> None:
    _rename(bench, lambda k: (_hidden(k), keyspace.held_ids_key(k, clinic.CHANNEL)))


def _hidden(k: int) -> str:
    return f"{{{k}}}:hidden"


def _rename(bench: Bench, names: Callable[[int], tuple[str, str]]) -> None:
    client = bench.valkey.client()
    for old, new in map(names, range(SHARDS)):
        if client.exists(old):
            client.rename(old, new)


def _talk(bench: Bench, deployment: Deployment, first: int) -> list[float]:
    people = plays(round(bench.scale.talk_s * TALKS_PER_S), first)
    return _converse(bench, deployment.webhook, people, 1_000_000, 1 / TALKS_PER_S, strangers=True)


def cluster(bench: Bench) -> list[Measure]:
    """Turns a second with which the busiest primary of a cluster is busy, by what a turn takes of it, and the CPU of all:
    with three, and two, beside one. All processes run, 256 people talk at once, and there are no replicas. As the machine carries no
    more with three, each of them has a third of the load that the one has: see `cluster_limit` for what they carry."""
    runs = [
        {primaries: _run_cluster(bench, primaries) for primaries in (1, 2, 3)}
        for _ in range(bench.scale.repeats)
    ]
    carried = {count: median(run[count].carried for run in runs) for count in runs[0]}
    taken = {count: median(run[count].us_a_turn for run in runs) for count in runs[0]}
    return [
        Measure(
            name,
            figures[3],
            figures[1],
            unit,
            "one primary, the same load in all",
            {"two_primaries": (figures[2], figures[1])},
        )
        for name, figures, unit in (
            ("cluster_turns", carried, "turns/s"),
            ("cluster_us_per_turn", taken, "us"),
        )
    ]


def cluster_limit(bench: Bench) -> Measure:
    """Turns a second with which the busiest of three primaries is busy, each with as many people in a round trip as the one beside
    them: what they carry when each is at its limit. And where the three share what the one has, and with full batches."""
    cases = {name: (3 * each, each) for name, each in (("limit", BATCH), ("of_full_batches", WAKEUP_BATCH))}
    cases["of_one_load_shared_out"] = (BATCH, BATCH)
    runs = [
        {
            name: (
                1e6 / busiest_us(3, bench.scale.cluster_people, three),
                1e6 / busiest_us(1, bench.scale.cluster_people, one),
            )
            for name, (three, one) in cases.items()
        }
        for _ in range(bench.scale.repeats)
    ]
    medians = {name: _medians([run[name] for run in runs]) for name in cases}
    limit = medians.pop("limit")
    return Measure("cluster_limit", *limit, "turns/s", "one primary, as many in a round trip", medians)


def wakeups_limit(bench: Bench) -> Measure:
    """Turns a second with which the wake-ups' server is busy, beside one primary of the lanes: how many of those one of it is for."""
    pairs = [
        (1e6 / broker_full_us(), 1e6 / busiest_us(1, bench.scale.cluster_people, BATCH))
        for _ in range(bench.scale.repeats)
    ]
    return Measure(
        "wakeups_limit", *_medians(pairs), "turns/s", "one primary of the lanes, 16 in a round trip"
    )


def _medians(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    ours, theirs = zip(*pairs, strict=True)
    return median(ours), median(theirs)


def _run_cluster(bench: Bench, primaries: int) -> ClusterRun:
    def converse(webhook: str, people: int, first: int) -> None:
        _converse(bench, webhook, plays(people, first))

    return run_cluster(bench.octopush, primaries, bench.scale.conversations, converse)


def cluster_client(bench: Bench) -> Measure:
    """µs of the client's CPU for each of 16 commands in a round trip, by the cluster's client to a cluster of one, beside the plain
    client; and to three."""
    costs = client_us(bench.scale.client_rounds, bench.scale.repeats)
    return Measure("cluster_client_us", *costs[1], "us", "the client of one server", {"to_three": costs[3]})


def advances(bench: Bench) -> Measure:
    """Microseconds of a turn, no server and no Redis: does it grow with the survey? See tests.bench.engine_alone."""
    short, long = survey_of(40), survey_of(4_000)
    ours, theirs = [], []
    for _ in range(bench.scale.repeats):
        ours.append(turn_us(short, bench.scale.sessions))
        theirs.append(turn_us(long, bench.scale.sessions))
    alone, whole = zip(*ours, strict=True)
    alone_long, whole_long = zip(*theirs, strict=True)
    return Measure(
        "advance_us", median(alone), median(alone_long), "us/turn", "the same session, 4,000 steps",
        {"lane_decoded_and_encoded": (median(whole), median(whole_long))},
    )  # fmt: skip


def lints(bench: Bench) -> Measure:
    """Seconds in which a survey of 1,000 steps is read and all is proved about it, beside those of reading it."""
    survey = survey_of(1_000)
    pairs = [(proof_s(survey), reading_s(survey)) for _ in range(bench.scale.repeats)]
    proofs, readings = zip(*pairs, strict=True)
    return Measure("lint_1000_s", median(proofs), median(readings), "s", "reading it only")


def archive(bench: Bench) -> list[Measure]:
    """Entries of conversations that wait in the event streams, moved by one process into either database, beside the same
    as raw rows by the driver's executemany; and beside the entries a second that the whole pipeline makes in the same run,
    with no archive beside it."""
    made = _entries_made(bench)
    bench.clear()
    client = redis_client.connect(bench.valkey.url)
    entries = fill_streams(client, bench.scale.archived_sessions)
    found = []
    with PostgreSql(fsync="on") as server:
        for name, database in (("archive_sqlite", None), ("archive_postgresql", server)):
            ours, raw = bench.paired(
                lambda database=database: archiving_rate(client, database, entries),  # type: ignore[misc]
                lambda database=database: raw_rate(client, database),  # type: ignore[misc]
            )
            measure = _rates(name, ours, raw, "entries/s", "executemany of raw rows")
            measure.extra["pipeline_makes"] = (measure.parley, made)
            found.append(measure)
    client.close()
    return found


def hooks(bench: Bench) -> Measure:
    """Events of conversations that wait in the event streams, told by one process to an endpoint that does nothing, one in a
    request and up to 100; beside the same, posted one after the other by a loop with requests."""
    bench.clear()
    client = redis_client.connect(bench.valkey.url)
    fill_streams(client, bench.scale.told_sessions)
    events = waiting_events(client)
    with _falcon(environ) as url:
        ours, theirs = bench.paired(
            lambda: telling_rate(client, url, 1, len(events)), lambda: posting_rate(url, events)
        )
        batches = median(telling_rate(client, url, 100, len(events)) for _ in range(bench.scale.repeats))
        posts = int(requests.get(url, timeout=DEADLINE_S).text)
    client.close()
    assert posts > 2 * len(events) * bench.scale.repeats, f"{posts} requests arrived"
    measure = _rates("hooks", ours, theirs, "events/s", "a loop with requests")
    measure.extra["batches_of_100"] = (batches, measure.other)
    return measure


def capacity(bench: Bench) -> list[Measure]:
    """What `parley capacity` foretells by the costs of a turn, measured here and now, beside what runs at two other rates and
    two sizes then take: cores of one process of each role, and memory of conversations that have ended."""
    scale = bench.scale.capacity
    with _falcon(environ) as url:
        bench.costs = costs = measure_costs(bench.octopush, url, scale)
    cores: dict[str, tuple[float, float]] = {}
    for rate in scale.checked_rates:
        run = run_rate(bench.octopush, rate, scale.seconds)
        foretold = predicted_cpu(costs, run.rate)
        taken = {name: run.per_second(name) / 1_000_000 for name in foretold}
        cores |= {f"{name}_at_{rate:g}": (foretold[name], taken[name]) for name in foretold if taken[name]}
        cores[f"turns_at_{rate:g}"] = (rate, run.rate)
        cores[f"all_at_{rate:g}"] = (sum(foretold.values()), sum(taken.values()))
    memory: dict[str, tuple[float, float]] = {}
    for people in scale.checked_people:
        left = run_memory(bench.octopush, people)
        memory[f"of_{people}"] = (predicted_memory(costs.bytes, left), left.used)
    return [
        Measure(
            "capacity_cores", *cores[f"all_at_{scale.checked_rates[-1]:g}"], "cores", "taken; Parley is foretold",
            cores,
        ),
        Measure("capacity_memory", *memory[f"of_{scale.checked_people[-1]}"], "bytes", "the same", memory),
    ]  # fmt: skip


def console(bench: Bench) -> list[Measure]:
    """What those who look at the console cost, by turns with nobody, while people talk at one rate: µs of CPU of the pipeline and its
    servers for a turn; commands a second to the lanes' server, of all processes; µs a second of the console itself."""
    scale = bench.scale
    costs = looking_costs(bench.octopush, (0, 1, 20), scale.looked_rate, scale.looked_s, scale.repeats)
    none, one, twenty = costs[0], costs[1], costs[20]
    return [
        Measure(
            "console_turn_us", one.turn_us, none.turn_us, "us/turn", "the same, nobody looks",
            {"twenty_look": (twenty.turn_us, none.turn_us)},
        ),
        Measure(
            "console_commands", one.commands, none.commands, "commands/s", "the same, nobody looks",
            {"twenty_look": (twenty.commands, none.commands)},
        ),
        Measure("console_us_per_s", twenty.console_us, one.console_us, "us/s", "one looks; Parley is twenty"),
    ]  # fmt: skip


def console_pages(bench: Bench) -> list[Measure]:
    """Each page of the console with very many conversations behind it, beside the same page with hardly any: ms until it is there,
    and ms of CPU. The slowest is the measure. Raises if a page is too large."""
    scale = bench.scale
    few = Crowdedness(conversations=200, held=20, dead_letters=20, audited=20)
    costs = []
    for crowd in (scale.crowd, few):
        with crowded_console(bench.octopush, crowd) as deployment:
            costs.append(page_costs(deployment, scale.page_rounds))
    many, hardly_any = costs
    require_small_pages(many)
    walls = {name: (each.wall_ms, hardly_any[name].wall_ms) for name, each in many.items()}
    cpus = {name: (each.cpu_ms, hardly_any[name].cpu_ms) for name, each in many.items()}
    return [
        Measure(
            "console_page_ms",
            max(many_ms for many_ms, _ in walls.values()),
            PAGE_MS,
            "ms",
            "allowed; below, hardly any behind it",
            walls,
        ),
        Measure(
            "console_page_cpu_ms",
            max(many_ms for many_ms, _ in cpus.values()),
            PAGE_MS,
            "ms",
            "allowed; below, hardly any behind it",
            cpus,
        ),
    ]


def _entries_made(bench: Bench) -> float:
    """Entries a second that the pipeline adds to the streams while 256 people talk at once."""
    with bench.parley() as deployment:
        rate = _rate(bench, deployment.start(archive=0).webhook, bench.scale.conversations)
        client = bench.valkey.client()
        many = sum(client.xlen(keyspace.events_key(k)) for k in range(SHARDS))
    return rate * many / (4 * (bench.scale.conversations + WARM_UP))


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


MEASURES: dict[str, Callable[[Bench], list[Measure]]] = {
    "turns": lambda bench: [turns(bench)],
    "turns_limit": lambda bench: [turns_limit(bench)],
    "webhooks": lambda bench: [webhooks(bench)],
    "webhooks_replicated": lambda bench: [replicated_webhooks(bench)],
    "signature_us": lambda bench: [signatures(bench)],
    "pipeline": lambda bench: [pipeline(bench)],
    "cpu_per_turn": lambda bench: [cpu_of_turns(bench)],
    "turns_million": lambda bench: [turns_million(bench)],
    "latency_idle_ms": lambda bench: [latency_idle(bench)],
    "latency_half_load_ms": lambda bench: [latency_half_load(bench)],
    "latency_same_rate_ms": lambda bench: [latency_same_rate(bench)],
    "memory_bytes": sizes,
    "commands_per_turn": sizes,
    "round_trips_per_turn": sizes,
    "cluster_turns": cluster,
    "cluster_us_per_turn": cluster,
    "cluster_limit": lambda bench: [cluster_limit(bench)],
    "wakeups_limit": lambda bench: [wakeups_limit(bench)],
    "cluster_client_us": lambda bench: [cluster_client(bench)],
    "invitations": lambda bench: [invitations(bench)],
    "campaign_ms": lambda bench: [campaign(bench)],
    "advance_us": lambda bench: [advances(bench)],
    "lint_1000_s": lambda bench: [lints(bench)],
    "archive_sqlite": archive,
    "archive_postgresql": archive,
    "hooks": lambda bench: [hooks(bench)],
    "console_turn_us": console,
    "console_commands": console,
    "console_us_per_s": console,
    "console_page_ms": console_pages,
    "console_page_cpu_ms": console_pages,
    "capacity_cores": capacity,
    "capacity_memory": capacity,
}
