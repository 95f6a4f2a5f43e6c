"""The part of the API's description that is read from the archive: surveys, results, sessions, funnels and codebooks."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from config.archive.funnel import Funnel
from config.invitations.line_result import LINE_TYPES
from engine.codebook.codebook import Codebook
from ingest.api.archived_view import ResultView, SessionListPage, SurveyList
from ingest.api.openapi_parts import (
    CHANNEL_NAME,
    DATE_TIME,
    E164,
    PSEUDONYM,
    SESSION_ID,
    explained,
    json_response,
    path_parameter,
    problem_responses,
    query_parameter,
    repeatable_parameter,
)
from ingest.api.page_cursor import CURSOR_PATTERN
from ingest.api.query_parameters import MAX_PARAMETER_LENGTH
from ingest.api.session_lists import DEFAULT_PAGE, MAX_PAGE, NEXT_HEADER, RESULTS, SESSIONS, SessionListing
from ingest.api.session_view import NO_OPENING_REASONS, REASON_MEANINGS, STATE_MEANINGS

ARCHIVE_TYPES = (SurveyList, SessionListPage, ResultView, Funnel, Codebook)

_CURSOR = {"pattern": f"^{CURSOR_PATTERN}$"}

ARCHIVE_FIELD_SCHEMAS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "SessionListPage": {"next": _CURSOR, "completeUntil": DATE_TIME},
    "ResultView": {
        "cursor": _CURSOR,
        "id": SESSION_ID,
        "reason": explained(NO_OPENING_REASONS, REASON_MEANINGS),
        "state": explained(dict.fromkeys((*SESSIONS.states, *RESULTS.states)), STATE_MEANINGS),
        "channel": {"pattern": f"^{CHANNEL_NAME}$"},
        "identifier": E164,
        "pseudonym": PSEUDONYM,
        "openedAt": DATE_TIME,
        "endedAt": DATE_TIME,
    },
    "AnswerResult": {"at": DATE_TIME},
    "VersionView": {"firstAt": DATE_TIME},
}

RESULT_EXAMPLE = {
    "cursor": "laWVbmRlZM8AAAGa",
    "id": "1f0c52a7b1e94d03",
    "state": "completed",
    "channel": "clinic",
    "identifier": "+33612345678",
    "pseudonym": "5b1d8e4f0a6c4c0f9f6d3e2b1a008877",
    "survey": "clinic",
    "version": "8c7dd922ad47494f",
    "language": "en",
    "originator": "",
    "clientReference": "visit-4711",
    "campaign": "",
    "invited": True,
    "openedAt": "2026-11-29T08:00:00Z",
    "endedAt": "2026-11-29T08:01:10Z",
    "answers": {
        "temperature": {
            "raw": "about 98.6", "value": 98.6, "type": "number", "at": "2026-11-29T08:01:10Z",
            "seconds": 41.5, "misreads": 1,
        }
    },
    "variables": {"agentId": "7"},
    "misreads": 1,
    "received": 2,
    "sent": 3,
    "segments": 3,
    "costMicros": 150000,
    "currency": "EUR",
}  # fmt: skip

_TEXT = {"type": "string", "pattern": r"^[^\u0000]+$", "maxLength": MAX_PARAMETER_LENGTH}


def archive_paths(schemas: Sequence[Any], problem: Any) -> dict[str, Any]:
    """The paths, by the schemas of ARCHIVE_TYPES."""
    surveys, page, result, funnel, codebook = schemas
    return {
        "/v1/surveys": {"get": _surveys_operation(surveys, problem)},
        "/v1/surveys/{survey}/results": {
            "get": {
                "operationId": "results",
                "summary": "What is over, in the order in which it ended, each session once",
                "description": "Keep `next`, and ask for what comes `after` it: at once if there is `more`, "
                "else when you like. What ended in the last moments comes once it is archived. "
                "Invitations of which no session came are `refused` or `cancelled`.",
                **_list_operation(RESULTS, page, result, problem),
            }
        },
        "/v1/surveys/{survey}/sessions": {
            "get": {
                "operationId": "sessions",
                "summary": "Sessions that opened, in that order, each once",
                "description": "Open ones too, as the archive has them: some moments late.",
                **_list_operation(SESSIONS, page, result, problem),
            }
        },
        "/v1/surveys/{survey}/funnel": {"get": _funnel_operation(funnel, problem)},
        "/v1/surveys/{survey}/codebook": {"get": _codebook_operation(codebook, problem)},
    }


def _surveys_operation(surveys: Any, problem: Any) -> dict[str, Any]:
    return {
        "operationId": "surveys",
        "summary": "The surveys that channels offer, or of which there are sessions",
        "responses": {
            "200": json_response("All that the key may see.", surveys),
            **problem_responses(problem, HTTPStatus.BAD_REQUEST),
        },
    }


def _list_operation(listing: SessionListing, page: Any, result: Any, problem: Any) -> dict[str, Any]:
    lines = {"schema": {"type": "string", "description": "A session a line.", "x-line": result}}
    example = {"results": [RESULT_EXAMPLE], "next": RESULT_EXAMPLE["cursor"], "more": False}
    return {
        "parameters": [_survey_parameter(), *_filter_parameters(), *_page_parameters(listing)],
        "responses": {
            "200": {
                "description": "As many as there are, up to `limit`.",
                "headers": {
                    NEXT_HEADER: {
                        "required": True,
                        "description": "What comes after this page, now or later: `next` of the document.",
                        "schema": {"type": "string"} | _CURSOR,
                    },
                    "Link": {
                        "description": 'With `rel="next"`, where there is more already.',
                        "schema": {"type": "string"},
                    },
                },
                "content": {
                    "application/json": {"schema": page, "example": example},
                    LINE_TYPES[0]: lines,
                },
            },
            **_read_problems(problem),
        },
    }


def _funnel_operation(funnel: Any, problem: Any) -> dict[str, Any]:
    return {
        "operationId": "funnel",
        "summary": "How far people come in a survey, and where they leave it",
        "parameters": [_survey_parameter(), *_filter_parameters()],
        "responses": {"200": json_response("As the archive has it.", funnel), **_read_problems(problem)},
    }


def _codebook_operation(codebook: Any, problem: Any) -> dict[str, Any]:
    return {
        "operationId": "codebook",
        "summary": "What each answer of a survey means, of all its versions",
        "parameters": [_survey_parameter()],
        "responses": {"200": json_response("All versions as one.", codebook), **_read_problems(problem)},
    }


def _read_problems(problem: Any) -> dict[str, Any]:
    return problem_responses(problem, HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND)


def _survey_parameter() -> dict[str, Any]:
    return path_parameter("survey", "The survey's name.", {"type": "string"})


def _filter_parameters() -> list[dict[str, Any]]:
    moment = "A day (UTC), a moment in RFC 3339, or how long ago, such as 2h."
    return [
        repeatable_parameter("channel", "One of the key's; all of them without it.", _TEXT),
        repeatable_parameter("language", "In which it was asked.", _TEXT),
        repeatable_parameter("campaign", "The inviter's name of what it belongs to.", _TEXT),
        query_parameter("since", f"Opened, or refused, since. {moment}", _TEXT, required=False),
        query_parameter("until", f"Opened, or refused, before. {moment}", _TEXT, required=False),
        repeatable_parameter("variable", "A session variable and its value: `agentId:7`.", _TEXT),
        repeatable_parameter(
            "where",
            "What the last answer to a step must be: `temperature >= 95`, `symptoms contains cough`.",
            _TEXT,
        ),
    ]


def _page_parameters(listing: SessionListing) -> list[dict[str, Any]]:
    limit = {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DEFAULT_PAGE}
    known = [
        repeatable_parameter("state", "All without it.", {"type": "string", "enum": list(listing.states)}),
        query_parameter(
            "after", "A cursor: `next` of an earlier page.", {"type": "string"} | _CURSOR, required=False
        ),
        query_parameter("limit", "Sessions of a page.", limit, required=False),
    ]
    if "number" in listing.parameters:
        known.append(
            repeatable_parameter(
                "number", "A person's, in full, for keys that may see numbers.", {"type": "string"} | E164
            )
        )
    return known
