"""Do replicas have what was done? Asked once at the end of what somebody does: those of a server that has failed over meanwhile
would confirm what it knows, so the history of its changes is compared too."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec
import redis

from config.settings.settings import Settings
from config.store import redis_client
from config.store.function_calls import Command
from config.store.redis_client import NotReplicatedError
from engine.model.errors import ParleyError
from workers.store.deployment import Deployment

_HISTORY_COMMAND: Command = ("INFO", "replication")


class NotConfirmedError(ParleyError):
    """It is done, but a failover may lose it. The text says why, and what to do."""


def find_history(settings: Settings, lanes: redis.Redis) -> str:
    """Return which history of changes the Redis of the lanes has, of a cluster each of its servers that answers, if any of it is
    to be confirmed."""
    if not settings.replicas:
        return ""
    told = redis_client.ask_each(lanes, [_HISTORY_COMMAND])
    redis_client.raise_first_error([answer for (answer,) in told.values()])
    return _parse_history(told)


@contextmanager
def replicated_at_end(deployment: Deployment) -> Iterator[Deployment]:
    """For what somebody does in a process that goes on: the deployment as it is now, and at the end of the block what
    `require_replicated` says."""
    here = msgspec.structs.replace(deployment, history=find_history(deployment.settings, deployment.lanes))
    yield here
    require_replicated(here)


def require_replicated(deployment: Deployment) -> None:
    """Return once so many replicas as the settings ask for have what was done since the deployment's `history` was found. Raises
    NotConfirmedError if they have not, or may not."""
    replicas = deployment.settings.replicas
    if not replicas:
        return
    try:
        told = redis_client.ask_each(deployment.lanes, [_HISTORY_COMMAND], replicas=replicas)
        redis_client.raise_first_error([answer for (answer,) in told.values()])
    except NotReplicatedError as e:
        raise NotConfirmedError(
            f"it is done, but only {e} (PARLEY_REPLICAS): a failover may lose it. "
            "Repeat it once they are back"
        ) from e
    if _parse_history(told) != deployment.history:
        raise NotConfirmedError(
            "the Redis of the lanes, or a server of its cluster, has failed over, was started again, came or "
            "went meanwhile: what was done may be lost. Repeat it"
        )


def _parse_history(told: Mapping[str, Sequence[Mapping[str, object]]]) -> str:
    return " ".join(
        sorted(f"{address}{answer.get('master_replid', '')}" for address, (answer,) in told.items())
    )
