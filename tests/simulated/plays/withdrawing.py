"""Somebody says STOP while an SMS to them is tried again and again: what it had to wait for is nothing to what follows it."""

from random import Random

from engine.providers import Recourse, RetryLater
from tests.simulated.actors.people import People, Person
from tests.simulated.actors.web import Carriers, Web
from tests.simulated.oracles.delays import DelayOracle
from tests.simulated.plays.conversation import CHANNELS, STOPPED, deployment_files
from tests.simulated.plays.deployments import add_deployment
from tests.simulated.plays.play import EndingFaults, Stage, load_files
from tests.simulated.world.simulated_provider import Trouble

RECOURSES: tuple[Recourse, ...] = ("repeat", "look_up", "none")

CHANNEL = "repeats"


class WithdrawingPlay:
    """A provider takes nothing but the confirmation, and says so after a while."""

    name = "withdrawing"
    storm_s = 150
    left_out = ()
    kinds = ()

    def begin(self, fault_source: EndingFaults, seed: str) -> Stage:
        chance = Random(f"withdrawing {seed}")
        sender = "+33612000000"
        recourses = dict(CHANNELS) | {CHANNEL: chance.choice(RECOURSES)}
        stage = Stage(load_files(deployment_files), recourses, [sender], fault_source, seed)
        world = stage.world
        webs = [Web(world), Web(world)]
        add_deployment(world, webs)
        person = Person(world, Carriers(world, webs), sender, CHANNEL, {})
        People(world, [person])
        not_now = Trouble(
            RetryLater("429", "not this one now", this_sms_only=True), chance.choice((0, 4_000, 8_000))
        )
        world.providers[CHANNEL].trouble = lambda sms: None if sms.text == STOPPED else not_now
        stage.judges.append(
            DelayOracle(world, stage.watcher, [sender], fault_source.met, texts=(STOPPED,)).judge
        )
        person.say_later("START", 0.1)
        person.say_later("STOP", chance.uniform(1, 120))
        return stage


WITHDRAWING = WithdrawingPlay()
