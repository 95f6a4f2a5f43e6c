"""`GET /v1/sessions/<id>`, `GET /v1/sessions?clientReference=…&channel=…`, `DELETE /v1/sessions/<id>`.

A session is found by its id in whichever shard its person is, and in the archive where Redis no longer knows it; an
invitation that is not open yet is one too. What was said comes from the event stream, read from the moment of opening on
until a day after the end, for late receipts; of a session that is older than what the stream is sure to have, from the
archive, and from the stream what that has not yet. So a young session is told though the archive is away.
A session on a channel or of a survey that the key is not for is not there; nor is one of which only the person is known,
unless the key is for all channels and surveys; for all surveys is enough if it is asked for by its reference. The audit is
told before a session is shown.
"""

import re
from collections.abc import AsyncIterator
from functools import partial
from http import HTTPStatus
from itertools import chain

import falcon
import msgspec
from falcon.asgi import Request, Response
from msgspec import UNSET, UnsetType
from sqlalchemy import Connection

from config.archive import archived_entries
from config.archive.archived_entries import ArchivedEntry
from config.archive.pseudonyms import Pseudonyms, read_pseudonym_key
from config.host import THIS_HOST, Host
from config.invitations.invitation_body import SMS_CHANNEL
from config.settings.channels import ApiKey
from config.settings.settings import Settings
from config.store import function_calls, keyspace, stored_values
from config.store.entry_id import BEGINNING, EntryId
from config.store.event_entries import plain_records
from config.store.held_invitations import HeldInvitation, decode_held_invitation
from config.store.server_functions import ReadSenderRecords
from config.telemetry import metrics
from engine.model import lane as lane_format
from engine.model.events import (
    ArchiveRecord,
    CancelSession,
    InboundEvent,
    Invitation,
    OpeningRefused,
    SessionEnded,
    cancel_event_id,
    decode_inbound,
    decode_records,
    derive_session_id,
    encode_event,
)
from engine.model.lane import ChannelLine, UnreadableLaneError
from engine.model.suggestions import expected_instead
from engine.turns.session_routing import channel_of_key
from ingest.api import session_view
from ingest.api.archive_reader import ArchiveReader, ArchiveUnavailableError
from ingest.api.authentication import ApiAuthenticator
from ingest.api.invitation_parser import DAY_MS, utc_datetime
from ingest.api.problems import ApiError
from ingest.api.read_audit import ReadAudit
from ingest.api.session_view import SessionView
from ingest.intake.mailboxes import AsyncRedisClient, InboundItem, MailboxWriter, RedisUnavailableError

STREAM_PAGE_SIZE = 1_000
"""Entries of an event stream that Redis looks at in one go."""

TRIM_MARGIN_MS = 3_600_000
"""By so much a stream may be trimmed too early, as this machine's clock and the server's see it."""


class SessionLocation(msgspec.Struct, frozen=True):
    """Where a session is: its person's shard, from when (ms) on there are records of it, and whether some of them may be in the
    archive alone."""

    id: str
    k: int
    sender: str
    since: int
    is_archived: bool = False


