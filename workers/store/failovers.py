"""Which SMS may have left of which the server knows nothing? After a failover, or a start from a disk that was not written
at once, a server has not what was done last: the trace of a try is gone, or the whole turn that decided it.

Law: nobody claims, commits or leases on such a server before its shard has been looked at: the functions refuse
(lua/servers.lua), and whoever is refused first looks. What had been decided by then and may have been tried is marked as
uncertain, so that its provider's recourse decides what is next; what rested, or was held by its channel's pause, is not.
Claims of before are void, and what is decided from mail and deadlines of before is uncertain, as it may have been decided
before. A server that was started again with all that it had acknowledged has lost nothing.

A shard that a cluster has moved to another server has lost nothing either.

What this cannot know: a pause that an operator ended in the lost moment; a former primary that goes on beside the new one;
a disk that is put back to what it was under a server that writes at once, unless whoever looks had a token of it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import redis
import structlog

from config.store import keyspace, redis_client
from config.store.channel_readings import parse_pause, pause_commands
from config.store.function_calls import Command, function_call
from config.store.server_functions import AdmitServer, ChannelAtFailover, MarkLostTries, OutboxAtFailover

log = structlog.get_logger()

MARK_PAGE_SIZE = 200
"""Outboxes that are looked at in one call."""

ADMISSION_ATTEMPTS = 5
"""How often in a row a server may turn out to be another."""

WRITES_AT_ONCE = {"appendonly": "yes", "appendfsync": "always"}
"""Settings of a server that comes back with all that it has acknowledged."""


class FailoverGuard:
    """Runs commands that work on shards, and looks first at a shard whose server has changed. `channels` are those whose
    pauses are known."""

    def __init__(self, client: redis.Redis, channels: Collection[str] = ()) -> None:
        self._redis = client
        self._channels = channels
        self._newest_fences: dict[int, int] = {}

    def run_commands(
        self, shards: Iterable[int], commands: Sequence[Command], *, replicas: int = 0
    ) -> list[Any]:
        """Return the answers to `commands`, one for each of `shards`: in the place of one that so many replicas have not,
        NotReplicatedError, and in that of a shard whose server is away, while others of a cluster are not, its error. Raises
        the first error else, and if there is no answer."""
        answers = redis_client.try_commands(self._redis, commands, replicas=replicas)
        for _ in range(ADMISSION_ATTEMPTS):
            refused = [at for at, answer in enumerate(answers) if _is_unknown_server(answer)]
            if not refused:
                break
            of = list(shards)
            admitted = [at for at in refused if self._is_admitted(of[at], answers, at)]
            again = redis_client.try_commands(
                self._redis, [commands[at] for at in admitted], replicas=replicas
            )
            for at, answer in zip(admitted, again, strict=True):
                answers[at] = answer
        redis_client.raise_refusals(answers)
        return answers

    def _is_admitted(self, k: int, answers: list[Any], at: int) -> bool:
        """Look at a shard, unless its server is away by now, which is then its answer."""
        try:
            self._admit_server(k)
        except redis.RedisError as e:
            if len(answers) == 1 or not redis_client.is_away(e):
                raise
            answers[at] = e
            return False
        return True

    def remember_fences(self, k: int, answers: Iterable[Any]) -> None:
        """Remember the newest fencing token among answers for shard `k`, each of which begins with one if it is a list."""
        newest = max((answer[0] for answer in answers if isinstance(answer, list)), default=0)
        self._newest_fences[k] = max(newest, self._newest_fences.get(k, 0))

    def _admit_server(self, k: int) -> None:
        """Look at a shard whose server has changed, mark what it may have lost, and let workers at it. Any number of
        processes may do it at once."""
        found = redis_client.run_command(self._redis, ("HGETALL", keyspace.server_key(k)))
        newcomer, came_by = found.get(b"newcomer"), found.get(b"came_by")
        if not newcomer:
            return
        lost = not self._was_moved(k, found.get(b"node", b"")) and (
            came_by == b"promoted" or not self._writes_at_once(k) or self._has_fewer_fences(k)
        )
        marked = self._mark_lost_tries(k) if lost else 0
        call = AdmitServer(
            server=keyspace.server_key(k),
            fence=keyspace.fence_key(k),
            newcomer=newcomer.decode(),
            lost=1 if lost else 0,
        )
        if redis_client.run_command(self._redis, function_call(call)) and lost:
            log.warning(
                "the server may have lost what was done last",
                shard=k,
                came_by=came_by.decode(),
                uncertain_sms=marked,
            )

    def _has_fewer_fences(self, k: int) -> bool:
        """Whether the server does not know of a token that it has given to this very process: its disk is not what it was."""
        known: bytes | None = redis_client.run_command(self._redis, ("GET", keyspace.fence_key(k)))
        return self._newest_fences.get(k, 0) > int(known or 0)

    def _was_moved(self, k: int, former: bytes) -> bool:
        """Whether a cluster has moved the shard, with all that it has, from its `former` node: which is there, and nobody has taken
        its place."""
        if not former:
            return False
        server = redis_client.server_of(self._redis, keyspace.server_key(k))
        nodes: Mapping[str, Any] = redis_client.run_command(server, ("CLUSTER NODES",))
        flags = {each["node_id"]: each["flags"].split(",") for each in nodes.values()}
        now_here = next((node for node, said in flags.items() if "myself" in said), "")
        said = flags.get(former.decode(), [])
        return former.decode() != now_here and "master" in said and not {"fail", "fail?"} & {*said}

    def _writes_at_once(self, k: int) -> bool:
        """Whether the server is set so that it has all that it acknowledged, however it ended. One that does not say is not."""
        try:
            server = redis_client.server_of(self._redis, keyspace.server_key(k))
            return server.config_get(*WRITES_AT_ONCE) == WRITES_AT_ONCE
        except redis.ResponseError:
            return False

    def _mark_lost_tries(self, k: int) -> int:
        channels = list(self._unusual_channels())
        waiting = redis_client.run_command(self._redis, ("ZRANGE", keyspace.outbox_alarms_key(k), 0, -1))
        senders = [sender.decode() for sender in waiting]
        return sum(
            redis_client.run_command(
                self._redis,
                function_call(
                    MarkLostTries(
                        server=keyspace.server_key(k),
                        outboxes=[
                            OutboxAtFailover(
                                outbox=keyspace.outbox_key(k, sender),
                                outbox_lock=keyspace.outbox_lock_key(k, sender),
                            )
                            for sender in senders[at : at + MARK_PAGE_SIZE]
                        ],
                        channels=channels,
                    )
                ),
            )
            for at in range(0, len(senders), MARK_PAGE_SIZE)
        )

    def _unusual_channels(self) -> Iterator[ChannelAtFailover]:
        for name in self._channels:
            flow = ("HMGET", keyspace.circuit_state_key(name), "held", "probing")
            pause, pttl, (held, probing) = redis_client.run_commands(
                self._redis, [*pause_commands(name), flow]
            )
            active = parse_pause(pause, pttl)
            by_operator = active is not None and active.pause.by == "operator"
            if state := channel_state(
                paused=active is not None, by_operator=by_operator, held=bool(held), probing=bool(probing)
            ):
                yield ChannelAtFailover(name=name, state=state)


def channel_state(
    *, paused: bool, by_operator: bool, held: bool, probing: bool
) -> Literal["paused", "reopening"] | None:
    """What a channel's state, read from a server that has come for another, says of the moment that is lost. What is paused
    now was so then. But a circuit closes once a probe that is under way works, and what it held is brought forward then, or
    once its pause has ended by itself."""
    if paused and (by_operator or not probing):
        return "paused"
    return "reopening" if held or probing else None


def _is_unknown_server(answer: Any) -> bool:
    return isinstance(answer, redis.ResponseError) and str(answer).startswith("UNKNOWNSERVER")
