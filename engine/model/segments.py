"""What does a text cost? Its encoding and how many SMS segments it takes (3GPP TS 23.038, TS 23.040).

An escape pair or a surrogate pair never straddles two segments, so the count is not a mere division. Characters of
several code points (family emoji) may be split, as phones join the segments before they show them.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
EXTENSION = frozenset("\f^{}\\[~]|€")
_GSM_7 = BASIC | EXTENSION

SEGMENT = 140
"""Octets of a segment."""

HEADER = 6
"""Octets of the header that joins segments, with a reference of 8 bits: 153 septets or 67 units of UCS-2 are left. A
reference of 16 bits makes it 7: 152 or 66."""

Encoding = Literal["GSM-7", "UCS-2"]


class Segments(msgspec.Struct, frozen=True):
    """`units` are septets of GSM-7, or UTF-16 code units of UCS-2. An empty text still takes one segment."""

    encoding: Encoding
    segments: int
    units: int


def is_gsm(text: str) -> bool:
    """Can all of `text` be written in GSM-7?"""
    return _GSM_7.issuperset(text)


def count(text: str, header: int = HEADER) -> Segments:
    """What `text` takes, if the header that joins its segments has `header` octets."""
    encoding, widths, bits = _units(text)
    return Segments(encoding, len(_starts(widths, bits, header)), sum(widths))


def split(text: str, header: int = HEADER) -> list[str]:
    """`text` in the parts that go out, one for each segment."""
    _, widths, bits = _units(text)
    starts = _starts(widths, bits, header)
    return [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


def _units(text: str) -> tuple[Encoding, list[int], int]:
    """How `text` is encoded, how many units each of its characters takes, and a unit's bits."""
    if is_gsm(text):
        return "GSM-7", [2 if c in EXTENSION else 1 for c in text], 7
    return "UCS-2", [2 if c > "\uffff" else 1 for c in text], 16


def _starts(widths: Sequence[int], bits: int, header: int) -> list[int]:
    """The place of each segment's first character."""
    if sum(widths) <= SEGMENT * 8 // bits:
        return [0]
    room = (SEGMENT - header) * 8 // bits
    starts, used = [0], 0
    for place, width in enumerate(widths):
        if used + width > room:
            starts.append(place)
            used = 0
        used += width
    return starts
