"""Operators: what they type is a process too, which may die at any call. Then they type it again."""

from collections import deque
from collections.abc import Callable, Collection
from typing import NamedTuple

import click
import msgspec
import redis

from config.settings.channels import channel_policies
from tests.simulated.actors.dangers import Dangers
from tests.simulated.world.machine import simulated_host
from tests.simulated.world.scheduler import Process
from tests.simulated.world.simulated_world import SimulatedWorld
from workers.commands.connect import confirm_replicated
from workers.dead_letters.actions import drop_letters, replay_letters
from workers.dead_letters.crash_probe import CrashProbe, crash_reason
from workers.dead_letters.filters import DeadLetterFilter, find_dead_letters
from workers.dead_letters.letter_result import LetterResult
from workers.dead_letters.replay import DeadLetterReplayer
from workers.dead_letters.replay_decision import ReplayOption
from workers.erasure.sender_eraser import SenderEraser
from workers.store.deployment import Deployment
from workers.store.replication_check import find_history


class Erasure(NamedTuple):
    """Somebody was erased, from a moment (us) on, and after so many changes of the server, until the change `done`."""

    sender: str
    begun_us: int
    done: int


Command = Callable[[Deployment], None]
"""What an operator types, on the deployment as their process has it."""

AGAIN_US = 2_000_000
"""How long an operator waits before they type again what failed."""


class Operator:
    """Somebody at a terminal. Commands are carried out one after the other, each until it has ended well."""

    def __init__(self, world: SimulatedWorld, name: str, dangers: Dangers | None = None) -> None:
        self.name = name
        self.results: list[LetterResult] = []
        """What commands said of dead letters."""
        self.added: dict[str, int] = {}
        """When (us) it was last said of somebody that they are opted out."""
        self.removed: dict[str, int] = {}
        """Until when (us) somebody's opt-outs may have been removed."""
        self.erasures: list[Erasure] = []
        self._world = world
        self._probe: CrashProbe = dangers.probe() if dangers is not None else crash_reason
        self._commands: deque[Command] = deque()
        self._planned = 0
        self._begun = 0
        self.process = world.add_process(name, self._begin)

    @property
    def is_busy(self) -> bool:
        """Whether anything is left to be done, now or later."""
        return bool(self._commands or self._planned)

    def type_later(self, command: Command, after_s: float) -> None:
        scheduler = self._world.scheduler
        self._planned += 1

        def type_now() -> None:
            self._planned -= 1
            self._commands.append(command)
            scheduler.notify(self._commands)

        scheduler.at(scheduler.now_us + round(after_s * 1_000_000), type_now)

    def _begin(self, process: Process) -> None:
        process.spawn("", lambda: self._work(process))

    def _work(self, process: Process) -> None:
        while True:
            if not self._commands:
                process.scheduler.wait(self._commands)
                continue
            try:
                self._commands[0](self._deployment(process))
            except (redis.RedisError, click.ClickException):
                process.scheduler.sleep_us(AGAIN_US)
            else:
                self._commands.popleft()

    def _deployment(self, process: Process) -> Deployment:
        """The deployment, as one command has it: each is a process, and draws ids of its own."""
        self._begun += 1
        host = simulated_host(process, f"{self._world.seed} {self._begun}")
        found = self._world.deployment(process)
        history = find_history(found.settings, found.lanes)
        return msgspec.structs.replace(found, host=host, history=history)

    # What they type

    def replay(self, sender: str, options: Collection[ReplayOption] = ()) -> Command:
        """`parley dead replay --sender`."""

        def command(deployment: Deployment) -> None:
            found = list(find_dead_letters(deployment, DeadLetterFilter(sender=sender)))
            if "uncertain" in options:
                self._world.ledger.may_repeat.update(each.letter.id for each in found)
            optouts = deployment.open_opt_out_list()
            replayer = DeadLetterReplayer(
                deployment.lane_store(optouts),
                optouts,
                deployment.surveys,
                channel_policies(deployment.settings.channels),
                deployment.channel_store(),
                deployment.wakeup_broker(),
                {name: each.recourse for name, each in self._world.providers.items()},
                deployment.settings.shards,
                by=self.name,
                options=options,
                host=deployment.host,
                probe=self._probe,
            )
            self.results += replay_letters(replayer, deployment.settings, found, self.name, 0.0)

        return command

    def drop(self, sender: str) -> Command:
        """`parley dead drop --sender`."""

        def command(deployment: Deployment) -> None:
            found = list(find_dead_letters(deployment, DeadLetterFilter(sender=sender)))
            self.results += drop_letters(found, self.name)

        return command

    def add_opt_out(self, sender: str, channel: str) -> Command:
        """`parley optout add`."""

        def command(deployment: Deployment) -> None:
            deployment.open_opt_out_list().add_opt_outs([(sender, channel)], "operator")
            confirm_replicated(deployment)
            self.added[sender] = self._world.scheduler.now_us

        return command

    def remove_opt_out(self, sender: str, channel: str) -> Command:
        """`parley optout remove`."""

        def command(deployment: Deployment) -> None:
            optouts = deployment.open_opt_out_list()
            self.removed[sender] = self._world.scheduler.now_us
            while optouts.remove_opt_outs(sender, [channel]) is None:
                deployment.host.sleep(1.0)
            self.removed[sender] = self._world.scheduler.now_us

        return command

    def pause(self, channel: str, for_ms: int | None = None) -> Command:
        """`parley channel pause`."""

        def command(deployment: Deployment) -> None:
            deployment.channel_store().pause(channel, "incident", for_ms, who=self.name)

        return command

    def resume(self, channel: str) -> Command:
        """`parley channel resume`."""

        def command(deployment: Deployment) -> None:
            deployment.channel_store().resume(channel)
            rate = deployment.settings.channels[channel].limits.sms_per_second
            deployment.outbox_store().bring_forward(channel, rate)

        return command

    def erase(self, sender: str) -> Command:
        """`parley erase`, of a deployment without an archive."""

        def command(deployment: Deployment) -> None:
            begun_us = self._world.scheduler.now_us
            _EraserWithoutArchive(deployment, deployment.open_opt_out_list()).erase(sender)
            confirm_replicated(deployment)
            self.erasures.append(Erasure(sender, begun_us, self._world.lanes.model.changes))

        return command


class _EraserWithoutArchive(SenderEraser):
    """Nor is there a console, to which tables would be uploaded."""

    def _find_archive(self) -> bool:
        return False

    def _erase_uploaded_rows(self, sender: str) -> int:
        return 0
