"""The workers' release cannot read somebody's lane, for good or for a while, and they say STOP, or START. And what their provider
says of SMS comes twice."""

from collections.abc import Callable

from config.store import keyspace
from tests.simulated.actors.operators import Operator
from tests.simulated.actors.people import People, Person
from tests.simulated.actors.receipts import Receipts
from tests.simulated.actors.web import Carriers, Web
from tests.simulated.oracles.letters import LetterOracle
from tests.simulated.oracles.opt_outs import OptOutOracle
from tests.simulated.oracles.recorded_receipts import ReceiptOrderOracle
from tests.simulated.plays.conversation import ANSWERS, CHANNELS, deployment_files
from tests.simulated.plays.deployments import add_deployment
from tests.simulated.plays.play import FAILOVERS, WRONG_CLOCKS, EndingFaults, Stage, load_files
from tests.simulated.world.simulated_world import SimulatedWorld

_OF_A_LATER_RELEASE = b"\x95\x63"
"""How a state begins whose format is 99."""


class UnreadablePlay:
    """One person. Their lane is of a later release from some moment on, until that release comes back or for good."""

    name = "unreadable"
    storm_s = 60
    left_out = FAILOVERS | WRONG_CLOCKS
    kinds = ()

    def begin(self, fault_source: EndingFaults, seed: str) -> Stage:
        sender = "+33612000000"
        stage = Stage(load_files(deployment_files), dict(CHANNELS), [sender], fault_source, seed)
        world, chance = stage.world, stage.world.chance
        webs = [Web(world), Web(world)]
        add_deployment(world, webs)
        carriers = Carriers(world, webs)
        person = Person(world, carriers, sender, chance.choice(list(CHANNELS)), ANSWERS)
        People(world, [person])
        Receipts(world, carriers)
        operator = Operator(world, "operator")
        stage.unfinished.append(lambda: operator.is_busy)
        stage.judges += [
            ReceiptOrderOracle(stage.watcher, [sender]).judge,
            OptOutOracle(world, stage.watcher, [sender], [operator], ends_sessions=False).judge,
            LetterOracle(world, stage.watcher, stage.letters, [sender], fault_source.met.values()).judge,
        ]
        person.say_later("START", 0.1)
        if chance.random() < 0.7:
            self._at(world, chance.uniform(2, 6), lambda: _spoil(world, sender))
            word = "STOP" if chance.random() < 0.5 else "START"
            person.say_later(word, chance.uniform(5, 8))
            operator.type_later(operator.replay(sender), chance.uniform(8, 55))
            if word == "START" or chance.random() < 0.5:
                self._at(world, 30, lambda: _mend(world, sender))
                person.say_later("Ada", 45)
        return stage

    @staticmethod
    def _at(world: SimulatedWorld, after_s: float, action: Callable[[], object]) -> None:
        world.scheduler.at(world.scheduler.now_us + round(after_s * 1_000_000), action)


def _spoil(world: SimulatedWorld, sender: str) -> None:
    """Let a lane's state bear a later format."""
    _rewrite(world, sender, b"\x95\x01", _OF_A_LATER_RELEASE)


def _mend(world: SimulatedWorld, sender: str) -> None:
    """Let it bear ours again, once nobody has the lane who would write back what it was."""
    if world.lanes.view.exists(
        keyspace.lane_lock_key(keyspace.shard_of(sender, world.settings.shards), sender)
    ):
        world.scheduler.at(world.scheduler.now_us + 1_000_000, lambda: _mend(world, sender))
        return
    _rewrite(world, sender, _OF_A_LATER_RELEASE, b"\x95\x01")


def _rewrite(world: SimulatedWorld, sender: str, before: bytes, after: bytes) -> None:
    key = keyspace.lane_key(keyspace.shard_of(sender, world.settings.shards), sender)
    stored = world.lanes.view.string(key)
    if stored is None:
        return
    fence, deadline, state = stored.split(b" ", 2)
    if state.startswith(before):
        changed = b" ".join([fence, deadline, after + state[len(before) :]])
        model = world.lanes.model
        was_full, model.is_full = model.is_full, False
        model.execute(("SET", key, changed, "KEEPTTL"))
        model.is_full = was_full


UNREADABLE = UnreadablePlay()
