"""People answer two surveys while what happens is archived, trimmed, swept, and told to endpoints: within a minute, or within days
in which machines stand still, endpoints are away, and operators have them told again."""

from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from random import Random

import redis

from config.store import keyspace
from tests.simulated.actors.archivers import begin_archive
from tests.simulated.actors.endpoint_tellers import EndpointTellers
from tests.simulated.actors.hook_operators import HookOperator, HookOrder
from tests.simulated.actors.people import Habits, People, Person
from tests.simulated.actors.roles import begin_clock, begin_delivery, begin_tidying, begin_turns
from tests.simulated.actors.web import Carriers, Web
from tests.simulated.oracles.archived_entries import ArchivedEntryOracle
from tests.simulated.oracles.event_streams import EventStreamOracle, KeptSessions
from tests.simulated.oracles.told_events import LeaseOracle, ToldEventOracle
from tests.simulated.plays.play import WRONG_CLOCKS, EndingFaults, Stage, load_files
from tests.simulated.world import faults
from tests.simulated.world.scheduler import START_US, Process
from tests.simulated.world.simulated_archive import SimulatedArchive
from tests.simulated.world.simulated_world import DeploymentFiles
from workers.roles.archive import prepare_archiver

HOUR_MS = 3_600_000

_BEHIND_S = (2, 8, 300)

_CLOCK_WRONG_S = 600
"""How long the server's clock may be wrong, at the most."""

_STANDSTILL_CHANCE = 0.3
"""How likely no archive does anything for half of a run."""

_ORDER_CHANCE = 0.3
"""How likely an operator pauses an endpoint in a run, and how likely he has it told again."""
KEEP_MS = 12 * HOUR_MS

_SURVEY = """
survey: {name}
start: [{keyword}]
idle: 3h
cooldown: 0s
{keep}
steps:
  - {{id: name, ask: "What is your name?", answer: {{type: text}}}}
  - {{id: age, ask: "How old are you?", answer: {{type: number, min: 0, max: 150}}, invalid: "Digits, please."}}
  - {{id: bye, say: "Goodbye, {{name}}.", next: end}}
"""

_SURVEYS = {
    "clinic": _SURVEY.format(name="clinic", keyword="CLINIC", keep=""),
    "diary": _SURVEY.format(name="diary", keyword="DIARY", keep="keep: 12h"),
}

_CONFIG = """
[channels.main]
number = "+33700000001"
surveys = ["clinic", "diary"]
limits = {sessions_per_sender_per_day = 0, start_burst = 0, sms_per_second = 0}

[hooks.all]
url = "https://all.example.org/told"
secret_env = "HOOK_SECRET"
begin = "beginning"
timeout_s = 5

[hooks.results]
url = "https://results.example.org/told"
secret_env = "HOOK_SECRET"
begin = "beginning"
surveys = ["clinic"]
events = ["session.opened", "answer.given", "session.ended"]
batch = 3
numbers = true
"""

_ENVIRON = {
    "PARLEY_SHARDS": "2",
    "PARLEY_STREAM_DAYS": "1",
    "HOOK_SECRET": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5",
}

ANSWERS = {"What is your name": "Ada", "How old": "36", "Digits": "36"}
NO_END = {"What is your name": "Ada"}
"""What somebody answers who leaves a session open."""


def deployment_files() -> DeploymentFiles:
    return DeploymentFiles(_CONFIG, _SURVEYS, _ENVIRON)


class ArchivedConversationPlay:
    """People begin at these hours. In so many runs a replica takes over whose clock is behind."""

    def __init__(
        self, name: str, storm_s: int, hours: tuple[float, ...], failover_chance: float = 0.3
    ) -> None:
        self.name = name
        self.storm_s = storm_s
        # with a clock that is set and a failover a shard may be held until somebody looks; a copy that comes days later keeps
        # the play going
        self.left_out = WRONG_CLOCKS | {"repeat"}
        self.kinds = ()
        self._hours = hours
        self._failover_chance = failover_chance

    def begin(self, fault_source: EndingFaults, seed: str) -> Stage:
        senders = [f"+3361200000{n}" for n in range(3)]
        files = load_files(deployment_files)
        stage = Stage(files, {"main": "repeat"}, senders, fault_source, seed)
        chance = Random(f"archived {seed}")
        told = ArchivedStage(stage)
        told.begin_processes(list(_draw_orders(chance, self.storm_s)))
        web = Web(stage.world)
        stage.world.add_process("web", web.begin)
        people = [
            Person(
                stage.world,
                Carriers(stage.world, [web]),
                sender,
                "main",
                NO_END if n == 0 else ANSWERS,
                Habits(stops=0.1, restarts=0.1),
            )
            for n, sender in enumerate(senders)
        ]
        People(stage.world, people)
        for hour in self._hours:
            for person in people:
                word = chance.choice(("CLINIC", "DIARY"))
                person.say_later(word, hour * 3_600 + chance.random() * 20)
        if chance.random() < self._failover_chance:
            hour = chance.choice(self._hours)
            told.fail_over_behind(
                hour * 3_600 + chance.random() * 30, chance.randint(1, 9), chance.choice(_BEHIND_S)
            )
        if chance.random() < _STANDSTILL_CHANCE:
            hour = chance.choice(self._hours[:2])
            told.let_archive_stand_still(hour * 3_600 + chance.random() * 20, self.storm_s / 2)
        return stage


