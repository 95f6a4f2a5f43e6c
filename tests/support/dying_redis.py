"""A client of Redis whose process dies after so many commands: those before are made, in the midst of a pipeline too."""

from collections.abc import Sequence
from typing import Any

import redis

from config.connections.cluster_client import ClusterClient
from config.connections.replication import Command


class DiedError(Exception):
    """The process is gone."""


def dying_client(client: redis.Redis) -> "DyingRedis | DyingCluster":
    """One that dies before its command number `lives`, from 0, and leads where `client` does."""
    if isinstance(client, ClusterClient):
        return DyingCluster(client.seeds, client._class, client._options)
    return DyingRedis(connection_pool=client.connection_pool)


class DyingCluster(ClusterClient):
    """As DyingRedis. Of several commands, those before are made whichever server they go to."""

    lives = 0

    def try_commands(
        self, commands: Sequence[Command], *, transaction: bool = False, replicas: int = 0
    ) -> list[Any]:
        many, lives = len(commands), self.lives
        self.lives = max(0, lives - many)
        if many <= lives:
            return super().try_commands(commands, transaction=transaction, replicas=replicas)
        if lives and not transaction:
            super().try_commands(commands[:lives], replicas=replicas)
        raise DiedError

    def execute_command(self, *args: Any, **options: Any) -> Any:
        if not self.lives:
            raise DiedError
        self.lives -= 1
        return super().execute_command(*args, **options)


class DyingRedis(redis.Redis):
    """Dies before its command number `lives`, from 0."""

    lives = 0

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.spend(1)
        return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> "redis.client.Pipeline":
        made = _DyingPipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )  # fmt: skip
        made.owner, made.is_whole = self, transaction
        return made

    def spend(self, commands: int) -> None:
        if self.lives < commands:
            raise DiedError
        self.lives -= commands


class _DyingPipeline(redis.client.Pipeline):
    owner: DyingRedis
    is_whole: bool
    """It is a transaction."""

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        many, lives = len(self.command_stack), self.owner.lives
        if many <= lives or self.is_whole:
            self.owner.spend(many)
            return super().execute(raise_on_error)
        del self.command_stack[lives:]
        if lives:
            super().execute(raise_on_error)
        self.owner.lives = 0
        raise DiedError
