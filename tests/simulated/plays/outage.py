"""Many people talk with a channel whose provider is down: for moments or for hours, and whatever it answers meanwhile."""

from collections.abc import Collection
from random import Random

from engine.providers import ChannelFault, OutcomeUnknown, Recourse, RetryLater
from tests.simulated.actors.outages import Outage
from tests.simulated.actors.people import People, Person
from tests.simulated.actors.web import Carriers, Web
from tests.simulated.oracles.circuits.outage_oracle import OutageOracle
from tests.simulated.plays.deployments import add_deployment
from tests.simulated.plays.play import FAILOVERS, WRONG_CLOCKS, EndingFaults, Stage, load_files
from tests.simulated.world.simulated_provider import Trouble
from tests.simulated.world.simulated_world import DeploymentFiles

CHANNEL = "clinic"

_SURVEY = """
survey: clinic
start: [START]
idle: 5h
steps:
  - {id: welcome, say: "Welcome."}
  - {id: name, ask: "What is your name?", answer: {type: text}}
  - {id: bye, say: "Goodbye, {name}.", next: end}
"""

_CONFIG = """
[channels.clinic]
number = "+33700000001"
surveys = ["clinic"]
limits = {sms_per_second = %d, pause_s = 0}
"""

RATES = (0, 8)

LONG_CHANCE, LONG_S = 0.15, 4 * 3_600

OUTCOMES = (
    RetryLater("503", "not now"),
    OutcomeUnknown("ReadTimeout", "no answer"),
    ChannelFault("402", "no credit"),
)

RECOURSES: tuple[Recourse, ...] = ("look_up", "repeat")


def _files(rate: int) -> DeploymentFiles:
    return DeploymentFiles(_CONFIG % rate, {"clinic": _SURVEY}, {"PARLEY_SHARDS": "2"})


_FILES = {rate: (lambda rate=rate: _files(rate)) for rate in RATES}


class OutagePlay:
    """People who begin within a few seconds, before or while their provider is down; those of a long outage are few."""

    storm_s = 60

    def __init__(self, name: str, kinds: Collection[str], left_out: Collection[str] = ()) -> None:
        self.name = name
        self.kinds = kinds
        self.left_out = left_out

    def begin(self, fault_source: EndingFaults, seed: str) -> Stage:
        chance = Random(f"outage {seed}")
        is_long = chance.random() < LONG_CHANCE
        senders = [f"+336120000{n:02}" for n in range(3 if is_long else 24)]
        rate = chance.choice(RATES)
        recourse = chance.choice(RECOURSES)
        stage = Stage(load_files(_FILES[rate]), {CHANNEL: recourse}, senders, fault_source, seed)
        world = stage.world
        webs = [Web(world), Web(world)]
        add_deployment(world, webs)
        carriers = Carriers(world, webs)
        people = [Person(world, carriers, sender, CHANNEL, {"What": "Ada"}) for sender in senders]
        People(world, people)
        outcome = chance.choice(OUTCOMES)
        trouble = Trouble(
            outcome,
            chance.choice((0, 0, 3_000)),
            isinstance(outcome, OutcomeUnknown) and chance.random() < 0.5,
        )
        lasts_s = LONG_S if is_long else chance.choice((2, 5, 20, 40)) * (0.5 + chance.random())
        outage = Outage(world, CHANNEL, chance.choice((0, 0, 2)), lasts_s, trouble)
        stage.judges.append(
            OutageOracle(outage, rate, stage.watcher, stage.letters, senders, fault_source.met.values()).judge
        )
        world.providers[CHANNEL].answers_after_ms = chance.choice((0, 0, 1_000))
        for person in people:
            person.say_later("START", chance.random() * 3)
        return stage


OUTAGE = OutagePlay(
    "outage", ("delay", "die_before", "die_after", "lose_reply", "unknown_taken", "unavailable")
)
OUTAGE_AND_FAULTS = OutagePlay("outage_and_faults", (), FAILOVERS | WRONG_CLOCKS | {"refuse_sms"})
"""Whatever else goes wrong meanwhile, though then it is seldom known who may probe."""
