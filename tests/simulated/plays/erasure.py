"""Somebody is erased while they write, are written to or are invited; then copies of all that came from them come again."""

from collections.abc import Callable
from datetime import UTC, datetime

from tests.simulated.actors.inviters import Inviter, InvitingWeb
from tests.simulated.actors.operators import Operator
from tests.simulated.actors.people import People, Person
from tests.simulated.actors.web import Carriers
from tests.simulated.oracles.erasures import ErasureOracle
from tests.simulated.oracles.opt_outs import OptOutOracle
from tests.simulated.plays.conversation import ANSWERS, CHANNELS, deployment_files
from tests.simulated.plays.deployments import add_deployment
from tests.simulated.plays.play import FAILOVERS, WRONG_CLOCKS, EndingFaults, Stage, load_files
from tests.simulated.world.simulated_world import SimulatedWorld

COPIES_S = 40
"""When copies come of whatever has come."""


class ErasurePlay:
    """One is erased, another is not; two webs and workers of each kind, and an inviter."""

    name = "erasure"
    storm_s = 60
    left_out = FAILOVERS | WRONG_CLOCKS
    kinds = ()

    def begin(self, fault_source: EndingFaults, seed: str) -> Stage:
        senders = ["+33612000000", "+33612000001"]
        stage = Stage(load_files(deployment_files), dict(CHANNELS), senders, fault_source, seed)
        world, chance = stage.world, stage.world.chance
        webs = [InvitingWeb(world), InvitingWeb(world)]
        carriers = Carriers(world, list(webs))
        add_deployment(world, list(webs))
        channel = chance.choice(list(CHANNELS))
        erased, other = (Person(world, carriers, sender, channel, ANSWERS) for sender in senders)
        people = People(world, [erased, other])
        operator = Operator(world, "operator")
        stage.unfinished.append(lambda: operator.is_busy)
        stage.judges = [
            stage.conversations(senders[1:]).judge,
            ErasureOracle(world, stage.watcher, stage.letters, [operator]).judge,
            OptOutOracle(world, stage.watcher, senders, [operator]).judge,
        ]
        other.say_later("START", chance.uniform(0, 3))
        moments_s = [0.1]
        if chance.random() < 0.4:
            inviter = Inviter(world, webs, channel, "clinic")
            inviter.invite_later(
                erased.number, "r1", 0.1, sendAt=_in_seconds(world, chance.choice((0, 3, 45)))
            )
            inviter.invite_later(erased.number, "r1", 30)
        else:
            erased.say_later("START", 0.1)
        for text, after_s in (("Ada", 4), (chance.choice(("STOP", "36", "START")), 8)):
            if chance.random() < 0.6:
                moments_s.append(after_s)
                erased.say_later(text, after_s)
        at_s = chance.choice(moments_s) + chance.choice((0.02, 0.02, 1)) * chance.random()
        operator.type_later(operator.erase(erased.number), at_s)
        if chance.random() < 0.5:
            self._let_things_happen_between(stage, operator, erased, at_s)
        elif chance.random() < 0.7:
            self._at(world, at_s + chance.choice((-0.001, 0.004, 5)), lambda: people.leave(erased))
        if chance.random() < 0.2:
            operator.type_later(operator.erase(erased.number), 20)
        self._at(world, COPIES_S, lambda: _bring_again(world, carriers, erased.number))
        return stage

    def _let_things_happen_between(
        self, stage: Stage, operator: Operator, erased: Person, at_s: float
    ) -> None:
        """Have the command stand still somewhere, and the one that is erased write meanwhile, to workers or to nobody."""
        world, chance = stage.world, stage.world.chance
        stands = [operator.process]
        if chance.random() < 0.5:
            stands += [
                each for each in world.processes if each.name.startswith(("conversation", "ratelimit"))
            ]
        self._at(world, at_s + chance.uniform(0.0005, 0.003), lambda: [each.freeze(3_000) for each in stands])
        erased.say_later(chance.choice(("START", "STOP", "36")), at_s + chance.uniform(0.01, 2))

    @staticmethod
    def _at(world: SimulatedWorld, after_s: float, action: Callable[[], object]) -> None:
        world.scheduler.at(world.scheduler.now_us + round(after_s * 1_000_000), action)


def _in_seconds(world: SimulatedWorld, after_s: int) -> str:
    at_s = world.scheduler.now_us // 1_000_000 + after_s
    return datetime.fromtimestamp(at_s, UTC).isoformat()


def _bring_again(world: SimulatedWorld, carriers: Carriers, sender: str) -> None:
    """Bring a copy of each event that was acknowledged."""
    for event in {
        each.event.id: each.event for each in world.ledger.acceptances if each.sender == sender
    }.values():
        carriers.bring(sender, event)


ERASURE = ErasurePlay()
