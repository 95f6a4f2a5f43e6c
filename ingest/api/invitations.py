"""`POST /v1/surveys/<survey>/invitations`: one person is asked to take a survey, or up to 100,000 are, a line each.

One is answered 202 once it is on disk, 200 if it was accepted before, and a problem otherwise. Many are answered 200
and a line for each line, in order, when all have been read: whoever writes need not read meanwhile. They are taken in
slices, and each in steps, so that webhooks, which share the process, never wait for more than a step; nothing is kept
of them but two slices and the answers, and those on disk beyond a few megabytes.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from http import HTTPStatus
from itertools import islice
from tempfile import SpooledTemporaryFile
from typing import Annotated, Literal

import falcon
import msgspec
from falcon.asgi import Request, Response
from msgspec import UNSET, Meta, UnsetType

from config.invitations.line_result import LINE_TYPES, MAX_LINES, FieldError, LineResult, NoOpeningReason
from config.settings.channels import ApiKey
from config.telemetry import metrics
from engine.model.events import RefusalReason
from engine.surveys.program import Survey
from ingest.api.archive_reader import ArchiveUnavailableError
from ingest.api.authentication import ApiAuthenticator
from ingest.api.backlog import ACCEPT_TRIES, InvitationIntake, InvitationOutcome, InvitationQueue
from ingest.api.invitation_parser import (
    InvitationParser,
    InvitationRejectedError,
    InvitationRequest,
    utc_datetime,
)
from ingest.api.ndjson import MAX_LINE_BYTES, LineSplitter, SplitLine
from ingest.api.problems import ApiError
from ingest.api.session_view import SessionView
from ingest.api.sessions import SessionArchive
from ingest.intake.known_refusals import KnownRefusals
from ingest.intake.loop_steps import in_steps
from ingest.intake.mailboxes import RedisUnavailableError

MAX_REQUEST_BYTES = 512 * 1024 * 1024
"""Of a request, read or not."""


INVITATIONS_PER_WRITE = 512
BYTES_PER_WRITE = 262_144
"""Invitations in one write, and bytes of their lines. A shard's are one command, so the more there are, the fewer commands each takes."""

LINES_PER_STEP = 16
"""Lines that are read in one go: less than a millisecond."""

RESULTS_PER_STEP = 128
"""Results that are made in one go."""

BYTES_PER_STEP = 8_192
"""Bytes that are taken apart in one go."""

AT_ONCE_MS = 1_000
"""An invitation whose turn comes within that has it at once."""

RESULTS_IN_MEMORY_BYTES = 2 * 1024 * 1024
RESPONSE_CHUNK_BYTES = 65_536
MAX_ERRORS_PER_LINE = 10

_STATUS_OF_OUTCOME: dict[InvitationOutcome, HTTPStatus] = {
    "accepted": HTTPStatus.ACCEPTED,
    "repeated": HTTPStatus.OK,
    "conflict": HTTPStatus.CONFLICT,
    "late": HTTPStatus.UNPROCESSABLE_ENTITY,
}
TOO_MANY_LINES = f"this line and what follows is not read: expected {MAX_LINES} lines at the most"
LINE_TOO_LONG = f"expected a line of {MAX_LINE_BYTES} bytes at the most"
SEND_LINE_AGAIN = "Redis does not answer: send this line and what follows again"
SEND_THIS_LINE_AGAIN = "the Redis server that this line needs does not answer: send it again"
REFERENCE_CONFLICT = FieldError(
    "/clientReference", "it stands for an invitation of another content: expected one of its own"
)


