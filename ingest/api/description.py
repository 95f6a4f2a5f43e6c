"""`GET /v1/openapi.json`: the API described in OpenAPI 3.1, from the very types that it reads and writes.

FIELD_SCHEMAS says what those types leave to the parser, which reads field by field, so that every mistake is told.
"""

from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from typing import Any

import falcon
import msgspec
from falcon.asgi import Request, Response

from engine.surveys.variables import KEY_PATTERN
from ingest.api.invitation_parser import MAX_VALUE_LENGTH, MAX_VARIABLES, SMS_CHANNEL, Body
from ingest.api.invitations import LINE_TYPES, MAX_LINES, Accepted, LineResult
from ingest.api.ndjson import MAX_LINE_BYTES
from ingest.api.problems import PROBLEM_MEDIA_TYPE, Problem
from ingest.api.session_view import SessionView

_REF_TEMPLATE = "#/components/schemas/{name}"
_SESSION_ID = {"pattern": "^[0-9a-f]{16}$"}
_SESSION_ID_SCHEMA = {"type": "string"} | _SESSION_ID
_CHANNEL_NAME = "[a-z0-9_-]{1,32}"
_CHANNEL = {"pattern": f"^({_CHANNEL_NAME}|{SMS_CHANNEL})?$"}
_DATE_TIME = {"format": "date-time"}
_VARIABLE_KEY = {"pattern": f"^{KEY_PATTERN.pattern}$", "maxLength": 64}
_VARIABLE_VALUE = {
    "anyOf": [
        {"type": "string", "maxLength": MAX_VALUE_LENGTH},
        {"type": "number"},
        {"type": "boolean"},
    ]
}

FIELD_SCHEMAS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "Body": {
        "identifier": {"pattern": r"^\s*(\+|00)[0-9\s().\-/\u00ad\u200b-\u200e\u2010-\u2015\u2060\ufeff]+$"},
        "channel": _CHANNEL,
        "expiryTime": {"anyOf": [_DATE_TIME, {"maxLength": 0}]},
        "sendAt": {"anyOf": [_DATE_TIME, {"maxLength": 0}]},
        "userSessionVariables": {
            "anyOf": [
                {
                    "type": "array",
                    "maxItems": MAX_VARIABLES,
                    "items": {"$ref": _REF_TEMPLATE.format(name="Variable")},
                },
                {
                    "type": "object",
                    "maxProperties": MAX_VARIABLES,
                    "propertyNames": _VARIABLE_KEY,
                    "additionalProperties": _VARIABLE_VALUE,
                },
            ]
        },
        "language": {"pattern": r"^([A-Za-z]{2,3}([-_][\s\S]*)?)?$"},
        "originator": {"pattern": r"^(\+?[1-9][0-9]{2,14})?$"},
    },
    "Variable": {"key": _VARIABLE_KEY, "value": _VARIABLE_VALUE},
    "Accepted": {"id": _SESSION_ID, "session": _SESSION_ID, "startsAfter": _DATE_TIME},
    "LineResult": {"id": _SESSION_ID, "status": {"minimum": 200, "maximum": 599}},
    "Problem": {"status": {"minimum": 400, "maximum": 599}},
    "SessionView": {
        "id": _SESSION_ID,
        "channel": {"pattern": f"^({_CHANNEL_NAME})?$"},
        "identifier": {"pattern": r"^\+[1-9][0-9]{2,14}$"},
        "startsAfter": _DATE_TIME,
        "openedAt": _DATE_TIME,
        "endedAt": _DATE_TIME,
    },
    "SmsView": {"at": _DATE_TIME},
}
"""Type -> field -> what is true of its JSON beyond its type."""

_PROBLEM_DESCRIPTIONS: Mapping[HTTPStatus, str] = {
    HTTPStatus.BAD_REQUEST: "The request cannot be read.",
    HTTPStatus.UNAUTHORIZED: "No key, or none of this deployment.",
    HTTPStatus.FORBIDDEN: "The key is not for this channel.",
    HTTPStatus.NOT_FOUND: "There is none, or none that the key may see.",
    HTTPStatus.CONFLICT: "Something else is done already: `errors` or `detail` say what.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too long.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "Neither JSON nor JSON lines.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Every field that is wrong is in `errors`.",
    HTTPStatus.TOO_MANY_REQUESTS: "The key has been used too often: "
    "`Retry-After` says in how many seconds it may be again.",
    HTTPStatus.SERVICE_UNAVAILABLE: "Redis does not answer. "
    "Send it again: what has a `clientReference` is done once.",
}
_COMMON_STATUSES = (HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_REQUIRED_HEADERS = {
    HTTPStatus.UNAUTHORIZED: "WWW-Authenticate",
    HTTPStatus.TOO_MANY_REQUESTS: "Retry-After",
    HTTPStatus.SERVICE_UNAVAILABLE: "Retry-After",
}


class OpenApiResource:
    """The Falcon resource. Anybody may read it: it says nothing of a deployment."""

    async def on_get(self, req: Request, resp: Response) -> None:
        resp.content_type = falcon.MEDIA_JSON
        resp.data = _encoded_document()


@cache
def _encoded_document() -> bytes:
    return msgspec.json.encode(openapi_document())


def openapi_document() -> dict[str, Any]:
    """The whole document."""
    (body, accepted, line, problem, session), components = msgspec.json.schema_components(
        (Body, Accepted, LineResult, Problem, SessionView), ref_template=_REF_TEMPLATE
    )
    for name, fields in FIELD_SCHEMAS.items():
        for field, more in fields.items():
            components[name]["properties"][field] |= more
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Parley",
            "version": "1",
            "description": "Invite people to surveys by SMS, and learn what they answered.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"key": []}],
        "paths": {
            "/v1/surveys/{survey}/invitations": {"post": _invite_operation(body, accepted, line, problem)},
            "/v1/sessions": {"get": _session_by_reference_operation(session, problem)},
            "/v1/sessions/{session}": {
                "get": _session_operation(session, problem),
                "delete": _cancel_operation(session, problem),
            },
        },
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key of parley.toml; `parley key` makes one.",
                }
            },
        },
    }


