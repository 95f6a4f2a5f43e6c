"""Operators who deal with dead letters while everything else goes on, several at a time, and are now and then killed half-way.

Some replay whatever a replay cannot double. One looks up what a provider that cannot be asked may have, as an operator does
in that provider's own console: what it has is dropped, what it does not have is replayed.
"""

import json
import random
import subprocess
from collections.abc import Callable, Mapping, Sequence
from threading import Event, Thread
from typing import Self

from tests.support.carriers import FakeCarriers

DEAD = ("parley", "dead")
EVERY_S = 2.0
KILLED = 0.25
TRIED_S = 60.0


class Operators:
    """A context manager: meanwhile, they deal with all there is, a replayer in each of `environments`. SMS that the provider
    may have are replayed only on channels that are `repeatable`, and looked up on those of `looked_up`.

    `replays` counts, `killed` those that were not finished; `looked_up_sms` what was found of SMS that the provider might
    have had: by id, whether it had.
    """

    def __init__(
        self, environments: Sequence[Mapping[str, str]], seed: int, carriers: FakeCarriers,
        repeatable: Sequence[str], looked_up: Sequence[str],
    ) -> None:  # fmt: skip
        self._environments = environments
        self._carriers = carriers
        self._replay_commands = [
            (*DEAD, "replay", "--all", "--yes"),
            *((*DEAD, "replay", "--channel", channel, "--yes", "--uncertain") for channel in repeatable),
        ]
        self._looked_up = looked_up
        self._over = Event()
        self._seed = seed
        self._threads: Sequence[Thread] = ()
        self.replays = 0
        self.killed = 0
        self.looked_up_sms: dict[str, bool] = {}
        self.failure: BaseException | None = None

    def __enter__(self) -> Self:
        works: list[tuple[Callable[[Mapping[str, str], random.Random], None], Mapping[str, str]]] = [
            (self._replay, environment) for environment in self._environments
        ]
        if self._looked_up:
            works.append((self._look_up, self._environments[-1]))
        self._threads = [
            Thread(
                target=self._keep_on,
                args=(work, environment, random.Random(self._seed + place)),
                name="operator",
            )
            for place, (work, environment) in enumerate(works)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        if self.failure is not None:
            raise self.failure

    def _keep_on(
        self, work: Callable[[Mapping[str, str], random.Random], None], environment: Mapping[str, str],
        chance: random.Random,
    ) -> None:  # fmt: skip
        try:
            while not self._over.wait(chance.uniform(0, 2 * EVERY_S)):
                work(environment, chance)
        except BaseException as e:  # noqa: BLE001 (whoever ends this is told)
            self.failure = e

    def _replay(self, environment: Mapping[str, str], chance: random.Random) -> None:
        self._run(chance.choice(self._replay_commands), environment, chance)

    def _look_up(self, environment: Mapping[str, str], chance: random.Random) -> None:
        for channel in self._looked_up:
            waiting = self._uncertain(channel, environment)
            had = self._carriers.having(waiting)
            self.looked_up_sms |= {sms: sms in had for sms in waiting}
            for command, letters in (
                (("drop",), [letter for sms, letter in waiting.items() if sms in had]),
                (("replay", "--uncertain"), [letter for sms, letter in waiting.items() if sms not in had]),
            ):
                if letters:
                    self._run((*DEAD, *command, "--yes", *letters), environment, chance)

    def _uncertain(self, channel: str, environment: Mapping[str, str]) -> dict[str, str]:
        """The SMS that the provider may have, with their letters, by id; none if Redis is away."""
        listed = subprocess.run(
            (*DEAD, "list", "--channel", channel, "--reason", "uncertain", "--json"),
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        lines = [] if listed.returncode else listed.stdout.splitlines()
        letters = [json.loads(line)["id"] for line in lines]
        return {letter.removeprefix("s"): letter for letter in letters}

    def _run(self, command: Sequence[str], environment: Mapping[str, str], chance: random.Random) -> None:
        patience_s = chance.uniform(0.3, 2.0) if chance.random() < KILLED else TRIED_S
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.replays += 1
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self.killed += 1
