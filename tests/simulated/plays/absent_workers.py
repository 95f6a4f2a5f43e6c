"""Of the two kinds of worker that advance lanes, all of one kind stand still for minutes, while people say STOP."""

from tests.simulated.actors.people import Habits, People, Person
from tests.simulated.actors.web import Carriers, Web
from tests.simulated.oracles.delays import DelayOracle
from tests.simulated.oracles.waiting_stops import WaitingStopOracle
from tests.simulated.plays.conversation import ANSWERS, CHANNELS, deployment_files
from tests.simulated.plays.deployments import add_deployment
from tests.simulated.plays.play import EndingFaults, Stage, load_files

KINDS = ("ratelimit", "conversation")

ABSENT_S = (0.5, 3.0, 8.0)
"""When they begin to stand still, until nothing fails any more: a person has not begun yet, is being asked, or has answered."""


class AbsentWorkersPlay:
    """Two people, who begin again and say STOP, and two processes of each kind."""

    name = "absent"
    storm_s = 400
    left_out = ()
    kinds = ()

    def begin(self, fault_source: EndingFaults, seed: str) -> Stage:
        senders = [f"+3361200000{n}" for n in range(2)]
        stage = Stage(load_files(deployment_files), dict(CHANNELS), senders, fault_source, seed)
        world, chance = stage.world, stage.world.chance
        webs = [Web(world), Web(world)]
        add_deployment(world, webs)
        carriers = Carriers(world, webs)
        channels = list(CHANNELS)
        first = chance.randrange(len(channels))
        people = [
            Person(
                world, carriers, sender, channels[(first + n) % len(channels)], ANSWERS, Habits(restarts=0.2)
            )
            for n, sender in enumerate(senders)
        ]
        People(world, people)
        WaitingStopOracle(world, senders)
        stage.judges.append(
            DelayOracle(
                world, stage.watcher, senders, fault_source.met, concerns=lambda event: event.may_be_stop
            ).judge
        )
        absent, since_s = chance.choice(KINDS), chance.choice(ABSENT_S)
        world.scheduler.at(
            world.scheduler.now_us + round(since_s * 1_000_000), lambda: self._freeze(stage, absent)
        )
        for person in people:
            person.say_later("START", chance.random())
            again_s = since_s + chance.random() * 20
            person.say_later(chance.choice(("START", "Ada")), again_s)
            person.say_later("STOP", again_s + chance.random() * chance.choice((0.01, 5)))
        return stage

    def _freeze(self, stage: Stage, kind: str) -> None:
        for process in stage.world.processes:
            if process.name.startswith(kind):
                process.freeze(self.storm_s * 1_000)


ABSENT_WORKERS = AbsentWorkersPlay()
