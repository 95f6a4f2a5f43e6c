"""Operators who replay dead letters while everything else goes on, two at a time, and are now and then killed half-way."""

import random
import subprocess
from collections.abc import Mapping, Sequence
from threading import Event, Thread
from typing import Self

COMMAND = ("parley", "dead", "replay", "--all", "--yes", "--uncertain")
EVERY_S = 2.0
KILLED = 0.25
TRIED_S = 60.0


class Operators:
    """A context manager: meanwhile, they replay all there is, each in an environment of their own. `replays` counts,
    `killed` those that were not finished."""

    def __init__(self, environments: Sequence[Mapping[str, str]], seed: int) -> None:
        self._environments = environments
        self._over = Event()
        self._seed = seed
        self._threads: Sequence[Thread] = ()
        self.replays = 0
        self.killed = 0

    def __enter__(self) -> Self:
        self._threads = [
            Thread(target=self._work, args=(environment, random.Random(self._seed + place)), name="operator")
            for place, environment in enumerate(self._environments)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _work(self, environment: Mapping[str, str], chance: random.Random) -> None:
        while not self._over.wait(chance.uniform(0, 2 * EVERY_S)):
            patience_s = chance.uniform(0.3, 2.0) if chance.random() < KILLED else TRIED_S
            process = subprocess.Popen(
                COMMAND, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            self.replays += 1
            try:
                process.wait(patience_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                self.killed += 1
