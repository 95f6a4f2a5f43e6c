"""A release dies at every turn, for a while; then it is taken back. It buries nothing."""

from functools import partial

from greenlet import GreenletExit

from config.store import keyspace
from engine.surveys.survey_registry import SurveyRegistry
from tests.simulated.actors.people import People, Person
from tests.simulated.actors.roles import begin_clock, begin_delivery, begin_turns
from tests.simulated.actors.web import Carriers, Web
from tests.simulated.oracles.letters import LetterOracle
from tests.simulated.plays.conversation import ANSWERS, CHANNELS, deployment_files
from tests.simulated.plays.play import FAILOVERS, WRONG_CLOCKS, EndingFaults, LoadedFiles, Stage, load_files


class _DyingSurveys(SurveyRegistry):
    """Surveys that no turn can be made with: whoever takes them for one ends its process."""

    stage: Stage | None = None
    good_us: int = 0

    def snapshot(self) -> SurveyRegistry:
        assert self.stage is not None
        scheduler = self.stage.world.scheduler
        if scheduler.now_us >= self.good_us and scheduler.runs_actor:
            return super().snapshot()
        scheduler.current.process.die()
        raise GreenletExit


class BadReleasePlay:
    """Two people, whose events meet some fifteen dying processes each."""

    name = "bad_release"
    storm_s = 110
    left_out = FAILOVERS | WRONG_CLOCKS
    kinds = ()

    def begin(self, fault_source: EndingFaults, seed: str) -> Stage:
        senders = ["+33612000000", "+33612000001"]
        files = load_files(deployment_files)
        surveys = _DyingSurveys(filter(None, map(files.surveys.current, files.surveys.current_names())))
        stage = Stage(LoadedFiles(files.settings, surveys), dict(CHANNELS), senders, fault_source, seed)
        world, chance = stage.world, stage.world.chance
        surveys.stage = stage
        surveys.good_us = world.scheduler.now_us + round(chance.uniform(60, 100) * 1_000_000)
        web = Web(world)
        for name, begin in (
            ("web", web.begin),
            ("ratelimit", partial(begin_turns, world, keyspace.STARTS_QUEUE)),
            ("conversation", partial(begin_turns, world, keyspace.REPLIES_QUEUE)),
            ("delivery", partial(begin_delivery, world)),
            ("clock", partial(begin_clock, world)),
        ):
            world.add_process(name, begin)
        carriers = Carriers(world, [web])
        people = [
            Person(world, carriers, sender, chance.choice(list(CHANNELS)), ANSWERS) for sender in senders
        ]
        People(world, people)
        stage.judges.append(
            LetterOracle(world, stage.watcher, stage.letters, senders, fault_source.met.values()).judge
        )
        for person in people:
            person.say_later("START", chance.random() * 0.01)
        return stage


BAD_RELEASE = BadReleasePlay()
