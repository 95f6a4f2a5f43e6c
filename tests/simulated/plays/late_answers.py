"""People think for about as long as a session waits for them, and workers are away meanwhile."""

from tests.simulated.actors.people import Habits, People, Person
from tests.simulated.actors.web import Carriers, Web
from tests.simulated.oracles.moments.silences import SilenceOracle
from tests.simulated.plays.deployments import add_deployment
from tests.simulated.plays.play import EndingFaults, Stage, load_files
from tests.simulated.world.simulated_world import DeploymentFiles

CHANNEL = "repeats"

IDLE_MS = 30_000

_SURVEY = """
survey: clinic
start: [START]
idle: 30s
cooldown: 0s
steps:
  - {id: name, ask: "What is your name?", answer: {type: text}}
  - {id: town, ask: "Where do you live?", answer: {type: text}}
  - {id: age, ask: "How old are you?", answer: {type: number, min: 0, max: 150}}
"""

_CONFIG = f"""
[channels.{CHANNEL}]
number = "+33700000001"
surveys = ["clinic"]
limits = {{sessions_per_sender_per_day = 0, start_burst = 0, sms_per_second = 0, pause_s = 0}}
"""

_ANSWERS = {"What is": "Ada", "Where": "Paris", "How old": "36"}


def _files() -> DeploymentFiles:
    return DeploymentFiles(_CONFIG, {"clinic": _SURVEY}, {"PARLEY_SHARDS": "2"})


class LateAnswersPlay:
    """Two people, and workers that stand still for some seconds, all at once."""

    name = "late-answers"
    storm_s = 180
    left_out = ()
    kinds = (
        "die_before", "die_after", "freeze_before", "freeze_after", "oversleep_before", "oversleep_after", "delay",
        "lose_request", "lose_reply", "late", "hang", "restart", "refuse",
    )  # fmt: skip

    def begin(self, fault_source: EndingFaults, seed: str) -> Stage:
        senders = [f"+3361200000{n}" for n in range(2)]
        stage = Stage(load_files(_files), {CHANNEL: "repeat"}, senders, fault_source, seed)
        world, chance = stage.world, stage.world.chance
        webs = [Web(world)]
        carriers = Carriers(world, webs)
        add_deployment(world, webs)
        habits = Habits(thinks_s=2 * IDLE_MS / 1_000)
        people = [Person(world, carriers, sender, CHANNEL, _ANSWERS, habits) for sender in senders]
        People(world, people)
        stage.judges.append(SilenceOracle(stage.watcher, senders, IDLE_MS).judge)

        def stand_still(ms: int) -> None:
            for process in world.processes:
                if process.name.startswith("conversation"):
                    process.freeze(ms)

        for person in people:
            for at_s in (0, 60, 120):
                person.say_later("START", at_s + chance.random())
        for at_s in (20, 80, 140):
            at_us = world.scheduler.now_us + round((at_s + chance.uniform(0, 20)) * 1_000_000)
            world.scheduler.at(at_us, lambda: stand_still(20_000))
        return stage


LATE_ANSWERS = LateAnswersPlay()
