"""One soak: people talk on channels of three providers, campaigns invite others, and mischief is done to all that runs. When
it is over, everybody must have got what they should, once and in order, and nothing may be left behind.

One process of each role is spared, and must not grow; unless all of them are replaced by another release's meanwhile
(tests/upgrade).
"""

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import quantiles
from threading import Event, Thread
from time import monotonic
from typing import NamedTuple, Protocol

import msgspec
import requests
from prometheus_client.parser import text_string_to_metric_families

from config.archive.database import ArchiveDatabase
from config.store import keyspace
from tests.soak import hook_ledger, ledger
from tests.soak.channels import (
    CHANNELS,
    OCTOPUSH_CHANNELS,
    SoakChannel,
    carrier_environment,
    configure_channels,
    webhook_of,
)
from tests.soak.mischief import (
    CLOCK_DEEDS,
    CLUSTER_DEEDS,
    DEEDS,
    FAILOVER_DEEDS,
    Mischief,
    schedule,
)
from tests.soak.operators import Operators
from tests.soak.plays import Play, invite, rehearse
from tests.soak.redis_kinds import RedisKind, SoakRedis, make_redis
from tests.support import audit
from tests.support.archiving import archived_entries, count_archived, stream_entries
from tests.support.carriers import CARRIERS, Carrier, FakeCarriers
from tests.support.clinic import CHANNEL, number
from tests.support.clusters import ValkeyCluster
from tests.support.hook_endpoint import HookEndpoint
from tests.support.inviting import Api
from tests.support.octopush import FakeOctopush
from tests.support.person import Crowd, Person
from tests.support.processes import SURVEYS, THIS, Deployment, Process, Release
from tests.support.proxy import Proxy
from tests.support.replicated_valkey import ReplicatedValkey
from tests.support.stepped_clock import SteppedClock
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, until
from workers.store import dead_letter_store

SURVEY = "clinic"
COPIES = {"web": 2, "ratelimit": 3, "conversation": 3, "delivery": 3, "clock": 2, "archive": 2, "hooks": 2}
INVITED = 20
"""People whom a campaign's request asks."""

WAIT_S = 300.0
"""How long what is under way may take once nothing is disturbed any more, and how long a rollout may take beyond its time.
Of a busy machine too: PATIENCE is in it."""

SETTLE_S = 20.0
LETTERS_S = 20.0
"""How long operators may take for what is left."""

PEOPLE_OF_A_CHANNEL = 10_000_000
"""Numbers. The upper half are those whom campaigns ask."""

LOOK_S = 5.0
"""How long `/metrics` may take. It waits for each of two servers, for a second to connect and one to answer."""

LOOKS_EVERY_S = 2.0
"""Between two looks at what goes on."""

FDS, BYTES = 160, 48 << 20
"""By how much a process may grow from the first third of a soak to its end: connections to four channels' providers are
kept, and memory is warmed."""


class Report(msgspec.Struct):
    """What was done and what came of it. `looked_up` counts SMS that a provider might have had which cannot be asked: whether
    it had, and how many. `told` counts what came to an endpoint of hooks, and `told_again` what was no news. `wrongs` are in words; without any, all was well."""

    seed: int
    seconds: float
    people: int = 0
    webhooks: int = 0
    unacknowledged: int = 0
    sms: int = 0
    told: int = 0
    told_again: int = 0
    lags_s: list[float] = []
    looked_up: dict[bool, int] = {}
    deeds: dict[str, int] = {}
    history: list[str] = []
    wrongs: list[str] = []

    def lag_s(self, percent: int) -> float:
        """Of the time from each thing said to the answer's acceptance."""
        return quantiles(self.lags_s, n=100)[percent - 1] if len(self.lags_s) > 1 else 0.0


