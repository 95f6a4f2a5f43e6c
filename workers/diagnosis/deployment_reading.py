"""Reads how a deployment stands, for who looks after it: what Redis has, and what is wrong on this machine."""

from collections.abc import Collection

import redis

from config.service.channel_leftovers import ChannelLeftovers
from config.service.deployment_health import DeploymentState
from config.settings.durability import durability_gaps
from config.settings.settings import ConfigError, Settings
from config.settings.startup_check import load_settings_and_surveys
from config.store import redis_client
from config.telemetry.redis_stats import RedisStats, StatsReader
from config.telemetry.server_stats import find_old_releases
from workers.store.channel_contents import count_leftovers

REDIS_TIMEOUT_S = 1.0

MAX_ALARMS_LOOKED_AT = 4_096
"""Lanes, and outboxes, that are looked at for channels that are not configured: those with the nearest alarms. `parley
channel list` looks at all."""


def read_state(settings: Settings, sounder: StatsReader) -> DeploymentState:
    """The state now. Never raises for a server that does not answer."""
    return check_state(settings, sounder.read(with_answers=True))


def check_state(settings: Settings, found: RedisStats) -> DeploymentState:
    """The state of which `found` was read now, with all that takes longer: surveys are read, and lanes looked at."""
    unset: list[str] = []
    mistakes = _config_errors(unset)
    if not found.lanes.up:
        return DeploymentState(found, mistakes=mistakes, unset=unset, durability=settings.durability)
    return DeploymentState(
        found,
        _non_durable_settings(settings),
        mistakes,
        unset,
        settings.durability,
        _leftovers_of_removed(settings, [k for k in range(settings.shards) if k not in found.away_shards]),
        _old_releases(settings),
    )


def _config_errors(unset: list[str]) -> list[str]:
    """Errors in the settings and surveys, each a line; secrets that are not set are added to `unset`."""
    try:
        load_settings_and_surveys(unset=unset)
    except ConfigError as e:
        return [problem.partition("\n")[0] for problem in e.problems]
    return []


def _non_durable_settings(settings: Settings) -> dict[str, str] | None:
    with redis_client.connect(settings.redis_url, 0, REDIS_TIMEOUT_S) as client:
        try:
            return durability_gaps(client)
        except redis.RedisError:
            return {}


def _old_releases(settings: Settings) -> list[str]:
    with redis_client.connect(settings.redis_url, 0, REDIS_TIMEOUT_S) as client:
        try:
            return find_old_releases(client)
        except redis.RedisError:
            return []


def _leftovers_of_removed(settings: Settings, shards: Collection[int]) -> dict[str, ChannelLeftovers]:
    with redis_client.connect(settings.redis_url, 0, REDIS_TIMEOUT_S) as client:
        try:
            return count_leftovers(client, shards, settings.channels, MAX_ALARMS_LOOKED_AT)
        except redis.RedisError:
            return {}
