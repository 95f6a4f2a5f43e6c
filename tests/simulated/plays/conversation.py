"""A few people answer a survey by SMS, on channels whose providers know repeats, can be asked, or neither."""

from collections.abc import Callable, Collection

from tests.simulated.actors.people import Habits, People, Person
from tests.simulated.actors.web import Carriers, Web
from tests.simulated.oracles.delays import DelayOracle
from tests.simulated.oracles.doubts import DoubtOracle
from tests.simulated.oracles.sessions import SessionOracle
from tests.simulated.oracles.waiting_stops import WaitingStopOracle
from tests.simulated.plays.deployments import add_deployment
from tests.simulated.plays.play import (
    FAILOVERS,
    IN_A_CLUSTER,
    WITH_REPLICAS,
    WRONG_CLOCKS,
    EndingFaults,
    Stage,
    load_files,
)
from tests.simulated.world.simulated_world import DeploymentFiles

SURVEY = """
survey: clinic
start: [START]
idle: 10m
cooldown: 0s
texts: {stopped: "No more from us."}
steps:
  - {id: welcome, say: "Welcome."}
  - {id: name, ask: "What is your name?", answer: {type: text}}
  - {id: age, ask: "How old are you, {name}?", answer: {type: number, min: 0, max: 150}, invalid: "Digits, please."}
  - {id: bye, say: "Goodbye, {name}.", next: end}
"""

STOPPED = "No more from us."
"""What the survey says to who texts STOP."""

IDLE_US = 600_000_000

ANSWERS = {"What is your name": "Ada", "How old": "36", "Digits": "36"}

_CHANNEL = """
[channels.{name}]
number = "+3370000000{digit}"
surveys = ["clinic"]
limits = {{sessions_per_sender_per_day = 0, start_burst = 0, sms_per_second = 0, pause_s = 2}}
"""

CHANNELS = {"repeats": "repeat", "listed": "look_up", "blind": "none"}


def deployment_files(**environ: str) -> DeploymentFiles:
    config = "".join(_CHANNEL.format(name=name, digit=digit) for digit, name in enumerate(CHANNELS, start=1))
    return DeploymentFiles(config, {"clinic": SURVEY}, {"PARLEY_SHARDS": "2"} | environ)


def replicated_files() -> DeploymentFiles:
    return deployment_files(PARLEY_REPLICAS="1")


def clustered_files() -> DeploymentFiles:
    return deployment_files(PARLEY_REDIS_URL="redis+cluster://one,two", PARLEY_BROKER_URL="redis://broker")


def beside_files() -> DeploymentFiles:
    return deployment_files(PARLEY_BROKER_URL="redis://lanes/0")


class ConversationPlay:
    """So many people, each on the channel whose turn it is, who begin `begins_s` after the workers of each kind."""

    def __init__(
        self,
        name: str,
        people: int,
        workers: int,
        habits: Habits,
        storm_s: int = 60,
        kinds: Collection[str] = (),
        begins_s: float = 0.0,
        files: Callable[[], DeploymentFiles] = deployment_files,
    ) -> None:
        self.name = name
        self.storm_s = storm_s
        self.left_out = ()
        self.kinds = kinds
        self._begins_s = begins_s
        self._files = files
        self._people = people
        self._workers = workers
        self._habits = habits

    def begin(self, fault_source: EndingFaults, seed: str) -> Stage:
        senders = [f"+3361200000{n}" for n in range(self._people)]
        stage = Stage(load_files(self._files), dict(CHANNELS), senders, fault_source, seed)
        world = stage.world
        WaitingStopOracle(world, senders)
        webs = [Web(world) for _ in range(self._workers)]
        carriers = Carriers(world, webs)
        add_deployment(world, webs)
        channels = list(CHANNELS)
        first = world.chance.randrange(len(channels))
        people = [
            Person(world, carriers, sender, channels[(first + n) % len(channels)], ANSWERS, self._habits)
            for n, sender in enumerate(senders)
        ]
        People(world, people)
        stage.judges += [
            stage.conversations(senders).judge_blame,
            SessionOracle(world, stage.watcher, senders, IDLE_US).judge,
            DelayOracle(world, stage.watcher, senders, fault_source.met).judge,
            DoubtOracle(world, stage.watcher, senders).judge,
        ]
        for person in people:
            person.begin(self._begins_s)
        return stage


LONE_CONVERSATION = ConversationPlay("lone", people=1, workers=1, habits=Habits())
DOUBTFUL = ConversationPlay(
    "doubtful", people=1, workers=2, habits=Habits(writes_twice=0.3, wanders=0.2, restarts=0.1, chats=8)
)
STOPPING = ConversationPlay("stopping", people=1, workers=2, habits=Habits(stops=0.6, restarts=0.3, chats=2))
CROWD = ConversationPlay(
    "crowd", people=3, workers=2,
    habits=Habits(writes_twice=0.2, wanders=0.1, stops=0.1, restarts=0.1),
)  # fmt: skip
FAILING_OVER = ConversationPlay(
    "failing-over", people=1, workers=2, habits=Habits(writes_twice=0.2, chats=5),
    kinds=(*FAILOVERS, "step_clock", "die_after", "oversleep_after", "lose_reply", "late"),
)  # fmt: skip
"""A server that loses its tail, and whose clock is set besides."""
REPLICATED = ConversationPlay(
    "replicated", people=1, workers=2, habits=Habits(writes_twice=0.2, wanders=0.1, stops=0.2, restarts=0.2, chats=5),
    kinds=WITH_REPLICAS,
    files=replicated_files,
)  # fmt: skip
"""The same with PARLEY_REPLICAS: what is acknowledged, and what decided an SMS that leaves, is not lost."""
CLUSTERED = ConversationPlay(
    "clustered", people=3, workers=2, habits=Habits(writes_twice=0.2, wanders=0.1, stops=0.1, restarts=0.2, chats=2),
    kinds=IN_A_CLUSTER,
    files=clustered_files,
)  # fmt: skip
"""Half of what people and channels have is on a node that is away now and then, while the other goes on."""
WRONG_CLOCK = ConversationPlay(
    "wrong-clock", people=1, workers=1, habits=Habits(chats=4), storm_s=90, begins_s=20,
    kinds=(*WRONG_CLOCKS, "die_before", "die_after", "freeze_after", "unavailable", "unknown_taken", "account"),
)  # fmt: skip
TALKATIVE = ConversationPlay(
    "talkative", people=1, workers=1, habits=Habits(chats=140), kinds=("repeat", "lose_reply", "die_after"),
)  # fmt: skip
"""Somebody writes more than a lane remembers, and copies come late."""
UNCERTAIN = ConversationPlay(
    "uncertain", people=1, workers=2, habits=Habits(chats=3),
    kinds=(
        "unknown_taken", "unknown_lost", "taken_late", "unavailable", "account", "lose_reply", "late",
        "die_before", "die_after", "freeze_before", "freeze_after", "oversleep_before", "oversleep_after",
    ),
)  # fmt: skip
"""Tries of which nobody knows what came of them."""
RINGING = ConversationPlay(
    "ringing", people=3, workers=2, habits=Habits(writes_twice=0.2, wanders=0.1, stops=0.1, restarts=0.1),
    files=beside_files,
)  # fmt: skip
"""The wake-ups are on the lanes' server, whose functions ring there."""
