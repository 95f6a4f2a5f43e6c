"""One whose answers raise or kill, or whose number a provider rejects, people beside them, and two operators who replay and drop
what comes of it, at once, and while people go on and say STOP."""

from collections.abc import Callable
from random import Random

from tests.simulated.actors.dangers import KILLS, RAISES, Dangers
from tests.simulated.actors.operators import Operator
from tests.simulated.actors.people import People, Person
from tests.simulated.actors.web import Carriers, Web
from tests.simulated.oracles.letters import LetterOracle
from tests.simulated.oracles.opt_outs import OptOutOracle
from tests.simulated.plays.conversation import ANSWERS, CHANNELS, deployment_files
from tests.simulated.plays.deployments import add_deployment
from tests.simulated.plays.play import FAILOVERS, WRONG_CLOCKS, EndingFaults, LoadedFiles, Stage, load_files

_LATER_ANSWERS = {"How old": "36", "Digits": "36"}
"""Answers of one whose name is what troubles."""

_OPTIONS = ((), (), ("stale",), ("uncertain", "stale"))


class _Scene:
    """What a run is about: who is in it, and what they do when."""

    def __init__(self, fault_source: EndingFaults, seed: str, neighbours: int) -> None:
        self.dangers = Dangers()
        files = load_files(deployment_files)
        senders = [f"+3361200000{n}" for n in range(1 + neighbours)]
        self.stage = stage = Stage(
            LoadedFiles(files.settings, self.dangers.arm(files.surveys)),
            dict(CHANNELS),
            senders,
            fault_source,
            seed,
        )
        self.world = world = stage.world
        self.dangers.scheduler = world.scheduler
        webs = [Web(world), Web(world)]
        carriers = Carriers(world, webs)
        add_deployment(world, webs)
        channel = world.chance.choice(list(CHANNELS))
        self.troubled = Person(world, carriers, senders[0], channel, _LATER_ANSWERS)
        self.neighbours = [Person(world, carriers, sender, channel, ANSWERS) for sender in senders[1:]]
        People(world, [self.troubled, *self.neighbours])
        self.operators = [Operator(world, f"operator-{n}", self.dangers) for n in (1, 2)]
        stage.unfinished += [lambda each=each: each.is_busy for each in self.operators]
        letters = LetterOracle(
            world, stage.watcher, stage.letters, senders, fault_source.met.values(), self.dangers
        )
        world.scheduler.observers.append(letters.look)
        stage.judges += [
            letters.judge, OptOutOracle(world, stage.watcher, senders, self.operators).judge,
        ]  # fmt: skip

    @property
    def chance(self) -> Random:
        return self.world.chance

    def at(self, after_s: float, action: Callable[[], object]) -> None:
        scheduler = self.world.scheduler
        scheduler.at(scheduler.now_us + round(after_s * 1_000_000), action)

    def operate(self, from_s: float, until_s: float, times: int) -> None:
        """Have operators deal with the troubled one's letters, now and then at one moment."""
        chance, sender = self.chance, self.troubled.number
        for _ in range(times):
            at_s = chance.uniform(from_s, until_s)
            at_once = chance.random() < 0.6
            for operator in self.operators if at_once else [chance.choice(self.operators)]:
                command = (
                    operator.drop(sender)
                    if chance.random() < 0.35
                    else operator.replay(sender, chance.choice(_OPTIONS))
                )
                operator.type_later(command, at_s + chance.random() * 0.004)


class RaisingPlay:
    """Answers raise, alone and with a STOP behind them, until a release that reads them is there."""

    name = "raising"
    storm_s = 90
    left_out = FAILOVERS | WRONG_CLOCKS
    kinds = ()

    def begin(self, fault_source: EndingFaults, seed: str) -> Stage:
        scene = _Scene(fault_source, seed, neighbours=0)
        chance, person = scene.chance, scene.troubled
        person.say_later("START", 0.1)
        at_s = chance.uniform(3, 6)
        for n in range(chance.choice((1, 1, 2, 3))):
            person.say_later(f"{RAISES} {n}", at_s + n * chance.choice((0.0005, 0.3)))
        if chance.random() < 0.4:
            person.say_later("STOP", at_s + chance.choice((0.001, 0.01, 1)) * chance.random())
        else:
            person.say_later("Ada", chance.uniform(10, 60))
        if chance.random() < 0.6:
            scene.at(chance.uniform(10, 50), lambda: setattr(scene.dangers, "is_mended", True))
        scene.operate(7, 85, 3)
        if chance.random() < 0.3:
            person.say_later("STOP", chance.uniform(10, 85))
        return scene.stage


class KillingPlay:
    """An answer ends whoever reads it, beside neighbours; an operator tries an older letter of its person meanwhile."""

    name = "killing"
    storm_s = 150
    left_out = FAILOVERS | WRONG_CLOCKS
    kinds = ()

    def begin(self, fault_source: EndingFaults, seed: str) -> Stage:
        scene = _Scene(fault_source, seed, neighbours=2)
        chance, person = scene.chance, scene.troubled
        for each in (person, *scene.neighbours):
            each.say_later("START", chance.random() * 0.01)
        at_s = chance.uniform(3, 5)
        if chance.random() < 0.5:
            person.say_later(f"{RAISES} 0", 2.5)
            for round_s in range(20, 150, 28):
                self._replay_between_deaths(scene, round_s)
        person.say_later(f"{KILLS} 0", at_s)
        person.say_later(
            chance.choice(("STOP", "Ada", "Ada")), at_s + chance.choice((0.001, 1, 20)) * chance.random()
        )
        for each in scene.neighbours:
            for n in range(6):
                each.say_later("36", at_s + n * 5.25 + chance.random() * 0.002)
        scene.operate(60, 140, 1)
        return scene.stage

    @staticmethod
    def _replay_between_deaths(scene: _Scene, at_s: float) -> None:
        """Type a replay while every worker is frozen."""

        def freeze() -> None:
            for process in scene.world.processes:
                if process.name.startswith(("conversation", "ratelimit")):
                    process.freeze(9_000)

        scene.at(at_s, freeze)
        scene.operators[0].type_later(scene.operators[0].replay(scene.troubled.number), at_s + 6)


class RejectedPlay:
    """A provider rejects a number, until its operators have talked to it."""

    name = "rejected"
    storm_s = 60
    left_out = FAILOVERS | WRONG_CLOCKS
    kinds = ()

    def begin(self, fault_source: EndingFaults, seed: str) -> Stage:
        scene = _Scene(fault_source, seed, neighbours=0)
        chance, person = scene.chance, scene.troubled
        rejected = scene.world.providers[person.channel].rejected_numbers
        rejected.add(person.number)
        scene.at(chance.uniform(1, 25), rejected.clear)
        person.say_later("START", 0.1)
        person.say_later("Ada", chance.uniform(1, 8))
        if chance.random() < 0.5:
            person.say_later("STOP", chance.uniform(1, 40))
        scene.operate(1, 50, 4)
        return scene.stage


RAISING, KILLING, REJECTED = RaisingPlay(), KillingPlay(), RejectedPlay()