class Accepted(msgspec.Struct, kw_only=True, rename="camel", frozen=True):
    """An invitation that was accepted."""

    id: Annotated[str, Meta(description="The invitation's, and the session's once there is one.")]
    session: Annotated[str, Meta(description="The same.")]
    state: Annotated[
        Literal["accepted", "refused", "cancelled"],
        Meta(
            description="It may be known at once, or when it is posted again, that nothing of it will happen."
        ),
    ] = "accepted"
    reason: Annotated[NoOpeningReason | UnsetType, Meta(description="Why nothing opened.")] = UNSET
    client_reference: str = ""
    starts_after: Annotated[
        datetime | UnsetType,
        Meta(
            description="It is not sent before: now, or its `sendAt`, or once those have gone that wait "
            "before it, and not in quiet hours. Posted again, the same is answered."
        ),
    ] = UNSET


LineEntry = InvitationRequest | LineResult
"""What a line came to before it is written: an invitation, or why there is none."""


class InvitationsResource:
    """The Falcon resource."""

    def __init__(
        self,
        doorman: ApiAuthenticator,
        desk: InvitationParser,
        backlog: InvitationIntake,
        queue: InvitationQueue,
        refusals: KnownRefusals,
        archive: SessionArchive,
    ) -> None:
        self._authenticator = doorman
        self._parser = desk
        self._intake = backlog
        self._queue = queue
        self._refusals = refusals
        self._archive = archive

    async def on_post(self, req: Request, resp: Response, survey: str) -> None:
        key = await self._authenticator.authenticate_writer(req)
        found = self._require_survey(survey, key)
        media_type = _media_type(req)
        if media_type in LINE_TYPES:
            batch = _LineBatch(self._parser, self._intake, self._refusals, found, key)
            await _answer_lines(req, resp, batch)
        elif media_type in ("application/json", ""):
            await self._invite_one(req, resp, found, key)
        else:
            expected = f"expected application/json, or {LINE_TYPES[0]} for a line each"
            raise ApiError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unknown media type", expected)

    async def on_post_many(self, req: Request, resp: Response, survey: str) -> None:
        key = await self._authenticator.authenticate_writer(req)
        found = self._require_survey(survey, key)
        _require_lines(req)
        batch = _LineBatch(self._parser, self._intake, self._refusals, found, key)
        await _answer_lines(req, resp, batch)

    async def on_post_dry_run(self, req: Request, resp: Response, survey: str) -> None:
        key = await self._authenticator.authenticate_writer(req)
        found = self._require_survey(survey, key)
        _require_lines(req)
        batch = _DryRun(self._parser, self._intake, self._refusals, found, key, self._queue)
        await _answer_lines(req, resp, batch)

    def _require_survey(self, survey: str, key: ApiKey) -> Survey:
        found = self._parser.offered_survey(survey)
        if found is None:
            raise ApiError(HTTPStatus.NOT_FOUND, "no such survey", "no channel of this deployment offers it")
        if not key.is_for_survey(survey):
            expected = " or ".join(sorted(key.surveys))
            raise ApiError(HTTPStatus.FORBIDDEN, "the key is not for this survey", f"expected {expected}")
        return found

    async def _invite_one(self, req: Request, resp: Response, survey: Survey, key: ApiKey) -> None:
        body = await req.stream.read(MAX_LINE_BYTES + 1)
        if len(body) > MAX_LINE_BYTES:
            raise ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {MAX_LINE_BYTES} bytes")
        try:
            asked = self._parser.parse(body, survey, key)
        except InvitationRejectedError as e:
            _count_rejected(e)
            raise ApiError(e.status, e.title, errors=e.errors) from e
        starts_at = await self._queue.starts_at(asked)
        asked = msgspec.structs.replace(
            asked,
            event=msgspec.structs.replace(asked.event, starts_after=starts_at),
            refusal=await self._known_refusal(asked, starts_at),
        )
        (outcome,) = await self._intake.accept([asked])
        if outcome is None:
            raise RedisUnavailableError("a server that the invitation needs does not answer")
        refusal = asked.refusal if outcome == "accepted" else None
        _count_outcome(asked.event.channel, "refused" if refusal else outcome)
        if outcome in ("conflict", "late"):
            raise ApiError(
                _STATUS_OF_OUTCOME[outcome],
                "the invitation cannot be accepted",
                errors=_outcome_errors(asked, outcome),
            )
        resp.status = str(HTTPStatus.OK.value if refusal else _STATUS_OF_OUTCOME[outcome].value)
        resp.content_type = falcon.MEDIA_JSON
        accepted = Accepted(
            id=asked.event.id,
            session=asked.event.id,
            state="refused" if refusal else "accepted",
            reason=refusal or UNSET,
            client_reference=asked.event.reference,
            starts_after=UNSET if refusal else utc_datetime(starts_at),
        )
        resp.data = msgspec.json.encode(
            await self._as_it_stands(accepted) if outcome == "repeated" else accepted
        )

    async def _known_refusal(self, asked: InvitationRequest, starts_at: int) -> RefusalReason | None:
        """Why it opens nothing, if that is known: whoever is in conversation may be free when its turn comes, if that is later."""
        (reason,) = await self._refusals.find([(asked.sender, asked.event)])
        is_later = starts_at > asked.event.asked_at + AT_ONCE_MS
        return None if reason == "already_open" and is_later else reason

    async def _as_it_stands(self, accepted: Accepted) -> Accepted:
        """Return what is said of an invitation that was accepted before: what was answered then, or that nothing of it will happen,
        if so. An archive that is away keeps nobody from posting again."""
        try:
            found = await self._archive.find(accepted.id)
            view = await self._archive.view(found) if found else None
        except ArchiveUnavailableError:
            return accepted
        match view:
            case SessionView(state="refused" | "cancelled" as state, reason=reason):
                return msgspec.structs.replace(accepted, state=state, reason=reason, starts_after=UNSET)
            case SessionView(starts_after=datetime() as starts_after):
                return msgspec.structs.replace(accepted, starts_after=starts_after)
            case _:
                return accepted


