"""Inviters invite more people than may begin at once, use a reference twice, post again and cancel; some have opted out."""

from collections.abc import Collection
from datetime import UTC, datetime
from functools import partial

from engine.model.events import derive_session_id
from tests.simulated.actors.inviters import Inviter, InvitingWeb
from tests.simulated.actors.operators import Operator
from tests.simulated.actors.people import People, Person
from tests.simulated.actors.web import Carriers
from tests.simulated.oracles.campaigns import CampaignOracle
from tests.simulated.oracles.invitations import InvitationOracle
from tests.simulated.oracles.limits import LimitOracle
from tests.simulated.oracles.opt_outs import OptOutOracle
from tests.simulated.plays.conversation import ANSWERS, SURVEY
from tests.simulated.plays.deployments import add_deployment
from tests.simulated.plays.play import (
    FAILOVERS,
    WITH_REPLICAS,
    WRONG_CLOCKS,
    EndingFaults,
    Stage,
    load_files,
)
from tests.simulated.world.simulated_world import DeploymentFiles

CHANNEL = "repeats"

SPRING = "spring"

LATE_S = 8
"""After so long nobody is invited any more."""

_CONFIG = """
[channels.repeats]
number = "+33700000001"
surveys = ["clinic"]
limits = {sessions_per_sender_per_day = 0, start_burst = 0, sms_per_second = 4, pause_s = 0, %s}
"""


def _files(limit: str, replicas: int) -> DeploymentFiles:
    environ = {"PARLEY_SHARDS": "2", "PARLEY_REPLICAS": str(replicas)}
    return DeploymentFiles(_CONFIG % limit, {"clinic": SURVEY}, environ)


class CampaignPlay:
    """Five people, one of whom an operator has opted out before; a channel with a limit by the minute, or by the day. With
    `replicas`, what inviters and the operator are told holds though a server fails over."""

    storm_s = 40

    def __init__(
        self, name: str, kinds: Collection[str] = (), left_out: Collection[str] = (), replicas: int = 0
    ) -> None:
        self.name = name
        self.kinds = kinds
        self.left_out = left_out
        self._minute_files = partial(_files, "new_sessions_per_minute = 3", replicas)
        self._day_files = partial(_files, "sms_per_day = 3", replicas)

    def begin(self, fault_source: EndingFaults, seed: str) -> Stage:
        senders = [f"+3361200000{n}" for n in range(5)]
        by_day = seed.endswith(("0", "2", "4"))
        files = load_files(self._day_files if by_day else self._minute_files)
        stage = Stage(files, {CHANNEL: "repeat"}, senders, fault_source, seed)
        world, chance = stage.world, stage.world.chance
        webs = [InvitingWeb(world), InvitingWeb(world)]
        carriers = Carriers(world, list(webs))
        add_deployment(world, list(webs))
        answers = {} if by_day else ANSWERS
        people = [Person(world, carriers, sender, CHANNEL, answers) for sender in senders]
        People(world, people)
        operator = Operator(world, "operator")
        stage.unfinished.append(lambda: operator.is_busy)
        blocked = senders[4]
        operator.type_later(operator.add_opt_out(blocked, CHANNEL), 0)
        channel = world.settings.channels[CHANNEL]
        sessions = [derive_session_id(CHANNEL, f"r{n}") for n in range(len(senders))]
        stage.judges += [
            InvitationOracle(world, stage.watcher, stage.letters, senders, [operator]).judge,
            OptOutOracle(world, stage.watcher, senders, [operator]).judge,
            CampaignOracle(world, stage.watcher, stage.letters, senders, SPRING, sessions).judge,
        ]
        if not world.settings.replicas:  # tokens are not acknowledged, so a failover may take them back
            limits = LimitOracle(world, stage.watcher, senders, channel, fault_source.met.values())
            stage.judges.append(limits.judge)
        inviter = Inviter(world, webs, CHANNEL, "clinic")
        for n, sender in enumerate(senders):
            at_s = 1 + chance.random() * 0.02
            wanted = _moments(world.scheduler.now_us, chance.choice((0, 0, 3)))
            inviter.invite_later(sender, f"r{n}", at_s, **wanted)
            if chance.random() < 0.4:
                inviter.invite_later(
                    senders[chance.randrange(4)],
                    f"r{n}",
                    at_s + chance.choice((0.003, 2, 20)) * chance.random(),
                    **wanted,
                )
            if chance.random() < 0.4:
                session = sessions[n]
                cancelled_s = at_s + chance.choice((0.01, 3.01, 10)) * chance.random()
                inviter.cancel_later(session, cancelled_s)
                if chance.random() < 0.5:
                    inviter.invite_later(sender, f"r{n}", cancelled_s + chance.choice((0.005, 1)), **wanted)
        if chance.random() < 0.5:
            world.scheduler.at(world.scheduler.now_us + 900_000, lambda: self._freeze_workers(stage))
        return stage

    @staticmethod
    def _freeze_workers(stage: Stage) -> None:
        """Let nobody see for a while what is released."""
        for process in stage.world.processes:
            if process.name.startswith("ratelimit"):
                process.freeze(5_000)


def _moments(now_us: int, after_s: int) -> dict[str, str]:
    """When an invitation is wanted, in so many seconds or at once, and when no longer: the pacer looks for one again and again that
    is due, and may not go. All belong to one campaign."""
    said = {"sendAt": after_s} if after_s else {}
    return {"campaign": SPRING} | {
        name: datetime.fromtimestamp(now_us // 1_000_000 + seconds, UTC).isoformat()
        for name, seconds in {**said, "expiryTime": LATE_S}.items()
    }


CAMPAIGN = CampaignPlay("campaign", left_out=FAILOVERS | WRONG_CLOCKS)
REPLICATED_CAMPAIGN = CampaignPlay("replicated-campaign", WITH_REPLICAS, replicas=1)
