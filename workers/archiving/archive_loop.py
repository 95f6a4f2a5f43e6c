"""Archives until it is told to stop, whatever fails meanwhile: a database that is away is waited for, a full disk is, and so
is Redis. Each kind of failure is logged once in a row."""

from collections.abc import Callable, Iterator
from typing import Literal, Protocol

import redis
import structlog
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from config.settings.config_errors import ConfigError
from config.store.missing_rights import failure_words
from config.telemetry import metrics
from workers.archiving.stream_archiver import StreamArchiver

log = structlog.get_logger()

PARTS = 4
"""Parts of the shards, which are looked at in turn: a look at a shard costs as much as some three entries, whatever it has."""

POLL_INTERVAL_S = 0.25
"""How often a part is looked at, if nothing has more: PARTS times so long, at the most, does a record wait while nothing is
wrong."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0
"""After a failure, and after many in a row."""

ArchiveErrorReason = Literal["redis", "database", "disk_full", "unexpected"]
"""What was in the way."""

_DISK_FULL = "53100"
"""PostgreSQL's code of it."""


class StopRequest(Protocol):
    def wait(self, timeout_s: float | None = None) -> bool:
        """True once the process is told to stop, False if it was not within `timeout_s`."""


def archive_until_stopped(prepare: Callable[[], StreamArchiver], stop: StopRequest) -> None:
    """Run what `prepare` makes, made again after a failure of the database. Raises ConfigError if the archive cannot be this
    deployment's."""
    archiver: StreamArchiver | None = None
    failures, failed = 0, ""
    pause_s = 0.0
    while not stop.wait(pause_s):
        try:
            archiver = archiver or prepare()
            pause_s = 0.0 if archiver.run_round() else POLL_INTERVAL_S
        except ConfigError:
            raise
        except Exception as e:  # noqa: BLE001 (whatever it is, it is tried again)
            reason = error_reason(e)
            if reason != "redis":
                archiver = None
            failed = _log_failure(e, reason, failed)
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(failures, 10))
            failures += 1
        else:
            if failed:
                log.info("archiving again")
            failures, failed = 0, ""


def error_reason(error: Exception) -> ArchiveErrorReason:
    if isinstance(error, redis.RedisError):
        return "redis"
    if not isinstance(error, SQLAlchemyError):
        return "unexpected"
    return "disk_full" if any(map(_is_disk_full, _causes_of(error))) else "database"


def _causes_of(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it came up beside: SQLite undoes all when the disk is full, and then there is nothing to undo."""
    while True:
        yield error
        if error.__context__ is None:
            return
        error = error.__context__


def _is_disk_full(error: BaseException) -> bool:
    original = getattr(error, "orig", None)
    return getattr(original, "sqlstate", "") == _DISK_FULL or "is full" in str(original)


def _log_failure(error: Exception, reason: ArchiveErrorReason, failed: str) -> str:
    """Count a failure, and log it unless it is of the kind `failed`, the last one. Answers its kind."""
    metrics.ARCHIVE_ERRORS.labels(reason).inc()
    kind = failure_words(error)
    if kind != failed:
        trace = error if reason == "unexpected" else None
        why = _shown_cause(error)
        log.warning(
            "nothing is archived; it is tried again", reason=reason, error=kind, why=why, exc_info=trace
        )
    return kind


def _shown_cause(error: Exception) -> str:
    """The first line of what the database said of itself first; nothing where it might quote what people wrote."""
    said = [str(each.orig) for each in _causes_of(error) if isinstance(each, OperationalError)]
    return said[-1].partition("\n")[0] if said else ""
