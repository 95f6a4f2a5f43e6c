"""What the API answers to invitations: a line for each, and a problem where the whole request is refused."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from engine.model.events import RefusalReason

LINE_TYPES = ("application/x-ndjson", "application/jsonl", "application/ndjson")
"""Media types of a line each."""

MAX_LINES = 100_000
"""Lines of one request."""

NoOpeningReason = RefusalReason | Literal["dead_letter"]


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


class LineResult(msgspec.Struct, kw_only=True, rename="camel", frozen=True):
    """What came of one line. `status` is what it would have been answered alone."""

    line: Annotated[int, Meta(ge=1)]
    status: int
    id: str | UnsetType = UNSET
    client_reference: Annotated[
        str | UnsetType, Meta(description="The invitation's, if it has one that can be read.")
    ] = UNSET
    state: Annotated[
        Literal["refused"] | UnsetType,
        Meta(description="If it is known already that nothing of it will happen."),
    ] = UNSET
    reason: Annotated[NoOpeningReason | UnsetType, Meta(description="Why nothing opens.")] = UNSET
    starts_after: Annotated[
        datetime | UnsetType, Meta(description="In a dry run: it would not be sent before.")
    ] = UNSET
    errors: Sequence[FieldError] | UnsetType = UNSET


def error_sentence(error: FieldError) -> str:
    """`/identifier` and why, as one line."""
    return f"{error.pointer.removeprefix('/')}: {error.detail}" if error.pointer else error.detail