class SessionArchive:
    """Finds sessions and builds their views, from wherever they are: held, in a mailbox, in a lane, in an event stream or in
    the archive. Raises ArchiveUnavailableError where only the archive can know, and it does not answer."""

    def __init__(
        self,
        settings: Settings,
        lanes: AsyncRedisClient,
        reader: ArchiveReader,
        host: Host = THIS_HOST,
    ) -> None:
        self._shards = settings.shards
        self._stream_ms = settings.stream_ms
        self._channels = settings.channels
        self._lanes = lanes
        self._reader = reader
        self._host = host

    async def find(self, session: str) -> SessionLocation | None:
        """Find the session's shard and person. All shards are asked, in one round trip; then the archive, if there has been
        one, and the session was not forgotten on purpose. Raises RedisUnavailableError if a server does not answer that may
        have it."""
        names = [("GET", keyspace.session_key(k, session)) for k in range(self._shards)]
        values = await self._lanes.try_commands([*names, *self._archived_marks()])
        errors = [each for each in values if isinstance(each, RedisUnavailableError)]
        indexed, is_archived = values[: self._shards], any(each == 1 for each in values[self._shards :])
        for k, value in enumerate(indexed):
            if isinstance(value, bytes) and value:
                since, _, sender = value.decode().partition(" ")
                begun = int(since)
                return SessionLocation(session, k, sender, begun, is_archived and self._may_be_trimmed(begun))
        if errors:
            raise errors[0]
        if not is_archived or any(value is not None for value in indexed):
            return None
        found = await self._reader.run(partial(archived_entries.find_session, session=session))
        return SessionLocation(session, *found, is_archived=True) if found else None

    def _archived_marks(self) -> list[function_calls.Command]:
        return [("EXISTS", keyspace.archived_key(k)) for k in range(self._shards)]

    def _may_be_trimmed(self, since: int) -> bool:
        """Whether the event stream, where there is an archive, may have lost what happened then."""
        return since < self._host.wall_ms() - self._stream_ms + TRIM_MARGIN_MS

    async def view(self, found: SessionLocation) -> SessionView | None:
        """The session as it stands; None if nothing is known of it any more."""
        if held := await self.held_invitation(found):
            view = SessionView(
                id=found.id,
                state="held",
                channel=held.event.channel,
                identifier=found.sender,
                starts_after=utc_datetime(await self._not_before_ms(held)),
            )
            session_view.add_invitation(view, held.event)
            return view
        return (
            await self._begun_view(found)
            or await self._waiting_view(found)
            or await self._begun_view(found)
            or await self._lost_view(found)
        )

    async def _begun_view(self, found: SessionLocation) -> SessionView | None:
        """Build the view from the archive and, while it is open, from the lane."""
        line = await self._find_open_line(found)
        view = session_view.build_view(
            found.id, found.sender, [record async for record in self._session_records(found)]
        )
        if line is None or line[1].session is None:
            return view
        channel, session = line[0], line[1].session
        if view is None:  # open for longer than the archive goes back
            view = SessionView(
                id=found.id,
                state="open",
                channel=channel,
                identifier=found.sender,
                survey=session.survey,
                version=session.version,
                language=session.language,
                originator=session.originator,
                opened_at=utc_datetime(session.opened_at),
            )
        if view.state == "open":
            session_view.add_answers(view, session.answers)
        return view

    async def _waiting_view(self, found: SessionLocation) -> SessionView | None:
        """Build the view from the mailbox, where an invitation is when its turn has come."""
        (mail,) = await self._lanes.run_commands(
            [("LRANGE", keyspace.mailbox_key(found.k, found.sender), 0, -1)]
        )
        for entry in mail:
            event = _decode_event(stored_values.parse_mail(entry)[-1])
            if isinstance(event, Invitation) and event.id == found.id:
                view = SessionView(
                    id=found.id, state="waiting", channel=event.channel, identifier=found.sender
                )
                session_view.add_invitation(view, event)
                return view
        return None

    async def _lost_view(self, found: SessionLocation) -> SessionView | None:
        """Return a view that says `dead_letter`: the invitation was accepted so recently that the event stream would
        know its end, and it is nowhere, so it became a dead letter. None if it is older, or never was."""
        if not found.id:
            return None
        (archived,) = await self._lanes.run_commands([("EXISTS", keyspace.archived_key(found.k))])
        if self._host.wall_ms() - found.since > (
            self._stream_ms if archived else keyspace.UNARCHIVED_STREAM_MS
        ):
            return None
        return SessionView(
            id=found.id, state="refused", reason="dead_letter", channel="", identifier=found.sender
        )

    async def held_invitation(self, found: SessionLocation) -> HeldInvitation | None:
        """The session's invitation, while it waits for its turn; None too if it cannot be read."""
        (stored,) = await self._lanes.run_commands(
            [("HGET", keyspace.held_invitations_key(found.k), found.id)]
        )
        held = decode_held_invitation(found.id, found.k, stored) if stored else None
        return held if held and held.is_readable else None

    async def _not_before_ms(self, held: HeldInvitation) -> int:
        """Before when it is not released (ms)."""
        key = keyspace.held_ids_key(held.k, held.event.channel)
        (not_before,) = await self._lanes.run_commands([("ZSCORE", key, held.id)])
        return round(float(not_before or 0))

    async def withdraw_invitation(self, held: HeldInvitation, now: int) -> bool:
        """Hold it no more; False if its turn came first."""
        channel = held.event.channel
        records = encode_event([OpeningRefused(now, channel, held.id, "cancelled", held.event)])
        withdraw = function_calls.withdraw_invitation_command(
            held.k, channel, held.id, held.sender, records, "cancelled"
        )
        (was_held,) = await self._lanes.write([withdraw])
        return bool(was_held)

    async def _session_records(self, found: SessionLocation) -> AsyncIterator[ArchiveRecord]:
        """The records of the session, and others of its person: from the archive, if some may be there alone, then from the
        stream what follows. A page of the stream holds only if the archive has not gone on meanwhile: what it has may have been
        trimmed."""
        after, until = BEGINNING, "+"
        while True:
            if found.is_archived:
                entries, end = await self._reader.run(partial(_read_archived, found, after))
                after = max(after, end)
                for record in chain.from_iterable(entry.records for entry in entries):
                    yield record
                    until = _last_wanted(record, found.id, until)
            while True:
                page, last = await self._stream_page(found, after, until)
                if found.is_archived and await self._archive_end(found) > after:
                    break
                for record in page:
                    yield record
                    until = _last_wanted(record, found.id, until)
                if last is None:
                    return
                after = last

    async def _stream_page(
        self, found: SessionLocation, after: EntryId, until: str
    ) -> tuple[list[ArchiveRecord], EntryId | None]:
        """The person's records in the stream's next entries after `after`, and the last of those entries; None if no more
        follow. None is before the session's beginning."""
        call = ReadSenderRecords(
            events=keyspace.events_key(found.k),
            after_id=f"({after}" if after.ms >= found.since else str(found.since),
            until_id=until,
            max_entries=STREAM_PAGE_SIZE,
            sender=found.sender,
        )
        ((last, *blobs),) = await self._lanes.run_commands([function_calls.function_call(call)])
        page = [record for blob in blobs for record in decode_records(plain_records(blob))]
        return page, EntryId.parse(last) if last else None

    async def _archive_end(self, found: SessionLocation) -> EntryId:
        return await self._reader.run(partial(archived_entries.read_end, shard=found.k))

    async def _find_open_line(self, found: SessionLocation) -> tuple[str, ChannelLine] | None:
        """The channel and line on which the session is open."""
        (stored,) = await self._lanes.run_commands([("GET", keyspace.lane_key(found.k, found.sender))])
        try:
            lane = lane_format.decode_lane(stored_values.lane_state(stored))
        except UnreadableLaneError:
            return None
        for key, line in lane.lines.items():
            if line.session is not None and line.session.id == found.id:
                return channel_of_key(key), line
        return None


