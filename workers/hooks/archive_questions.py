"""Asks the archive, for endpoints, and waits for it for no longer than the others can do without.

A database that is frozen, or behind a network that swallows what is sent, answers nothing at all. So each question has a
thread of its own, which nobody waits for longer than a while; one that stands still keeps its place among a few, and when
those are taken, whoever asks is told so at once. (ingest/api/archive_reader.py does the same for the API.)
"""

from collections.abc import Callable
from concurrent.futures import Future
from threading import BoundedSemaphore, Thread
from typing import TypeVar

import redis
from sqlalchemy import Connection

from config.archive.database import ArchiveDatabase
from config.host import THIS_HOST, Host
from engine.model.errors import ParleyError
from workers.archiving.deployment_pairing import is_ours

QUESTIONS_AT_ONCE = 4

STATEMENT_LIMIT_S = 5.0
"""How long the database may take for a statement: all are by index."""

ANSWER_LIMIT_S = 6.0
"""How long an answer is waited for."""

LOOK_INTERVAL_S = 10.0
"""How often it is looked whether there is an archive by now."""

Answer = TypeVar("Answer")


class ArchiveBusyError(ParleyError):
    """The archive does not answer, or as many questions are under way as may be."""


class ArchiveQuestions:
    """Asks the archive of one deployment, if there is one; threads may share it."""

    def __init__(self, client: redis.Redis, database: ArchiveDatabase, host: Host = THIS_HOST) -> None:
        self._redis = client
        self._database = database
        self._host = host
        self._places = BoundedSemaphore(QUESTIONS_AT_ONCE)
        self._is_there = False
        self._looked_s = float("-inf")

    def is_there(self) -> bool:
        """Whether there is an archive of this deployment. One that was seen is there for good, though it may be away. Raises as
        `ask` does."""
        if not self._is_there and self._host.monotonic_s() - self._looked_s >= LOOK_INTERVAL_S:
            self._is_there = self._run(lambda: is_ours(self._redis, self._database))
            self._looked_s = self._host.monotonic_s()
        return self._is_there

    def ask(self, question: Callable[[Connection], Answer]) -> Answer:
        """Return what `question` reads in a transaction. Raises sqlalchemy.exc.SQLAlchemyError and ArchiveBusyError."""

        def read() -> Answer:
            with self._database.reading(STATEMENT_LIMIT_S) as connection:
                return question(connection)

        return self._run(read)

    def _run(self, read: Callable[[], Answer]) -> Answer:
        if not self._places.acquire(blocking=False):
            raise ArchiveBusyError
        answer: Future[Answer] = Future()

        def run() -> None:
            try:
                answer.set_result(read())
            except BaseException as e:  # noqa: BLE001 (whoever waits gets it)
                answer.set_exception(e)
            finally:
                self._places.release()

        Thread(target=run, name="archive", daemon=True).start()
        try:
            return answer.result(ANSWER_LIMIT_S)
        except TimeoutError as e:
            if answer.done():
                raise  # the database's own
            raise ArchiveBusyError from e