class ArchivedStage:
    """What there is on a stage beside conversations: an archive, endpoints, and who looks after them."""

    def __init__(self, stage: Stage) -> None:
        self._world = world = stage.world
        self.archive = SimulatedArchive(world.scheduler, world.settings.shards)
        stage.around.append(closing(self.archive))
        kept = KeptSessions(stage.watcher, {"diary": KEEP_MS})
        self.streams = EventStreamOracle(world, self.archive, stage.watcher, kept)
        self.leases = LeaseOracle(world)
        self.tellers = EndpointTellers(world, self.archive, self.leases.note_beginning)
        self.told = ToldEventOracle(world, stage.watcher, self.tellers.endpoints, kept)
        deployment = world.deployment(world.outside)
        hash_number = deployment.open_opt_out_list().hash_number
        prepare_archiver(deployment, self.archive.database())
        world.lanes.model.replicate()  # the archive and Redis know each other for long
        self.entries = ArchivedEntryOracle(world, self.archive, stage.watcher, kept, hash_number)
        self._operator = HookOperator(world, self.archive, self.told, self.leases)
        self._archivers: list[Process] = []
        self._set_clock_right()
        stage.judges += [self.entries.judge, self.told.judge]
        stage.unfinished.append(self._is_unfinished)
        stage.calming.append(self._operator.resume_all)
        stage.calming += [each.end_absence for each in self.tellers.endpoints.values()]

    def begin_processes(self, orders: list[HookOrder]) -> None:
        world = self._world
        self._operator.left += sorted(orders)
        for name, begin in (
            ("ratelimit", partial(begin_turns, world, keyspace.STARTS_QUEUE)),
            ("conversation", partial(begin_turns, world, keyspace.REPLIES_QUEUE)),
            ("delivery", partial(begin_delivery, world)),
            ("clock", partial(begin_clock, world)),
            ("tidying", partial(begin_tidying, world)),
            ("hooks-1", self.tellers.begin),
            ("hooks-2", self.tellers.begin),
            ("operator", self._operator.begin),
        ):
            world.add_process(name, begin)
        for n in (1, 2):
            begin = partial(begin_archive, world, self.archive)
            self._archivers.append(world.add_process(f"archive-{n}", begin))

    def _set_clock_right(self) -> None:
        """Somebody sees to it now and then: while it is wrong for hours, alarms ring every second whose deadlines are held."""
        lanes, scheduler = self._world.lanes, self._world.scheduler
        if lanes.clock_ahead_us:
            lanes.set_clock(0)
        scheduler.at(scheduler.now_us + _CLOCK_WRONG_S * 1_000_000, self._set_clock_right)

    def fail_over_behind(self, after_s: float, calls: int, behind_s: int) -> None:
        """Have a replica take over that lacks so many calls, and whose clock is behind: by more than a failover takes, so that
        it may give out ids anew that the archive has, and endpoints were told."""
        scheduler, lanes = self._world.scheduler, self._world.lanes

        def fail_over() -> None:
            with suppress(redis.ConnectionError):
                lanes.perform([], 0, faults.Fault("fail_over", calls))
            lanes.set_clock(lanes.clock_ahead_us - behind_s * 1_000_000)

        scheduler.at(scheduler.now_us + round(after_s * 1_000_000), fail_over)

    def let_archive_stand_still(self, after_s: float, for_s: float) -> None:
        """Let no archive do anything for so long."""
        scheduler = self._world.scheduler

        def freeze() -> None:
            for process in self._archivers:
                process.freeze(round(for_s * 1_000))

        scheduler.at(scheduler.now_us + round(after_s * 1_000_000), freeze)

    def _is_unfinished(self) -> bool:
        view = self._world.lanes.view
        is_archived = all(
            (view.last_entry(keyspace.events_key(k)) or (0, 0)) == tuple(position)
            for k, position in self.archive.positions.items()
        )
        return bool(self._operator.left) or not is_archived or not self.tellers.is_all_told()


def _draw_orders(chance: Random, storm_s: int) -> Iterator[HookOrder]:
    def moment_us() -> int:
        return START_US + round(chance.random() * storm_s * 1_000_000)

    for hook in ("all", "results"):
        if chance.random() < _ORDER_CHANCE:
            begin, end = sorted((moment_us(), moment_us()))
            yield HookOrder(begin, "pause", hook)
            yield HookOrder(end, "resume", hook)
        if chance.random() < _ORDER_CHANCE:
            yield HookOrder(moment_us(), "rewind", hook, round(chance.random() * storm_s * 500))
        if chance.random() < _ORDER_CHANCE:
            yield HookOrder(moment_us(), "rewind", hook)


ARCHIVED_MINUTE = ArchivedConversationPlay("archived", 60, (0.0,))
ARCHIVED_DAYS = ArchivedConversationPlay("archived-days", 54 * 3_600, (0.0, 27.0, 53.0))
