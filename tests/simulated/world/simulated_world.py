"""A deployment and everything around it, in one process and in virtual time."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from zlib import crc32

import msgspec
import redis

from config.settings.settings import Settings
from config.settings.startup_check import load_settings_and_surveys
from config.store import keyspace, redis_client
from engine.model.events import OutboundSms
from engine.providers import Recourse
from engine.surveys.survey_registry import SurveyRegistry
from tests.simulated.world import faults
from tests.simulated.world.ledger import Ledger
from tests.simulated.world.machine import simulated_host
from tests.simulated.world.scheduler import FaultSource, Process, Scheduler
from tests.simulated.world.simulated_provider import SimulatedProvider, SimulatedProviderClient
from tests.simulated.world.simulated_redis import SimulatedRedis, SimulatedServer
from workers.store.clock_difference import MAX_DIFFERENCE_MS
from workers.store.deployment import Deployment
from workers.store.survey_versions import publish_current

FIRST_LOOK_US = 15_000_000
"""By then a process has looked at the server's clock, even if that hangs."""


class DeploymentFiles:
    """What a deployment is configured with: parley.toml, and surveys by name."""

    def __init__(
        self, config: str, surveys: Mapping[str, str], environ: Mapping[str, str] | None = None
    ) -> None:
        self._config = config
        self._surveys = surveys
        self._environ = environ or {}

    def load(self) -> tuple[Settings, SurveyRegistry]:
        with TemporaryDirectory() as folder:
            surveys = Path(folder) / "surveys"
            surveys.mkdir()
            for name, text in self._surveys.items():
                (surveys / f"{name}.yaml").write_text(text)
            (Path(folder) / "parley.toml").write_text(self._config)
            return load_settings_and_surveys(
                {
                    "PARLEY_CONFIG": f"{folder}/parley.toml",
                    "PARLEY_SURVEYS": str(surveys),
                    "PARLEY_REDIS_URL": "redis://lanes/0",
                    "PARLEY_BROKER_URL": "redis://broker/0",
                    "PARLEY_OPTOUT_KEY": "0" * 64,
                    **self._environ,
                }
            )