class Group:
    """People who talk on one channel, one after the other, until it is over. `said` and `hears` are by number."""

    def __init__(
        self, name: str, crowd: Crowd, plays: Sequence[Play], first: int, over: Event, every_s: float,
    ) -> None:  # fmt: skip
        self.name = name
        self.crowd = crowd
        self.said: dict[str, list[str]] = {}
        self.hears: dict[str, list[str]] = {}
        self.people: list[Person] = []
        self.failure: BaseException | None = None
        self._plays = plays
        self._first = first
        self._over = over
        self._every_s = every_s
        self._thread: Thread | None = None

    def start(self, deadline_s: float, invite: Callable[[Sequence[str]], bool] | None = None) -> None:
        """Let them talk as they come; or ask them to, some at a time, by `invite`."""
        work = (lambda: self._campaign(deadline_s, invite)) if invite else (lambda: self._talk(deadline_s))
        self._thread = Thread(target=self._guarded, args=(work,), name=self.name)
        self._thread.start()

    def join(self) -> None:
        assert self._thread is not None
        self._thread.join()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as e:  # noqa: BLE001 (the report tells)
            self.failure = e

    def _talk(self, deadline_s: float) -> None:
        self.crowd.talk(self._coming(), deadline_s / PATIENCE, at_once=2_000, every_s=self._every_s)

    def _coming(self) -> Iterator[Person]:
        place = 0
        while not self._over.is_set():
            yield self._person(place)
            place += 1

    def _campaign(self, deadline_s: float, ask: Callable[[Sequence[str]], bool]) -> None:
        end_s = monotonic() + deadline_s
        place = 0
        while not self._over.is_set():
            people = [self._person(place + each) for each in range(INVITED)]
            place += INVITED
            until(
                lambda people=people: ask([each.number for each in people]),
                (end_s - monotonic()) / PATIENCE,
                "all are invited",
            )  # type: ignore[misc]
            self.crowd.talk(people, (end_s - monotonic()) / PATIENCE)

    def _person(self, place: int) -> Person:
        name = f"P{place}"
        play = self._plays[place % len(self._plays)].by(name)
        person = play.person(number(self._first + place))
        self.said[person.number] = [said for said in play.says if said]
        self.hears[person.number] = play.hears
        self.people.append(person)
        return person