class SessionAccess:
    """Looks sessions up and cancels them, for the resources of the API."""

    def __init__(
        self,
        settings: Settings,
        doorman: ApiAuthenticator,
        archive: SessionArchive,
        mailboxes: MailboxWriter,
        audit: ReadAudit,
        reader: ArchiveReader,
        host: Host = THIS_HOST,
    ) -> None:
        self.channels = settings.channels
        self.authenticator = doorman
        self.archive = archive
        self._mailboxes = mailboxes
        self._audit = audit
        self._reader = reader
        self._host = host

    async def look_up(
        self, key: ApiKey, session: str, channel: str = "", action: str = "read session"
    ) -> tuple[SessionLocation, SessionView]:
        """The session, if there is one that the key may see, once the audit was told of the `action`; `channel` is its own, if
        that is known. Raises the 404, and RedisUnavailableError."""
        found = await self.archive.find(session) if _SESSION_ID.fullmatch(session) else None
        view = await self.archive.view(found) if found else None
        if found is None or view is None or not self._may_see(key, view, channel):
            raise ApiError(
                HTTPStatus.NOT_FOUND, "no such session", "no session that this key may see has this id"
            )
        await self._audit.record(key, action, session)
        view.channel = view.channel or channel
        if not key.numbers:
            view.identifier, view.pseudonym = UNSET, await self._pseudonym_of(found.sender)
        return found, view

    def _may_see(self, key: ApiKey, view: SessionView, channel: str) -> bool:
        """Whether the key is for the session's channel and survey; where one of them is no longer known, whether it is for
        all."""
        channel = view.channel or channel
        is_for_channel = channel in key.channels if channel else set(self.channels) <= set(key.channels)
        return is_for_channel and (key.is_for_survey(view.survey) if view.survey else not key.surveys)

    async def _pseudonym_of(self, sender: str) -> str | UnsetType:
        """What the archive calls the person; unset while it does not answer, as a session that Redis has can be told all
        the same."""
        try:
            secret = await self._reader.run(read_pseudonym_key)
        except ArchiveUnavailableError:
            return UNSET
        return Pseudonyms(secret).of(sender) if secret else UNSET

    async def cancel(self, found: SessionLocation, view: SessionView) -> HTTPStatus:
        """202 if the session is about to end, 200 if nothing of it will happen any more. Raises the 409."""
        if view.state == "cancelled":
            return HTTPStatus.OK
        if session_view.is_over(view):
            raise ApiError(
                HTTPStatus.CONFLICT,
                "the session is over",
                f"its state is {view.state}: there is nothing to cancel",
            )
        held = await self.archive.held_invitation(found)
        if held and await self.archive.withdraw_invitation(held, self._host.wall_ms()):
            view.state, view.ended_at = "cancelled", utc_datetime(self._host.wall_ms())
            view.starts_after = UNSET
            metrics.INVITATIONS.labels(view.channel, "cancelled").inc()
            return HTTPStatus.OK
        event = CancelSession(cancel_event_id(found.id), view.channel, found.id)
        await self._mailboxes.accept([InboundItem(found.sender, event, self._host.monotonic_s())])
        return HTTPStatus.ACCEPTED


