"""`POST /v1/surveys/<survey>/invitations`: one person is asked to take a survey, or up to 100,000 are, a line each.

One is answered 202 once it is on disk, 200 if it was accepted before, and a problem otherwise. Many are answered 200
and a line for each line, in order, when all have been read: whoever writes need not read meanwhile. They are taken in
slices, so that webhooks, which share the process, never wait for more than a slice; nothing is kept of them but one
slice and the answers, and those on disk beyond a few megabytes.
"""

import asyncio
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

from config.settings.channels import Key
from config.telemetry import metrics
from engine.surveys.program import Survey
from ingest.api.authentication import Doorman
from ingest.api.backlog import Backlog, Outcome
from ingest.api.invitation_parser import Asked, Desk, Unacceptable, moment, now_ms
from ingest.api.ndjson import LONGEST, Line, Lines
from ingest.api.problems import ApiError, FieldError
from ingest.intake.mailboxes import Unwritten

MOST = 100_000
"""Lines of one request."""

MOST_BYTES = 512 * 1024 * 1024
"""Of a request, read or not."""

LINE_TYPES = ("application/x-ndjson", "application/jsonl", "application/ndjson")

SLICE = 64
"""Invitations in one write."""

BREATH = 16
"""Lines that are read in one go: about a millisecond."""

GULP = 8_192
"""Bytes that are taken apart in one go."""

IN_MEMORY = 2 * 1024 * 1024
PIECE = 65_536
ERRORS_OF_A_LINE = 10

_STATUS: dict[Outcome, HTTPStatus] = {
    "accepted": HTTPStatus.ACCEPTED,
    "repeated": HTTPStatus.OK,
    "conflict": HTTPStatus.CONFLICT,
    "late": HTTPStatus.UNPROCESSABLE_ENTITY,
}
TOO_MANY = f"this line and what follows is not read: expected {MOST} lines at the most"
TOO_LONG = f"expected a line of {LONGEST} bytes at the most"
AGAIN = "Redis does not answer: send this line and what follows again"
CONFLICT = FieldError(
    "/clientReference", "it stands for an invitation of another content: expected one of its own"
)


class Accepted(msgspec.Struct, kw_only=True, rename="camel", frozen=True):
    """An invitation that is going to be done."""

    id: Annotated[str, Meta(description="The invitation's, and the session's once there is one.")]
    session: Annotated[str, Meta(description="The same.")]
    state: Literal["accepted"] = "accepted"
    client_reference: str = ""
    starts_after: Annotated[
        datetime, Meta(description="It is not sent before: now, or the end of the channel's quiet hours.")
    ]


class LineResult(msgspec.Struct, kw_only=True, rename="camel", frozen=True):
    """What came of one line. `status` is what it would have been answered alone."""

    line: Annotated[int, Meta(ge=1)]
    status: int
    id: str | UnsetType = UNSET
    errors: Sequence[FieldError] | UnsetType = UNSET


Entry = Asked | LineResult
"""What a line came to before it is written: an invitation, or why there is none."""


class Invitations:
    """The Falcon resource."""

    def __init__(self, doorman: Doorman, desk: Desk, backlog: Backlog) -> None:
        self._doorman = doorman
        self._desk = desk
        self._backlog = backlog

    async def on_post(self, req: Request, resp: Response, survey: str) -> None:
        key = await self._doorman.admit(req)
        found = self._desk.survey(survey)
        if found is None:
            raise ApiError(HTTPStatus.NOT_FOUND, "no such survey", "no channel of this deployment offers it")
        media_type = (req.content_type or "").partition(";")[0].strip().lower()
        if media_type in LINE_TYPES:
            await self._many(req, resp, found, key)
        elif media_type in ("application/json", ""):
            await self._one(req, resp, found, key)
        else:
            expected = f"expected application/json, or {LINE_TYPES[0]} for a line each"
            raise ApiError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unknown media type", expected)

    async def _one(self, req: Request, resp: Response, survey: Survey, key: Key) -> None:
        body = await req.stream.read(LONGEST + 1)
        if len(body) > LONGEST:
            raise ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {LONGEST} bytes")
        try:
            asked = self._desk.read(body, survey, key, now_ms())
        except Unacceptable as e:
            _count_refused(e)
            raise ApiError(e.status, e.title, errors=e.errors) from e
        (outcome,) = await self._backlog.accept([asked])
        _count(asked.event.channel, outcome)
        if outcome in ("conflict", "late"):
            raise ApiError(
                _STATUS[outcome], "the invitation cannot be accepted", errors=_errors(asked, outcome)
            )
        resp.status = str(_STATUS[outcome].value)
        resp.content_type = falcon.MEDIA_JSON
        resp.data = msgspec.json.encode(
            Accepted(
                id=asked.event.id,
                session=asked.event.id,
                client_reference=asked.event.reference,
                starts_after=moment(asked.not_before),
            )
        )

    async def _many(self, req: Request, resp: Response, survey: Survey, key: Key) -> None:
        batch = _Batch(self._desk, self._backlog, survey, key)
        try:
            await batch.read(req)
        except BaseException:
            batch.close()
            raise
        resp.content_type = LINE_TYPES[0]
        resp.content_length = batch.length
        resp.stream = batch.answer()


