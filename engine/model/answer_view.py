"""How is an answer told in JSON? By the API and in events alike."""

from math import isfinite

import msgspec
from msgspec import UNSET, UnsetType

from engine.model.events import Answer


class AnswerView(msgspec.Struct, kw_only=True, frozen=True):
    """An answer as it was written, and as it was read; an option's place counts from 0."""

    raw: str
    value: str | int | float | bool | list[str]
    index: int | UnsetType = UNSET
    indexes: list[int] | UnsetType = UNSET


def view_answer(answer: Answer) -> AnswerView:
    several = isinstance(answer.value, tuple)
    return AnswerView(
        raw=answer.raw,
        value=list(answer.value) if isinstance(answer.value, tuple) else writable_value(answer.value),
        index=answer.index if answer.index >= 0 and not several else UNSET,
        indexes=list(answer.indexes) if several else UNSET,
    )


def writable_value(value: str | float) -> str | int | float | bool:
    """JSON has no infinity, which a person may write: 1e999."""
    return str(value) if isinstance(value, float) and not isfinite(value) else value