class SessionById:
    """`/v1/sessions/<id>`."""

    def __init__(self, sessions: SessionAccess) -> None:
        self._access = sessions

    async def on_get(self, req: Request, resp: Response, session: str) -> None:
        key = await self._access.authenticator.authenticate(req)
        _, view = await self._access.look_up(key, session)
        _write_view(resp, view)

    async def on_delete(self, req: Request, resp: Response, session: str) -> None:
        key = await self._access.authenticator.authenticate_writer(req)
        found, view = await self._access.look_up(key, session, action="cancel session")
        resp.status = str((await self._access.cancel(found, view)).value)
        _write_view(resp, view)


class SessionByReference:
    """`/v1/sessions?clientReference=…&channel=…`."""

    def __init__(self, sessions: SessionAccess) -> None:
        self._access = sessions

    async def on_get(self, req: Request, resp: Response) -> None:
        key = await self._access.authenticator.authenticate(req)
        for name in req.params:
            if name not in _QUERY_PARAMETERS:
                hint = expected_instead(name, _QUERY_PARAMETERS, joined_by=" and ")
                raise ApiError(HTTPStatus.BAD_REQUEST, "which session?", f"no such parameter, {name}{hint}")
        reference = req.get_param("clientReference") or ""
        if not reference:
            raise ApiError(HTTPStatus.BAD_REQUEST, "which session?", "expected ?clientReference=…")
        channel = self._chosen_channel(key, req.get_param("channel") or "")
        _, view = await self._access.look_up(key, derive_session_id(channel, reference), channel)
        view.client_reference = reference  # which records of a refusal don't tell
        _write_view(resp, view)

    def _chosen_channel(self, key: ApiKey, name: str) -> str:
        """The channel that is meant: the key's only one, if none is named."""
        allowed = [each for each in self._access.channels if each in key.channels]
        if name in allowed:
            return name
        if name in ("", SMS_CHANNEL) and len(allowed) == 1:
            return allowed[0]
        expected = " or ".join(allowed)
        raise ApiError(
            HTTPStatus.BAD_REQUEST, "which channel?", f"expected ?channel= with one of this key's: {expected}"
        )


_encode = msgspec.json.Encoder().encode
_QUERY_PARAMETERS = ("clientReference", "channel")
_SESSION_ID = re.compile(r"[0-9a-f]{16}")


def _write_view(resp: Response, view: SessionView) -> None:
    resp.content_type = falcon.MEDIA_JSON
    resp.data = _encode(view)


def _read_archived(
    found: SessionLocation, after: EntryId, connection: Connection
) -> tuple[list[ArchivedEntry], EntryId]:
    """The session's entries in the archive after `after`, and until where that is all of its shard."""
    end = archived_entries.read_end(connection, found.k)
    return archived_entries.read_session_entries(connection, found.id, after), end


def _last_wanted(record: ArchiveRecord, session: str, until: str) -> str:
    """Up to which id of the stream the session's records are looked for, once `record` is known; it was `until` before."""
    match record:
        case SessionEnded(session=closed) | OpeningRefused(id=closed) if closed == session:
            return str(record.at + DAY_MS)
        case _:
            return until


def _decode_event(encoded: bytes) -> InboundEvent | None:
    try:
        event: InboundEvent = decode_inbound(encoded)
    except msgspec.MsgspecError:
        return None
    return event
