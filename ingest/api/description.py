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

from config.invitations.invitation_body import MAX_CAMPAIGN_LENGTH, SMS_CHANNEL, Body
from config.invitations.line_result import LINE_TYPES, MAX_LINES, LineResult, Problem
from config.store.counts.campaigns import CAMPAIGN_STATES
from engine.hooks.event_schemas import event_components
from engine.hooks.webhook_description import event_webhooks
from engine.surveys.variables import KEY_PATTERN
from ingest.api.archive_description import ARCHIVE_FIELD_SCHEMAS, ARCHIVE_TYPES, archive_paths
from ingest.api.campaigns.campaign_view import CampaignChange, CampaignList, CampaignView
from ingest.api.invitation_parser import (
    MAX_VALUE_LENGTH,
    MAX_VARIABLES,
    TIME_OF_DAY,
)
from ingest.api.invitations import Accepted
from ingest.api.ndjson import MAX_LINE_BYTES
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
    simplify_enums,
)
from ingest.api.session_view import NO_OPENING_REASONS, REASON_MEANINGS, STATE_MEANINGS, SessionView

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

_MOMENT, _EMPTY = {"type": "string"} | DATE_TIME, {"type": "string", "maxLength": 0}

_CAMPAIGN_COUNTS: dict[str, Mapping[str, Any]] = {
    "states": {"propertyNames": {"enum": list(CAMPAIGN_STATES)}} | explained(CAMPAIGN_STATES, STATE_MEANINGS),
    "reasons": {"propertyNames": {"enum": list(NO_OPENING_REASONS)}},
}
_REASON = explained(NO_OPENING_REASONS, REASON_MEANINGS)
_ACCEPTED_MEANING = {
    "accepted": "it is held, or was accepted before and may be anything but the others by now"
}

