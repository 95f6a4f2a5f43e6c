"""Whose is a name that logs have? Everybody is looked through, as by `parley lane`, beside the pages: some 100,000 keys of Redis a
second, then the archive. No table of names is kept, from which numbers could be read."""

from collections.abc import Callable

import msgspec

from config.settings.log_key import former_log_key
from engine.model.errors import ParleyError
from workers.console.console_archive import LONGEST_READING_S
from workers.console.kept_readings import KeptReading, KeptReadings
from workers.diagnosis.log_names import count_keys, find_archived_by_log_name, find_by_log_name
from workers.history.readable_archive import open_readable_archive
from workers.store.deployment import Deployment

LONGEST_SEARCH_S = 300.0
"""In Redis: 30 million keys or so."""

MAX_WAITING = 30
"""Searches: each waits for those before it."""


class NamedPerson(msgspec.Struct, frozen=True):
    """Whose name it is; None: nobody's who has anything here. `unread` is why the archive was not looked through."""

    number: str | None
    unread: str = ""


class SearchProgress(msgspec.Struct):
    """How many of so many keys of Redis were looked at; `total` is 0 as long as they are not counted."""

    looked_at: int = 0
    total: int = 0


class LogNameSearch:
    """Looks for people, for one name after the other; whoever asks meanwhile is told how far it is. `is_stopping`: the process ends."""

    def __init__(
        self, deployment: Deployment, readings: KeptReadings, is_stopping: Callable[[], bool]
    ) -> None:
        self._deployment = deployment
        self._readings = readings
        self._is_stopping = is_stopping
        self._progress: dict[str, SearchProgress] = {}
        self._waiting: set[str] = set()

    async def look(self, name: str) -> KeptReading[NamedPerson]:
        """Who it is, as far as that is known by now; begin to look, unless that is under way. What was found is told once, as a number
        that is remembered would outlive an erasure."""
        key = "log name", name
        if len(self._waiting) >= MAX_WAITING and name not in self._waiting:
            return KeptReading(0, problem=f"{MAX_WAITING} searches wait already: try again in a few minutes.")
        self._waiting.add(name)
        reading = await self._readings.look(
            key, lambda: self._find_waiting(name), lasts=True, threads="searching"
        )
        if not reading.is_waited_for:
            self._waiting.discard(name)
            self._readings.forget(key)
        return reading

    def _find_waiting(self, name: str) -> NamedPerson:
        try:
            return self.find(name)
        finally:
            self._waiting.discard(name)

    def progress_of(self, name: str) -> SearchProgress:
        """How far it is with a name; nothing yet, if others are before it."""
        return self._progress.get(name, SearchProgress())

    def find(self, name: str) -> NamedPerson:
        """Look at everybody; it waits. Raises SearchEndedError, redis.RedisError and SQLAlchemyError."""
        deployment = self._deployment
        keys = [deployment.open_log_key(), former_log_key(deployment.settings)]
        progress = self._progress[name] = SearchProgress()
        begun_s = deployment.host.monotonic_s()

        def note(more: int) -> None:
            progress.looked_at = min(progress.looked_at + more, progress.total)
            if self._is_stopping() or deployment.host.monotonic_s() - begun_s > LONGEST_SEARCH_S:
                raise SearchEndedError(
                    f"Nobody was found among {progress.looked_at:,} of {progress.total:,} keys of Redis, and "
                    "it takes too long here: `parley lane` with this name looks at all of them"
                )

        try:
            progress.total = count_keys(deployment.lanes)
            shards = range(deployment.settings.shards)
            found = find_by_log_name(deployment.lanes, shards, keys, name, note)
            if found is not None:
                return NamedPerson(found)
            with open_readable_archive(deployment) as (archive, why):
                if archive is None:
                    return NamedPerson(None, f"The archive cannot be read: {why}." if why else "")
                return NamedPerson(find_archived_by_log_name(archive, keys, name, LONGEST_READING_S))
        finally:
            self._progress.pop(name, None)


class SearchEndedError(ParleyError):
    """It was not looked at everybody. The text says what does that."""
