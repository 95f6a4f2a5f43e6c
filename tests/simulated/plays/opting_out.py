"""Somebody says STOP and START while operators take them out of the list of opt-outs, and put them in."""

from tests.simulated.actors.operators import Operator
from tests.simulated.actors.people import People, Person
from tests.simulated.actors.web import Carriers, Web
from tests.simulated.oracles.opt_outs import OptOutOracle
from tests.simulated.plays.conversation import ANSWERS, CHANNELS, deployment_files
from tests.simulated.plays.deployments import add_deployment
from tests.simulated.plays.play import FAILOVERS, WRONG_CLOCKS, EndingFaults, Stage, load_files


class OptingOutPlay:
    """One person and one operator, often at one moment."""

    name = "opting_out"
    storm_s = 30
    left_out = FAILOVERS | WRONG_CLOCKS
    kinds = ()

    def begin(self, fault_source: EndingFaults, seed: str) -> Stage:
        sender = "+33612000000"
        stage = Stage(load_files(deployment_files), dict(CHANNELS), [sender], fault_source, seed)
        world, chance = stage.world, stage.world.chance
        webs = [Web(world), Web(world)]
        add_deployment(world, webs)
        person = Person(world, Carriers(world, webs), sender, chance.choice(list(CHANNELS)), ANSWERS)
        People(world, [person])
        operator = Operator(world, "operator")
        stage.unfinished.append(lambda: operator.is_busy)
        stage.judges.append(OptOutOracle(world, stage.watcher, [sender], [operator]).judge)
        moments_s = []
        for text, at_s in (
            ("START", 0.1),
            ("STOP", 4),
            ("START", 8),
            ("hm", 8.002),
            ("STOP", 14),
            ("hm", 16),
        ):
            if chance.random() < 0.7:
                person.say_later(text, at_s)
                moments_s.append(at_s)
        for _ in range(2):
            command = chance.choice((operator.add_opt_out, operator.remove_opt_out))
            moment_s = chance.choice(moments_s or [1.0])
            at_s = moment_s + chance.choice((0.004, 3)) * chance.random()
            if chance.random() < 0.6:
                self._hold_workers(stage, moment_s + chance.uniform(0.0006, 0.0018))
                at_s = moment_s + 1
            operator.type_later(command(sender, person.channel), at_s)
        return stage

    @staticmethod
    def _hold_workers(stage: Stage, after_s: float) -> None:
        """Let workers stand still from some moment of a turn on, for less than a lease."""

        def freeze() -> None:
            for process in stage.world.processes:
                if process.name.startswith(("conversation", "ratelimit")):
                    process.freeze(3_000)

        scheduler = stage.world.scheduler
        scheduler.at(scheduler.now_us + round(after_s * 1_000_000), freeze)


OPTING_OUT = OptingOutPlay()
