"""More people than a channel's rate lets through, while operators pause it and resume it, and deliveries stand still."""

from random import Random

from engine.providers import Recourse
from tests.simulated.actors.operators import Operator
from tests.simulated.actors.people import People, Person
from tests.simulated.actors.web import Carriers, Web
from tests.simulated.oracles.limits import LimitOracle
from tests.simulated.plays.deployments import add_deployment
from tests.simulated.plays.play import FAILOVERS, WRONG_CLOCKS, EndingFaults, Stage, load_files
from tests.simulated.world.simulated_world import DeploymentFiles, SimulatedWorld

CHANNEL = "clinic"

_SURVEY = """
survey: clinic
start: [START]
idle: 1h
steps:
  - {id: welcome, say: "Welcome."}
  - {id: name, ask: "What is your name?", answer: {type: text}}
"""

_CONFIG = """
[channels.clinic]
number = "+33700000001"
surveys = ["clinic"]
limits = {sms_per_second = %d, pause_s = 0}
"""

RATES = (1, 2)

RECOURSES: tuple[Recourse, ...] = ("look_up", "repeat")

HELD_UP_US = 9_000_000
"""A permit that is booked is good for a second, a try that looks up begins within 5 s, and its first byte leaves within 3 s."""


def _files(rate: int) -> DeploymentFiles:
    return DeploymentFiles(_CONFIG % rate, {"clinic": _SURVEY}, {"PARLEY_SHARDS": "2"})


_FILES = {rate: (lambda rate=rate: _files(rate)) for rate in RATES}


class PacedPlay:
    """So many people who text START within seconds that they wait for ten seconds and more."""

    name = "paced"
    storm_s = 60
    left_out = FAILOVERS | WRONG_CLOCKS
    kinds = ()

    def begin(self, fault_source: EndingFaults, seed: str) -> Stage:
        chance = Random(f"paced {seed}")
        rate = chance.choice(RATES)
        senders = [f"+336120000{n:02}" for n in range(10 * rate)]
        stage = Stage(
            load_files(_FILES[rate]), {CHANNEL: chance.choice(RECOURSES)}, senders, fault_source, seed
        )
        world = stage.world
        webs = [Web(world), Web(world)]
        add_deployment(world, webs)
        carriers = Carriers(world, webs)
        people = [Person(world, carriers, sender, CHANNEL, {}) for sender in senders]
        People(world, people)
        operator = Operator(world, "operator")
        stage.unfinished.append(lambda: operator.is_busy)
        stage.judges.append(
            LimitOracle(
                world,
                stage.watcher,
                senders,
                world.settings.channels[CHANNEL],
                fault_source.met.values(),
                HELD_UP_US,
            ).judge
        )
        for person in people:
            person.say_later("START", chance.random() * chance.choice((0.5, 3)))
        if chance.random() < 0.6:
            at_s = chance.uniform(0.5, 12)
            operator.type_later(operator.pause(CHANNEL, chance.choice((1_000, 3_000, 8_000, 60_000))), at_s)
            operator.type_later(operator.resume(CHANNEL), at_s + chance.choice((0.5, 2, 10, 20)))
        if chance.random() < 0.5:
            _hold_deliveries(world, chance.uniform(0.5, 6), chance.choice((4, 10, 25)))
        return stage


def _hold_deliveries(world: SimulatedWorld, after_s: float, for_s: float) -> None:
    """Let deliveries stand still for so long, from that moment on."""

    def freeze() -> None:
        for process in world.processes:
            if process.name.startswith("delivery"):
                process.freeze(round(for_s * 1_000))

    world.scheduler.at(world.scheduler.now_us + round(after_s * 1_000_000), freeze)


PACED = PacedPlay()
