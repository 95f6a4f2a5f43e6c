"""Who tells an endpoint of what happens, how far it is, and how it does: as Redis has it (lua/hooks.lua).

Law: an endpoint is one process's at a time, and what is written of it goes by that process's token. A process that is late
instead of dead changes nothing any more: its positions are refused, as are those of one whose endpoint an operator has put
elsewhere meanwhile.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import redis

from config.store import keyspace, pauses, redis_client, stored_values
from config.store.entry_id import EntryId
from config.store.function_calls import Command, function_call
from config.store.pauses import StoredPause
from config.store.server_functions import HookPosition, MoveHook, ReleaseHook, RewindHook, TakeHook

HOOK_LEASE_MS = 15_000
"""How long an endpoint stays with a process that says nothing more."""


class HookLease(msgspec.Struct, frozen=True):
    """An endpoint that this process has, by this token; what was known when it took it. `circuit` is as it was stored."""

    token: int
    positions: Mapping[int, EntryId]
    circuit: bytes


class HookMarks(NamedTuple):
    """Whether an operator has paused an endpoint, and whether anything is stored of its circuit: not, once one is resumed."""

    is_paused: bool
    has_circuit: bool


class HookStore:
    """The endpoints of a deployment. Every method raises redis.RedisError."""

    def __init__(self, client: redis.Redis, owner: str) -> None:
        self._redis = client
        self._owner = owner

    def take(self, hooks: Sequence[str]) -> list[int | None]:
        """Take these endpoints, or keep them; the token of each, 0 for those that are another process's, None for those that lie on
        a server of a cluster that is away while others are not."""
        calls = [
            function_call(
                TakeHook(
                    lease=keyspace.hook_lease_key(name),
                    fence=keyspace.hook_fence_key(name),
                    owner=self._owner,
                    lease_ms=HOOK_LEASE_MS,
                )
            )
            for name in hooks
        ]
        answers = redis_client.try_commands(self._redis, calls) if calls else []
        redis_client.raise_unless_alone(self._redis, answers)
        return [None if isinstance(answer, Exception) else answer[0] for answer in answers]

    def begin(self, hook: str, positions: Sequence[EntryId]) -> None:
        """Give an endpoint its first position in each shard; those that it has stay."""
        key = keyspace.hook_positions_key(hook)
        commands: list[Command] = [("HSETNX", key, k, str(at)) for k, at in enumerate(positions)]
        redis_client.run_commands(self._redis, commands)

    def load(self, hook: str, token: int) -> HookLease:
        """Read how far an endpoint is that was taken just now."""
        positions, circuit = redis_client.run_commands(
            self._redis,
            [("HGETALL", keyspace.hook_positions_key(hook)), ("GET", keyspace.hook_circuit_key(hook))],
        )
        return HookLease(token, _parse_positions(positions), circuit or b"")

    def move(self, hook: str, token: int, moves: Mapping[int, EntryId], circuit: bytes) -> bool:
        """Move positions of an endpoint, and note its circuit. False if it is this process's no more: nothing has changed."""
        call = MoveHook(
            lease=keyspace.hook_lease_key(hook),
            positions=keyspace.hook_positions_key(hook),
            circuit=keyspace.hook_circuit_key(hook),
            token=token,
            lease_ms=HOOK_LEASE_MS,
            circuit_state=circuit,
            moves=_positions_moved(moves),
        )
        return bool(redis_client.run_command(self._redis, function_call(call)))

    def release(self, hook: str, token: int) -> None:
        """Give an endpoint back, so that another process need not wait."""
        call = ReleaseHook(lease=keyspace.hook_lease_key(hook), token=token)
        redis_client.run_command(self._redis, function_call(call))

    def rewind(self, hook: str, moves: Mapping[int, EntryId]) -> None:
        """Put an endpoint's positions anywhere, and close its circuit, whoever has it."""
        call = RewindHook(
            lease=keyspace.hook_lease_key(hook),
            positions=keyspace.hook_positions_key(hook),
            circuit=keyspace.hook_circuit_key(hook),
            moves=_positions_moved(moves),
        )
        redis_client.run_command(self._redis, function_call(call))

    def find_free(self, hooks: Sequence[str]) -> list[str]:
        """Those of these endpoints that no process seems to have. (Whoever takes them will see.) Not those that lie on a server of
        a cluster that is away."""
        commands: list[Command] = [("GET", keyspace.hook_lease_key(name)) for name in hooks]
        time, *leases = redis_client.try_commands(self._redis, [("TIME",), *commands])
        redis_client.raise_first_error([time])
        redis_client.raise_unless_alone(self._redis, leases)
        now = redis_client.time_reply_ms(time)
        there = {
            name: stored_values.parse_lock(lease) if lease else None
            for name, lease in zip(hooks, leases, strict=True)
            if not isinstance(lease, Exception)
        }
        return [
            name
            for name, lease in there.items()
            if lease is None or not now < lease.until <= now + HOOK_LEASE_MS
        ]

    def read_marks(self, hooks: Sequence[str]) -> dict[str, HookMarks]:
        """Read what operators may have changed of these endpoints; nothing of those that lie on a server of a cluster that is
        away."""
        commands: list[Command] = []
        for name in hooks:
            commands += [
                ("EXISTS", keyspace.hook_pause_key(name)),
                ("EXISTS", keyspace.hook_circuit_key(name)),
            ]
        answers = redis_client.try_commands(self._redis, commands) if commands else []
        redis_client.raise_unless_alone(self._redis, answers)
        return {
            name: HookMarks(bool(is_paused), bool(has_circuit))
            for name, is_paused, has_circuit in zip(hooks, answers[::2], answers[1::2], strict=True)
            if not isinstance(is_paused, Exception) and not isinstance(has_circuit, Exception)
        }

    def pause(self, hook: str, why: str, who: str, for_ms: int | None = None) -> None:
        """Tell an endpoint nothing until it is resumed, or for so long."""
        said = StoredPause(by="operator", why=why, since=redis_client.server_time_ms(self._redis), who=who)
        end = () if for_ms is None else ("PX", for_ms)
        key = keyspace.hook_pause_key(hook)
        redis_client.run_command(self._redis, ("SET", key, pauses.encode_pause(said), *end))

    def resume(self, hook: str) -> bool:
        """End an endpoint's pause, and close its circuit. Answers whether it had either."""
        keys = (keyspace.hook_pause_key(hook), keyspace.hook_circuit_key(hook))
        return bool(redis_client.run_command(self._redis, ("DEL", *keys)))

    def find_known(self) -> set[str]:
        """The names of all endpoints that have positions, configured or not; of a cluster, of the servers that are there."""
        found: set[str] = set()
        for server in redis_client.servers_of(self._redis):
            try:
                names = server.scan_iter(keyspace.hook_key_pattern(), count=1_000)
                found |= {keyspace.hook_of_key(key.decode()) for key in names}
            except redis.RedisError as e:
                if not redis_client.is_alone(self._redis, e):
                    raise
        return found

    def forget(self, hook: str) -> bool:
        """Remove all that Redis has of an endpoint. Answers whether there was anything."""
        keys = (
            keyspace.hook_positions_key(hook),
            keyspace.hook_lease_key(hook),
            keyspace.hook_fence_key(hook),
            keyspace.hook_circuit_key(hook),
            keyspace.hook_pause_key(hook),
        )
        return bool(redis_client.run_command(self._redis, ("DEL", *keys)))


def _positions_moved(moves: Mapping[int, EntryId]) -> list[HookPosition]:
    return [HookPosition(shard=k, entry_id=str(at)) for k, at in moves.items()]


def _parse_positions(stored: Mapping[bytes, bytes]) -> dict[int, EntryId]:
    return {int(k): EntryId.parse(at) for k, at in stored.items()}
