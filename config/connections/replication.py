"""How it is known that replicas have what was written: by WAIT, in the round trip of the commands themselves.

A command that finds its work done already writes nothing, and WAIT is about the last write of its own connection; so a message
to nobody, which replicas get, goes before it. In a cluster messages go by another way than what is written, and WAIT would wait
for nothing: there a key is written that nobody reads.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import redis

from engine.model.errors import ParleyError

Command = tuple[Any, ...]

REPLICATED_WITHIN_MS = 700
"""How long replicas may take: less than `web` waits for a write."""

SHORT_WAIT_MS = 50
"""How long they may take on a server that had too few just now, so that whoever asks others too is not held up each time."""

SHORT_WAITS_S = 3.0
"""After how long they are waited for again, in case they are only slow."""

WRITTEN_CHANNEL = WRITTEN_KEY = "parley:written"
"""What the message goes to, and what the key's name begins with."""

WRITTEN_KEPT_MS = 60_000
"""How long such a key stays."""


class NotReplicatedError(ParleyError, redis.RedisError):
    """What was written is on too few replicas: a failover may lose it. `answer` is that to the command."""

    def __init__(self, answer: Any, found: int, wanted: int) -> None:
        super().__init__(f"{found} of {wanted} replicas have what was written")
        self.answer, self.found, self.wanted = answer, found, wanted


def with_wait(
    commands: Sequence[Command],
    replicas: int,
    mark: Command = ("SPUBLISH", WRITTEN_CHANNEL, ""),
    within_ms: int = REPLICATED_WITHIN_MS,
) -> Sequence[Command]:
    """Return the commands, and what waits for so many replicas to have what they write; `mark` is what they get for certain."""
    if not replicas:
        return commands
    return [*commands, mark, ("WAIT", replicas, within_ms)]


def mark_in_cluster(tag: str) -> Command:
    """Return what a server of a cluster writes for certain, which has the slot of this hash tag."""
    return ("SET", f"{WRITTEN_KEY}:{{{tag}}}", "", "PX", WRITTEN_KEPT_MS)


def without_wait(replies: list[Any], replicas: int) -> list[Any]:
    """Return the answers to the commands, of all replies: NotReplicatedError in the place of each that is no error, if too few
    replicas have it."""
    if not replicas:
        return replies
    *answers, marked, found = replies
    if isinstance(marked, Exception) or isinstance(found, Exception):
        found = 0
    if found >= replicas:
        return answers
    return [
        answer if isinstance(answer, Exception) else NotReplicatedError(answer, found, replicas)
        for answer in answers
    ]


class Shortfalls:
    """Which servers of a cluster had too few replicas just now, by a clock that is never set, and how long each is waited for."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._short_until_s: dict[Hashable, float] = {}

    def wait_ms(self, server: Hashable) -> int:
        """Return how long its replicas may take now."""
        is_short = self._now_s() < self._short_until_s.get(server, 0.0)
        return SHORT_WAIT_MS if is_short else REPLICATED_WITHIN_MS

    def take(self, server: Hashable, waited_ms: int, answers: Sequence[Any]) -> None:
        """Take what came of a wait of at most so long. What did not come in a short one might have come in a long one."""
        if not any(isinstance(answer, NotReplicatedError) for answer in answers):
            self._short_until_s.pop(server, None)
        elif waited_ms == REPLICATED_WITHIN_MS:
            self._short_until_s[server] = self._now_s() + SHORT_WAITS_S
