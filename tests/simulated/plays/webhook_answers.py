"""A few people text with a provider that takes replies in the answers to its webhooks, and can be asked for SMS."""

from collections.abc import Collection
from contextlib import closing
from random import Random

from tests.simulated.actors.people import Habits, People, Person
from tests.simulated.actors.status_callbacks import StatusCallbacks
from tests.simulated.actors.web import Carriers, Web
from tests.simulated.oracles.recorded_receipts import ReceiptOracle
from tests.simulated.oracles.waiting_stops import WaitingStopOracle
from tests.simulated.plays.deployments import add_deployment
from tests.simulated.plays.play import WITH_REPLICAS, EndingFaults, Stage, load_files
from tests.simulated.world.named_places import named_places_called
from tests.simulated.world.simulated_world import DeploymentFiles

SURVEY = """
survey: clinic
start: [START]
idle: 10m
cooldown: 0s
texts: {stopped: "No more from us."}
steps:
  - {id: hello, say: "Welcome."}
  - {id: name, ask: "What is your name?", answer: {type: text}}
  - {id: thanks, say: "Thank you."}
  - {id: age, ask: "How old are you?", answer: {type: number, min: 0, max: 150}, invalid: "Digits, please."}
  - {id: bye, say: "Goodbye.", next: end}
"""

ANSWERS = {"What is your name": "Ada", "How old": "36", "Digits": "36"}

CHANNEL = "answered"

CONFIG = f"""
[channels.{CHANNEL}]
number = "+33700000001"
surveys = ["clinic"]
limits = {{sessions_per_sender_per_day = 0, start_burst = 0, sms_per_second = 0, pause_s = 1}}
"""

STOPS_WHILE_ANSWERED_S = (0.0045, 0.0050, 0.0055, 0.0060)
"""How long after a START its answer is about to be given, if nothing goes wrong."""

PLACES = ("after_reserve", "before_entrust", "before_answer")

HABITS = Habits(writes_twice=0.2, wanders=0.1, stops=0.15, restarts=0.1, thinks_s=2.0)


def deployment_files(**environ: str) -> DeploymentFiles:
    return DeploymentFiles(CONFIG, {"clinic": SURVEY}, {"PARLEY_SHARDS": "2"} | environ)


def replicated_files() -> DeploymentFiles:
    return deployment_files(PARLEY_REPLICAS="1")


class WebhookAnswersPlay:
    """Two people, and two processes of each kind. Some people stop just after they have begun."""

    name = "answers"
    storm_s = 60
    left_out = ()
    kinds: Collection[str] = ()
    habits = HABITS
    files = staticmethod(deployment_files)

    def begin(self, fault_source: EndingFaults, seed: str) -> Stage:
        senders = [f"+3361200000{n}" for n in range(2)]
        stage = Stage(load_files(self.files), {CHANNEL: "look_up"}, senders, fault_source, seed)
        world = stage.world
        callbacks = StatusCallbacks(world, CHANNEL)
        webs = [Web(world, [CHANNEL]) for _ in range(2)]
        stage.around += [named_places_called(world.scheduler, PLACES), *map(closing, webs)]
        carriers = callbacks.carriers = Carriers(world, webs, callbacks.take_replies)
        add_deployment(world, webs)
        people = [Person(world, carriers, sender, CHANNEL, ANSWERS, self.habits) for sender in senders]
        People(world, people)
        WaitingStopOracle(world, senders)
        stage.judges.append(ReceiptOracle(world, stage.watcher, senders).judge)
        chance = Random(f"{seed} stops")
        for person in people:
            self.say(stage, person, chance)
        return stage

    def say(self, stage: Stage, person: Person, chance: Random) -> None:
        """Have somebody begin."""
        begins_s = stage.world.chance.random()
        person.say_later("START", begins_s)
        if chance.random() < 0.5:
            person.say_later("STOP", begins_s + chance.choice((*STOPS_WHILE_ANSWERED_S, 1.0)))


class ReplicatedAnswersPlay(WebhookAnswersPlay):
    """The same with PARLEY_REPLICAS."""

    name = "replicated-answers"
    kinds = WITH_REPLICAS
    files = staticmethod(replicated_files)


WEBHOOK_ANSWERS = WebhookAnswersPlay()
REPLICATED_ANSWERS = ReplicatedAnswersPlay()
