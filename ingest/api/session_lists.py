"""`GET /v1/surveys/<survey>/results` and `GET /v1/surveys/<survey>/sessions`: sessions from the archive, page by page.

Results are of what is over, in the order in which it ended; sessions are all that opened, in that order. What happened in
the last moments is not archived yet, and is in neither; `completeUntil` says how far they reach. Law: a reader who asks for
what comes `after` the last cursor has every session once (config/archive/session_pages.py).
"""

import re
from collections.abc import Sequence
from datetime import UTC
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import falcon
import msgspec
from falcon.asgi import Request, Response
from msgspec import UNSET
from sqlalchemy import Connection

from config.archive.pseudonyms import Pseudonyms, read_pseudonym_key
from config.archive.result_filters import (
    SESSION_STATES,
    AnswerCondition,
    ResultFilters,
    parse_condition,
    parse_moment,
    parse_variable,
    require_steps,
)
from config.archive.session_pages import BEFORE_ALL, SessionOrder, SessionPlace, read_session_page
from config.invitations.line_result import LINE_TYPES
from config.settings.channels import ApiKey
from engine.model.sender_numbers import normalize_number
from engine.surveys.variables import KEY_PATTERN
from ingest.api.archive_access import ArchiveAccess
from ingest.api.archived_view import SessionListPage, view_result
from ingest.api.invitation_parser import utc_datetime
from ingest.api.page_cursor import read_cursor, write_cursor
from ingest.api.query_parameters import InvalidParameterError, QueryParameters, choose_from

MAX_PAGE = 1_000
DEFAULT_PAGE = 100

NEXT_HEADER = "Parley-Next"
"""The cursor of what comes after this page, of which there need not be any yet. `Link` has it where there is."""

ENDED_STATES = tuple(state for state in SESSION_STATES if state != "open")
OPENED_STATES = tuple(state for state in SESSION_STATES if state != "refused")

FILTER_PARAMETERS = ("channel", "language", "campaign", "since", "until", "variable", "where")
PAGE_PARAMETERS = (*FILTER_PARAMETERS, "state", "after", "limit")


class SessionListing(NamedTuple):
    """One of the two lists: its order, what the audit calls reading it, its parameters, and the states in it."""

    order: SessionOrder
    action: str
    parameters: Sequence[str]
    states: Sequence[str]


RESULTS = SessionListing(
    "ended", "read results", PAGE_PARAMETERS, tuple(state for state in SESSION_STATES if state != "open")
)
SESSIONS = SessionListing(
    "opened",
    "list sessions",
    (*PAGE_PARAMETERS, "number"),
    tuple(state for state in SESSION_STATES if state != "refused"),
)


class _PageRequest(NamedTuple):
    """What a request asks for."""

    filters: ResultFilters
    order: SessionOrder
    after: SessionPlace
    limit: int


class _EncodedPage(NamedTuple):
    """A page as it is sent: a document, or lines."""

    content: bytes
    sessions: int
    cursor: str
    has_more: bool