class Growth:
    """What processes take up, looked at now and then: their open files, and their memory in bytes."""

    def __init__(self, processes: Sequence[Process]) -> None:
        self._processes = processes
        self._seen: list[dict[str, tuple[int, int]]] = []

    def look(self) -> None:
        self._seen.append({each.name: _taken_up(each.pid) for each in self._processes})

    def wrongs(self) -> Iterator[str]:
        early, late = self._seen[: max(1, len(self._seen) // 3)], self._seen[-1]
        for name, (fds, size) in late.items():
            most_fds, most_size = (max(look[name][what] for look in early) for what in (0, 1))
            if fds > most_fds + FDS:
                yield f"{name} has {fds} open files, and had at most {most_fds} in the first third"
            if size > most_size + BYTES:
                yield f"{name} has {size >> 20} MiB of memory, and had at most {most_size >> 20} in the first third"


class Sums:
    """What `/metrics` says was counted, looked at now and then: it never falls, whoever dies."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._before: dict[tuple[str, str], float] = {}
        self.looks = 0
        self.wrongs: list[str] = []

    def look(self) -> None:
        """Unless nobody answers."""
        try:
            answer = requests.get(self._url, timeout=LOOK_S)
        except requests.RequestException:
            return
        if answer.status_code != 200:
            self.wrongs.append(f"/metrics answers {answer.status_code}")
            return
        self.hear(answer.text)

    def hear(self, text: str) -> None:
        found = {
            (sample.name, str(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            if family.type in ("counter", "histogram")
            for sample in family.samples
        }
        for series, value in self._before.items():
            if found.get(series, 0) < value:
                self.wrongs.append(f"the sum of {series} fell from {value} to {found.get(series)}")
        self._before = found
        self.looks += 1


def _taken_up(pid: int) -> tuple[int, int]:
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()), resident * os.sysconf("SC_PAGE_SIZE")


class Rollout(Protocol):
    """A change of releases under a soak. Its `wrongs` are in words."""

    wrongs: list[str]

    @property
    def releases(self) -> Sequence[Release]:
        """All of them."""

    @property
    def first(self) -> Release:
        """Whose processes run at first."""

    @property
    def over(self) -> bool:
        """Has all of it happened?"""

    def step(self, deployment: Deployment, gone_s: float, seconds: float) -> None:
        """Have those processes run that shall, so long after the beginning of a soak of so many seconds."""

    def finish(self, deployment: Deployment, valkey: SoakRedis, octopush: FakeOctopush) -> None:
        """What is left to do if nothing is wrong, under way any more, or started again by itself."""


def spools(seed: int) -> bool:
    """Has `web` a spool in the soak with this seed?"""
    return seed % 2 == 1


def soak(seconds: float, seed: int, *, copies: dict[str, int] | None = None, every_s: float = 0.1,
         logs: Path | None = None, tell: Callable[[str], None] = lambda _: None,
         rollout: Rollout | None = None, clock_steps: bool = False, redis: RedisKind = "server") -> Report:  # fmt: skip
    """Soak for so many seconds. `every_s` is how often somebody comes to each channel; logs go to the folder `logs` if
    anything is wrong. With `clock_steps`, the clock of Redis' server is now and then off, unless that is a cluster. Where there
    are replicas, PARLEY_REPLICAS is 1."""
    with ExitStack() as stack:
        clock = stack.enter_context(SteppedClock()) if clock_steps and redis != "cluster" else None
        valkey: SoakRedis = stack.enter_context(make_redis(redis, clock))
        carriers = stack.enter_context(FakeCarriers())
        proxy = stack.enter_context(Proxy(valkey.broker_url if redis == "cluster" else valkey.url))
        gates = {carrier: stack.enter_context(Proxy(carriers.base)) for carrier in CARRIERS}
        metrics, spool = valkey.folder / "metrics", valkey.folder / "spool"
        metrics.mkdir()
        deployment = stack.enter_context(
            Deployment(
                valkey.url if redis == "cluster" else proxy.url,
                f"{proxy.url.removesuffix('/0')}/1",
                carriers,
                surveys=_surveys(valkey.folder),
                forked=False,
                environment={
                    "PROMETHEUS_MULTIPROC_DIR": str(metrics),
                    "PARLEY_SPOOL": str(spool) if spools(seed) else "",
                    "PARLEY_REPLICAS": "0" if redis == "server" else "1",
                    "PARLEY_COMPACT_RECORDS": "1",
                    **carrier_environment(gates),
                    **hook_ledger.ENVIRONMENT,
                },
            )
        )
        channels = OCTOPUSH_CHANNELS if rollout else CHANNELS
        if rollout:
            gates = {"octopush": gates["octopush"]}
        configure_channels(deployment, channels)
        endpoint = stack.enter_context(closing(HookEndpoint(hook_ledger.UnsteadyAnswers(seed))))
        if rollout is None:
            hook_ledger.configure_hook(deployment, endpoint)
        deployment.start(rollout.first if rollout else THIS, **(copies or COPIES))
        world = SoakWorld(deployment, channels, valkey, proxy, carriers, gates, clock, endpoint)
        report = _soak(Report(seed, seconds), world, every_s, tell, rollout)
        if rollout is not None and not report.wrongs:
            tell("replaying dead letters")
            rollout.finish(deployment, valkey, carriers)
            report.wrongs += rollout.wrongs
        report.wrongs += [
            *metric_wrongs(metrics, {str(each.pid) for each in deployment.processes}),
            *_spool_wrongs(spool),
        ]
        if report.wrongs and logs is not None:
            _keep_logs(deployment, report, logs)
        return report


class SoakWorld(NamedTuple):
    """What a soak runs on. Each provider is behind a gate, and Redis behind `proxy`; of a cluster, only the wake-ups'."""

    deployment: Deployment
    channels: Sequence[SoakChannel]
    valkey: SoakRedis
    proxy: Proxy
    carriers: FakeCarriers
    gates: Mapping[Carrier, Proxy]
    clock: SteppedClock | None
    endpoint: HookEndpoint


def _deeds(world: SoakWorld) -> dict[str, int]:
    of_redis = {Valkey: {}, ReplicatedValkey: FAILOVER_DEEDS, ValkeyCluster: CLUSTER_DEEDS}
    return DEEDS | (CLOCK_DEEDS if world.clock else {}) | of_redis[type(world.valkey)]


def _soak(
    report: Report, world: SoakWorld, every_s: float, tell: Callable[[str], None], rollout: Rollout | None
) -> Report:
    deployment, valkey, carriers = world.deployment, world.valkey, world.carriers
    api = Api(deployment.base)
    tell("rehearsing")
    rehearsal = Crowd(deployment.webhook, carriers)
    plays = rehearse(rehearsal, api, CHANNEL, SURVEY, valkey, carriers)
    before = carriers.count()
    strangers = {sms.to for sms in carriers.accepted()}
    spared = [] if rollout else [deployment.of(name)[0] for name in COPIES]
    growth, sums = Growth(spared), Sums(f"{deployment.base}/metrics")
    over = Event()
    groups: list[tuple[SoakChannel, Group]] = []
    for place, channel in enumerate(world.channels):
        url, write = webhook_of(deployment, channel), channel.writer()
        talking = [play for kind, play in plays.items() if kind not in ("invited", *channel.leaves_out)]
        first = place * PEOPLE_OF_A_CHANNEL
        for name, spoken, begin in (
            (channel.name, talking, first),
            (f"{channel.name}'s campaign", [plays["invited"]], first + PEOPLE_OF_A_CHANNEL // 2),
        ):
            crowd = Crowd(url, carriers, doubled=0.05, seed=report.seed, write=write)
            groups.append((channel, Group(name, crowd, spoken, begin, over, every_s)))
    end_s = report.seconds + (WAIT_S if rollout else 0)
    deadline_s = end_s + WAIT_S
    mischief = Mischief(
        deployment, spared, valkey, world.proxy, carriers, world.gates, world.clock, letters=True
    )
    tell("soaking")
    releases = rollout.releases if rollout else (THIS, THIS)
    operators = Operators(
        [{**deployment.environment, **each.environment} for each in releases], report.seed, carriers,
        repeatable=[each.name for each in world.channels if each.carrier == "octopush"],
        looked_up=[each.name for each in world.channels if each.carrier == "vonage"],
    )  # fmt: skip
    with deployment.respawning(), operators:
        begun_s = monotonic()
        for channel, group in groups:
            ask = None if group.name == channel.name else _asker(Api(deployment.base), channel.name)
            group.start(deadline_s, ask)
        mischief.start(schedule(report.seed, end_s, _deeds(world)))
        while (gone_s := monotonic() - begun_s) < report.seconds or (
            rollout is not None and not rollout.over and gone_s < end_s
        ):
            growth.look()
            sums.look()
            if rollout is not None:
                rollout.step(deployment, gone_s, report.seconds)
            tell(f"{gone_s:.0f} s: {carriers.count() - before} SMS, {sum(mischief.done.values())} deeds")
            left_s = report.seconds - gone_s
            over.wait(min(LOOKS_EVERY_S, max(0.01, left_s)) if left_s > 0 else LOOKS_EVERY_S)
        over.set()
        mischief.end()
        tell("waiting for all that is under way")
        for _, group in groups:
            group.join()
        report.wrongs += _letter_wrongs(valkey)
        report.deeds = dict(sorted(mischief.done.items()))
        report.deeds |= {"replay": operators.replays, "kill replay": operators.killed}
        report.looked_up = dict(Counter(operators.looked_up_sms.values()))
        report.history = mischief.history
        report.wrongs += [f"{each.name}: {each.failure!r}" for _, each in groups if each.failure is not None]
        try:
            audit.settle(valkey.client(), valkey.client(valkey.broker_url), SETTLE_S)
        except AssertionError as e:
            report.wrongs += str(e).splitlines()
        if rollout is None:
            report.wrongs += archive_wrongs(deployment, valkey)
            tell("waiting for all that is to be told")
            report.wrongs += hook_ledger.wrongs(valkey.client(), ledger.SHARDS, world.endpoint, SETTLE_S)
            told = [event["id"] for event in world.endpoint.of("/soak")]
            report.told, report.told_again = len(told), len(told) - len(set(told))
    growth.look()
    sums.look()
    report.wrongs += [*growth.wrongs(), *sums.wrongs]
    if not sums.looks:
        report.wrongs.append("/metrics was never answered")
    accepted = [sms for sms in carriers.accepted() if sms.to not in strangers]
    told = {
        sender: each for sender, each in ledger.stories(valkey.client()).items() if sender not in strangers
    }
    said = {sender: texts for _, group in groups for sender, texts in group.said.items()}
    hears = {sender: texts for _, group in groups for sender, texts in group.hears.items()}
    report.wrongs += ledger.wrongs(told, said, hears, accepted)
    report.people, report.sms = len(said), len(accepted)
    report.webhooks = sum(group.crowd.posts for _, group in groups)
    report.unacknowledged = sum(group.crowd.again for _, group in groups)
    report.lags_s = [lag for _, group in groups for person in group.people for lag in person.lags_s]
    return report


def archive_wrongs(deployment: Deployment, valkey: SoakRedis) -> list[str]:
    """What is amiss in the archive, in words: each entry of the streams is there once, in order, and nothing else."""
    database = ArchiveDatabase(f"sqlite:///{deployment.environment['PARLEY_VAR']}/archive.db")
    client = valkey.client()
    many = sum(client.xlen(keyspace.events_key(k)) for k in range(ledger.SHARDS))
    try:
        until(lambda: count_archived(database) >= many, SETTLE_S, "all is archived")
    except TimeoutError:
        return [f"{count_archived(database)} of {many} entries are archived"]
    if archived_entries(database) != stream_entries(client, ledger.SHARDS):
        return ["the archive has other entries than the event streams"]
    return []


def _asker(api: Api, channel: str) -> Callable[[Sequence[str]], bool]:
    return lambda numbers: invite(api, channel, SURVEY, numbers)


def _surveys(folder: Path) -> Path:
    """The clinic's, which anybody may take again at once."""
    surveys = folder / "surveys"
    surveys.mkdir()
    text = (SURVEYS / f"{SURVEY}.yaml").read_text()
    text, count = re.subn(r"cooldown: \w+", "cooldown: 0s", text)
    text, reminders = re.subn(r"    remind:\n(      .*\n)+", "", text)
    assert (count, reminders) == (1, 1)
    (surveys / f"{SURVEY}.yaml").write_text(text)
    return surveys


def _letter_wrongs(valkey: SoakRedis) -> list[str]:
    """Dead letters that no operator has dealt with, once everybody has heard everything."""
    client = valkey.client()

    def reasons() -> list[str]:
        letters = (each for k in range(ledger.SHARDS) for each in dead_letter_store.scan_unordered(client, k))
        return [f"{each.channel or 'some channel'}: {each.reason} ({each.why})" for each in letters]

    try:
        until(lambda: not reasons(), LETTERS_S, "no letter is left")
    except TimeoutError:
        return [f"a dead letter that nobody dealt with, {each}" for each in reasons()]
    return []


def metric_wrongs(folder: Path, living: Container[str]) -> Iterator[str]:
    """Files of processes that are not among those `living`, by pid. Whoever starts or tells the sums removes them, so those
    of the last that died may be left."""
    left = [
        file.name
        for file in folder.iterdir()
        if (found := re.search(r"(\d+)-[0-9a-f]+\.(db|alive)$", file.name)) and found[1] not in living
    ]
    if len(left) > 4 * sum(COPIES.values()):
        yield f"{len(left)} metric files of processes that are gone, such as {sorted(left)[:3]}"


def _spool_wrongs(folder: Path) -> Iterator[str]:
    """Events that are still there, or were put aside."""
    for file in (folder / "events", folder / "damaged"):
        if file.exists() and (size := file.stat().st_size):
            yield f"the spool's file {file.name} has {size} bytes"


def _keep_logs(deployment: Deployment, report: Report, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for process in deployment.processes:
        shutil.copy(process.log, folder)
    (folder / "history").write_text(
        "\n".join([f"seed {report.seed}", *report.history, "", *report.wrongs, ""])
    )