class _Batch:
    """One request of many lines."""

    def __init__(self, desk: Desk, backlog: Backlog, survey: Survey, key: Key) -> None:
        self._desk = desk
        self._backlog = backlog
        self._survey = survey
        self._key = key
        self._answers = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 (closed when it has been sent)
        self._lines = 0
        self._slice: list[tuple[int, Entry]] = []
        self._writing: asyncio.Task[None] | None = None
        self._redis_fails = False
        self.length = 0

    async def read(self, req: Request) -> None:
        """Take the body line by line; all of it, since whoever is still writing does not listen."""
        lines = Lines()
        size = 0
        try:
            async for chunk in req.stream:
                size += len(chunk)
                if size > MOST_BYTES:
                    raise ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {MOST_BYTES} bytes")
                for at in range(0, len(chunk), GULP):
                    await self._take(lines.feed(chunk[at : at + GULP]))
            await self._take(lines.end())
            await self._write_on()
            await self._write_on()
        finally:
            if self._writing is not None:
                await asyncio.wait([self._writing])
        self.length = self._answers.tell()
        self._answers.seek(0)

    async def answer(self) -> AsyncIterator[bytes]:
        try:
            while piece := self._answers.read(PIECE):
                yield piece
        finally:
            self.close()

    def close(self) -> None:
        self._answers.close()

    async def _take(self, lines: Sequence[Line]) -> None:
        left = iter(lines)
        while breath := list(islice(left, BREATH)):
            for line in breath:
                self._lines += 1
                if line and self._lines <= MOST + 1:
                    self._slice.append((self._lines, self._read(self._lines, line)))
            if len(self._slice) >= SLICE:
                await self._write_on()
            else:
                await asyncio.sleep(0)

    def _read(self, number: int, line: Line) -> Entry:
        if number > MOST:
            return _refused(number, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, TOO_MANY)
        if self._redis_fails:
            return _refused(number, HTTPStatus.SERVICE_UNAVAILABLE, AGAIN)
        if not isinstance(line, bytes):
            return _refused(number, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, TOO_LONG)
        try:
            return self._desk.read(line, self._survey, self._key, now_ms())
        except Unacceptable as e:
            _count_refused(e)
            return LineResult(line=number, status=e.status, errors=e.errors[:ERRORS_OF_A_LINE])

    async def _write_on(self) -> None:
        """Have what is read written, once what was read before it is."""
        if self._writing is not None:
            await self._writing
        entries, self._slice = self._slice, []
        self._writing = asyncio.create_task(self._write(entries))

    async def _write(self, entries: Sequence[tuple[int, Entry]]) -> None:
        asked = [entry for _, entry in entries if isinstance(entry, Asked)]
        outcomes = iter(await self._accept(asked))
        results = [
            _result(number, entry, next(outcomes)) if isinstance(entry, Asked) else entry
            for number, entry in entries
        ]
        self._answers.write(b"".join([_encode(result) + b"\n" for result in results]))

    async def _accept(self, asked: Sequence[Asked]) -> Sequence[Outcome | None]:
        """What came of each: None if Redis does not answer, and then nothing more is tried in this request."""
        if self._redis_fails:
            return [None] * len(asked)
        try:
            return await self._backlog.accept(asked)
        except Unwritten:
            self._redis_fails = True
            return [None] * len(asked)


_encode = msgspec.json.Encoder().encode


def _result(number: int, asked: Asked, outcome: Outcome | None) -> LineResult:
    if outcome is None:
        return _refused(number, HTTPStatus.SERVICE_UNAVAILABLE, AGAIN)
    _count(asked.event.channel, outcome)
    errors = _errors(asked, outcome)
    return LineResult(
        line=number,
        status=_STATUS[outcome],
        id=UNSET if errors else asked.event.id,
        errors=errors or UNSET,
    )


def _refused(number: int, status: HTTPStatus, why: str) -> LineResult:
    return LineResult(line=number, status=status, errors=[FieldError("", why)])


def _errors(asked: Asked, outcome: Outcome) -> Sequence[FieldError]:
    match outcome:
        case "conflict":
            return [CONFLICT]
        case "late":
            return asked.late
        case _:
            return []


def _count(channel: str, outcome: str) -> None:
    metrics.INVITATIONS.labels(channel, outcome).inc()


def _count_refused(refused: Unacceptable) -> None:
    _count("", "forbidden" if refused.status == HTTPStatus.FORBIDDEN else "invalid")
