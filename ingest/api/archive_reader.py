"""Reads the archive for the API, beside the event loop: SQL blocks, and an archive may be slow or dead.

Law: no webhook waits for the archive. Each read has a thread of its own, MAX_READS at once, and a request that has no answer
within READ_DEADLINE_S is told to come again. A read that nobody waits for any more is ended by its database. On a server
that stands still it ends when that goes on, or its connection breaks, and keeps its place until then: so no more than
MAX_READS threads hang, and further requests are told so. They are daemons, as a process that ends waits for none of them.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from threading import Thread
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from config.archive import archive_schema
from config.archive.database import ArchiveDatabase, describe_failure
from config.settings.config_errors import ConfigError
from ingest.api.problems import ApiError

log = structlog.get_logger()

MAX_READS = 4
READ_DEADLINE_S = 10.0
ARCHIVE_RETRY_AFTER_S = "5"

T = TypeVar("T")


class ArchiveUnavailableError(ApiError):
    """The archive has not answered. A request that needs it becomes this."""

    def __init__(self, detail: str) -> None:
        super().__init__(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "the archive does not answer",
            detail,
            headers={"Retry-After": ARCHIVE_RETRY_AFTER_S},
        )


class ArchiveReader:
    """Reads of one archive. Raises ConfigError if its URL cannot be used."""

    def __init__(self, url: str, deadline_s: float = READ_DEADLINE_S) -> None:
        self._database = ArchiveDatabase(url, busy_timeout_s=deadline_s)
        self._deadline_s = deadline_s
        self._places = asyncio.Semaphore(MAX_READS)
        self._schema_is_known = False
        self._failed = ""

    async def run(self, function: Callable[[Connection], T]) -> T:
        """Return what `function` makes of a transaction that reads; it runs in a thread. Raises ArchiveUnavailableError, and
        what `function` raises."""
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._places.acquire()
                answer = await self._start_read(function)  # which gives the place back
        except TimeoutError as e:
            raise self._unavailable("it took too long", e) from e
        except SQLAlchemyError as e:
            raise self._unavailable("its database failed", e) from e
        except ConfigError as e:
            raise self._unavailable("there is none, or it is of an older release", e) from e
        self._failed = ""
        return answer

    def close(self) -> None:
        """Close the connections that nobody reads on."""
        self._database.close()

    def _start_read(self, function: Callable[[Connection], T]) -> "asyncio.Future[T]":
        """Read in a thread, which gives its place back when it is done, though nobody waits for it any more."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def settle(set_outcome: Callable[[Any], None], outcome: object) -> None:
            self._places.release()
            if not answer.done():
                set_outcome(outcome)

        def read() -> None:
            try:
                outcome: tuple[Callable[[Any], None], object] = (answer.set_result, self._read(function))
            except Exception as e:  # noqa: BLE001 (it is raised where it is waited for)
                outcome = (answer.set_exception, e)
            with suppress(RuntimeError):  # the loop is closed: the process ends
                loop.call_soon_threadsafe(settle, *outcome)

        try:
            Thread(target=read, name="archive reader", daemon=True).start()
        except RuntimeError as e:  # no more threads: the system's limit
            settle(answer.set_exception, ArchiveUnavailableError(str(e)))
        return answer

    def _read(self, function: Callable[[Connection], T]) -> T:
        if not self._schema_is_known:
            archive_schema.require_schema(self._database)
            self._schema_is_known = True
        with self._database.reading(self._deadline_s) as connection:
            return function(connection)

    def _unavailable(self, problem: str, error: Exception) -> ArchiveUnavailableError:
        """Log why once in a row: a problem's text is for strangers, and the error may hold paths."""
        failure = type(error).__name__
        if failure != self._failed:
            why = describe_failure(error) if isinstance(error, SQLAlchemyError) else str(error)
            log.warning("the archive cannot be read", error=failure, why=why)
        self._failed = failure
        return ArchiveUnavailableError(problem)
