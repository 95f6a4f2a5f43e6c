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

from engine.hooks.event_schemas import event_components
from engine.hooks.webhook_description import event_webhooks
from engine.surveys.variables import KEY_PATTERN
from ingest.api.archive_description import ARCHIVE_FIELD_SCHEMAS, ARCHIVE_TYPES, archive_paths
from ingest.api.invitation_parser import MAX_VALUE_LENGTH, MAX_VARIABLES, SMS_CHANNEL, Body
from ingest.api.invitations import LINE_TYPES, MAX_LINES, Accepted, LineResult
from ingest.api.ndjson import MAX_LINE_BYTES
from ingest.api.openapi_parts import (
    CHANNEL_NAME,
    DATE_TIME,
    E164,
    PSEUDONYM,
    SESSION_ID,
    json_response,
    path_parameter,
    problem_responses,
    query_parameter,
)
from ingest.api.problems import Problem
from ingest.api.session_view import SessionView

_REF_TEMPLATE = "#/components/schemas/{name}"
_SESSION_ID_SCHEMA = {"type": "string"} | SESSION_ID
_CHANNEL = {"pattern": f"^({CHANNEL_NAME}|{SMS_CHANNEL})?$"}
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
        "expiryTime": {"anyOf": [DATE_TIME, {"maxLength": 0}]},
        "sendAt": {"anyOf": [DATE_TIME, {"maxLength": 0}]},
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
    "Accepted": {"id": SESSION_ID, "session": SESSION_ID, "startsAfter": DATE_TIME},
    "LineResult": {"id": SESSION_ID, "status": {"minimum": 200, "maximum": 599}},
    "Problem": {"status": {"minimum": 400, "maximum": 599}},
    "SessionView": {
        "id": SESSION_ID,
        "channel": {"pattern": f"^({CHANNEL_NAME})?$"},
        "identifier": E164,
        "pseudonym": PSEUDONYM,
        "startsAfter": DATE_TIME,
        "openedAt": DATE_TIME,
        "endedAt": DATE_TIME,
    },
    "SmsView": {"at": DATE_TIME},
    **ARCHIVE_FIELD_SCHEMAS,
}
"""Type -> field -> what is true of its JSON beyond its type."""


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
    ours = (Body, Accepted, LineResult, Problem, SessionView)
    schemas, components = msgspec.json.schema_components((*ours, *ARCHIVE_TYPES), ref_template=_REF_TEMPLATE)
    body, accepted, line, problem, session, *archived = schemas
    for name, fields in FIELD_SCHEMAS.items():
        for field, more in fields.items():
            components[name]["properties"][field] |= more
    components |= event_components(_REF_TEMPLATE)
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
            **archive_paths(archived, problem),
            "/v1/sessions": {"get": _session_by_reference_operation(session, problem)},
            "/v1/sessions/{session}": {
                "get": _session_operation(session, problem),
                "delete": _cancel_operation(session, problem),
            },
        },
        "webhooks": event_webhooks(_REF_TEMPLATE, components),
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
        "parameters": [path_parameter("survey", "The survey's name.", {"type": "string"})],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": body},
                LINE_TYPES[0]: {"schema": {"type": "string", "description": lines}},
            },
        },
        "responses": {
            "202": json_response("Accepted: it is on disk.", accepted, _SESSION_LINKS),
            "200": {
                "description": "Accepted before, with this content. Or: what came of each line.",
                "links": _SESSION_LINKS,
                "content": {
                    "application/json": {"schema": accepted},
                    LINE_TYPES[0]: {"schema": {"type": "string", "x-line": line}},
                },
            },
            **problem_responses(
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
            query_parameter(
                "clientReference", "As in the invitation.", {"type": "string", "minLength": 1}, required=True
            ),
            query_parameter(
                "channel", "Needed where the key has several.", {"type": "string"} | _CHANNEL, required=False
            ),
        ],
        "responses": {
            "200": json_response("As it stands.", session, _SESSION_LINKS),
            **problem_responses(problem, HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND),
        },
    }


def _session_operation(session: Any, problem: Any) -> dict[str, Any]:
    return {
        "operationId": "session",
        "summary": "What became of a session: its state, answers and transcript",
        "parameters": [path_parameter("session", "Its id.", _SESSION_ID_SCHEMA)],
        "responses": {
            "200": json_response("As it stands.", session, _SESSION_LINKS),
            **problem_responses(problem, HTTPStatus.NOT_FOUND),
        },
    }


def _cancel_operation(session: Any, problem: Any) -> dict[str, Any]:
    return {
        "operationId": "cancel",
        "summary": "End a session, or withdraw an invitation",
        "parameters": [path_parameter("session", "Its id.", _SESSION_ID_SCHEMA)],
        "responses": {
            "200": json_response("Nothing of it will happen any more.", session, _SESSION_LINKS),
            "202": json_response(
                "It is about to end; what it has queued is not sent.", session, _SESSION_LINKS
            ),
            **problem_responses(problem, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
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
