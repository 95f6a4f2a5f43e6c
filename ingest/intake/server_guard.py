"""Is the Redis of the lanes the one that the settings mean? Until `web` knows, nothing goes there.

`web` starts while Redis is away. So it looks as soon as Redis answers, before the first command of all. If the lanes are
divided into another number of shards, or the server may lose what it acknowledges, the process ends with the sentence with
which it would not have started; what was spooled meanwhile names people, not shards, and is handed over by the next one.
"""

import asyncio
import os
from collections.abc import Callable

import redis
import structlog

from config.settings.config_errors import ConfigError
from config.settings.durability import require_durability
from config.settings.settings import Settings
from config.settings.shard_count import settle_shards
from config.store import redis_client
from ingest.intake.mailboxes import RedisUnavailableError

log = structlog.get_logger()

CHECK_TIMEOUT_S = 1.0
"""How long Redis may take to answer."""

EXIT_MISTAKE, EXIT_AGAIN = 2, 1
"""Exit statuses: what the settings say is wrong; or the process only has to begin anew, as it knows better then."""


def check_lanes_server(settings: Settings) -> Settings:
    """Return the settings with the number of shards that the lanes are divided into. Raises ConfigError if they or their
    server are not as the settings say, and redis.RedisError."""
    with redis_client.connect(settings.redis_url, retries=0, timeout_s=CHECK_TIMEOUT_S) as lanes:
        require_durability(lanes, settings.durability)
        return settle_shards(lanes, settings)


def end_process(status: int) -> None:
    """End at once, as by a kill: nothing is acknowledged that is not in its mailbox or on disk."""
    os._exit(status)


class ServerGuard:
    """Looks once at the server that `settings` mean, for all who wait for it. `end` is called with an exit status if it is
    not as they say."""

    def __init__(self, settings: Settings, end: Callable[[int], None] = end_process) -> None:
        self._settings = settings
        self._end = end
        self._look: asyncio.Task[None] | None = None

    async def admit(self) -> None:
        """Return once the server is known to be the right one. Raises RedisUnavailableError while it is not."""
        if self._look is None or (self._look.done() and self._look.exception() is not None):
            self._look = asyncio.get_running_loop().create_task(asyncio.to_thread(self._check))
        try:
            await asyncio.shield(self._look)
        except redis.RedisError as e:
            raise RedisUnavailableError(str(e) or type(e).__name__) from e
        except ConfigError as mistakes:
            raise RedisUnavailableError(str(mistakes)) from mistakes

    def _check(self) -> None:
        try:
            found = check_lanes_server(self._settings)
        except ConfigError as mistakes:
            for problem in mistakes.problems:
                log.error("the Redis of the lanes is not as meant", problem=problem)  # noqa: TRY400
            self._end(EXIT_MISTAKE)
            raise
        if found.shards != self._settings.shards:
            log.warning(
                "the lanes are divided into another number of shards; beginning anew", shards=found.shards
            )
            self._end(EXIT_AGAIN)
            raise ConfigError(
                [f"the lanes are divided into {found.shards} shards, not {self._settings.shards}"]
            )