def _media_type(req: Request) -> str:
    return (req.content_type or "").partition(";")[0].strip().lower()


def _require_lines(req: Request) -> None:
    if _media_type(req) not in LINE_TYPES:
        expected = f"expected {LINE_TYPES[0]}, a line each"
        raise ApiError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unknown media type", expected)


async def _answer_lines(req: Request, resp: Response, batch: "_LineBatch") -> None:
    try:
        await batch.read_request(req)
    except BaseException:
        batch.close()
        raise
    resp.content_type = LINE_TYPES[0]
    resp.content_length = batch.length
    resp.stream = batch.stream_results()


class _LineBatch:
    """One request of many lines."""

    is_dry = False

    def __init__(
        self,
        desk: InvitationParser,
        backlog: InvitationIntake,
        refusals: KnownRefusals,
        survey: Survey,
        key: ApiKey,
    ) -> None:
        self._parser = desk
        self._intake = backlog
        self._refusals = refusals
        self._survey = survey
        self._key = key
        self._results = SpooledTemporaryFile(RESULTS_IN_MEMORY_BYTES)  # noqa: SIM115 (closed once it is sent)
        self._lines_seen = 0
        self._slice: list[tuple[int, LineEntry]] = []
        self._slice_bytes = 0
        self._writing: asyncio.Task[None] | None = None
        self._redis_fails = False
        self._most_tries = ACCEPT_TRIES
        self._send_again = SEND_THIS_LINE_AGAIN if backlog.is_divided else SEND_LINE_AGAIN
        self.length = 0

    async def read_request(self, req: Request) -> None:
        """Take the body line by line; all of it, since whoever is still writing does not listen."""
        lines = LineSplitter()
        size = 0
        try:
            async for chunk in req.stream:
                size += len(chunk)
                if size > MAX_REQUEST_BYTES:
                    raise ApiError(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {MAX_REQUEST_BYTES} bytes"
                    )
                for at in range(0, len(chunk), BYTES_PER_STEP):
                    await self._take_lines(lines.feed(chunk[at : at + BYTES_PER_STEP]))
            await self._take_lines(lines.finish())
            await self._start_write()
            await self._start_write()
        finally:
            if self._writing is not None:
                await asyncio.wait([self._writing])
        self.length = self._results.tell()
        self._results.seek(0)

    async def stream_results(self) -> AsyncIterator[bytes]:
        try:
            while piece := self._results.read(RESPONSE_CHUNK_BYTES):
                yield piece
        finally:
            self.close()

    def close(self) -> None:
        self._results.close()

    async def _take_lines(self, lines: Sequence[SplitLine]) -> None:
        left = iter(lines)
        while breath := list(islice(left, LINES_PER_STEP)):
            for line in breath:
                self._lines_seen += 1
                if line and self._lines_seen <= MAX_LINES + 1:
                    self._slice.append((self._lines_seen, self._parse_line(self._lines_seen, line)))
                    self._slice_bytes += len(line) if isinstance(line, bytes) else 0
            if len(self._slice) >= INVITATIONS_PER_WRITE or self._slice_bytes >= BYTES_PER_WRITE:
                await self._start_write()
            else:
                await asyncio.sleep(0)

    def _parse_line(self, number: int, line: SplitLine) -> LineEntry:
        if number > MAX_LINES:
            return _refused_line(number, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, TOO_MANY_LINES)
        if self._redis_fails:
            return _refused_line(number, HTTPStatus.SERVICE_UNAVAILABLE, self._send_again)
        if not isinstance(line, bytes):
            return _refused_line(number, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, LINE_TOO_LONG)
        try:
            return self._parser.parse(line, self._survey, self._key)
        except InvitationRejectedError as e:
            if not self.is_dry:
                _count_rejected(e)
            return LineResult(
                line=number,
                status=e.status,
                client_reference=e.reference or UNSET,
                errors=e.errors[:MAX_ERRORS_PER_LINE],
            )

    async def _start_write(self) -> None:
        """Have what is read written, once what was read before it is."""
        if self._writing is not None:
            await self._writing
        entries, self._slice, self._slice_bytes = self._slice, [], 0
        self._writing = asyncio.create_task(self._write_slice(entries))

    async def _write_slice(self, entries: Sequence[tuple[int, LineEntry]]) -> None:
        asked = await self._with_refusals(
            [entry for _, entry in entries if isinstance(entry, InvitationRequest)]
        )
        written = iter(zip(asked, await self._accept_slice(asked), strict=True))
        results = [
            await self._line_result(number, *next(written)) if isinstance(entry, InvitationRequest) else entry
            async for number, entry in in_steps(entries, RESULTS_PER_STEP)
        ]
        self._results.write(b"".join([_encode(result) + b"\n" for result in results]))

    async def _with_refusals(self, asked: Sequence[InvitationRequest]) -> list[InvitationRequest]:
        """Those of people who have opted out are refused. Whoever is in conversation may be free when their turn comes. Nobody is,
        once a server has not answered: each line would wait for it once more."""
        if self._redis_fails or self._most_tries < ACCEPT_TRIES:
            return [*asked]
        reasons = await self._refusals.find([(each.sender, each.event) for each in asked])
        return [
            msgspec.structs.replace(each, refusal=reason) if reason == "opted_out" else each
            for each, reason in zip(asked, reasons, strict=True)
        ]

    async def _line_result(
        self, number: int, asked: InvitationRequest, outcome: InvitationOutcome | None
    ) -> LineResult:
        reference = asked.event.reference or UNSET
        if outcome is None:
            refused = _refused_line(number, HTTPStatus.SERVICE_UNAVAILABLE, self._send_again)
            return msgspec.structs.replace(refused, client_reference=reference)
        refusal = asked.refusal if outcome == "accepted" else None
        if not self.is_dry:
            _count_outcome(asked.event.channel, "refused" if refusal else outcome)
        errors = _outcome_errors(asked, outcome)
        return LineResult(
            line=number,
            status=HTTPStatus.OK if refusal else _STATUS_OF_OUTCOME[outcome],
            id=UNSET if errors else asked.event.id,
            client_reference=reference,
            state="refused" if refusal else UNSET,
            reason=refusal or UNSET,
            errors=errors or UNSET,
        )

    async def _accept_slice(self, asked: Sequence[InvitationRequest]) -> Sequence[InvitationOutcome | None]:
        """What came of each: None if Redis does not answer. Nothing more is tried in this request then, if there is one server; if
        there are several, what needs one that is away is tried once."""
        if self._redis_fails:
            return [None] * len(asked)
        try:
            outcomes = await self._intake.accept(asked, self._most_tries)
        except RedisUnavailableError:
            self._redis_fails = True
            outcomes = [None] * len(asked)
        if None in outcomes:
            self._most_tries = 1
        return outcomes


