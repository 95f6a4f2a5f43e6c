"""Secrets that are made once and kept in Redis, for everybody who works on it."""

import redis

from config.store import redis_client


def get_or_set(client: redis.Redis, name: str, mine: str) -> str:
    """What is kept there, or from now on `mine`. Read first: a server whose memory is full takes nothing. Read last: what is
    not there has been lost by a failover since it was put there."""
    while (kept := redis_client.run_command(client, ("GET", name))) is None:
        client.set(name, mine, nx=True)
    found: bytes = kept
    return found.decode()
