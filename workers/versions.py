"""Where is the version of a survey that a session began with? In Redis, put there by whoever first ran it.

So that a process with other files, older or newer, can go on with a session that is pinned to it.
"""

import msgspec
import redis
import structlog

from config import keyspace
from engine import Surveys
from engine.compiling import Rejected

log = structlog.get_logger()

_decode = msgspec.msgpack.Decoder(tuple[str, bytes]).decode


def publish(client: redis.Redis, surveys: Surveys) -> None:
    """Keep this process's versions for the others. A version is the hash of its file, so none is ever overwritten
    by another."""
    for survey in filter(None, map(surveys.current, surveys.names())):
        client.hsetnx(keyspace.SURVEYS, survey.version, msgspec.msgpack.encode((survey.file, survey.source)))


def learn(client: redis.Redis, surveys: Surveys) -> None:
    """Make every version that anyone ran known to this process."""
    known: dict[bytes, bytes] = keyspace.ask(client, ("HGETALL", keyspace.SURVEYS))
    for version, stored in known.items():
        if surveys.version(version.decode()) is None:
            try:
                surveys.add(*_decode(stored))
            except (Rejected, msgspec.MsgspecError) as e:
                log.error(  # noqa: TRY400 (the sentence is in `why`)
                    "a stored survey cannot be read by this release", version=version.decode(), why=str(e)
                )
