"""The server's clock is set while something waits that must not go, or that must come back."""

from tests.simulated.actors.people import Habits, People, Person
from tests.simulated.actors.web import Carriers, Web
from tests.simulated.oracles.moments.refused_starts import RefusedStartOracle
from tests.simulated.plays.conversation import ConversationPlay
from tests.simulated.plays.deployments import add_deployment
from tests.simulated.plays.play import EndingFaults, Stage, load_files
from tests.simulated.world.simulated_world import DeploymentFiles

BEGINS_S = 20.0
"""By then every process has looked at the clock."""

AHEAD_US = 10 * 86_400_000_000
"""Longer than anything is kept that has an end, of whoever is still there."""

HOUR_US = 3_600_000_000


class DaysAheadPlay(ConversationPlay):
    """Three people, and a clock that is ahead for some seconds, by days. No webhook comes twice: that an event is remembered has an
    end, and the clock comes to it."""

    def __init__(self) -> None:
        super().__init__(
            "days-ahead", people=3, workers=1, habits=Habits(chats=1), storm_s=90, begins_s=BEGINS_S,
            kinds=("unknown_taken", "unknown_lost", "unavailable", "delay"),
        )  # fmt: skip

    def begin(self, fault_source: EndingFaults, seed: str) -> Stage:
        stage = super().begin(fault_source, seed)
        scheduler, lanes, chance = stage.world.scheduler, stage.world.lanes, stage.world.chance
        ahead_us = scheduler.now_us + round(chance.uniform(BEGINS_S + 0.9, BEGINS_S + 12) * 1_000_000)
        right_us = ahead_us + round(chance.uniform(4, 25) * 1_000_000)
        scheduler.at(ahead_us, lambda: lanes.set_clock(AHEAD_US))
        scheduler.at(right_us, lambda: lanes.set_clock(0))
        return stage


CHANNEL = "repeats"

NEW_SESSIONS_A_MINUTE = 3

_SURVEY = """
survey: clinic
start: [START]
idle: 10m
cooldown: 0s
again: restart
steps:
  - {id: name, ask: "What is your name?", answer: {type: text}}
"""

_CONFIG = f"""
[channels.{CHANNEL}]
number = "+33700000001"
surveys = ["clinic"]
limits = {{sessions_per_sender_per_day = 0, start_burst = 0, new_sessions_per_minute = {NEW_SESSIONS_A_MINUTE}, pause_s = 0}}
"""


def _files() -> DeploymentFiles:
    return DeploymentFiles(_CONFIG, {"clinic": _SURVEY}, {"PARLEY_SHARDS": "2"})


class RefillingPlay:
    """A crowd of STARTs, the clock is set back by an hour, and more of them come, for minutes."""

    name = "refilling"
    storm_s = 150
    left_out = ()
    kinds = ("step_clock", "delay")

    def begin(self, fault_source: EndingFaults, seed: str) -> Stage:
        senders = [f"+3361200000{n}" for n in range(6)]
        stage = Stage(load_files(_files), {CHANNEL: "repeat"}, senders, fault_source, seed)
        world, chance = stage.world, stage.world.chance
        webs = [Web(world)]
        carriers = Carriers(world, webs)
        add_deployment(world, webs)
        people = [Person(world, carriers, sender, CHANNEL, {"What": "Ada"}) for sender in senders]
        People(world, people)
        stage.judges.append(RefusedStartOracle(world, stage.watcher, senders, NEW_SESSIONS_A_MINUTE).judge)
        for person in people:
            person.say_later("START", BEGINS_S + chance.random())
            for _ in range(3):
                person.say_later("START", chance.uniform(BEGINS_S + 12, self.storm_s))
        back_us = world.scheduler.now_us + round(chance.uniform(BEGINS_S + 1, BEGINS_S + 10) * 1_000_000)
        world.scheduler.at(back_us, lambda: world.lanes.set_clock(world.lanes.clock_ahead_us - HOUR_US))
        return stage


DAYS_AHEAD, REFILLING = DaysAheadPlay(), RefillingPlay()
