"""What is on a phone's screen."""

from typing import Literal

import msgspec

LONGEST_TEXT = 1_600
"""Characters of an SMS that somebody types."""


class PhoneLine(msgspec.Struct, frozen=True):
    """Something on the phone's screen. `kind`: `sent` by the person, `received`, or `noted` between. `at` in ms."""

    kind: Literal["sent", "received", "noted"]
    text: str
    at: int
    segments: int = 0
