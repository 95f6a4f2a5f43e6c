"""How it is known that replicas have what was written: by WAIT, in the round trip of the commands themselves.

A command that finds its work done already writes nothing, and WAIT is about the last write of its own connection; so a message
to nobody, which replicas get, goes before it. In a cluster messages go by another way than what is written, and WAIT would wait
for nothing: there a key is written that nobody reads.
"""

from collections.abc import Callable, Sequence
from typing import Any

import redis

from config.connections.watched_servers import Address, WatchedServers
from engine.model.errors import ParleyError

Command = tuple[Any, ...]

REPLICATED_WITHIN_MS = 700
"""How long replicas may take: less than `web` waits for a write."""

SHORT_WAIT_MS = 50
"""How long they may take on a server that had too few just now, until they are seen to confirm again, so that whoever asks others
too is not held up each time."""

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
    """Which servers of a cluster had too few replicas, and have not been seen to have enough since; on others they may take
    `within_ms`. `watch` is called for each that falls short, and looks by `looking_commands`."""

    def __init__(self, watch: Callable[[Address], None], within_ms: int = REPLICATED_WITHIN_MS) -> None:
        self._within_ms = within_ms
        self._short = WatchedServers(watch)
        self._asked: dict[Address, Sequence[Command]] = {}

    def wait_ms(self, server: Address) -> int:
        """Return how long its replicas may take now."""
        return SHORT_WAIT_MS if server in self._short else self._within_ms

    def take(self, server: Address, sent: Sequence[Command], replies: Sequence[Any]) -> None:
        """Take what came of a wait: whatever is answered to the commands before it. One that was refused says nothing."""
        (*_, mark, (wait, wanted, _)), (*_, marked, found) = sent, replies
        if isinstance(marked, Exception) or isinstance(found, Exception):
            return
        if found >= wanted:
            self._short.remove(server)
            return
        self._asked[server] = (mark, (wait, wanted, self._within_ms))
        self._short.add(server)

    def is_short(self, server: Address) -> bool:
        return server in self._short

    def looking_commands(self, server: Address) -> Sequence[Command]:
        """Return what a server is asked of which `is_short` was true, to see whether it has enough by now."""
        return self._asked[server]

    def forget(self, server: Address) -> None:
        """Take it for one as any."""
        self._short.remove(server)