class SessionListResource:
    """`/v1/surveys/<survey>/results` or `/sessions`."""

    def __init__(self, access: ArchiveAccess, listing: SessionListing) -> None:
        self._access = access
        self._listing = listing

    async def on_get(self, req: Request, resp: Response, survey: str) -> None:
        key = await self._access.authenticate(req)
        asked = self._read_request(req, key, survey)
        lines = req.client_prefers((falcon.MEDIA_JSON, *LINE_TYPES)) in LINE_TYPES

        def read_page(connection: Connection) -> _EncodedPage:
            return self._encode_page(connection, asked, key, lines=lines)

        page = await self._access.read(key, survey, read_page)
        if page.sessions or asked.filters.senders:
            names = await self._access.audit.log_names(asked.filters.senders)
            detail = _audited_filters(asked.filters, names)
            await self._access.audit.record(
                key, self._listing.action, survey, filters=detail, count=page.sessions
            )
        resp.content_type = LINE_TYPES[0] if lines else falcon.MEDIA_JSON
        resp.data = page.content
        resp.set_header(NEXT_HEADER, page.cursor)
        resp.set_header("Vary", "Accept")
        if page.has_more:
            link = _next_link(req, self._access.settings.public_url, page.cursor)
            resp.set_header("Link", f'<{link}>; rel="next"')

    def _read_request(self, req: Request, key: ApiKey, survey: str) -> _PageRequest:
        """Read the parameters. Raises the ApiError of those that are wrong."""
        query = QueryParameters(req, self._listing.parameters)
        filters = msgspec.structs.replace(
            read_filters(query, survey, self._access.channels_of(key), self._access.host.wall_ms()),
            states=query.many("state", choose_from(self._listing.states)),
            senders=query.many("number", lambda written: _read_number(written, key)),
        )
        after = query.one("after", lambda written: read_cursor(self._listing.order, written), BEFORE_ALL)
        limit = query.whole("limit", 1, MAX_PAGE, DEFAULT_PAGE)
        query.require_valid()
        return _PageRequest(filters, self._listing.order, after, limit)

    def _encode_page(
        self, connection: Connection, asked: _PageRequest, key: ApiKey, *, lines: bool
    ) -> _EncodedPage:
        require_steps(connection, asked.filters, self._access.known_steps(asked.filters.survey))
        page = read_session_page(connection, *asked)
        secret = read_pseudonym_key(connection)
        pseudonyms = Pseudonyms(secret) if secret else None
        results = [view_result(each, asked.order, pseudonyms, numbers=key.numbers) for each in page.sessions]
        cursor = write_cursor(asked.order, page.last)
        if lines:
            content = b"".join([_encode(each) + b"\n" for each in results])
        else:
            complete = utc_datetime(page.complete_ms) if page.complete_ms else UNSET
            content = _encode(
                SessionListPage(results=results, next=cursor, more=page.has_more, complete_until=complete)
            )
        return _EncodedPage(content, len(results), cursor, page.has_more)


def read_filters(query: QueryParameters, survey: str, channels: Sequence[str], now: int) -> ResultFilters:
    """The filters that lists and funnels share, of sessions on these channels, as they are meant at `now` (ms)."""
    return ResultFilters(
        survey=survey,
        channels=query.many("channel", choose_from(channels)) or channels,
        languages=query.many("language", str),
        campaigns=query.many("campaign", str),
        since=query.one("since", lambda written: _read_moment(written, now), 0),
        until=query.one("until", lambda written: _read_moment(written, now, is_end=True), 0),
        variables=query.many("variable", _read_variable),
        answers=query.many("where", parse_condition),
    )


_encode = msgspec.json.Encoder().encode

_LOST_PLUS = re.compile(r"(T.*) (?=\d\d:?\d\d\Z)")
"""A `+` in a URL is a blank."""


def _read_moment(written: str, now: int, *, is_end: bool = False) -> int:
    return parse_moment(_LOST_PLUS.sub(r"\1+", written), UTC, now, is_end=is_end)


def _read_variable(written: str) -> tuple[str, str]:
    """Read `agentId:7`, or `agentId=7` as commands have it."""
    key, colon, value = written.partition(":")
    return (key, value) if colon and KEY_PATTERN.fullmatch(key) else parse_variable(written)


def _read_number(written: str, key: ApiKey) -> str:
    if not key.numbers:
        raise InvalidParameterError(f"the key {key.name} may not see numbers, nor ask for one")
    number = normalize_number(written)
    if number is None:
        raise InvalidParameterError("expected a number in full, such as %2B33612345678")
    return number


def _audited_filters(filters: ResultFilters, log_names: Sequence[str]) -> dict[str, Any]:
    """What an audit may say of filters: not what a number, a variable or an answer is, only that it was asked for."""
    told = {
        "since": filters.since,
        "until": filters.until,
        "channels": list(filters.channels),
        "states": list(filters.states),
        "languages": list(filters.languages),
        "campaigns": len(filters.campaigns),
        "senders": list(log_names),
        "variables": [key for key, _ in filters.variables],
        "where": [_audited_condition(each) for each in filters.answers],
    }
    return {name: value for name, value in told.items() if value}


def _audited_condition(condition: AnswerCondition) -> str:
    return f"{condition.step} {condition.operator}"


def _next_link(req: Request, public_url: str, cursor: str) -> str:
    """This request, after this page. Relative to where it went, unless it is known how the world reaches us."""
    pairs = [
        (name, each)
        for name, value in req.params.items()
        if name != "after"
        for each in (value if isinstance(value, list) else [value])
    ]
    return f"{public_url}{quote(req.path)}?{urlencode([*pairs, ('after', cursor)])}"
