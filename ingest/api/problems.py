"""What is wrong with a request, as RFC 9457 wants it said: `application/problem+json`, and one entry in `errors` for
every field that is wrong, with a JSON pointer (RFC 6901) to it."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any

import falcon
import msgspec
from falcon.app_helpers import default_serialize_error
from msgspec import Meta

from engine.model.errors import ParleyError

API_PREFIX = "/v1/"
PROBLEM_MEDIA_TYPE = "application/problem+json"


class FieldError(msgspec.Struct, frozen=True):
    """One thing that is wrong with a body."""

    pointer: Annotated[str, Meta(description="A JSON pointer to the field; empty for the body as a whole.")]
    detail: Annotated[str, Meta(description="What is wrong with it, and what was expected.")]


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a request was not done."""

    title: str
    status: int
    detail: str = ""
    errors: Sequence[FieldError] = ()


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


def json_pointer(*parts: str | int) -> str:
    """`pointer("a", 1, "b/c")` is `/a/1/b~1c`."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)