class SimulatedWorld:
    """Servers, providers, processes and the ledger of one run."""

    def __init__(
        self,
        settings: Settings,
        surveys: SurveyRegistry,
        recourses: Mapping[str, Recourse],
        fault_source: FaultSource,
        seed: str,
    ) -> None:
        self.seed = seed
        self.chance = Random(seed)
        self.settings = settings
        self.surveys = surveys
        self.scheduler = Scheduler(fault_source)
        self.ledger = Ledger()
        followed = faults.REPLICATION if settings.replicas else ()
        parted = faults.CLUSTER if "+cluster" in settings.redis_url else ()
        self.lanes = SimulatedServer(
            self.scheduler,
            "lanes",
            (*faults.NETWORK, *faults.SERVER, *faults.FAILOVER, *faults.CLOCK, *followed, *parted),
        )
        self.lanes.model.replicas = settings.replicas
        is_beside = settings.bells_database != ""
        self.broker = self.lanes if is_beside else SimulatedServer(self.scheduler, "broker", seed=1)
        self.lanes.losing.append(self._note_loss)
        self.lanes.stepped = self._note_step
        self.hear: Callable[[OutboundSms], None] = lambda sms: None
        self.providers = {
            name: SimulatedProvider(
                self.scheduler, name, recourse, self.ledger, lambda: self.lanes.model.changes, self._deliver
            )
            for name, recourse in recourses.items()
        }
        self.processes: list[Process] = []
        self.began_while_clock_was_wrong = False
        """Whether a process has begun that cannot know which clock is wrong."""
        self.clock_was_behind = False
        """Whether the server's clock was ever behind by so much that it was wrong."""
        shards = range(settings.shards)
        self._alarms = _SoonestScore(
            self.lanes,
            [key(k) for k in shards for key in (keyspace.lane_alarms_key, keyspace.outbox_alarms_key)],
        )
        self._invitations = _SoonestScore(
            self.lanes, [keyspace.held_ids_key(k, name) for k in shards for name in settings.channels]
        )
        self.outside = Process(self.scheduler, "world", lambda process: None, outside=True)
        self.outside.start()
        for server in (self.lanes, self.broker):
            redis_client.load_functions(SimulatedRedis(server))
        publish_current(SimulatedRedis(self.lanes), surveys)

    @property
    def has_lost_promised(self) -> bool:
        """Whether a failover may have taken back what was acknowledged, or what decided an SMS that left: not with
        PARLEY_REPLICAS."""
        return self.lanes.has_lost and not self.settings.replicas

    @property
    def server_clock_is_wrong(self) -> bool:
        return abs(self.lanes.clock_ahead_us) > MAX_DIFFERENCE_MS * 1_000

    def add_process(self, name: str, begin: Callable[[Process], None]) -> Process:
        process = Process(self.scheduler, name, begin)
        self.processes.append(process)
        process.start()
        return process

    def deployment(self, process: Process) -> Deployment:
        """The deployment, as one life of a process has it. About half of the processes write compact records."""
        self.began_while_clock_was_wrong |= self.server_clock_is_wrong
        compacts = crc32(f"{self.seed} {process.name}".encode()) % 2 == 1
        return Deployment(
            msgspec.structs.replace(self.settings, compact_records=compacts),
            SimulatedRedis(self.lanes),
            SimulatedRedis(self.broker),
            self.surveys,
            simulated_host(process, self.seed),
        )

    def onlooker(self) -> redis.Redis:
        """A client that costs no time and that nothing happens to, for who looks on while nobody runs."""
        return SimulatedRedis(self.lanes)

    def provider_clients(self, process: Process) -> dict[str, SimulatedProviderClient]:
        return {name: SimulatedProviderClient(each, process) for name, each in self.providers.items()}

    def calm(self) -> None:
        """Let the server's clock be right again, and wake whoever is frozen."""
        if self.lanes.clock_ahead_us:
            self.lanes.set_clock(0)
        for process in self.processes:
            self.scheduler.thaw(process)

    def next_alarm_us(self) -> int | None:
        """When the next alarm of any lane or outbox is due."""
        return self._alarms.next_us()

    def next_invitation_us(self) -> int | None:
        """When the next invitation that is held may be released."""
        return self._invitations.next_us()

    def _note_step(self) -> None:
        self.clock_was_behind |= self.server_clock_is_wrong and self.lanes.clock_ahead_us < 0
        self.scheduler.look_at_polls()
        looked_us = self.scheduler.now_us - FIRST_LOOK_US
        self.began_while_clock_was_wrong |= any(each.started_us > looked_us for each in self.processes)

    def _note_loss(self, changes: Collection[int]) -> None:
        if changes and not self.settings.replicas:
            self.ledger.losses.append((min(changes), self.lanes.model.changes))

    def _deliver(self, sms: OutboundSms) -> None:
        self.scheduler.at(self.scheduler.now_us + 50_000, lambda: self.hear(sms))


class _SoonestScore:
    """The soonest moment among sorted sets whose scores are ms of the server's, by the scheduler's time. Looked up again once
    the server has changed."""

    def __init__(self, server: SimulatedServer, keys: Sequence[str]) -> None:
        self._server = server
        self._keys = keys
        self._known_at: tuple[int, int, int] | None = None
        self._next_us: int | None = None

    def next_us(self) -> int | None:
        server = self._server
        known_at = (*server.version, server.clock_ahead_us)
        if known_at != self._known_at:
            self._known_at = known_at
            scores = [score for key in self._keys if (score := server.view.lowest_score(key)) is not None]
            self._next_us = round(min(scores) * 1_000) - server.clock_ahead_us if scores else None
        return self._next_us