FIELD_SCHEMAS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "Body": {
        "identifier": {"pattern": r"^\s*(\+|00)[0-9\s().\-/\u00ad\u200b-\u200e\u2010-\u2015\u2060\ufeff]+$"},
        "channel": _CHANNEL,
        "expiryTime": {"anyOf": [_MOMENT, _EMPTY]},
        "sendAt": {"anyOf": [_MOMENT, {"type": "string", "pattern": f"^{TIME_OF_DAY.pattern}$"}, _EMPTY]},
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
    "Accepted": {
        "id": SESSION_ID,
        "session": SESSION_ID,
        "startsAfter": DATE_TIME,
        "state": explained(("accepted", "refused", "cancelled"), {**STATE_MEANINGS, **_ACCEPTED_MEANING}),
        "reason": _REASON,
    },
    "LineResult": {
        "id": SESSION_ID,
        "status": {"minimum": 200, "maximum": 599},
        "reason": _REASON,
        "startsAfter": DATE_TIME,
    },
    "Problem": {"status": {"minimum": 400, "maximum": 599}},
    "SessionView": {
        "id": SESSION_ID,
        "state": explained(CAMPAIGN_STATES, STATE_MEANINGS),
        "reason": _REASON,
        "channel": {"pattern": f"^({CHANNEL_NAME})?$"},
        "identifier": E164,
        "pseudonym": PSEUDONYM,
        "startsAfter": DATE_TIME,
        "openedAt": DATE_TIME,
        "endedAt": DATE_TIME,
    },
    "SmsView": {"at": DATE_TIME},
    "CampaignView": _CAMPAIGN_COUNTS | {"changedAt": DATE_TIME, "endsAfter": DATE_TIME},
    "CampaignPartView": _CAMPAIGN_COUNTS | {"endsAfter": DATE_TIME, "pausedSince": DATE_TIME},
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
    ours = (Body, Accepted, LineResult, Problem, SessionView, CampaignView, CampaignList, CampaignChange)
    schemas, components = msgspec.json.schema_components((*ours, *ARCHIVE_TYPES), ref_template=_REF_TEMPLATE)
    body, accepted, line, problem, session, campaign, campaigns, change, *archived = schemas
    for name, fields in FIELD_SCHEMAS.items():
        for field, more in fields.items():
            components[name]["properties"][field] |= more
    components |= event_components(_REF_TEMPLATE)
    document = {
        "openapi": "3.1.0",
        "servers": [{"url": "/", "description": "The host that serves this description."}],
        "tags": [
            {"name": "invitations", "description": "Ask people to take a survey."},
            {
                "name": "sessions",
                "description": "What became of one person's, while it lasts and afterwards; and its end.",
            },
            {
                "name": "campaigns",
                "description": "How many invitations that belong together are in which state.",
            },
            {
                "name": "results",
                "description": "What is read of a survey from the archive, some moments late.",
            },
        ],
        "info": {
            "title": "Parley",
            "version": "1",
            "description": "Invite people to surveys by SMS, and learn what they answered.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"key": []}],
        "paths": {
            **_tagged(
                "invitations",
                {
                    _INVITATIONS: {"post": _invite_operation(body, accepted, problem)},
                    f"{_INVITATIONS}/many": {"post": _invite_many_operation(line, problem)},
                    f"{_INVITATIONS}/dry-run": {"post": _dry_run_operation(line, problem)},
                },
            ),
            **_tagged("results", archive_paths(archived, problem)),
            **_tagged(
                "campaigns",
                {
                    "/v1/campaigns": {"get": _campaigns_operation(campaigns, problem)},
                    "/v1/campaigns/{campaign}": {
                        "get": _campaign_operation(campaign, problem),
                        "patch": _change_campaign_operation(change, campaign, problem),
                    },
                },
            ),
            **_tagged(
                "sessions",
                {
                    "/v1/sessions": {"get": _session_by_reference_operation(session, problem)},
                    "/v1/sessions/{session}": {
                        "get": _session_operation(session, problem),
                        "delete": _cancel_operation(session, problem),
                    },
                },
            ),
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
    simplify_enums(document)
    return document


_INVITATIONS = "/v1/surveys/{survey}/invitations"


def _tagged(tag: str, paths: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        path: {method: {"tags": [tag]} | operation for method, operation in operations.items()}
        for path, operations in paths.items()
    }


def _invite_operation(body: Any, accepted: Any, problem: Any) -> dict[str, Any]:
    return {
        "operationId": "invite",
        "summary": "Invite one person to a survey",
        "description": f"`{LINE_TYPES[0]}` is taken here too, as at `/many`.",
        "parameters": [_survey_parameter()],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "202": json_response("Accepted: it is on disk.", accepted, _SESSION_LINKS),
            "200": json_response(
                "Accepted before, with this content; or known to open nothing.", accepted, _SESSION_LINKS
            ),
            **problem_responses(
                problem, *_LINE_PROBLEMS, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY
            ),
        },
    }


def _invite_many_operation(line: Any, problem: Any) -> dict[str, Any]:
    return {
        "operationId": "inviteMany",
        "summary": "Invite many people to a survey",
        **_lines_operation("What came of each line.", line, problem),
    }


def _dry_run_operation(line: Any, problem: Any) -> dict[str, Any]:
    return {
        "operationId": "foresee",
        "summary": "What would come of invitations, if they were posted now",
        "description": "Nothing is done. A line is answered as it would be, and says when its turn would be; "
        "that the person is in a conversation counts as if all had their turn at once.",
        **_lines_operation("What would come of each line.", line, problem),
    }


_LINES = {
    "type": "string",
    "format": "binary",
    "description": f"One invitation a line, up to {MAX_LINES:,} lines of {MAX_LINE_BYTES:,} bytes. "
    "Answered when all have been read, with a line for each, in order; empty lines are skipped.",
}
_LINE_PROBLEMS = (
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
)


def _lines_operation(answer: str, line: Any, problem: Any) -> dict[str, Any]:
    results = {"type": "string", "format": "binary", "x-line": line}
    return {
        "parameters": [_survey_parameter()],
        "requestBody": {"required": True, "content": {LINE_TYPES[0]: {"schema": _LINES}}},
        "responses": {
            "200": {"description": answer, "content": {LINE_TYPES[0]: {"schema": results}}},
            **problem_responses(problem, *_LINE_PROBLEMS),
        },
    }


def _survey_parameter() -> dict[str, Any]:
    return path_parameter("survey", "The survey's name.", {"type": "string"})


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


def _campaigns_operation(campaigns: Any, problem: Any) -> dict[str, Any]:
    return {
        "operationId": "campaigns",
        "summary": "Campaigns, and how many of their invitations are in which state",
        "responses": {
            "200": json_response("Those that changed last, as they stand.", campaigns),
            **problem_responses(problem, HTTPStatus.BAD_REQUEST),
        },
    }


def _campaign_operation(campaign: Any, problem: Any) -> dict[str, Any]:
    return {
        "operationId": "campaign",
        "summary": "How many of a campaign's invitations are in which state",
        "description": "Counted as states change, so that it costs little and is never late. Forgotten "
        "400 days after the last change.",
        "parameters": [_campaign_parameter()],
        "responses": {
            "200": json_response("As it stands.", campaign),
            **problem_responses(problem, HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND),
        },
    }


def _change_campaign_operation(change: Any, campaign: Any, problem: Any) -> dict[str, Any]:
    return {
        "operationId": "changeCampaign",
        "summary": "Let a campaign's invitations wait, or go on",
        "description": "On the channels of the key. Sessions that are open go on. It may be repeated: the "
        "last word holds.",
        "parameters": [_campaign_parameter()],
        "requestBody": {"required": True, "content": {"application/json": {"schema": change}}},
        "responses": {
            "200": json_response("As it stands then.", campaign),
            **problem_responses(
                problem,
                HTTPStatus.BAD_REQUEST,
                HTTPStatus.FORBIDDEN,
                HTTPStatus.NOT_FOUND,
                HTTPStatus.UNPROCESSABLE_ENTITY,
            ),
        },
    }


def _campaign_parameter() -> dict[str, Any]:
    name = {"type": "string", "minLength": 1, "maxLength": MAX_CAMPAIGN_LENGTH}
    return path_parameter("campaign", "As in its invitations.", name)


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