def _invite_operation(body: Any, accepted: Any, line: Any, problem: Any) -> dict[str, Any]:
    lines = (
        f"One invitation a line, up to {MAX_LINES:,} lines of {MAX_LINE_BYTES:,} bytes. Answered when all "
        "have been read, with a line "
        "for each, in order; empty lines are skipped."
    )
    return {
        "operationId": "invite",
        "summary": "Invite one person, or many, to a survey",
        "parameters": [_path_parameter("survey", "The survey's name.", {"type": "string"})],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": body},
                LINE_TYPES[0]: {"schema": {"type": "string", "description": lines}},
            },
        },
        "responses": {
            "202": _json_response("Accepted: it is on disk.", accepted, _SESSION_LINKS),
            "200": {
                "description": "Accepted before, with this content. Or: what came of each line.",
                "links": _SESSION_LINKS,
                "content": {
                    "application/json": {"schema": accepted},
                    LINE_TYPES[0]: {"schema": {"type": "string", "x-line": line}},
                },
            },
            **_problem_responses(
                problem,
                HTTPStatus.FORBIDDEN,
                HTTPStatus.NOT_FOUND,
                HTTPStatus.CONFLICT,
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                HTTPStatus.UNPROCESSABLE_ENTITY,
            ),
        },
    }


def _session_by_reference_operation(session: Any, problem: Any) -> dict[str, Any]:
    return {
        "operationId": "sessionByReference",
        "summary": "The session that was asked for under a reference",
        "parameters": [
            _query_parameter(
                "clientReference", "As in the invitation.", {"type": "string", "minLength": 1}, required=True
            ),
            _query_parameter(
                "channel", "Needed where the key has several.", {"type": "string"} | _CHANNEL, required=False
            ),
        ],
        "responses": {
            "200": _json_response("As it stands.", session, _SESSION_LINKS),
            **_problem_responses(problem, HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND),
        },
    }


def _session_operation(session: Any, problem: Any) -> dict[str, Any]:
    return {
        "operationId": "session",
        "summary": "What became of a session: its state, answers and transcript",
        "parameters": [_path_parameter("session", "Its id.", _SESSION_ID_SCHEMA)],
        "responses": {
            "200": _json_response("As it stands.", session, _SESSION_LINKS),
            **_problem_responses(problem, HTTPStatus.NOT_FOUND),
        },
    }


def _cancel_operation(session: Any, problem: Any) -> dict[str, Any]:
    return {
        "operationId": "cancel",
        "summary": "End a session, or withdraw an invitation",
        "parameters": [_path_parameter("session", "Its id.", _SESSION_ID_SCHEMA)],
        "responses": {
            "200": _json_response("Nothing of it will happen any more.", session, _SESSION_LINKS),
            "202": _json_response(
                "It is about to end; what it has queued is not sent.", session, _SESSION_LINKS
            ),
            **_problem_responses(problem, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
        },
    }


def _session_link(operation: str, description: str) -> dict[str, Any]:
    return {
        "operationId": operation,
        "description": description,
        "parameters": {"session": "$response.body#/id"},
    }


_SESSION_LINKS = {
    "session": _session_link("session", "What became of it."),
    "cancel": _session_link("cancel", "End or withdraw it."),
}


def _json_response(description: str, schema: Any, links: Mapping[str, Any] | None = None) -> dict[str, Any]:
    response = {"description": description, "content": {"application/json": {"schema": schema}}}
    return response | ({"links": links} if links else {})


def _problem_responses(schema: Any, *statuses: HTTPStatus) -> dict[str, Any]:
    return {
        str(status.value): _problem_response(status, schema)
        for status in sorted({*statuses, *_COMMON_STATUSES})
    }


def _problem_response(status: HTTPStatus, schema: Any) -> dict[str, Any]:
    problem: dict[str, Any] = {
        "description": _PROBLEM_DESCRIPTIONS[status],
        "content": {PROBLEM_MEDIA_TYPE: {"schema": schema}},
    }
    if status in _REQUIRED_HEADERS:
        problem["headers"] = {_REQUIRED_HEADERS[status]: {"required": True, "schema": {"type": "string"}}}
    return problem


def _path_parameter(name: str, description: str, schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def _query_parameter(name: str, description: str, schema: Any, *, required: bool) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": required, "description": description, "schema": schema}
