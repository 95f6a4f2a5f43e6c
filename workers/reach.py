"""How does a command reach the Redis that is running? By PARLEY_REDIS_URL, or where `parley run` left a note."""

from collections.abc import Mapping

import click
import redis

from config import keyspace
from config.settings import Settings, default_broker_url, exit_with_mistakes, load_settings
from workers.embedded import url_of_running


def reach(environ: Mapping[str, str]) -> tuple[Settings, redis.Redis]:
    """The settings, and a client of the Redis that holds the lanes. Ends the command with a sentence if there is none.

    Whatever the survey files are: what stands in the way of a start must not stand in an operator's.
    """
    settings, url = _where(environ)
    return settings, _connected(url)


def reach_both(environ: Mapping[str, str]) -> tuple[Settings, redis.Redis, redis.Redis]:
    """The same, and a client of the Redis that holds the wake-ups."""
    settings, url = _where(environ)
    return settings, _connected(url), _connected(settings.broker_url or default_broker_url(url))


def _where(environ: Mapping[str, str]) -> tuple[Settings, str]:
    with exit_with_mistakes():
        settings = load_settings(environ)
    url = settings.redis_url or url_of_running(settings.var)
    if not url:
        raise click.ClickException(
            f"nothing is running on {settings.var}: start `parley run`, or set PARLEY_REDIS_URL to the server in use"
        )
    return settings, url


def _connected(url: str) -> redis.Redis:
    client = keyspace.connect(url, retries=0)
    try:
        client.ping()
    except redis.RedisError as e:
        raise click.ClickException(f"Redis at {url} does not answer ({type(e).__name__})") from e
    return client
