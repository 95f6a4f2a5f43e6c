"""A play: a deployment, people, and what they do, from a seed. A run of it is a storm of faults, then calm until nothing waits
any more, then judgement."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import cache
from typing import Protocol

import msgspec

from config.settings.settings import Settings
from config.store import keyspace
from engine.providers import Recourse
from engine.surveys.survey_registry import SurveyRegistry
from tests.simulated.oracles.conversations import ConversationOracle
from tests.simulated.oracles.leftovers import LeftoverOracle
from tests.simulated.oracles.letter_watcher import LetterWatcher
from tests.simulated.oracles.moments.lane_leases import LaneLeaseOracle
from tests.simulated.oracles.stream_watcher import StreamWatcher
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.oracles.waiting import AlarmOracle
from tests.simulated.world import faults
from tests.simulated.world.faults import Fault, Place
from tests.simulated.world.scheduler import FaultSource
from tests.simulated.world.simulated_world import DeploymentFiles, SimulatedWorld

CALM_S = 6 * 3_600
"""How long everything may take to come to rest once nothing fails any more: an SMS is tried for three hours."""


LATEST_COPY_S = 4 * 86_400
"""How late a carrier may bring a copy."""


class EndingFaults(FaultSource, Protocol):
    met: Mapping[Place, Fault]

    def end(self) -> None:
        """No fault meets any call from now on."""
        ...


class Stage:
    """A play under way: its world, and who judges it. `begin` brings people and processes in. It is not at rest while one of
    `unfinished` says that there is something to do; `around` are entered for as long as actors run; `calming`
    are called when nothing fails any more."""

    def __init__(
        self,
        files: "LoadedFiles",
        recourses: dict[str, Recourse],
        senders: Sequence[str],
        fault_source: EndingFaults,
        seed: str,
    ) -> None:
        self.world = SimulatedWorld(files.settings, files.surveys, recourses, fault_source, seed)
        self.senders = senders
        self.watcher = StreamWatcher(self.world)
        self.letters = LetterWatcher(self.world)
        self.alarms = AlarmOracle(self.world, senders)
        self.lane_leases = LaneLeaseOracle(self.world, senders)
        self.unfinished: list[Callable[[], bool]] = []
        self.calming: list[Callable[[], None]] = []
        self.around: list[AbstractContextManager[object]] = []
        self._met = fault_source.met
        self.judges: list[Callable[[], None]] = [self.conversations(senders).judge]

    def conversations(self, senders: Sequence[str]) -> ConversationOracle:
        """Return who judges the conversations of these people."""
        return ConversationOracle(self.world, self.watcher, self.letters, senders, self._met)

    def waits_for_carriers(self) -> bool:
        """Whether a carrier will bring a copy of something days later."""
        return bool(self.world.outside.actors) and not self.world.scheduler.crashes

    def is_at_rest(self) -> bool:
        """Whether nothing waits: no mail, no SMS, no lane with an alarm, no carrier under way."""
        view, shards = self.world.lanes.view, self.world.settings.shards
        if self.world.outside.actors or any(is_unfinished() for is_unfinished in self.unfinished):
            return False
        for k in range(shards):
            if view.exists(keyspace.lane_alarms_key(k)) or view.exists(keyspace.outbox_alarms_key(k)):
                return False
        return self.world.next_invitation_us() is None

    def calm(self) -> None:
        """Let nothing fail any more."""
        self.world.calm()
        for calm in self.calming:
            calm()


class LoadedFiles(msgspec.Struct, frozen=True):
    settings: Settings
    surveys: SurveyRegistry


class Play(Protocol):
    """`begin` makes a stage; the storm is over after `storm_s`. `kinds` are the faults that it is about; empty: any, but for those
    `left_out`, under which its judges would not know what is promised."""

    name: str
    storm_s: int
    kinds: Collection[str]
    left_out: Collection[str]

    def begin(self, fault_source: EndingFaults, seed: str) -> Stage: ...


def perform(
    play: Play, fault_source: EndingFaults, seed: str, trace: Callable[[str], None] | None = None
) -> Stage:
    """Perform a play to its end, and tell `trace` of each call. Raises PromiseBroken."""
    stage = play.begin(fault_source, seed)
    scheduler = stage.world.scheduler
    scheduler.trace = trace
    with ExitStack() as around:
        for each in stage.around:
            around.enter_context(each)
        around.callback(scheduler.close)
        scheduler.run_until(scheduler.now_us + play.storm_s * 1_000_000)
        fault_source.end()
        stage.calm()
        scheduler.run_until(scheduler.now_us + CALM_S * 1_000_000, stage.is_at_rest)
        if stage.waits_for_carriers():
            scheduler.run_until(scheduler.now_us + LATEST_COPY_S * 1_000_000, stage.is_at_rest)
        if scheduler.crashes:
            raise PromiseBroken("no_crash", scheduler.crashes[0])
        if not stage.is_at_rest():
            raise PromiseBroken("comes_to_rest", "something waits still, hours after the last fault")
        for judge in stage.judges:
            judge()
        LeftoverOracle(stage.world).judge()
    return stage


FAILOVERS = frozenset(fault.kind for fault in faults.FAILOVER)
WITH_REPLICAS = (
    *sorted(FAILOVERS), "lag", "hang", "lose_reply", "late", "die_after", "oversleep_after", "unknown_taken", "repeat"
)  # fmt: skip
"""Faults in which PARLEY_REPLICAS is to keep what it promises."""
IN_A_CLUSTER = (
    *sorted({fault.kind for fault in faults.CLUSTER}), "lose_reply", "late", "die_after", "oversleep_after",
    "unknown_taken", "repeat",
)  # fmt: skip
"""Faults of a cluster's nodes, and those beside which they are to change nothing."""
WRONG_CLOCKS = frozenset(fault.kind for fault in faults.CLOCK)


@cache
def load_files(make: Callable[[], DeploymentFiles]) -> LoadedFiles:
    return LoadedFiles(*make().load())
