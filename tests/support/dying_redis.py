"""A client of Redis whose process dies after so many commands: those before are made, in the midst of a pipeline too."""

from typing import Any

import redis


class DiedError(Exception):
    """The process is gone."""


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
