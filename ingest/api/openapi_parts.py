"""What operations of the API's description are made of: parameters, answers, and problems."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from ingest.api.problems import PROBLEM_MEDIA_TYPE
from ingest.api.query_parameters import MAX_REPEATED

SESSION_ID = {"pattern": "^[0-9a-f]{16}$"}
DATE_TIME = {"format": "date-time"}
CHANNEL_NAME = "[a-z0-9_-]{1,32}"
E164 = {"pattern": r"^\+[1-9][0-9]{2,14}$"}
PSEUDONYM = {"pattern": "^[0-9a-f]{32}$"}

_PROBLEM_DESCRIPTIONS: Mapping[HTTPStatus, str] = {
    HTTPStatus.BAD_REQUEST: "It cannot be read, or asks for what there is not.",
    HTTPStatus.UNAUTHORIZED: "No key, or none of this deployment.",
    HTTPStatus.FORBIDDEN: "The key is not for this channel or survey, or only reads.",
    HTTPStatus.NOT_FOUND: "There is none, or none that the key may see.",
    HTTPStatus.CONFLICT: "Something else is done already: `errors` or `detail` say what.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too long.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "Neither JSON nor JSON lines.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Every field that is wrong is in `errors`.",
    HTTPStatus.TOO_MANY_REQUESTS: "The key has been used too often: "
    "`Retry-After` says in how many seconds it may be again.",
    HTTPStatus.SERVICE_UNAVAILABLE: "Redis does not answer, or the archive, where it is read. "
    "Send it again: what has a `clientReference` is done once.",
}
_COMMON_STATUSES = (HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_REQUIRED_HEADERS = {
    HTTPStatus.UNAUTHORIZED: "WWW-Authenticate",
    HTTPStatus.TOO_MANY_REQUESTS: "Retry-After",
    HTTPStatus.SERVICE_UNAVAILABLE: "Retry-After",
}


def explained(values: Iterable[str], meanings: Mapping[str, str]) -> dict[str, str]:
    """A description of a field that says what each of its values means."""
    return {"description": "\n".join(f"- `{each}`: {meanings[each]}" for each in values)}


def simplify_enums(schema: Any) -> None:
    """Make one enum of strings of alternatives that are enums, anywhere in a schema: programs that are generated from it have
    one type for each field then."""
    if isinstance(schema, list):
        for each in schema:
            simplify_enums(each)
    if not isinstance(schema, dict):
        return
    alternatives = schema.get("anyOf")
    if (
        isinstance(alternatives, list)
        and alternatives
        and all(each.keys() == {"enum"} for each in alternatives)
    ):
        del schema["anyOf"]
        schema["enum"] = sorted(value for each in alternatives for value in each["enum"])
    if isinstance(values := schema.get("enum"), list) and all(isinstance(value, str) for value in values):
        schema.setdefault("type", "string")
    for each in schema.values():
        simplify_enums(each)


def json_response(description: str, schema: Any, links: Mapping[str, Any] | None = None) -> dict[str, Any]:
    response = {"description": description, "content": {"application/json": {"schema": schema}}}
    return response | ({"links": links} if links else {})


def problem_responses(schema: Any, *statuses: HTTPStatus) -> dict[str, Any]:
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


def path_parameter(name: str, description: str, schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def repeatable_parameter(name: str, description: str, items: Any) -> dict[str, Any]:
    """One that may be there several times."""
    schema = {"type": "array", "items": items, "minItems": 1, "maxItems": MAX_REPEATED}
    return query_parameter(name, description, schema, required=False) | {"style": "form", "explode": True}


def query_parameter(name: str, description: str, schema: Any, *, required: bool) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": required, "description": description, "schema": schema}
