"""What came of a dead letter that was dealt with, or would come of it."""

from collections.abc import Collection, Sequence
from typing import Literal

import msgspec

LetterOutcome = Literal[
    "advanced",
    "duplicate",
    "stale",
    "opted_out",
    "failing",
    "uncertain",
    "busy",
    "gone",
    "missing",
    "dropped",
    "requeued",
    "delivered",
]
"""What came of a letter. `gone`: another dealt with it before its turn came. `missing`: nobody knows of one. `delivered`: its
endpoint has it."""

GONE_OUTCOMES: Collection[LetterOutcome] = (
    "advanced",
    "duplicate",
    "gone",
    "dropped",
    "requeued",
    "delivered",
)
"""Outcomes after which the letter is there no more."""


class LetterResult(msgspec.Struct, frozen=True):
    """The outcome of a letter's replay, or of its preview: `why`, and the texts of the SMS that leave."""

    id: str
    outcome: LetterOutcome
    why: str = ""
    sms: Sequence[str] = ()
