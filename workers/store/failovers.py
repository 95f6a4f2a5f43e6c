"""Which SMS may have left of which the server knows nothing? After a failover, or a start from a disk that was not written
at once, a server has not what was done last: the trace of a try is gone, or the whole turn that decided it.

Law: nobody claims, commits, leases or settles on such a server before its shard has been looked at: the functions refuse
(lua/servers.lua), and whoever is refused first looks. What had been decided by then and may have been tried is marked as
uncertain, so that its provider's recourse decides what is next; what rested, or was held by its channel's pause, is not.
Claims of before are void, and what is decided from mail and deadlines of before is uncertain, as it may have been decided
before. A server that was started again with all that it had acknowledged has lost nothing.

A shard that a cluster has moved to another server has lost nothing either.

What this cannot know: a pause that an operator ended in the lost moment; that two replicas of a cluster took over one after the
other, before anybody looked or the second heard that the former follows; a former primary that goes on beside the new one;
a disk that is put back to what it was under a server that writes at once, unless whoever looks had a token of it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
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
            away = self._admit_servers([of[at] for at in refused])
            admitted = [at for at in refused if of[at] not in away]
            again = redis_client.try_commands(
                self._redis, [commands[at] for at in admitted], replicas=replicas
            )
            for at, answer in zip(admitted, again, strict=True):
                answers[at] = answer
            for at in refused:
                answers[at] = away.get(of[at], answers[at])
        redis_client.raise_refusals(answers)
        return answers

    def remember_fences(self, k: int, answers: Iterable[Any]) -> None:
        """Remember the newest fencing token among answers for shard `k`, each of which begins with one if it is a list."""
        newest = max((answer[0] for answer in answers if isinstance(answer, list)), default=0)
        self._newest_fences[k] = max(newest, self._newest_fences.get(k, 0))

    def _admit_servers(self, shards: Sequence[int]) -> Mapping[int, Exception]:
        """Look at shards whose server has changed, mark what it may have lost, and let workers at them: all of them in as few round
        trips as one, as those wait whose shards were worked on in the same one. Return the errors of those whose server is away
        by now. Any number of processes may do it at once."""
        away: dict[int, Exception] = {}
        newcomers = {
            k: noted
            for k, noted in self._ask({k: ("HGETALL", keyspace.server_key(k)) for k in shards}, away).items()
            if noted.get(b"newcomer")
        }
        lost = self._find_lost(newcomers, away)
        marked = self._mark_lost_tries(lost, away)
        calls = {
            k: function_call(
                AdmitServer(
                    server=keyspace.server_key(k),
                    fence=keyspace.fence_key(k),
                    newcomer=noted[b"newcomer"].decode(),
                    lost=1 if k in lost else 0,
                )
            )
            for k, noted in newcomers.items()
            if k not in away
        }
        for k, is_ours in self._ask(calls, away).items():
            if is_ours and k in lost:
                log.warning(
                    "the server may have lost what was done last",
                    shard=k,
                    came_by=newcomers[k][b"came_by"].decode(),
                    uncertain_sms=marked[k],
                )
        return away

    def _ask(self, commands: Mapping[int, Command], away: dict[int, Exception]) -> dict[int, Any]:
        """Return the answers to these shards' commands. Those whose server is away, while others of a cluster are not, are noted in
        `away` with the error. Raises what else went wrong."""
        answers = dict(
            zip(commands, redis_client.try_commands(self._redis, list(commands.values())), strict=True)
        )
        redis_client.raise_unless_alone(self._redis, list(answers.values()))
        errors = {k: answer for k, answer in answers.items() if isinstance(answer, Exception)}
        away |= errors
        return {k: answer for k, answer in answers.items() if k not in errors}

    def _find_lost(
        self, newcomers: Mapping[int, Mapping[bytes, bytes]], away: dict[int, Exception]
    ) -> list[int]:
        """Return those of these shards, by what is noted of their servers, whose server may have lost what was done last."""
        fences = self._ask({k: ("GET", keyspace.fence_key(k)) for k in newcomers}, away)
        servers: dict[str, NewServer] = {}
        lost: list[int] = []
        for k, known_fence in fences.items():
            try:
                client = redis_client.server_of(self._redis, keyspace.server_key(k))
                server = servers.setdefault(redis_client.address_of(client), NewServer(client))
                if self._may_have_lost(k, newcomers[k], known_fence, server):
                    lost.append(k)
            except redis.RedisError as e:
                if not redis_client.is_alone(self._redis, e):
                    raise
                away[k] = e
        return lost

    def _may_have_lost(
        self, k: int, noted: Mapping[bytes, bytes], known_fence: bytes | None, server: "NewServer"
    ) -> bool:
        came_by, former = noted.get(b"came_by"), noted.get(b"node", b"").decode()
        _, history, _ = noted.get(b"admitted", b"  ").decode().split(" ")
        # its disk is not what it was
        has_fewer_fences = self._newest_fences.get(k, 0) > int(known_fence or 0)
        return not (former and server.was_given_by(former, history)) and (
            came_by == b"promoted" or not server.writes_at_once or has_fewer_fences
        )

    def _mark_lost_tries(self, lost: Sequence[int], away: dict[int, Exception]) -> Mapping[int, int]:
        """Mark SMS as uncertain that may have left. Return how many of each of these shards."""
        marked = dict.fromkeys(lost, 0)
        if not lost:
            return marked
        channels = list(self._unusual_channels())
        waiting = self._ask({k: ("ZRANGE", keyspace.outbox_alarms_key(k), 0, -1) for k in lost}, away)
        for at in range(0, max(map(len, waiting.values()), default=0), MARK_PAGE_SIZE):
            pages = {k: page for k, senders in waiting.items() if (page := senders[at : at + MARK_PAGE_SIZE])}
            calls = {
                k: _mark_command(k, [sender.decode() for sender in page], channels)
                for k, page in pages.items()
                if k not in away
            }
            for k, count in self._ask(calls, away).items():
                marked[k] += count
        return marked

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


class NewServer:
    """A server that has come for another, and what it says of itself, which it is asked once."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    @cached_property
    def writes_at_once(self) -> bool:
        """Whether it is set so that it has all that it acknowledged, however it ended. One that does not say is not."""
        try:
            return bool(self._client.config_get(*WRITES_AT_ONCE) == WRITES_AT_ONCE)
        except redis.ResponseError:
            return False

    def was_given_by(self, former: str, history: str) -> bool:
        """Whether its cluster has moved shards to it, with all that they have, from the `former` node: which is there, and nobody has
        taken its place. Who goes on from the `history` of the former was promoted, and may not have heard yet that it follows."""
        if history == self._history_before:
            return False
        now_here = next((node for node, flags in self._flags_by_node.items() if "myself" in flags), "")
        flags = self._flags_by_node.get(former, frozenset())
        return former != now_here and "master" in flags and not {"fail", "fail?"} & flags

    @cached_property
    def _history_before(self) -> str:
        """What its history goes on from, if it was promoted."""
        return str(self._client.info("replication").get("master_replid2", ""))

    @cached_property
    def _flags_by_node(self) -> Mapping[str, frozenset[str]]:
        nodes: Mapping[str, Any] = redis_client.run_command(self._client, ("CLUSTER NODES",))
        return {each["node_id"]: frozenset(each["flags"].split(",")) for each in nodes.values()}


def _mark_command(k: int, senders: Sequence[str], channels: Sequence[ChannelAtFailover]) -> Command:
    return function_call(
        MarkLostTries(
            server=keyspace.server_key(k),
            outboxes=[
                OutboxAtFailover(
                    outbox=keyspace.outbox_key(k, sender), outbox_lock=keyspace.outbox_lock_key(k, sender)
                )
                for sender in senders
            ],
            channels=channels,
        )
    )


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
