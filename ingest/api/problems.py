"""What is wrong with a request, as RFC 9457 wants it said: `application/problem+json`, and one entry in `errors` for
every field that is wrong, with a JSON pointer (RFC 6901) to it."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import falcon
import msgspec
from falcon.app_helpers import default_serialize_error

from config.invitations.line_result import FieldError, Problem
from engine.model.errors import ParleyError

API_PREFIX = "/v1/"
PROBLEM_MEDIA_TYPE = "application/problem+json"


class ApiError(ParleyError, falcon.HTTPError):
    """Raised by resources: it becomes a Problem."""

    def __init__(
        self, status: HTTPStatus, title: str, detail: str = "", errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(status, title=title, description=detail or None, headers=dict(headers or {}))
        self.errors = errors


def serialize_error(req: Any, resp: Any, error: falcon.HTTPError) -> None:
    """Falcon's error serializer: problems for the API, what Falcon always does for everything else."""
    if not req.path.startswith(API_PREFIX):
        default_serialize_error(req, resp, error)
        return
    errors = error.errors if isinstance(error, ApiError) else ()
    resp.content_type = PROBLEM_MEDIA_TYPE
    resp.data = msgspec.json.encode(
        Problem(error.title or "", error.status_code, error.description or "", errors)
    )


def in_plain_words(sentence: str, choices: Sequence[str] = ()) -> str:
    """What msgspec says of a wrong value, in words of JSON and of texts, not of Python: `expected str of length <= 9` is `expected
    9 characters at the most`. `choices` are the values that there are, if they are few."""
    if found := re.fullmatch(r"expected str of length (<=|>=) (\d+)", sentence):
        return f"expected {found[2]} characters at {'the most' if found[1] == '<=' else 'least'}"
    if found := re.fullmatch(r"expected ([\w| ]+), got (\w+)", sentence):
        return f"expected {_kinds_of_value(found[1])}, got {_kinds_of_value(found[2])}"
    if found := re.fullmatch(r"object missing required field (\S+)", sentence):
        return f"the field {found[1]} is missing"
    if found := re.fullmatch(r"object contains unknown field (\S+)", sentence):
        return f"no such field, {found[1]}"
    if found := re.fullmatch(r"invalid enum value (.*)", sentence, re.DOTALL):
        return f"expected {' or '.join(choices) or 'another value'}, got {found[1]}"
    return sentence


_KINDS_OF_VALUE = {
    "str": "a text", "int": "a number", "float": "a number", "bool": "true or false", "array": "a list",
    "object": "an object", "null": "null",
}  # fmt: skip


def _kinds_of_value(types: str) -> str:
    return " or ".join(dict.fromkeys(_KINDS_OF_VALUE.get(each, each) for each in types.split(" | ")))


def json_pointer(*parts: str | int) -> str:
    """`pointer("a", 1, "b/c")` is `/a/1/b~1c`."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)
