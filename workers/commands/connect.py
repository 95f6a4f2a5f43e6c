"""Connects a command to the Redis that is running: by PARLEY_REDIS_URL, or where `parley run` left a note."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress

import click
import msgspec
import redis

from config.connections.redis_failures import failure_clause
from config.connections.redis_url import default_broker_url
from config.settings.config_errors import unset_clause
from config.settings.settings import (
    Secret,
    Settings,
    exit_on_config_error,
    load_settings,
)
from config.settings.shard_count import find_shards, settle_shards
from config.store import keyspace, redis_client
from workers.runtime.embedded_redis import url_of_running
from workers.store.deployment import Deployment
from workers.store.replication_check import NotConfirmedError, find_history, require_replicated

OPTIONAL_REDIS_TIMEOUT_S = 2.0
"""How long a server may take to answer that a command can do without."""


def connect_lanes(environ: Mapping[str, str], *, begins: bool = False) -> Deployment:
    """The deployment, whose Redis of the lanes answers; that of the wake-ups may not, and is soon given up. Ends the command
    with a sentence if the lanes' does not, or if they are divided into another number of shards. A command that may be the
    first to write, before any process has started, `begins` the lanes: it stores their number.

    Survey files are not read: what stands in the way of a start must not stand in an operator's.
    """
    settings = load_settings_in_use(environ)
    _tell_unchecked(settings)
    broker = redis_client.connect(settings.broker_url, retries=0, timeout_s=OPTIONAL_REDIS_TIMEOUT_S)
    lanes = _connect_or_exit("lanes", settings.redis_url)
    with exit_on_config_error():
        settings = (settle_shards if begins else find_shards)(lanes, settings)
    return Deployment(settings, lanes, broker, history=find_history(settings, lanes))


def connect_both(environ: Mapping[str, str], retries: int = 0) -> Deployment:
    """The deployment, both of whose servers answer. A call whose reply is lost is repeated `retries` times."""
    settings = load_settings_in_use(environ)
    _tell_unchecked(settings)
    lanes = _connect_or_exit("lanes", settings.redis_url, retries)
    settings = _find_or_exit(lanes, settings)
    broker = _connect_or_exit("wake-ups", settings.broker_url, retries)
    return Deployment(settings, lanes, broker, history=find_history(settings, lanes))


def confirm_replicated(deployment: Deployment) -> None:
    """Return once so many replicas as the settings ask for have what was done since the command has connected. Ends it with a
    sentence if they have not, or may not."""
    try:
        require_replicated(deployment)
    except NotConfirmedError as e:
        raise click.ClickException(str(e)) from e


def find_readable_shards(deployment: Deployment) -> list[int]:
    """The shards that can be read now: all, but on a cluster those of a server that is away, which is said. For commands that
    list what all shards have."""
    shards = range(deployment.settings.shards)
    if not redis_client.is_cluster(deployment.lanes):
        return list(shards)
    answers = redis_client.try_commands(
        deployment.lanes, [("EXISTS", keyspace.server_key(k)) for k in shards]
    )
    redis_client.raise_refusals(answers)
    if away := [k for k, answer in enumerate(answers) if isinstance(answer, Exception)]:
        click.echo(
            f"{away_sentence(away)}: what is there is left out (`parley status` says which server)", err=True
        )
    return [k for k in shards if k not in away]


def away_sentence(away: Sequence[int]) -> str:
    """Say of which shards nothing can be read."""
    named = ", ".join(map(str, away[:_MOST_SHARDS_NAMED]))
    more = f" and {len(away) - _MOST_SHARDS_NAMED} more" if len(away) > _MOST_SHARDS_NAMED else ""
    which = f"shard {named}" if len(away) == 1 else f"shards {named}{more}"
    return f"{which} cannot be read, as a server of the cluster is away"


_MOST_SHARDS_NAMED = 8


def read_settings_in_use(environ: Mapping[str, str]) -> Settings:
    """The settings of a command that only looks, at servers that may not answer: the number of shards is compared if the
    lanes' does."""
    settings = load_settings_in_use(environ)
    with (
        redis_client.connect(settings.redis_url, retries=0, timeout_s=OPTIONAL_REDIS_TIMEOUT_S) as lanes,
        suppress(redis.RedisError),
    ):
        return _find_or_exit(lanes, settings)
    return settings


def _find_or_exit(lanes: redis.Redis, settings: Settings) -> Settings:
    with exit_on_config_error():
        return find_shards(lanes, settings)


def _tell_unchecked(settings: Settings) -> None:
    """Say which secrets this command does without."""
    if settings.unset:
        unchecked = "what needs it is not checked"
        click.echo(f"{unset_clause(settings.unset)}: {unchecked}", err=True)


def load_settings_in_use(environ: Mapping[str, str], *, needs_secrets: bool = False) -> Settings:
    """The settings, with where the servers in use are; secrets of channels and hooks may be unset, unless they are needed. Ends
    the command with a sentence if nobody says where."""
    with exit_on_config_error():
        settings = load_settings(environ, needs_secrets=needs_secrets)
        url = settings.redis_url or url_of_running(settings.var)
    if not url:
        raise click.ClickException(
            f"nothing is running on {settings.var}: "
            "start `parley run`, or set PARLEY_REDIS_URL to the server in use"
        )
    broker_url = settings.broker_url or default_broker_url(url)
    return msgspec.structs.replace(settings, redis_url=Secret(url), broker_url=Secret(broker_url))


def _connect_or_exit(which: str, url: str, retries: int = 0) -> redis.Redis:
    client = redis_client.connect(url, retries)
    try:
        redis_client.require_answer(client)
    except redis.RedisError as e:
        raise click.ClickException(
            f"the Redis of the {which} at {url_without_credentials(url)} {failure_clause(e)} "
            f"({type(e).__name__})"
        ) from e
    return client


def url_without_credentials(url: str) -> str:
    """Return the URL without the user and the password that it may have, before the host or as options."""
    return re.sub("//[^/]*@", "//", url.partition("?")[0])
