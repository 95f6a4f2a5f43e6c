"""Is the Redis of the lanes the one that the settings mean? Until `web` knows, nothing goes there.

`web` starts while Redis is away. So it looks as soon as Redis answers, before the first command of all. If the lanes are
divided into another number of shards, or the server may lose what it acknowledges, the process ends with the sentence with
which it would not have started; what was spooled meanwhile names people, not shards, and is handed over by the next one.

Of a cluster whose other servers answer, the one that has the number of shards may be away. Then the number of the settings is
believed if MIN_AGREEING_KEYS on the others lie by it, and none otherwise: with another, half of them would not.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from itertools import islice

import redis
import structlog

from config.connections.cluster_client import ClusterClient
from config.settings.config_errors import ConfigError
from config.settings.durability import require_durability
from config.settings.redis_rights import explained_refusals
from config.settings.server_mode import require_server_mode
from config.settings.settings import Settings
from config.settings.shard_count import settle_shards
from config.store import keyspace, redis_client
from ingest.intake.mailboxes import RedisUnavailableError

log = structlog.get_logger()

CHECK_TIMEOUT_S = 1.0
"""How long Redis may take to answer."""

MIN_AGREEING_KEYS, MAX_KEYS_LOOKED_AT = 64, 1_000
"""Keys by which a number of shards is believed that cannot be read; and those of one server that are looked at."""

EXIT_MISTAKE, EXIT_AGAIN = 2, 1
"""Exit statuses: what the settings say is wrong; or the process only has to begin anew, as it knows better then."""


def check_lanes_server(settings: Settings) -> Settings:
    """Return the settings with the number of shards that the lanes are divided into. Raises ConfigError if they or their
    server are not as the settings say, and redis.RedisError."""
    with (
        redis_client.connect(settings.redis_url, retries=0, timeout_s=CHECK_TIMEOUT_S) as lanes,
        explained_refusals(),
    ):
        require_server_mode(lanes)
        require_durability(lanes, settings.durability)
        try:
            return settle_shards(lanes, settings)
        except redis.RedisError as e:
            if not redis_client.is_away(e) or not _others_agree(lanes, settings.shards):
                raise
        log.warning(
            "the number of shards lies on a server that is away; the others' keys lie by PARLEY_SHARDS"
        )
        return settings


def _others_agree(lanes: redis.Redis, shards: int) -> bool:
    """Whether enough keys on the servers that answer lie by this number of shards, and none otherwise."""
    if not isinstance(lanes, ClusterClient):
        return False
    agreeing = 0
    for server in lanes.servers():
        with suppress(redis.RedisError):
            for name in islice(server.scan_iter(keyspace.SHARD_KEY_PATTERN, 1_000), MAX_KEYS_LOOKED_AT):
                key = keyspace.parse_shard_key(name.decode(errors="replace"))
                if key and key.owner is not None:
                    if keyspace.shard_of(key.owner, shards) != key.k:
                        return False
                    agreeing += 1
    return agreeing >= MIN_AGREEING_KEYS


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
