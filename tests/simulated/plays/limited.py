"""Crowds of STARTs at a channel that limits what one person may begin, what may begin in a minute, and how many SMS a day has."""

from tests.simulated.actors.people import People, Person
from tests.simulated.actors.web import Carriers, Web
from tests.simulated.oracles.limits import LimitOracle
from tests.simulated.plays.deployments import add_deployment
from tests.simulated.plays.play import FAILOVERS, WRONG_CLOCKS, EndingFaults, Stage, load_files
from tests.simulated.world.simulated_world import DeploymentFiles

CHANNEL = "repeats"

_SURVEY = """
survey: clinic
start: [START]
idle: 10m
cooldown: 0s
again: restart
steps:
  - {id: name, ask: "What is your name?", answer: {type: text}}
"""

_CONFIG = """
[channels.repeats]
number = "+33700000001"
surveys = ["clinic"]
limits = {sms_per_second = 4, pause_s = 0, %s}
"""

_LIMITS = (
    "sessions_per_sender_per_day = 2, start_burst = 0",
    "sessions_per_sender_per_day = 0, start_burst = 2, start_per_minute = 2",
    "sessions_per_sender_per_day = 0, start_burst = 0, new_sessions_per_minute = 3",
    "sessions_per_sender_per_day = 0, start_burst = 0, sms_per_day = 4",
)


def _files(limits: str) -> DeploymentFiles:
    return DeploymentFiles(_CONFIG % limits, {"clinic": _SURVEY}, {"PARLEY_SHARDS": "2"})


_FILES = tuple((lambda limits=limits: _files(limits)) for limits in _LIMITS)


class LimitedPlay:
    """Five people who text START, again and again, at one moment and one after the other."""

    name = "limited"
    storm_s = 60
    left_out = FAILOVERS | WRONG_CLOCKS
    kinds = ()

    def begin(self, fault_source: EndingFaults, seed: str) -> Stage:
        senders = [f"+3361200000{n}" for n in range(5)]
        files = load_files(_FILES[int(seed.rpartition(" ")[2]) % len(_FILES)])
        stage = Stage(files, {CHANNEL: "repeat"}, senders, fault_source, seed)
        world, chance = stage.world, stage.world.chance
        webs = [Web(world), Web(world)]
        add_deployment(world, webs)
        carriers = Carriers(world, webs)
        people = [Person(world, carriers, sender, CHANNEL, {"What": "Ada"}) for sender in senders]
        People(world, people)
        stage.judges.append(
            LimitOracle(
                world, stage.watcher, senders, world.settings.channels[CHANNEL], fault_source.met.values()
            ).judge
        )
        for person in people:
            for n in range(chance.choice((2, 3, 4))):
                person.say_later(
                    "START", chance.choice((0.1, 0.1, 8 * n)) + chance.random() * chance.choice((0.002, 5))
                )
        return stage


LIMITED = LimitedPlay()
