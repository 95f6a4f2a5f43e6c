"""What is POSTed to endpoints, and what their answers mean: the webhooks of the API's description, in OpenAPI 3.1."""

from collections.abc import Mapping
from typing import Any

from engine.hooks.cloud_events import BATCH_MEDIA_TYPE, EVENT_MEDIA_TYPE
from engine.hooks.event_data import EVENT_TYPES
from engine.hooks.event_schemas import EVENT_BATCH, event_schema_name
from engine.hooks.signature import ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER

_SIGNATURE_DESCRIPTION = (
    "`v1,` and the base64 of HMAC-SHA256 over id.timestamp.body, by each secret, with a space between: one "
    "that is yours will do (https://www.standardwebhooks.com)."
)

_HEADERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    ID_HEADER: (
        "The event's id, or a batch's: the same whenever this is sent again.",
        {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    ),
    TIMESTAMP_HEADER: (
        "When this was sent, in seconds since 1970: what is minutes old is somebody else's copy.",
        {"type": "string", "pattern": "^[0-9]+$"},
    ),
    SIGNATURE_HEADER: (
        _SIGNATURE_DESCRIPTION,
        {"type": "string", "pattern": "^v1,[A-Za-z0-9+/]+=*( v1,[A-Za-z0-9+/]+=*)*$"},
    ),
}

_TRIED_AGAIN = "Sent again later, under the same id."

_RESPONSES: Mapping[str, str] = {
    "2XX": "Taken.",
    "4XX": "Refused for good: it becomes a dead letter.",
    "408": _TRIED_AGAIN,
    "425": _TRIED_AGAIN,
    "429": _TRIED_AGAIN,
    "default": _TRIED_AGAIN,
}


def event_webhooks(ref_template: str, components: Mapping[str, Any]) -> dict[str, Any]:
    """By the type of event, what is POSTed to an endpoint; `components` have its schema."""
    return {each: {"post": _hook_operation(each, ref_template, components)} for each in EVENT_TYPES}


def _hook_operation(event_type: str, ref_template: str, components: Mapping[str, Any]) -> dict[str, Any]:
    name = event_schema_name(event_type)
    return {
        "operationId": f"on{name.removesuffix('Event')}",
        "summary": components[name]["description"],
        "security": [],
        "parameters": [
            {"name": header, "in": "header", "required": True, "description": description, "schema": schema}
            for header, (description, schema) in _HEADERS.items()
        ],
        "requestBody": {
            "required": True,
            "content": {
                EVENT_MEDIA_TYPE: {"schema": {"$ref": ref_template.format(name=name)}},
                BATCH_MEDIA_TYPE: {"schema": {"$ref": ref_template.format(name=EVENT_BATCH)}},
            },
        },
        "responses": {status: {"description": description} for status, description in _RESPONSES.items()},
    }
