"""Long after the end of a run: is anything left in Redis of people, but what operators are to look at and what is kept for good?"""

import re

from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.world.simulated_world import SimulatedWorld

LONG_AFTER_US = 500 * 86_400_000_000
"""Longer than anything is kept that has an end."""

KEPT = re.compile(
    r"\{\d+\}:(server|fence|events|archived|optouts|dead|dead-index|dead-reasons|dead-audit|campaigns)"
    r"|\{hook:[^}]+\}:(fence|positions)"
    r"|surveys|\{surveys\}:(since|used|runs|log-key)|deployment|shards|libraries|optout-key(-check)?"
)
"""Keys without an end. The event stream is trimmed and dead letters are dealt with by others than a conversation's workers."""


class LeftoverOracle:
    """Judges a world by what is there once everything has ended that has an end. It moves the time: it comes last."""

    def __init__(self, world: SimulatedWorld) -> None:
        self._world = world

    def judge(self) -> None:
        self._world.scheduler.now_us += LONG_AFTER_US
        left = [key.decode() for key in self._world.lanes.model.dump()]
        if found := [key for key in left if not KEPT.fullmatch(key)]:
            raise PromiseBroken("nothing_is_left", f"{', '.join(sorted(found))} stay for ever")
