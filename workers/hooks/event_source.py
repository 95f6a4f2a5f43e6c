"""The events that follow a position in a shard, for all endpoints of a process: entries read, and told with what they name.

Endpoints that are as far as each other read the same page, which is made once. It is kept for a moment alone: what a person
said who is erased meanwhile is told no longer than that.
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice
from threading import Lock
from typing import Any, NamedTuple

import redis
import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from config.archive.archived_entries import read_end
from config.archive.database import ArchiveDatabase
from config.archive.event_contexts import add_archived_context
from config.host import THIS_HOST, Host
from config.store import keyspace, redis_client
from config.store.entry_id import EntryId
from config.telemetry import metrics
from engine.hooks.event_context import EventContext, MissingContext, missing_context, note_context
from engine.hooks.hook_events import HookEntry, HookEvent, StreamPlace, events_of_entry, read_entry
from engine.model.errors import ParleyError
from engine.model.events import session_of_sms_id
from workers.archiving.stream_reader import parse_entry
from workers.hooks.archive_questions import ArchiveBusyError, ArchiveQuestions
from workers.hooks.entry_reader import EntryReader

log = structlog.get_logger()

PAGE_KEPT_S = 1.0
MOST_PAGES_KEPT = 64

MOST_CONTEXTS_KEPT = 20_000
"""Of each kind: sessions, SMS, tickets."""

ENTRIES_LOOKED_BACK = 10_000
"""Of a shard, where there is no archive that knows what came before."""

LOOK_BACK_INTERVAL_S = 60.0
"""How often that is looked at again."""


SAME_PAGE_WAIT_S = 0.2
"""How long a page is waited for that another thread reads; then it is read twice."""


class ArchiveBehindError(ParleyError):
    """What a session is stands in an entry that the archive has not yet, and that is not among the last of the stream."""


class EventPage(NamedTuple):
    """The entries that follow `position`, each with its events. `is_all`: there were no more when it was read, no sooner than
    `read_s` (of the host's monotonic clock): a page may have been read for another endpoint."""

    position: EntryId
    entries: Sequence[tuple[EntryId, Sequence[HookEvent]]]
    is_all: bool
    read_s: float


class EventSource:
    """Reads events of one deployment, as far as so many `replicas` have them; threads may share it. Without an archive, what it does not find in the streams is
    absent from events."""

    def __init__(
        self,
        client: redis.Redis,
        database: ArchiveDatabase | None,
        host: Host = THIS_HOST,
        replicas: int = 0,
    ) -> None:
        self._redis = client
        self._host = host
        self._archive = None if database is None else ArchiveQuestions(client, database, host)
        self._reader = EntryReader(client, self._archive, replicas)
        self._known = EventContext()
        self._looked_back_s: dict[int, float] = {}
        self._pages: OrderedDict[tuple[int, EntryId], EventPage] = OrderedDict()
        self._forgotten_s = float("-inf")
        self._lock = Lock()
        self._reading: dict[int, Lock] = {}

    def read(self, k: int, position: EntryId) -> EventPage:
        """Read a page of shard `k`. Raises redis.RedisError, sqlalchemy.exc.SQLAlchemyError, ArchiveBusyError and ArchiveBehindError."""
        with self._lock:
            reading = self._reading.setdefault(k, Lock())
        is_first = reading.acquire(
            timeout=SAME_PAGE_WAIT_S
        )  # whoever wants the same page waits for it a little
        try:
            if (kept := self._kept_page(k, position)) is not None:
                return kept
            page = self._read_page(k, position)
            if page.entries:
                self._keep_page(k, position, page)
            return page
        finally:
            if is_first:
                reading.release()

    def forget_pages(self) -> None:
        """Forget what was read until now: an endpoint that was taken may be on another server than before."""
        with self._lock:
            self._pages.clear()
            self._forgotten_s = self._host.monotonic_s()

    def _kept_page(self, k: int, position: EntryId) -> EventPage | None:
        with self._lock:
            page = self._pages.get((k, position))
            return page if page is not None and self._host.monotonic_s() - page.read_s < PAGE_KEPT_S else None

    def _keep_page(self, k: int, position: EntryId, page: EventPage) -> None:
        with self._lock:
            if page.read_s <= self._forgotten_s:
                return
            self._pages[k, position] = page
            self._pages.move_to_end((k, position))
            while len(self._pages) > MOST_PAGES_KEPT:
                self._pages.popitem(last=False)

    def _read_page(self, k: int, position: EntryId) -> EventPage:
        read_s = self._host.monotonic_s()
        page = self._reader.read(k, position)
        entries = [read_entry(StreamPlace(k, *each.id), each.sender, each.content) for each in page.entries]
        if unreadable := sum(each.unreadable for each in entries):
            metrics.HOOK_UNREADABLE.inc(unreadable)
            log.error("records cannot be read, and no endpoint is told of them", shard=k, records=unreadable)
        told = self._tell(k, page.position, entries)
        ids = [each.id for each in page.entries]
        return EventPage(page.position, list(zip(ids, told, strict=True)), page.is_all, read_s)

    def _tell(self, k: int, position: EntryId, entries: Sequence[HookEntry]) -> list[list[HookEvent]]:
        """The events of each entry, with what is known of what they name."""
        records = [record for entry in entries for record in entry.records]
        context = EventContext()
        note_context(records, context)
        with self._lock:
            for _ in range(2):  # a ticket leads to an SMS, and that to a session
                _copy_known(self._known, missing_context(records, context), context)
        missing = missing_context(records, context)
        if any(missing):
            _add_context(context, self._look_up(k, position, missing))
        with self._lock:
            _add_context(self._known, context)
            for known in (self._known.sessions, self._known.sms, self._known.tickets):
                _forget_oldest(known)
        return [events_of_entry(each, context) for each in entries]

    def _look_up(self, k: int, position: EntryId, missing: MissingContext) -> EventContext:
        """What the archive knows of what is missing; without an archive, what the stream had before the position. That is looked
        at too while the archive is behind or away: then it has to have all that is missing, as what events say, and whom they
        are told, shall not depend on how far the archive is. Else raises sqlalchemy.exc.SQLAlchemyError, ArchiveBusyError or
        ArchiveBehindError."""
        found = EventContext()

        def read(connection: Connection) -> bool:
            add_archived_context(connection, missing, found)
            return read_end(connection, k) < position

        try:
            if self._archive is None or not self._archive.is_there():
                return self._look_back(k, position)
            is_behind = self._archive.ask(read)
        except (SQLAlchemyError, ArchiveBusyError):
            found = self._look_back(k, position)
            if not _has_all(found, missing):
                raise
            return found
        if not _has_all(found, missing):
            _add_context(found, self._look_back(k, position))
            if is_behind and not missing.sessions <= found.sessions.keys():
                raise ArchiveBehindError
        return found

    def _look_back(self, k: int, position: EntryId) -> EventContext:
        """What the stream had up to the position, as far as it is looked at; nothing, if it was just now: then that is known."""
        found = EventContext()
        with self._lock:
            if self._host.monotonic_s() - self._looked_back_s.get(k, float("-inf")) < LOOK_BACK_INTERVAL_S:
                return found
        earlier = redis_client.run_command(
            self._redis,
            ("XREVRANGE", keyspace.events_key(k), str(position), "-", "COUNT", ENTRIES_LOOKED_BACK),
        )
        for entry_id, fields in reversed(earlier):
            note_context(parse_entry(k, entry_id, fields)[0].records, found)
        with self._lock:
            self._looked_back_s[k] = self._host.monotonic_s()
            _add_context(self._known, found)
        return found


def _has_all(found: EventContext, missing: MissingContext) -> bool:
    """Whether it is all there, with the sessions of SMS that are known by their tickets."""
    sms = {found.tickets.get(ticket, "") for ticket in missing.tickets}
    sessions = {*missing.sessions, *map(session_of_sms_id, sms)} - {""}
    return (
        sessions <= found.sessions.keys()
        and missing.sms <= found.sms.keys()
        and missing.tickets <= found.tickets.keys()
    )


def _copy_known(known: EventContext, missing: MissingContext, context: EventContext) -> None:
    """Add to a context what is known of what is missing there."""
    context.sessions.update(
        (each, known.sessions[each]) for each in missing.sessions if each in known.sessions
    )
    context.sms.update((each, known.sms[each]) for each in missing.sms if each in known.sms)
    context.tickets.update((each, known.tickets[each]) for each in missing.tickets if each in known.tickets)


def _add_context(context: EventContext, more: EventContext) -> None:
    """Add to a context what another has."""
    context.sessions.update(more.sessions)
    context.sms.update(more.sms)
    context.tickets.update(more.tickets)


def _forget_oldest(known: dict[Any, Any]) -> None:
    for oldest in list(islice(known, max(0, len(known) - MOST_CONTEXTS_KEPT))):
        del known[oldest]
