"""When does whose code run? The last release's, then this one's beside it, then this one's alone; and all the way back.

Each half of a role's processes has then worked beside the other release's, as the newer and as the older. A process is
replaced as a deployment does it: it is told to end, and whoever watches over it starts it again, with other code.
"""

import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

from tests.support.octopush import FakeOctopush
from tests.support.processes import Deployment, Process, Release
from tests.support.valkey import Valkey
from tests.upgrade import dead_letters

Which = Literal["last", "this"]


class Stage(NamedTuple):
    """For how much of the time it lasts once it is reached, and whose code the first and the second half of each role's
    processes run."""

    lasts: float
    halves: tuple[Which, Which]


STAGES = (
    Stage(0.1, ("last", "last")),
    Stage(0.35, ("this", "last")),
    Stage(0.1, ("this", "this")),
    Stage(0.35, ("last", "this")),
    Stage(0.1, ("last", "last")),
)


class StagedRollout:
    """Forward and back. A stage is reached once each role has been seen to run all that it shall. `replaced` counts
    processes that were told to make room."""

    def __init__(self, last: Release, this: Release) -> None:
        self.wrongs: list[str] = []
        self.replaced = 0
        self._of: Mapping[Which, Release] = {"last": last, "this": this}
        self._stages = list(STAGES)
        self._seen: set[tuple[str, Path]] = set()
        self._reached_s = 0.0

    @property
    def releases(self) -> Sequence[Release]:
        return tuple(self._of.values())

    @property
    def first(self) -> Release:
        return self._of[STAGES[0].halves[0]]

    @property
    def over(self) -> bool:
        return not self._stages

    def step(self, deployment: Deployment, gone_s: float, seconds: float) -> None:
        if self.over:
            return
        stage = self._stages[0]
        self._converge(self._wanted(deployment.processes, stage))
        roots = {self._of[which].root for which in stage.halves}
        if self._seen >= {(process.name, root) for process in deployment.processes for root in roots}:
            self._reached_s = self._reached_s or gone_s
        if self._reached_s and gone_s >= self._reached_s + stage.lasts * seconds:
            del self._stages[0]
            self._seen.clear()
            self._reached_s = 0.0

    def finish(self, deployment: Deployment, valkey: Valkey, octopush: FakeOctopush) -> None:
        """Both releases have worked on everything, and each replays the other's dead letters."""
        if not self.over:
            self.wrongs.append(f"{self._stages} were not come to: {self._seen} was all that ran")
        directions: Sequence[tuple[Which, Which]] = (("last", "this"), ("this", "last"))
        for place, (maker, mender) in enumerate(directions):
            exchange = dead_letters.Exchange(deployment, valkey, octopush, place)
            found = exchange.wrongs(self._of[maker], self._of[mender])
            self.wrongs += [
                f"dead letters of {maker} release, replayed by {mender}: {wrong}" for wrong in found
            ]

    def _converge(self, wanted: Iterable[tuple[Process, Release]]) -> None:
        """Note which of them run what they shall, and replace the others, all at once."""
        with ThreadPoolExecutor() as pool:
            for process, release in wanted:
                root = running_root(process)
                if process.release is not release or root not in (release.root, None):
                    self.replaced += 1
                    pool.submit(replace, process, release)
                elif root is not None:
                    self._seen.add((process.name, root))

    def _wanted(self, processes: Sequence[Process], stage: Stage) -> Iterator[tuple[Process, Release]]:
        by_role: dict[str, list[Process]] = defaultdict(list)
        for process in processes:
            by_role[process.name].append(process)
        for copies in by_role.values():
            for place, process in enumerate(copies):
                yield process, self._of[stage.halves[2 * place >= len(copies)]]


def running_root(process: Process) -> Path | None:
    """Whose code it runs now, by where it lies; None if it does not."""
    try:
        return Path(f"/proc/{process.pid}/cwd").readlink() if process.alive else None
    except OSError:
        return None


def replace(process: Process, release: Release) -> None:
    """Let it be of this release when it is started again, and end it."""
    process.release = release
    process.sigcont()
    try:
        process.terminate()
    except subprocess.TimeoutExpired:
        process.kill9()
