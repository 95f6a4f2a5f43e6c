"""What a process says that its Redis user may not do, at its start."""

from collections.abc import Iterator
from contextlib import contextmanager

import redis

from config.settings.config_errors import ConfigError
from config.store.missing_rights import refusal_sentence


@contextmanager
def explained_refusals() -> Iterator[None]:
    """For what a start needs: raise ConfigError, with a sentence, in place of NoPermissionError, and of MovedError."""
    try:
        yield
    except (redis.exceptions.MovedError, redis.exceptions.AskError) as e:
        raise ConfigError(
            [f"the Redis of one of our URLs is not what the URL says: {CLUSTER_URL_SENTENCE}"]
        ) from e
    except redis.exceptions.NoPermissionError as e:
        raise ConfigError([refusal_sentence(e)]) from e


CLUSTER_URL_SENTENCE = (
    "it is a server of a cluster, and has a part of the keys: write redis+cluster:// in place of "
    "redis:// in its URL"
)
"""For who has reached one with the URL of one server (MOVED)."""