class _DryRun(_LineBatch):
    """One request of which nothing is done: what would come of each line."""

    is_dry = True

    def __init__(
        self,
        desk: InvitationParser,
        backlog: InvitationIntake,
        refusals: KnownRefusals,
        survey: Survey,
        key: ApiKey,
        queue: InvitationQueue,
    ) -> None:
        super().__init__(desk, backlog, refusals, survey, key)
        self._queue = queue
        self._references: dict[str, str] = {}
        self._ahead: Counter[str] = Counter()

    async def _with_refusals(self, asked: Sequence[InvitationRequest]) -> list[InvitationRequest]:
        """Those in conversation would be refused too, if it were now."""
        reasons = await self._refusals.find([(each.sender, each.event) for each in asked])
        return [
            msgspec.structs.replace(each, refusal=reason) for each, reason in zip(asked, reasons, strict=True)
        ]

    async def _accept_slice(self, asked: Sequence[InvitationRequest]) -> Sequence[InvitationOutcome | None]:
        if self._redis_fails:
            return [None] * len(asked)
        try:
            outcomes = await self._intake.foresee(asked)
        except RedisUnavailableError:
            self._redis_fails = True
            return [None] * len(asked)
        return [
            self._within_request(each, outcome) if outcome == "accepted" else outcome
            for each, outcome in zip(asked, outcomes, strict=True)
        ]

    def _within_request(self, asked: InvitationRequest, outcome: InvitationOutcome) -> InvitationOutcome:
        """What it would come to after the lines before it."""
        if not asked.event.reference:
            return outcome
        first = self._references.get(asked.event.id)
        if first is None:
            self._references[asked.event.id] = asked.fingerprint
            return outcome
        return "repeated" if first == asked.fingerprint else "conflict"

    async def _line_result(
        self, number: int, asked: InvitationRequest, outcome: InvitationOutcome | None
    ) -> LineResult:
        result = await super()._line_result(number, asked, outcome)
        if outcome != "accepted" or asked.refusal:
            return result
        channel = asked.event.channel
        starts_at = await self._queue.starts_at(asked, self._ahead[channel])
        self._ahead[channel] += 1
        return msgspec.structs.replace(result, starts_after=utc_datetime(starts_at))


_encode = msgspec.json.Encoder().encode


def _refused_line(number: int, status: HTTPStatus, why: str) -> LineResult:
    return LineResult(line=number, status=status, errors=[FieldError("", why)])


def _outcome_errors(asked: InvitationRequest, outcome: InvitationOutcome) -> Sequence[FieldError]:
    match outcome:
        case "conflict":
            return [REFERENCE_CONFLICT]
        case "late":
            return asked.late_errors
        case _:
            return []


def _count_outcome(channel: str, outcome: str) -> None:
    metrics.INVITATIONS.labels(channel, outcome).inc()


def _count_rejected(refused: InvitationRejectedError) -> None:
    _count_outcome("", "forbidden" if refused.status == HTTPStatus.FORBIDDEN else "invalid")
